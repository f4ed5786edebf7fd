// What a program in JavaScript does with an event store, step by step, through the published client.
// Each step says what it expects; the first surprise ends the flow.
//
// LEFTFOLD_URL says where the server is; LEFTFOLD_RESTART is a command that kills it and starts it again.
import assert from "node:assert/strict";
import { exec } from "node:child_process";
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
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
const amounts = (events) => events.map(({ event }) => event.data.amount);
const ids = (events) => events.map(({ event }) => event.id);
const revisions = async (name, options) =>
  (await all(client.readStream(name, options))).map(({ event }) => Number(event.revision));

async function step(what, body) {
  await body();
  console.log(`ok  ${what}`);
}

async function until(condition) {
  while (!condition()) await pause(5);
}

await step("an account is opened and read in both directions", async () => {
  const account = stream("account");
  const first = await client.appendToStream(account, [deposited(100), withdrawn(30)], { streamState: NO_STREAM });
  assert.equal(first.nextExpectedRevision, 1n);
  assert.ok(first.position.commit > 0n);
  const forwards = await all(client.readStream(account, { direction: FORWARDS, fromRevision: START }));
  assert.deepEqual(amounts(forwards), [100, 30]);
  const balance = forwards.reduce((sum, { event }) =>
    event.type.startsWith("Deposited") ? sum + event.data.amount : sum - event.data.amount, 0);
  assert.equal(balance, 70);
  assert.ok(forwards[0].event.created instanceof Date || typeof forwards[0].event.created === "number");
  assert.deepEqual(await revisions(account, { direction: BACKWARDS, fromRevision: END, maxCount: 1 }), [1]);
  assert.deepEqual(await revisions(account, { direction: BACKWARDS, fromRevision: 0n }), [0]);
  assert.deepEqual(await revisions(account, { fromRevision: 1n }), [1]);
});

await step("a conflict names both versions", async () => {
  const account = stream("account");
  for (const streamState of [NO_STREAM, 0n, 9n]) {
    await assert.rejects(client.appendToStream(account, deposited(1), { streamState }), (error) => {
      assert.ok(error instanceof WrongExpectedVersionError, String(error));
      assert.equal(error.expectedVersion ?? error.expectedState, streamState);
      assert.equal(error.actualVersion ?? error.actualState, 1n);
      return true;
    });
  }
  await assert.rejects(client.appendToStream(stream("nobody"), deposited(1), { streamState: STREAM_EXISTS }), WrongExpectedVersionError);
});

const repeated = { event: deposited(5, randomUUID()) };
await step("an append that is repeated is stored once, whatever it expected", async () => {
  const name = stream("repeated");
  repeated.first = await client.appendToStream(name, repeated.event, { streamState: NO_STREAM });
  for (const streamState of [NO_STREAM, ANY, STREAM_EXISTS]) {
    const again = await client.appendToStream(name, repeated.event, { streamState });
    assert.deepEqual(again, repeated.first);
  }
  const next = deposited(6, randomUUID());
  const second = await client.appendToStream(name, next, { streamState: 0n });
  assert.deepEqual(await client.appendToStream(name, next, { streamState: 0n }), second);
  assert.deepEqual(await revisions(name), [0, 1]);
});

