// What a program in JavaScript does with an event store, step by step, through the published client.
// Each step says what it expects; the first surprise ends the flow.
//
// LEFTFOLD_URL says where the server is; LEFTFOLD_RESTART is a command that kills it and starts it again.
import assert from "node:assert/strict";
import { execSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  ANY, BACKWARDS, END, FORWARDS, NO_STREAM, START, STREAM_EXISTS,
  AppendConsistencyViolationError, KurrentDBClient, StreamDeletedError, StreamNotFoundError,
  StreamTombstonedError, WrongExpectedVersionError,
  binaryEvent, eventTypeFilter, excludeSystemEvents, jsonEvent, streamNameFilter,
} from "@kurrent/kurrentdb-client";

const url = process.env.LEFTFOLD_URL ?? "kurrentdb://127.0.0.1:2113?tls=false";
const client = KurrentDBClient.connectionString(url);
const run = randomUUID().slice(0, 8);
const stream = (name) => `node_${name}-${run}`;
const deposited = (amount, id) => jsonEvent({ ...(id && { id }), type: `Deposited_${run}`, data: { amount } });
const withdrawn = (amount) => jsonEvent({ type: `Withdrawn_${run}`, data: { amount } });

async function all(events) {
  const read = [];
  for await (const resolved of events) read.push(resolved);
  return read;
}
const revisions = async (name, options) =>
  (await all(client.readStream(name, options))).map(({ event }) => Number(event.revision));

async function step(what, body) {
  await body();
  console.log(`ok  ${what}`);
}

await step("an account is opened and read in both directions", async () => {
  const account = stream("account");
  const first = await client.appendToStream(account, [deposited(100), withdrawn(30)], { streamState: NO_STREAM });
  assert.equal(first.nextExpectedRevision, 1n);
  assert.ok(first.position.commit > 0n);
  const forwards = await all(client.readStream(account, { direction: FORWARDS, fromRevision: START }));
  assert.deepEqual(forwards.map(({ event }) => event.data.amount), [100, 30]);
  const balance = forwards.reduce((sum, { event }) =>
    event.type.startsWith("Deposited") ? sum + event.data.amount : sum - event.data.amount, 0);
  assert.equal(balance, 70);
  assert.ok(forwards[0].event.created instanceof Date || typeof forwards[0].event.created === "number");
  assert.deepEqual(await revisions(account, { direction: BACKWARDS, fromRevision: END, maxCount: 1 }), [1]);
  assert.deepEqual(await revisions(account, { fromRevision: 1n }), [1]);
});

await step("a conflict names both versions", async () => {
  const account = stream("account");
  await assert.rejects(client.appendToStream(account, deposited(1), { streamState: NO_STREAM }), (error) => {
    assert.ok(error instanceof WrongExpectedVersionError, String(error));
    assert.equal(error.actualVersion ?? error.actualState, 1n);
    return true;
  });
  await assert.rejects(client.appendToStream(account, deposited(1), { streamState: 0n }), WrongExpectedVersionError);
  await assert.rejects(client.appendToStream(stream("nobody"), deposited(1), { streamState: STREAM_EXISTS }), WrongExpectedVersionError);
});

await step("an append that is repeated is stored once", async () => {
  const name = stream("repeated");
  const event = deposited(5, randomUUID());
  const first = await client.appendToStream(name, event, { streamState: NO_STREAM });
  const again = await client.appendToStream(name, event, { streamState: NO_STREAM });
  assert.equal(again.nextExpectedRevision, first.nextExpectedRevision);
  await client.appendToStream(name, event, { streamState: ANY });
  assert.deepEqual(await revisions(name), [0]);
});

