#!/usr/bin/env bash
# Runs everything that must pass before a change lands: the project's checks and tests, the simulation in release
# form, the conformance suite of another project, and the command line tool on real and on generated data.
#
# Needs the Rust toolchain. What else is missing is installed where the system allows it (Debian, as root).
# Ends with `N passed, M failed`, counted in steps; the exit code is 0 only if none failed.
set -euo pipefail
cd "$(dirname "$0")/.."

# What is built in release form here is run and not measured: without optimising across crates it is built in half the time.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
# Everything is built once, so what a second build could reuse is only disk space: a third of all that is written.
export CARGO_INCREMENTAL=0
# Panics name their lines without it.
export CARGO_PROFILE_DEV_DEBUG=false

# After so many seconds a step counts as hanging: it is ended, and fails by its name.
limit=1800

passed=0
failed=0
times=""

# need COMMAND PACKAGE...: makes sure that a command is there.
need() {
  local command=$1
  shift
  if command -v "$command" >/dev/null 2>&1; then
    return 0
  fi
  echo "test: $command is missing; installing $*"
  if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  fi
  if ! command -v "$command" >/dev/null 2>&1; then
    echo "test: please install $command (on Debian: apt-get install $*)" >&2
    return 1
  fi
}

# bounded COMMAND...: runs it in a process group of its own, all of which is ended when it takes too long or this script ends.
bounded() {
  local job watch outcome=0
  set -m
  "$@" </dev/null &
  job=$!
  (
    sleep "$limit"
    echo "test: took more than $limit s and was ended"
    kill -KILL -- "-$job"
  ) &
  watch=$!
  set +m
  trap 'kill -KILL -- "-$job" "-$watch"; exit 130' INT TERM
  wait "$job" || outcome=$?
  trap - INT TERM
  # It has ended itself if it had to end the other.
  kill -KILL -- "-$watch" 2>/dev/null || true
  wait "$watch" 2>/dev/null || true
  return "$outcome"
}

# step NAME COMMAND...: runs one step, and goes on if it fails, so that one run tells about all of them.
step() {
  local name=$1 start=$SECONDS outcome
  shift
  echo
  echo "==> $name: $*"
  if bounded "$@"; then
    outcome=passed
    passed=$((passed + 1))
  else
    outcome=FAILED
    failed=$((failed + 1))
  fi
  times+="$(printf '%-24s %-7s %6d s' "$name" "$outcome" $((SECONDS - start)))"$'\n'
}

# tests COMMAND...: runs tests, and fails also if there were none to run.
tests() {
  local log
  log=$(mktemp)
  if ! "$@" 2>&1 | tee "$log"; then
    rm -f "$log"
    return 1
  fi
  if ! grep -Eq '^test result: ok\. [1-9]' "$log"; then
    echo "test: no test ran"
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# postgres: makes sure that PostgreSQL's programs are there; the tests start servers of their own.
postgres() {
  # The servers' programs stand side by side, each in the folder of its version; this one is there with any of them.
  need pg_ctlcluster postgresql && ls /usr/lib/postgresql/*/bin/initdb
}

# pooler: makes sure that a PgBouncer is there. Debian's 1.18 crashes in these tests now and then (docs/postgres.md), so it is
# used only where a newer one cannot be built.
pooler() {
  bash scripts/newer-pgbouncer.sh || need /usr/sbin/pgbouncer pgbouncer
}

# newer_postgres: the tests of that store once more, on a server newer than Debian's.
newer_postgres() {
  local programs
  # Of the whole workspace, so that what was built for the first run is what runs.
  programs=$(bash scripts/newer-postgres.sh) &&
    tests env LEFTFOLD_POSTGRES_BIN="$programs" cargo test --workspace --all-features --locked --test postgres
}

# bench SCRIPT ARGUMENT...: runs a benchmark to see that every side of it still builds and answers. Not for the figures:
# nothing is optimised, and all of them are built in one place, where they share what they have in common.
bench() {
  local script=$1
  shift
  env CARGO_TARGET_DIR="$PWD/target/benches" CARGO_PROFILE_RELEASE_OPT_LEVEL=0 CARGO_PROFILE_RELEASE_DEBUG=false \
    bash "$script" "$@"
}

# build_benches: builds what the benchmarks need, at the lowest priority. What cannot be built fails the step that runs it.
build_benches() {
  local script
  renice -n 19 "$BASHPID" >/dev/null
  for script in scripts/bench.sh scripts/bench-conditions.sh scripts/bench-framework.sh scripts/bench-reacting.sh \
    scripts/bench-postgres.sh scripts/bench-mongodb.sh; do
    bench "$script" --help || true
  done
  bench scripts/bench-server.sh --peers none --help || true
}

if ! command -v cargo >/dev/null 2>&1; then
  echo "test: the Rust toolchain is missing; see https://rustup.rs" >&2
  echo "0 passed, 1 failed"
  exit 1
fi

step "system tools" need cc gcc libc6-dev
step "postgres" postgres
step "go" need go golang
step "pooler" pooler
LEFTFOLD_PGBOUNCER=$(bash scripts/newer-pgbouncer.sh) && export LEFTFOLD_PGBOUNCER
# By itself, so that the time a slow machine needs to compile does not count as tests that hang.
step "build" cargo test --quiet --workspace --all-features --locked --no-run
# What was built for the tests is what the scripts below drive: one build of everything.
export LEFTFOLD="${CARGO_TARGET_DIR:-$PWD/target}/debug/leftfold"
step "checks and tests" cargo run --quiet --locked --package xtask -- ci
step "simulation" tests env LEFTFOLD_SEEDS="${LEFTFOLD_SEEDS:-20000}" cargo test --release --locked -p leftfold-sim
# Its crates ask for a newer toolchain in their manifests than they use.
step "foreign conformance" tests cargo test --locked --ignore-rust-version --manifest-path conformance/happenstance/Cargo.toml
step "node for payloads" need npm nodejs npm
step "python" need python3 python3 python3-venv
step "newer postgres" newer_postgres
# The steps that follow mostly wait: for other programs, for what they download, for timers.
set -m
build_benches </dev/null >/dev/null 2>&1 &
benches=$!
set +m
trap 'kill -KILL -- "-$benches" 2>/dev/null || true' EXIT
step "real payloads" bash scripts/real-payloads.sh
step "chromium" need chromium chromium
step "web example in a browser" bash scripts/web-example.sh
step "java" need mvn default-jdk-headless maven
step "clients of others" bash scripts/interop.sh
step "acceptance" env LEFTFOLD_EVENTS="${LEFTFOLD_EVENTS:-300000}" bash scripts/acceptance.sh
step "benches, built" tail --pid="$benches" -f /dev/null
step "bench beside peers" bench scripts/bench.sh --quick --runs 1 --only "128 B, 8 writers"
step "conditions, measured" bench scripts/bench-conditions.sh --events 20000 --runs 1 --seconds 1
step "framework beside peers" bench scripts/bench-framework.sh --runs 1
step "reacting, measured" bench scripts/bench-reacting.sh --quick
step "server, measured" bench scripts/bench-server.sh --quick --peers none
step "postgres beside peers" bench scripts/bench-postgres.sh --runs 1 --seconds 1 --events 50000
step "mongodb beside the bare driver" bench scripts/bench-mongodb.sh --runs 1 --seconds 1 --events 5000

echo
printf '%s' "$times"
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
