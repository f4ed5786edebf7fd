#!/usr/bin/env bash
# Prints the path of a PgBouncer that the tests can use: the system's if it is new enough, else one that is built from Debian's
# source package.
#
# PgBouncer 1.18 and older end, or cancel the statement of another client, when clients cancel statements under load.
# The source is pinned by version and checksum. Building takes half a minute, and needs a system with apt and rights to install.
set -euo pipefail

newest_broken=1.18
version=1.24.1
source_version=1.24.1-1+deb13u2
source_sha256=da72a3aba13072876d055a3e58dd4aba4a5de4ed6148e73033185245598fd3e0
suite=trixie
place=/tmp/leftfold-pgbouncer-$version

for system in /usr/sbin/pgbouncer /usr/bin/pgbouncer; do
  [ -x "$system" ] || continue
  found=$("$system" --version | sed -n 's/^PgBouncer \([0-9]*\.[0-9]*\).*/\1/p')
  if [ "$(printf '%s\n' "$newest_broken" "$found" | sort -V | tail -n 1)" != "$newest_broken" ]; then
    echo "$system"
    exit 0
  fi
done

if [ ! -x "$place/pgbouncer" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends gcc libc6-dev make pkg-config libevent-dev
    # A list of sources of its own, so that nothing of the newer suite is ever installed.
    mirror=$(apt-get indextargets --format '$(SITE)' | awk '/\/debian\/?$/ && !found { print; found = 1 }')
    echo "deb-src $mirror $suite main" >"$work/sources.list"
    mkdir -p "$work/lists/partial"
    lists=(-o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/lists")
    apt-get "${lists[@]}" update -qq
    cd "$work"
    apt-get "${lists[@]}" source --download-only --only-source "pgbouncer=$source_version"
    echo "$source_sha256  pgbouncer_$version.orig.tar.gz" | sha256sum --check --quiet
    tar -xzf "pgbouncer_$version.orig.tar.gz"
    cd "pgbouncer-$version"
    ./configure --without-openssl
    make -j2 pgbouncer
    mkdir -p "$place"
    mv pgbouncer "$place/pgbouncer"
    # Servers run as a user of their own.
    chmod -R a+rX "$place"
  } >&2
fi
"$place/pgbouncer" --version >&2
echo "$place/pgbouncer"
