#!/usr/bin/env bash
# Measures listeners, projections and process managers beside bare subscriptions and inserts, and beside other frameworks, in one
# run, and prints a table.
#
# Builds what it needs: a Rust toolchain, a C compiler (for SQLite) and PostgreSQL must be there. With Python 3 that can make
# environments, the row beside the Python framework is measured too. Takes about five minutes. `--help` lists the rest, for example
# `--quick`, `--only TEXT`.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --release --locked --manifest-path bench/reacting/Cargo.toml
target=$(cargo metadata --format-version 1 --no-deps --manifest-path bench/reacting/Cargo.toml |
  sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
python=()
if [ -x "$target/peers/bin/python" ] || python3 -m venv "$target/peers" 2>/dev/null; then
  if "$target/peers/bin/pip" install --quiet "eventsourcing==9.5.*"; then
    python=(--python "$target/peers/bin/python")
  fi
fi
[ ${#python[@]} -gt 0 ] || echo "bench: no Python with eventsourcing 9.5; its row is left out" >&2
# A peer writes a line for each command to the standard output; the table comes on the other one.
exec "$target/release/reacting" "${python[@]}" "$@" >/dev/null
