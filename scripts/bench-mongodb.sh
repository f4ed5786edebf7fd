#!/usr/bin/env bash
# Measures the store over MongoDB beside the bare driver, on one server, and prints a table.
#
# Starts and removes its server, FerretDB built by Go, or takes the one that MONGODB_URL names. `--help` lists the rest, for
# example `--runs 1`, `--only TEXT`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --locked --manifest-path bench/mongodb/Cargo.toml
target=$(cargo metadata --format-version 1 --no-deps --manifest-path bench/mongodb/Cargo.toml |
  sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
exec "$target/release/mongodb" "$@"
