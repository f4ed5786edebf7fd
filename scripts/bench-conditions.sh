#!/usr/bin/env bash
# Measures what a plain append costs beside another caller's appends under the costliest conditions that limits allow, and
# prints a table. Takes about five minutes. `--help` lists the rest, for example `--events`, `--runs`, `--seconds`.
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo run --quiet --release --locked --manifest-path bench/Cargo.toml --bin conditions -- "$@"
