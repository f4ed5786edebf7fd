// Uses the page of the web example in Chromium, as a person would, and looks at what it shows.
//
// Usage: node web-example.mjs URL SCREENSHOT. Speaks the DevTools protocol over pipes, so it needs no package.
// Each step waits until the page shows what it should, and fails if it does not within a minute.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const [url, screenshot] = process.argv.slice(2);
const within = 60_000;
const profile = mkdtempSync(join(tmpdir(), "leftfold-chromium-"));
const flags = [
  "--headless=new",
  "--remote-debugging-pipe",
  `--user-data-dir=${profile}`,
  "--window-size=900,600",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-dev-shm-usage",
  "--disable-gpu",
  // Chromium's sandbox refuses root.
  ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
];
const chromium = spawn("chromium", flags, { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
const [, , errors, input, output] = chromium.stdio;
let log = "";
errors.on("data", (text) => (log += text));

const waiting = new Map();
const exceptions = [];
let last = 0;
let rest = "";
output.setEncoding("utf8");
output.on("data", (text) => {
  const messages = (rest + text).split("\0");
  rest = messages.pop();
  for (const message of messages.map((message) => JSON.parse(message))) {
    if (message.method === "Runtime.exceptionThrown") exceptions.push(message.params.exceptionDetails);
    const { resolve, reject } = waiting.get(message.id) ?? {};
    waiting.delete(message.id);
    if (message.error) reject?.(new Error(JSON.stringify(message.error)));
    else resolve?.(message.result);
  }
});
const ended = new Promise((_, reject) => {
  chromium.on("error", reject);
  chromium.on("exit", (code) => reject(new Error(`chromium ended with ${code}:\n${log}`)));
});

let sessionId;
function call(method, params = {}) {
  const id = ++last;
  input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  const answer = new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
  return Promise.race([answer, ended]);
}

async function evaluate(expression) {
  const { result, exceptionDetails } = await call("Runtime.evaluate", { expression, returnByValue: true });
  assert.equal(exceptionDetails, undefined, expression);
  return result.value;
}

/** Waits until an expression has a value. */
async function shows(what, expression, expected) {
  const end = Date.now() + within;
  let found;
  do {
    found = await evaluate(expression);
    if (JSON.stringify(found) === JSON.stringify(expected)) {
      console.log(`ok: ${what}`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 20));
  } while (Date.now() < end);
  assert.deepEqual(found, expected, what);
}

async function type(field, text) {
  await evaluate(`document.querySelector('[name="${field}"]').select()`);
  await call("Input.insertText", { text });
}

async function click(selector) {
  const [x, y] = await evaluate(
    `(({ x, y, width, height }) => [x + width / 2, y + height / 2])(document.querySelector('${selector}').getBoundingClientRect())`,
  );
  for (const what of ["mousePressed", "mouseReleased"]) {
    await call("Input.dispatchMouseEvent", { type: what, x, y, button: "left", clickCount: 1 });
  }
}

const rows = "[...document.querySelectorAll('tbody tr')].map((row) => [...row.cells].map((cell) => cell.textContent))";

async function usePage() {
  const { targetId } = await call("Target.createTarget", { url: "about:blank" });
  ({ sessionId } = await call("Target.attachToTarget", { targetId, flatten: true }));
  await call("Runtime.enable");
  await call("Page.enable");
  await call("Page.navigate", { url });
  await shows("the page is there", "document.readyState + ' ' + document.querySelector('h1')?.textContent", "complete Bank");
  await shows("its table is empty", rows, []);
  // Gone if the page is loaded again.
  await evaluate("globalThis.loadedOnce = true");

  await type("account", "ann");
  await type("cents", "100");
  await click('button[value="deposits"]');
  await shows("a deposit by the form is shown", rows, [["ann", "100"]]);

  const deposit = await fetch(new URL("/accounts/bob/deposits", url), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ cents: 250 }),
  });
  assert.equal(deposit.status, 200);
  await shows("a deposit by another program is shown", rows, [["ann", "100"], ["bob", "250"]]);

  await type("cents", "101");
  await click('button[value="withdrawals"]');
  await shows("a withdrawal that is not covered is refused", "document.querySelector('output').textContent", '{"cents":100}');
  await type("cents", "30");
  await click('button[value="withdrawals"]');
  await shows("a withdrawal is shown", rows, [["ann", "70"], ["bob", "250"]]);
  await shows("its refusal is gone", "document.querySelector('output').textContent", "");

  assert.equal(await evaluate("globalThis.loadedOnce"), true, "the page was loaded again");
  assert.deepEqual(exceptions, [], "exceptions of the page");
  const { data } = await call("Page.captureScreenshot", { format: "png" });
  writeFileSync(screenshot, Buffer.from(data, "base64"));
  console.log(`ok: nothing was loaded again; screenshot in ${screenshot}`);
  sessionId = undefined;
}

try {
  await usePage();
} finally {
  const gone = new Promise((resolve) => chromium.on("close", resolve));
  ended.catch(() => {});
  chromium.kill("SIGKILL");
  await gone;
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
