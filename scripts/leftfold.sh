# Sourced by the scripts that drive the command line tool: builds it, and says what went wrong where.
#
# LEFTFOLD may name a command that is built already; without it, the release form is built.
# Gives: $leftfold (a copy of the command), $work (an empty folder, removed at the end), and the functions below.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -z "${LEFTFOLD:-}" ]; then
  cargo build --quiet --release --locked -p leftfold-cli
  LEFTFOLD=${CARGO_TARGET_DIR:-target}/release/leftfold
fi
leftfold=$work/leftfold
cp "$LEFTFOLD" "$leftfold"

# say TEXT: announces the next thing that is checked.
say() {
  printf '  - %s\n' "$*"
}

# fail TEXT: ends the script.
fail() {
  printf 'FAILED: %s\n' "$*" >&2
  exit 1
}

# same WHAT EXPECTED FOUND: compares two texts.
same() {
  [ "$2" = "$3" ] || fail "$1: expected '$2', found '$3'"
}

# lines FILE: how many lines a file has.
lines() {
  wc -l <"$1" | tr -d ' '
}

# refused CODE PATTERN COMMAND...: the command must exit with CODE, say PATTERN, not panic, and answer in ten seconds.
refused() {
  local expected=$1 pattern=$2 code=0
  shift 2
  timeout 10 "$@" >"$work/said" 2>&1 </dev/null || code=$?
  same "exit code of '$*' ($(head -c 400 "$work/said"))" "$expected" "$code"
  grep -qiE -- "$pattern" "$work/said" || fail "'$*' does not say '$pattern' but: $(head -c 400 "$work/said")"
  if grep -q 'panicked at' "$work/said"; then
    fail "'$*' panicked: $(head -c 400 "$work/said")"
  fi
}
