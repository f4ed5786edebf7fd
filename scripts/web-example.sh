#!/usr/bin/env bash
# Runs the web example and uses its page in Chromium: what is deposited is shown without loading the page again. Writes a
# screenshot to target/web-example.png.
#
# Needs chromium and node 20 or newer. Builds the example, or runs the one in LEFTFOLD_WEB_EXAMPLE.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}
example=${LEFTFOLD_WEB_EXAMPLE:-}
if [ -z "$example" ]; then
  # Of the whole workspace, so that what was built for the tests is what runs.
  cargo build --quiet --workspace --all-features --locked --example web
  example=$target/debug/examples/web
fi
work=$(mktemp -d)
trap 'kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
PORT=0 "$example" >"$work/out" &
server=$!
# The first line is printed when the server accepts connections.
until grep -q '^open http' "$work/out"; do
  kill -0 "$server" || { echo "web-example: the example ended" >&2; exit 1; }
  sleep 0.05
done
node scripts/web-example.mjs "$(sed -n 's/^open //p' "$work/out")" "$target/web-example.png"