await step("a call with credentials of its own appends the older way", async () => {
  const name = stream("older");
  const options = { streamState: NO_STREAM, credentials: { username: "ann", password: "secret" } };
  const first = await client.appendToStream(name, [deposited(1), deposited(2)], options);
  assert.equal(first.nextExpectedRevision, 1n);
  await assert.rejects(client.appendToStream(name, deposited(3), options), WrongExpectedVersionError);
  assert.deepEqual(await revisions(name), [0, 1]);
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

await step("everything is read in both directions, from any position", async () => {
  const [oldest] = await all(client.readAll({ maxCount: 1 }));
  assert.ok(oldest.event.type.startsWith("$"));
  const [first, second] = await all(client.readStream(stream("account")));
  // A position is part of what is read forwards from it, and not of what is read backwards.
  const forwards = await all(client.readAll({ fromPosition: first.event.position, maxCount: 2 }));
  assert.deepEqual(ids(forwards), [first.event.id, second.event.id]);
  const backwards = await all(client.readAll({ direction: BACKWARDS, fromPosition: second.event.position, maxCount: 1 }));
  assert.deepEqual(ids(backwards), [first.event.id]);
  const [newest] = await all(client.readAll({ direction: BACKWARDS, fromPosition: END, maxCount: 1 }));
  assert.ok(newest.event.position.commit > second.event.position.commit);
  assert.deepEqual(ids(await all(client.readAll({ fromPosition: newest.event.position }))), [newest.event.id]);
  // Positions are dense: the next one is invalid until there is an event.
  const next = { commit: newest.event.position.commit + 1n, prepare: newest.event.position.prepare + 1n };
  await assert.rejects(all(client.readAll({ fromPosition: next })));
  await client.appendToStream(stream("next"), [deposited(1)]);
  const [after] = await all(client.readAll({ fromPosition: next }));
  assert.deepEqual(after.event.position, next);
});

await step("filters choose by type and by stream, by prefix and by expression", async () => {
  const byType = [{ prefixes: ["Nothing_", `Withdrawn_${run}`] }, { regex: `^With.*_${run}$` }].map(eventTypeFilter);
  for (const filter of byType) {
    assert.deepEqual(amounts(await all(client.readAll({ filter }))), [30]);
  }
  const byStream = [{ prefixes: [stream("account")] }, { regex: `^node_account-${run}$` }].map(streamNameFilter);
  for (const filter of byStream) {
    assert.deepEqual(amounts(await all(client.readAll({ filter }))), [100, 30]);
    assert.deepEqual(amounts(await all(client.readAll({ filter, direction: BACKWARDS, fromPosition: END }))), [30, 100]);
  }
  const [oldest] = await all(client.readAll({ maxCount: 1, filter: excludeSystemEvents() }));
  assert.ok(!oldest.event.type.startsWith("$"));
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
  assert.equal((await caughtUp).revision, 1n);
  await client.appendToStream(name, [deposited(3), deposited(4)]);
  assert.deepEqual(amounts(await events), [1, 2, 3, 4]);
  const behind = await firstOf(client.subscribeToStream(name, { fromRevision: 1n }), 2);
  assert.deepEqual(amounts(behind), [3, 4]);
  const { position } = behind[0].event;
  assert.deepEqual(amounts(await firstOf(client.subscribeToAll({ fromPosition: position }), 1)), [4]);
});

await step("a subscription with a filter tells checkpoints, and one can go on from there", async () => {
  const name = stream("checked");
  await client.appendToStream(name, [deposited(1), deposited(2), deposited(3)]);
  const told = {};
  told.promise = new Promise((resolve, reject) => Object.assign(told, { resolve, reject }));
  const [{ event: { position: first } }] = await all(client.readStream(name, { maxCount: 1 }));
  const filter = eventTypeFilter({
    prefixes: [`Never_${run}`],
    maxSearchWindow: 1,
    checkpointInterval: 1,
    // Not before this stream's first event, so that what comes behind the checkpoint is known.
    checkpointReached: (_, position) => position.commit >= first.commit && told.resolve(position),
  });
  const subscription = client.subscribeToAll({ fromPosition: START, filter });
  subscription.on("error", told.reject);
  subscription.on("data", () => told.reject(new Error("nothing matches")));
  const checkpoint = await told.promise;
  await subscription.unsubscribe();
  await client.appendToStream(name, deposited(4));
  const expected = (await all(client.readStream(name))).filter(({ event }) => event.position.commit > checkpoint.commit);
  const own = streamNameFilter({ prefixes: [name] });
  const behind = await firstOf(client.subscribeToAll({ fromPosition: checkpoint, filter: own }), expected.length);
  assert.deepEqual(ids(behind), ids(expected));
});

await step("metadata bounds a stream, and keeps keys of one's own", async () => {
  const name = stream("bounded");
  await client.appendToStream(name, [1, 2, 3, 4].map((amount) => deposited(amount)));
  await client.setStreamMetadata(name, { maxCount: 2, owner: "ann", limits: { daily: [1, 2] } }, { streamState: NO_STREAM });
  assert.deepEqual(await revisions(name), [2, 3]);
  const { metadata, metastreamRevision } = await client.getStreamMetadata(name);
  assert.deepEqual(metadata, { maxCount: 2, owner: "ann", limits: { daily: [1, 2] } });
  // This client gives the position here, not the revision.
  assert.equal(typeof metastreamRevision, "bigint");
  await client.setStreamMetadata(name, { truncateBefore: 3 }, { streamState: 0n });
  assert.deepEqual(await revisions(name), [3]);
  await assert.rejects(client.setStreamMetadata(name, {}, { streamState: 0n }), WrongExpectedVersionError);
  assert.deepEqual((await client.getStreamMetadata(name)).metadata, { truncateBefore: 3 });
});

await step("ages, caching and rights come back as they were set", async () => {
  const name = stream("governed");
  await client.appendToStream(name, deposited(1));
  const acl = { readRoles: ["ann", "bob"], writeRoles: ["ann"], deleteRoles: ["$admins"], metaReadRoles: ["$all"], metaWriteRoles: [] };
  const metadata = { maxAge: 3600, cacheControl: 10, acl };
  await client.setStreamMetadata(name, metadata);
  assert.deepEqual((await client.getStreamMetadata(name)).metadata, metadata);
  // Nothing is an hour old yet.
  assert.deepEqual(await revisions(name), [0]);
});

await step("a link leads to its event, also in a subscription, or shows itself", async () => {
  const name = stream("linked");
  const link = (target) => binaryEvent({ type: "$>", data: Buffer.from(target) });
  const [{ event }] = await all(client.readStream(stream("account"), { maxCount: 1 }));
  await client.appendToStream(name, [link(`${event.revision}@${event.streamId}`), link(`7@${stream("missing")}`)]);
  const unresolved = await all(client.readStream(name));
  assert.deepEqual(unresolved.map((resolved) => [resolved.event.type, resolved.link]), [["$>", undefined], ["$>", undefined]]);
  const subscribed = firstOf(client.subscribeToStream(name, { fromRevision: START, resolveLinkTos: true }), 2);
  for (const read of [await all(client.readStream(name, { resolveLinkTos: true })), await subscribed]) {
    const [resolved, unresolvable] = read;
    assert.deepEqual([resolved.event.id, resolved.link.streamId, resolved.link.revision], [event.id, name, 0n]);
    assert.deepEqual([unresolvable.event, unresolvable.link.streamId, unresolvable.link.revision], [undefined, name, 1n]);
  }
});

/**
 * A subscription that comes back: this client ends one with an error when its server is gone, and opens no new one, so the
 * program does, behind the last event it was given. `subscribe` is called with that event, or with nothing at first.
 */
function follow(subscribe) {
  const following = { events: [], opened: 0, stopped: false };
  const open = () => {
    const subscription = subscribe(following.events.at(-1)?.event);
    let over = false;
    following.opened += 1;
    subscription.on("data", (resolved) => following.events.push(resolved));
    subscription.on("error", () => {
      if (over || following.stopped) return;
      over = true;
      setTimeout(open, 50);
    });
    following.stop = () => {
      following.stopped = true;
      return subscription.unsubscribe();
    };
  };
  open();
  return following;
}

/** Appends an event again and again until that is acknowledged, and gives how often it was not. */
async function insist(name, event) {
  for (let failures = 0; ; failures += 1) {
    try {
      await client.appendToStream(name, event);
      return failures;
    } catch {
      // Whether it was stored is not known; the same event again is stored once.
      await pause(50);
    }
  }
}

await step("a server is killed under appends and subscriptions: nothing is lost, nothing is delivered twice", async () => {
  const writers = [0, 1, 2, 3].map((number) => ({ name: stream(`survivor_${number}`), acknowledged: [], failures: 0 }));
  const everyone = streamNameFilter({ prefixes: [stream("survivor_").split("-")[0]] });
  const toAll = follow((last) => client.subscribeToAll({ fromPosition: last?.position ?? START, filter: everyone }));
  const toStream = follow((last) => client.subscribeToStream(writers[0].name, { fromRevision: last?.revision ?? START }));
  let stopped = false;
  const writing = writers.map(async (writer) => {
    for (let amount = 0; !stopped; amount += 1) {
      const event = deposited(amount, randomUUID());
      writer.failures += await insist(writer.name, event);
      writer.acknowledged.push(event.id);
    }
  });
  const eachHas = (count) => writers.every(({ acknowledged }) => acknowledged.length >= count);
  await until(() => eachHas(25) && toAll.events.length > 0 && toStream.events.length > 0);
  const restart = process.env.LEFTFOLD_RESTART;
  if (restart) {
    // All four writers are waiting for an answer.
    await promisify(exec)(restart);
    const newest = Math.max(...writers.map(({ acknowledged }) => acknowledged.length));
    await until(() => eachHas(newest + 25));
    assert.ok(writers.filter(({ failures }) => failures > 0).length > 1, "no two appends were interrupted");
  }
  stopped = true;
  await Promise.all(writing);
  const stored = await all(client.readAll({ filter: everyone }));
  await until(() => toAll.events.length >= stored.length && toStream.events.length >= writers[0].acknowledged.length);
  await Promise.all([toAll.stop(), toStream.stop()]);
  for (const { name, acknowledged } of writers) {
    assert.deepEqual(ids(await all(client.readStream(name))), acknowledged);
  }
  assert.equal(stored.length, writers.reduce((sum, { acknowledged }) => sum + acknowledged.length, 0));
  assert.deepEqual(ids(toAll.events), ids(stored));
  assert.deepEqual(ids(toStream.events), writers[0].acknowledged);
  if (restart) assert.ok(toAll.opened > 1 && toStream.opened > 1, "the subscriptions were not interrupted");
});

await step("what was there before the server was killed still is", async () => {
  assert.deepEqual(amounts(await all(client.readStream(stream("account")))), [100, 30]);
  assert.deepEqual(await client.appendToStream(stream("repeated"), repeated.event, { streamState: ANY }), repeated.first);
  assert.deepEqual(await revisions(stream("bounded")), [3]);
  assert.equal((await client.getStreamMetadata(stream("governed"))).metadata.maxAge, 3600);
});

await step("a deleted stream comes back with its next event", async () => {
  const name = stream("deleted");
  await client.appendToStream(name, [deposited(1), deposited(2)]);
  await assert.rejects(client.deleteStream(name, { expectedRevision: 0n }), WrongExpectedVersionError);
  await client.deleteStream(name, { expectedRevision: 1n });
  await assert.rejects(all(client.readStream(name)), StreamNotFoundError);
  const again = await client.appendToStream(name, deposited(3), { streamState: NO_STREAM });
  assert.equal(again.nextExpectedRevision, 2n);
  assert.deepEqual(await revisions(name), [2]);
});

await step("a tombstone is permanent, and ends subscriptions", async () => {
  const name = stream("tombstoned");
  await client.appendToStream(name, deposited(1));
  const subscription = client.subscribeToStream(name, { fromRevision: START });
  const ended = new Promise((resolve) => subscription.once("error", resolve));
  await new Promise((resolve) => subscription.once("data", resolve));
  await client.tombstoneStream(name, { expectedRevision: 0n });
  assert.ok(await ended instanceof StreamDeletedError, String(await ended));
  await assert.rejects(all(client.readStream(name)), StreamDeletedError);
  await assert.rejects(client.appendToStream(name, deposited(2)), (error) =>
    error instanceof StreamDeletedError || error instanceof StreamTombstonedError);
});

await step("several streams are appended to at once, or none", async () => {
  const [from, to] = ["from", "to"].map(stream);
  const moved = jsonEvent({ type: "Moved", data: {}, metadata: { by: "ann" } });
  const transfer = (...events) => client.multiStreamAppend([
    { streamName: from, expectedState: NO_STREAM, events: events.slice(0, 1) },
    { streamName: to, expectedState: NO_STREAM, events: events.slice(1) },
  ]);
  const events = [withdrawn(5), moved];
  const first = await transfer(...events);
  assert.equal(first.responses.length, 2);
  assert.deepEqual(await transfer(...events), first);
  await assert.rejects(transfer(withdrawn(5), deposited(5)));
  assert.deepEqual(await revisions(from), [0]);
  // Its kind stands in the metadata of a record.
  const [{ event }] = await all(client.readStream(to));
  assert.deepEqual(event.metadata, { by: "ann", "$schema.format": "Json", "$schema.name": "Moved" });
});

await step("records of several streams are appended with checks on others", async () => {
  const [from, to, limit] = ["from", "to", "limit"].map(stream);
  const check = (streamName, expectedState) => ({ type: "streamState", streamName, expectedState });
  const records = () => [withdrawn(1), deposited(1), withdrawn(2)]
    .map((record, index) => ({ streamName: index === 1 ? to : from, record }));
  const moved = records();
  const first = await client.appendRecords(moved, [check(limit, NO_STREAM)]);
  assert.deepEqual(await client.appendRecords(moved, [check(limit, NO_STREAM)]), first);
  await assert.rejects(client.appendRecords(records(), [check(limit, STREAM_EXISTS), check(to, 0n)]), (error) => {
    assert.ok(error instanceof AppendConsistencyViolationError, String(error));
    assert.equal(error.violations.length, 2);
    return true;
  });
  assert.deepEqual([await revisions(from), await revisions(to)], [[0, 1, 2], [0, 1]]);
});

await step("checks of deleted and tombstoned streams are answered, and failing ones can be read", async () => {
  const [log, soft, hard] = ["log", "soft", "hard"].map(stream);
  const check = (streamName, expectedState) => ({ type: "streamState", streamName, expectedState });
  const to = (streamName) => [{ streamName, record: deposited(1) }];
  for (const name of [soft, hard]) await client.appendToStream(name, [deposited(1), deposited(2)]);
  await client.deleteStream(soft);
  await client.tombstoneStream(hard);
  await client.appendRecords(to(log), [check(soft, NO_STREAM), check(hard, NO_STREAM)]);
  const tombstone = 2n ** 63n - 1n;
  for (const [records, checks, actual] of [
    [to(log), [check(soft, STREAM_EXISTS)], [NO_STREAM]],
    [to(log), [check(soft, 7n), check(hard, 7n), check(hard, STREAM_EXISTS)], [NO_STREAM, tombstone, tombstone]],
    [to(hard), [check(hard, ANY)], [tombstone]],
    [to(hard), [], [tombstone]],
  ]) {
    await assert.rejects(client.appendRecords(records, checks), (error) => {
      assert.ok(error instanceof AppendConsistencyViolationError, String(error));
      assert.deepEqual(error.violations.map(({ actualState }) => actualState), actual);
      return true;
    });
  }
  assert.deepEqual(await revisions(log), [0]);
});

await step("an event id belongs to its stream", async () => {
  const [one, other] = ["one", "other"].map(stream);
  const event = deposited(7, randomUUID());
  await client.appendToStream(one, event, { streamState: NO_STREAM });
  const first = await client.appendToStream(other, event, { streamState: NO_STREAM });
  assert.deepEqual(await client.appendToStream(other, event, { streamState: NO_STREAM }), first);
  for (const name of [one, other]) {
    assert.deepEqual(ids(await all(client.readStream(name))), [event.id]);
  }
});

await step("the index of a category is read with its links resolved, and one that is not there is refused", async () => {
  const account = stream("account");
  const category = account.slice(0, account.indexOf("-"));
  const read = await all(client.readStream(`$ce-${category}`, { resolveLinkTos: true }));
  const streams = new Set(read.map(({ event }) => event.streamId));
  assert.ok(streams.has(account), [...streams].join());
  assert.ok([...streams].every((name) => name.startsWith(`${category}-`)), [...streams].join());
  await assert.rejects(all(client.readStream("$idx-user-none")));
});

await step("a ping and the gossip are answered over HTTP", async () => {
  const base = url.replace(/^\w+:/, "http:").replace(/\?.*$/, "");
  assert.deepEqual(await (await fetch(`${base}/ping`)).json(), { text: "Ping request successfully handled" });
  const { members } = await (await fetch(`${base}/gossip`)).json();
  assert.deepEqual(members.map(({ state, isAlive }) => [state, isAlive]), [["Leader", true]]);
});

await step("a large append of many events is stored whole", async () => {
  const name = stream("many");
  const events = Array.from({ length: 5000 }, (_, amount) => deposited(amount));
  await client.appendToStream(name, events, { streamState: NO_STREAM });
  assert.equal((await revisions(name)).length, 5000);
});

await client.dispose();
console.log("the flow of the JavaScript client is through");
process.exit(0);
