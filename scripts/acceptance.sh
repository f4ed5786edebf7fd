#!/usr/bin/env bash
# Drives the command line tool as a user would, and as bad luck would.
#
# LEFTFOLD_EVENTS sets how many events are imported (1,000,000 unless set).
set -euo pipefail
source "$(dirname "$0")/leftfold.sh"

events=${LEFTFOLD_EVENTS:-1000000}
streams=10000
# Read permission for the user that the read-only check becomes.
chmod 755 "$work"

# generate FROM TO: one event a line, whose payload says which line it was.
generate() {
  awk -v from="$1" -v to="$2" -v streams="$streams" 'BEGIN {
    for (n = from; n <= to; n++)
      printf "{\"stream\":\"account-%d\",\"type\":\"%s\",\"data\":{\"line\":%d,\"amount\":%d},\"tags\":[\"branch:%d\"]}\n",
        n % streams, (n % 3 ? "DepositMade" : "WithdrawalMade"), n, n % 977, n % 100
  }'
}

# stored DATA: the line numbers of all events, in the order of the log.
stored() {
  "$leftfold" export --data "$1" | sed -E 's/.*"line": ?([0-9]+).*/\1/'
}

# holds DATA COUNT: the log has lines 1 to COUNT, each once, in order.
holds() {
  stored "$1" >"$work/found"
  seq 1 "$2" >"$work/wanted"
  cmp "$work/wanted" "$work/found" || fail "$1 does not hold lines 1 to $2 once each, in order"
}

# first_line WHAT LINE OPTION...: the first event that a read gives must be this line.
first_line() {
  local what=$1 line=$2 found
  shift 2
  found=$("$leftfold" read --data "$work/large" --json --limit 1 "$@" | sed -E 's/.*"line": ?([0-9]+).*/\1/')
  same "first event of $what" "$line" "$found"
}

demo() {
  say "the demo, twice on one directory"
  same "first run" "balance: 70" "$("$leftfold" demo --data "$work/demo" | tail -n 1)"
  same "second run" "balance: 140" "$("$leftfold" demo --data "$work/demo" | tail -n 1)"
}

large_import() {
  say "import of $events events"
  generate 1 "$events" >"$work/large.jsonl"
  local start=$SECONDS
  "$leftfold" import "$work/large.jsonl" --data "$work/large"
  say "imported in $((SECONDS - start)) s"
  holds "$work/large" "$events"
  "$leftfold" stats --data "$work/large"

  say "reads by stream, by tag, from a position, and backwards"
  same "events of one stream" $((events / streams)) \
    "$("$leftfold" read --data "$work/large" --stream account-77 --json | wc -l | tr -d ' ')"
  same "events with one tag" $((events / 100)) \
    "$("$leftfold" read --data "$work/large" --tag branch:7 --json | wc -l | tr -d ' ')"
  first_line "account-77" 77 --stream account-77
  first_line "the log backwards" "$events" --backwards
  first_line "the log from position 5000" 5000 --from 5000
  "$leftfold" verify --data "$work/large"
}

two_processes() {
  say "a second process on one directory is refused at once"
  mkfifo "$work/pipe"
  "$leftfold" import - --data "$work/shared" <"$work/pipe" >/dev/null &
  local first=$!
  exec 9>"$work/pipe"
  generate 1 10 >&9
  for _ in $(seq 100); do
    [ -e "$work/shared" ] && [ -n "$(ls -A "$work/shared")" ] && break
    sleep 0.1
  done
  refused 1 'lock|in use|another process|already open' \
    "$leftfold" append --data "$work/shared" --stream a-1 --type T '{}'
  exec 9>&-
  wait "$first" || fail "the first process failed"
  holds "$work/shared" 10
}

# middle_event FILE: the byte offset of the payload of an event in the middle of a file.
middle_event() {
  grep -obaE '"line":[0-9]+' "$1" | cut -d : -f 1 >"$work/offsets"
  sed -n "$(($(lines "$work/offsets") / 2 + 1))p" "$work/offsets"
}

