#!/usr/bin/env bash
# Imports real events that other people's systems produced: the published example payloads of a large service's
# webhooks. Checks that export and import give them back byte for byte, and that a repeated import adds nothing.
set -euo pipefail
source "$(dirname "$0")/leftfold.sh"

# MIT-licensed, pinned by content. A newer version may hold another number of payloads.
package=@octokit/webhooks-examples@7.6.1
package_sha256=89e6cb1c6345d32e3dd775617fa54effbdc26c859e514898d7728e95e9738280
payloads=329

say "fetching $package"
(cd "$work" && npm pack --silent "$package" 2>"$work/npm.log" >"$work/tarball") || fail "npm pack: $(cat "$work/npm.log")"
tarball=$work/$(tail -n 1 "$work/tarball")
same "checksum of the package" "$package_sha256" "$(sha256sum "$tarball" | cut -d ' ' -f 1)"
tar -xzf "$tarball" -C "$work"
node scripts/payloads-to-lines.mjs "$work/package/api.github.com/index.json" >"$work/lines.jsonl"
same "number of payloads" "$payloads" "$(lines "$work/lines.jsonl")"

say "import, export"
"$leftfold" import "$work/lines.jsonl" --data "$work/first"
"$leftfold" export --plain "$work/first.jsonl" --data "$work/first"
same "events after the import" "$payloads" "$(lines "$work/first.jsonl")"

say "every payload is there, whole and in order"
node -e '
  const { readFileSync } = require("node:fs");
  const read = (path) => readFileSync(path, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
  const [given, stored] = process.argv.slice(1).map(read);
  given.forEach((event, i) => {
    for (const key of ["stream", "type", "data", "tags"]) {
      const order = (value) => (key === "tags" ? [...value].sort() : value);
      const [a, b] = [JSON.stringify(order(event[key])), JSON.stringify(order(stored[i][key]))];
      if (a !== b) { console.error(`event ${i + 1}, ${key}: ${a.slice(0, 200)} became ${b.slice(0, 200)}`); process.exit(1); }
    }
  });
' "$work/lines.jsonl" "$work/first.jsonl"

say "import of the export into a second log gives the same export"
"$leftfold" import "$work/first.jsonl" --data "$work/second"
"$leftfold" export --plain "$work/second.jsonl" --data "$work/second"
cmp "$work/first.jsonl" "$work/second.jsonl" || fail "the second export differs from the first"

say "an exact copy is the same store"
"$leftfold" export "$work/exact.jsonl" --data "$work/first"
"$leftfold" import "$work/exact.jsonl" --data "$work/copy"
"$leftfold" export "$work/exact-again.jsonl" --data "$work/copy"
cmp "$work/exact.jsonl" "$work/exact-again.jsonl" || fail "the copy's export differs from that of the original"

say "a repeated import adds nothing"
"$leftfold" import "$work/lines.jsonl" --data "$work/first"
"$leftfold" import "$work/first.jsonl" --data "$work/second"
for log in first second; do
  "$leftfold" export --plain "$work/again.jsonl" --data "$work/$log"
  cmp "$work/first.jsonl" "$work/again.jsonl" || fail "the repeated import changed the $log log"
done

say "streams, categories, types and tags answer"
same "streams" "$(node -e '
  const { readFileSync } = require("node:fs");
  const lines = readFileSync(process.argv[1], "utf8").trimEnd().split("\n");
  console.log(new Set(lines.map((line) => JSON.parse(line).stream)).size);
' "$work/lines.jsonl")" "$("$leftfold" streams --data "$work/first" | grep -c 'webhook-')"
same "events of the category" "$payloads" \
  "$("$leftfold" read --data "$work/first" --category webhook --json | wc -l | tr -d ' ')"
same "events of one type" "$(grep -c '"type":"issues.opened"' "$work/lines.jsonl")" \
  "$("$leftfold" read --data "$work/first" --type issues.opened --json | wc -l | tr -d ' ')"
same "events with one tag" "$(grep -c '"tags":\[[^]]*"action:created"' "$work/lines.jsonl")" \
  "$("$leftfold" read --data "$work/first" --tag action:created --json | wc -l | tr -d ' ')"
"$leftfold" stats --data "$work/first"
"$leftfold" verify --data "$work/first"
"$leftfold" verify --data "$work/second"
echo "real payloads: ok"
