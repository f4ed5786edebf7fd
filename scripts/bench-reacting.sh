#!/usr/bin/env bash
# Measures listeners, projections and process managers beside bare subscriptions and inserts, in one run, and prints a table.
#
# Builds what it needs: a Rust toolchain and a C compiler (for SQLite) must be there. Takes about three minutes. `--help` lists
# the rest, for example `--runs 1`, `--only TEXT`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --locked --manifest-path bench/reacting/Cargo.toml
target=$(cargo metadata --format-version 1 --no-deps --manifest-path bench/reacting/Cargo.toml |
  sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
exec "$target/release/reacting" "$@"
