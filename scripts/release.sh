#!/usr/bin/env bash
# Builds `leftfold` for shipping, and keeps what a profiler or debugger needs in a file beside it.
#
# Writes target/dist/leftfold, stripped, and target/dist/leftfold.debug. Tools find the second by a link in the first.
# Needs objcopy (on Debian: apt-get install binutils).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --quiet --profile profiling --locked --package leftfold-cli
target=$(cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
built=$target/profiling/leftfold
mkdir -p "$target/dist"
objcopy --only-keep-debug "$built" "$target/dist/leftfold.debug"
(cd "$target/dist" && objcopy --strip-all --add-gnu-debuglink=leftfold.debug "$built" leftfold)
ls -l "$target/dist"
