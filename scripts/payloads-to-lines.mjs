// Turns the example webhook payloads into JSON Lines for `leftfold import`.
//
// Usage: node payloads-to-lines.mjs INDEX.json > LINES
// One line for each example, in the order of the file. A payload is passed on as it is.

import { readFileSync } from "node:fs";

const LABEL_BYTES_MAX = 255;

const index = JSON.parse(readFileSync(process.argv[2], "utf8"));
for (const { name, examples } of index) {
  for (const data of examples) {
    const tags = [`event:${name}`];
    if (typeof data.action === "string") tags.push(`action:${data.action}`);
    if (data.repository?.full_name) tags.push(`repo:${data.repository.full_name}`);
    if (data.sender?.login) tags.push(`sender:${data.sender.login}`);
    const line = {
      stream: `webhook-${name}`,
      type: typeof data.action === "string" ? `${name}.${data.action}` : name,
      data,
      tags: [...new Set(tags)].filter((tag) => Buffer.byteLength(tag) <= LABEL_BYTES_MAX),
    };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  }
}
