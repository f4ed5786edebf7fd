#!/usr/bin/env bash
# The server that the flows talk to: `server.sh start`, `server.sh kill-and-start`, `server.sh stop`.
#
# LEFTFOLD is the built command, LEFTFOLD_DIR a directory for its data and log, LEFTFOLD_PORT the port it listens on.
set -euo pipefail
: "${LEFTFOLD:?the built command}" "${LEFTFOLD_DIR:?a directory}" "${LEFTFOLD_PORT:=2113}"
pid_file="$LEFTFOLD_DIR/pid"

start() {
  mkdir -p "$LEFTFOLD_DIR"
  "$LEFTFOLD" serve --data "$LEFTFOLD_DIR/data" --listen "127.0.0.1:$LEFTFOLD_PORT" \
    >"$LEFTFOLD_DIR/first-lines" 2>>"$LEFTFOLD_DIR/log" &
  echo $! >"$pid_file"
  # The first line is printed once clients can connect.
  for _ in $(seq 300); do
    if [ -s "$LEFTFOLD_DIR/first-lines" ]; then return; fi
    if ! kill -0 "$(cat "$pid_file")" 2>/dev/null; then break; fi
    sleep 0.1
  done
  echo "the server did not start:" >&2
  tail -5 "$LEFTFOLD_DIR/log" >&2
  exit 1
}

end() {
  if [ -f "$pid_file" ]; then
    kill "-$1" "$(cat "$pid_file")" 2>/dev/null || true
    while kill -0 "$(cat "$pid_file")" 2>/dev/null; do sleep 0.05; done
    rm -f "$pid_file" "$LEFTFOLD_DIR/first-lines"
  fi
}

case "${1:-}" in
  start) start ;;
  kill-and-start) end KILL; start ;;
  stop) end TERM ;;
  *) echo "usage: server.sh start|kill-and-start|stop" >&2; exit 2 ;;
esac
