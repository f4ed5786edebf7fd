#!/usr/bin/env bash
# The server that the flows talk to: `server.sh start`, `server.sh kill-and-start`, `server.sh stop`.
#
# LEFTFOLD is the built command, LEFTFOLD_DIR a directory for its data and log, LEFTFOLD_PORT the port it listens on.
#
# With LEFTFOLD_SECURED, `start` makes certificates, users, keys and an access control list first, and the server demands TLS
# and credentials. $LEFTFOLD_DIR/credentials then has what a flow needs of them, as lines NAME=VALUE. With LEFTFOLD_SECURED=printed
# it makes certificates alone, and the server prints the password of the first administrator.
set -euo pipefail
: "${LEFTFOLD:?the built command}" "${LEFTFOLD_DIR:?a directory}" "${LEFTFOLD_PORT:=2113}"
pid_file="$LEFTFOLD_DIR/pid"

# One at a time: a flow that fails while its server starts again must not leave a server behind that runs on.
mkdir -p "$LEFTFOLD_DIR"
until mkdir "$LEFTFOLD_DIR/busy" 2>/dev/null; do sleep 0.05; done
trap 'rmdir "$LEFTFOLD_DIR/busy"' EXIT

# A process that is over is listed as a zombie until the process that inherited it waits for it. One that is killed may be a zombie before its
# other threads have ended (`l`), and they still hold its files and its port.
runs() {
  kill -0 "$1" 2>/dev/null || return 1
  case "$(ps -o stat= -p "$1" 2>/dev/null)" in
    Z*l*) return 0 ;;
    Z*) return 1 ;;
  esac
}

# The user admin may do everything. Bob may not read or write what only ann may. The keys: one reads and appends
# everything, one reads what has the tag `tenant:1`.
secure() {
  local data=$LEFTFOLD_DIR/data certs=$LEFTFOLD_DIR/certs
  "$LEFTFOLD" certs "$certs" >"$LEFTFOLD_DIR/first-steps"
  if [ "$LEFTFOLD_SECURED" = printed ]; then
    return
  fi
  local acl='{"$acl":{"$r":"ann","$w":"ann","$d":"ann","$mr":"ann","$mw":"ann"}}'
  "$LEFTFOLD" metadata --data "$data" --stream secret-1 "$acl" >>"$LEFTFOLD_DIR/first-steps"
  for login in ann bob; do
    printf 'password-of-%s\n' "$login" |
      "$LEFTFOLD" users create "$login" --password-file - --data "$data"
  done
  printf 'password-of-admin\n' |
    "$LEFTFOLD" users create admin --group '$admins' --password-file - --data "$data"
  local key narrow
  key=$("$LEFTFOLD" keys create shop --grant read --grant append --data "$data")
  narrow=$("$LEFTFOLD" keys create tenant --grant read:tag=tenant:1 --data "$data")
  cat >"$LEFTFOLD_DIR/credentials" <<END
LEFTFOLD_ADDRESS=localhost:$LEFTFOLD_PORT
LEFTFOLD_CA_FILE=$certs/ca.crt
LEFTFOLD_KEY=$key
LEFTFOLD_NARROW_KEY=$narrow
END
}

start() {
  local how=()
  if [ -n "${LEFTFOLD_SECURED:-}" ]; then
    [ -d "$LEFTFOLD_DIR/certs" ] || secure
    how=(--tls-certificate-file "$LEFTFOLD_DIR/certs/server.crt" --tls-key-file "$LEFTFOLD_DIR/certs/server.key")
  fi
  "$LEFTFOLD" serve --data "$LEFTFOLD_DIR/data" --listen "127.0.0.1:$LEFTFOLD_PORT" "${how[@]}" \
    >"$LEFTFOLD_DIR/first-lines" 2>>"$LEFTFOLD_DIR/log" &
  echo $! >"$pid_file"
  # The first line is printed once clients can connect.
  for _ in $(seq 600); do
    if [ -s "$LEFTFOLD_DIR/first-lines" ]; then return; fi
    runs "$(cat "$pid_file")" || break
    sleep 0.05
  done
  echo "the server did not start:" >&2
  tail -5 "$LEFTFOLD_DIR/log" >&2
  exit 1
}

end() {
  if [ -f "$pid_file" ]; then
    kill "-$1" "$(cat "$pid_file")" 2>/dev/null || true
    while runs "$(cat "$pid_file")"; do sleep 0.05; done
    rm -f "$pid_file" "$LEFTFOLD_DIR/first-lines"
  fi
}

case "${1:-}" in
  start) start ;;
  kill-and-start) end KILL; start ;;
  stop) end TERM ;;
  *) echo "usage: server.sh start|kill-and-start|stop" >&2; exit 2 ;;
esac