await step("bytes and metadata come back as they were", async () => {
  const name = stream("bytes");
  const data = Buffer.from([0, 1, 2, 255]);
  await client.appendToStream(name, binaryEvent({ type: "Bytes", data, metadata: Buffer.from([9]) }));
  await client.appendToStream(name, jsonEvent({ type: "Json", data: { ä: "ö" }, metadata: { by: "ann" } }));
  const [bytes, json] = await all(client.readStream(name));
  assert.deepEqual(Buffer.from(bytes.event.data), data);
  assert.deepEqual(json.event.data, { ä: "ö" });
  assert.deepEqual(json.event.metadata, { by: "ann" });
});

await step("a missing stream is an error of its own", async () => {
  await assert.rejects(all(client.readStream(stream("missing"))), StreamNotFoundError);
});

await step("filters choose by type and by stream", async () => {
  const byType = await all(client.readAll({ filter: eventTypeFilter({ prefixes: [`Withdrawn_${run}`] }) }));
  assert.deepEqual(byType.map(({ event }) => event.data.amount), [30]);
  const byStream = await all(client.readAll({ filter: streamNameFilter({ regex: `^node_account-${run}$` }) }));
  assert.equal(byStream.length, 2);
  const newest = await all(client.readAll({ direction: BACKWARDS, fromPosition: END, maxCount: 1, filter: excludeSystemEvents() }));
  assert.equal(newest.length, 1);
  const [oldest] = await all(client.readAll({ maxCount: 1 }));
  assert.ok(oldest.event.type.startsWith("$"));
});

/** The first `count` events of a subscription. */
function firstOf(subscription, count) {
  return new Promise((resolve, reject) => {
    const events = [];
    subscription.on("error", reject);
    subscription.on("data", (resolved) => {
      events.push(resolved);
      if (events.length === count) subscription.unsubscribe().then(() => resolve(events), reject);
    });
  });
}

await step("a subscription gives what is stored, says that it has caught up, and goes on live", async () => {
  const name = stream("followed");
  await client.appendToStream(name, [deposited(1), deposited(2)]);
  const subscription = client.subscribeToStream(name, { fromRevision: START });
  const caughtUp = new Promise((resolve) => subscription.once("caughtUp", resolve));
  const events = firstOf(subscription, 4);
  await caughtUp;
  await client.appendToStream(name, [deposited(3), deposited(4)]);
  assert.deepEqual((await events).map(({ event }) => event.data.amount), [1, 2, 3, 4]);
  const behind = await firstOf(client.subscribeToStream(name, { fromRevision: 1n }), 2);
  assert.deepEqual(behind.map(({ event }) => event.data.amount), [3, 4]);
});

await step("a subscription with a filter tells checkpoints", async () => {
  const told = {};
  told.promise = new Promise((resolve, reject) => Object.assign(told, { resolve, reject }));
  const filter = eventTypeFilter({
    prefixes: [`Never_${run}`],
    maxSearchWindow: 1,
    checkpointInterval: 1,
    checkpointReached: (_, position) => told.resolve(position),
  });
  const subscription = client.subscribeToAll({ fromPosition: START, filter });
  subscription.on("error", told.reject);
  subscription.on("data", () => told.reject(new Error("nothing matches")));
  const position = await told.promise;
  assert.ok(position.commit >= 0n);
  await subscription.unsubscribe();
});

await step("metadata bounds a stream", async () => {
  const name = stream("bounded");
  await client.appendToStream(name, [1, 2, 3, 4].map((amount) => deposited(amount)));
  await client.setStreamMetadata(name, { maxCount: 2, owner: "ann" });
  assert.deepEqual(await revisions(name), [2, 3]);
  const { metadata, metastreamRevision } = await client.getStreamMetadata(name);
  assert.equal(metadata.maxCount, 2);
  assert.equal(metadata.owner, "ann");
  assert.equal(typeof metastreamRevision, "bigint");
  await client.setStreamMetadata(name, { truncateBefore: 3 });
  assert.deepEqual(await revisions(name), [3]);
});

