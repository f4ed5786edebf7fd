#!/usr/bin/env bash
# Measures the store over PostgreSQL beside plain SQL and other frameworks, on one private server, and prints a table.
#
# Starts and removes its server: PostgreSQL 17 of a package (one of the frameworks needs 16 or newer), since all rows must come
# from one server; `psql` and `pgbench` are Debian's. `--help` lists the rest, for example `--runs 1`, `--only TEXT`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --locked --manifest-path bench/postgres/Cargo.toml
target=$(cargo metadata --format-version 1 --no-deps --manifest-path bench/postgres/Cargo.toml |
  sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
LEFTFOLD_POSTGRES_BIN=$(bash scripts/newer-postgres.sh)
export LEFTFOLD_POSTGRES_BIN
exec "$target/release/postgres" "$@"