flipped_byte() {
  say "one flipped byte is found, with file and offset, and costs nothing else"
  generate 1 20000 >"$work/some.jsonl"
  "$leftfold" import "$work/some.jsonl" --data "$work/whole"
  cp -r "$work/whole" "$work/damaged"
  local file="" path offset byte
  for path in "$work"/damaged/*; do
    if grep -qa '"line":' "$path"; then file=$path; fi
  done
  [ -n "$file" ] || fail "no file holds the events"
  offset=$(middle_event "$file")
  byte=$(dd if="$file" bs=1 skip="$offset" count=1 2>/dev/null | od -An -tu1 | tr -d ' ')
  # shellcheck disable=SC2059 # The format is the byte.
  printf "\\$(printf '%03o' $((byte ^ 1)))" | dd of="$file" bs=1 seek="$offset" conv=notrunc 2>/dev/null
  refused 4 "$(basename "$file").*[0-9]+|[0-9]+.*$(basename "$file")" "$leftfold" verify --data "$work/damaged"
  local reported
  reported=$(sed -nE 's/.* byte ([0-9]+).*/\1/p' "$work/said" | head -n 1)
  [ -n "$reported" ] || fail "verify names no byte: $(cat "$work/said")"
  # The record begins a little before its payload.
  [ "$reported" -le "$offset" ] && [ "$reported" -gt $((offset - 1000)) ] ||
    fail "byte $offset was flipped, byte $reported is reported"
  refused 4 'damaged|does not match' "$leftfold" export "$work/lines-of-damaged" --data "$work/damaged"
  "$leftfold" verify --data "$work/whole"
}

read_only() {
  say "a directory that cannot be written is refused with a message"
  generate 1 10 | "$leftfold" import - --data "$work/fixed"
  chmod -R a-w,a+rX "$work/fixed"
  local become=()
  if [ "$(id -u)" = 0 ]; then
    become=(setpriv --reuid=65534 --regid=65534 --clear-groups)
  fi
  refused 1 'permission|read-only|denied' \
    "${become[@]}" "$leftfold" append --data "$work/fixed" --stream a-1 --type T '{}'
  chmod -R u+w "$work/fixed"
  holds "$work/fixed" 10
}

foreign_file() {
  say "a directory with a file of someone else is refused, and the file left alone"
  generate 1 10 | "$leftfold" import - --data "$work/foreign"
  echo "mine" >"$work/foreign/notes.txt"
  refused 1 'notes\.txt' "$leftfold" append --data "$work/foreign" --stream a-1 --type T '{}'
  same "the foreign file" mine "$(cat "$work/foreign/notes.txt")"
  rm "$work/foreign/notes.txt"
  holds "$work/foreign" 10
}

killed_imports() {
  say "imports killed at any moment and repeated lose and double nothing"
  local kills=0 delay_ms=50 process code
  generate 1 300000 >"$work/killed.jsonl"
  while true; do
    "$leftfold" import "$work/killed.jsonl" --data "$work/killed" >/dev/null 2>&1 &
    process=$!
    sleep "$((delay_ms / 1000)).$(printf '%03d' $((delay_ms % 1000)))"
    # It may have come to its end between the look and the shot; then this was the last round.
    kill -9 "$process" 2>/dev/null || true
    code=0
    wait "$process" 2>/dev/null || code=$?
    case $code in
      0) break ;;
      137) kills=$((kills + 1)) ;;
      *) fail "an import after $kills kills ended with code $code" ;;
    esac
    [ "$kills" -le 30 ] || fail "the import did not come to its end within $delay_ms ms"
    delay_ms=$((delay_ms * 3 / 2))
  done
  [ "$kills" -ge 3 ] || fail "only $kills imports were still running when they should be killed"
  say "killed $kills times"
  "$leftfold" import "$work/killed.jsonl" --data "$work/killed"
  holds "$work/killed" 300000
  "$leftfold" verify --data "$work/killed"
}

measurements() {
  for mode in append scan stream-read; do
    say "bench $mode"
    "$leftfold" bench "$mode" --seconds 1
  done
}

demo
large_import
two_processes
flipped_byte
read_only
foreign_file
killed_imports
measurements
echo "acceptance: ok"