await step("a deleted stream comes back with its next event", async () => {
  const name = stream("deleted");
  await client.appendToStream(name, [deposited(1), deposited(2)]);
  await client.deleteStream(name, { expectedRevision: 1n });
  await assert.rejects(all(client.readStream(name)), StreamNotFoundError);
  const again = await client.appendToStream(name, deposited(3), { streamState: NO_STREAM });
  assert.equal(again.nextExpectedRevision, 2n);
  assert.deepEqual(await revisions(name), [2]);
});

await step("a tombstone is for ever", async () => {
  const name = stream("tombstoned");
  await client.appendToStream(name, deposited(1));
  await client.tombstoneStream(name);
  await assert.rejects(all(client.readStream(name)), StreamDeletedError);
  await assert.rejects(client.appendToStream(name, deposited(2)), (error) =>
    error instanceof StreamDeletedError || error instanceof StreamTombstonedError);
});

await step("a link leads to its event", async () => {
  const name = stream("linked");
  const [{ event }] = await all(client.readStream(stream("account"), { maxCount: 1 }));
  await client.appendToStream(name, binaryEvent({ type: "$>", data: Buffer.from(`${event.revision}@${event.streamId}`) }));
  const [unresolved] = await all(client.readStream(name));
  assert.equal(unresolved.event.type, "$>");
  const [resolved] = await all(client.readStream(name, { resolveLinkTos: true }));
  assert.equal(resolved.event.id, event.id);
  assert.equal(resolved.link.streamId, name);
});

await step("several streams are appended to at once, with checks on others", async () => {
  const [from, to, limit] = ["from", "to", "limit"].map(stream);
  const transfer = (state) => client.multiStreamAppend([
    { streamName: from, expectedState: state, events: [withdrawn(5)] },
    { streamName: to, expectedState: state, events: [deposited(5)] },
  ]);
  const { responses } = await transfer(NO_STREAM);
  assert.equal(responses.length, 2);
  await assert.rejects(transfer(NO_STREAM));
  assert.deepEqual(await revisions(to), [0]);
  const records = () => [{ streamName: from, record: withdrawn(1) }, { streamName: to, record: deposited(1) }];
  await client.appendRecords(records(), [{ type: "streamState", streamName: limit, expectedState: NO_STREAM }]);
  await assert.rejects(
    client.appendRecords(records(), [{ type: "streamState", streamName: limit, expectedState: STREAM_EXISTS }]),
    AppendConsistencyViolationError,
  );
  assert.deepEqual(await revisions(to), [0, 1]);
});

await step("a large append of many events is stored whole", async () => {
  const name = stream("many");
  const events = Array.from({ length: 5000 }, (_, amount) => deposited(amount));
  await client.appendToStream(name, events, { streamState: NO_STREAM });
  assert.equal((await revisions(name)).length, 5000);
});

await step("a server that is killed loses nothing it acknowledged, and the client comes back", async () => {
  const name = stream("survivor");
  const acknowledged = [];
  let stopped = false;
  const write = async () => {
    for (let amount = 0; !stopped; amount += 1) {
      const event = deposited(amount);
      for (;;) {
        try {
          await client.appendToStream(name, event);
          acknowledged.push(event.id);
          break;
        } catch {
          // Whether it was stored is not known; the same event again is stored once.
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      }
    }
  };
  const writer = write();
  while (acknowledged.length < 50) await new Promise((resolve) => setTimeout(resolve, 5));
  const before = acknowledged.length;
  if (process.env.LEFTFOLD_RESTART) execSync(process.env.LEFTFOLD_RESTART, { stdio: "inherit" });
  while (acknowledged.length < before + 50) await new Promise((resolve) => setTimeout(resolve, 5));
  stopped = true;
  await writer;
  const stored = (await all(client.readStream(name))).map(({ event }) => event.id);
  assert.deepEqual(stored, acknowledged);
});

await client.dispose();
console.log("the flow of the JavaScript client is through");
process.exit(0);
