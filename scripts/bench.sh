#!/usr/bin/env bash
# Measures Leftfold beside the stores people would embed instead, in one run, and prints a table.
#
# Builds what it needs: a Rust toolchain and a C compiler (for SQLite) must be there. Takes under 30 minutes; with
# `--quick` under 4. `--help` lists the rest, for example `--only TEXT`, `--stores leftfold,tephra`, `--json FILE`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --locked --manifest-path bench/Cargo.toml
target=$(cargo metadata --format-version 1 --no-deps --manifest-path bench/Cargo.toml |
  sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
exec "$target/release/leftfold-bench" "$@"
