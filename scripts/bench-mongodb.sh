#!/usr/bin/env bash
# Measures the store over MongoDB beside the bare driver and Emmett's MongoDB store, on one server, and prints a table.
#
# Emmett's rows need Node and npm, and are left out without them.
# Starts and removes its server, FerretDB built by Go, or takes the one that MONGODB_URL names. `--help` lists the rest, for
# example `--runs 1`, `--only TEXT`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --locked --manifest-path bench/mongodb/Cargo.toml
target=$(cargo metadata --format-version 1 --no-deps --manifest-path bench/mongodb/Cargo.toml |
  sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
emmett=()
if command -v npm >/dev/null; then
  mkdir -p "$target/emmett"
  cp bench/mongodb/emmett/* "$target/emmett"
  # The published packages name versions of each other that are not published.
  (cd "$target/emmett" && npm install --silent --no-audit --no-fund --legacy-peer-deps) && emmett=(--emmett "$target/emmett")
fi
[ ${#emmett[@]} -gt 0 ] || echo "bench: no npm, or no Emmett; its rows are left out" >&2
exec "$target/release/mongodb" "${emmett[@]}" "$@"
