// What a program in JavaScript does with groups of competing consumers, step by step, through the published client.
// Each step says what it expects; the first surprise ends the flow.
//
// LEFTFOLD_URL says where the server is; LEFTFOLD_RESTART is a command that kills it and starts it again.
import assert from "node:assert/strict";
import { exec, execFile } from "node:child_process";
import { randomUUID } from "node:crypto";
import { setTimeout as pause } from "node:timers/promises";
import { promisify } from "node:util";
import {
  DISPATCH_TO_SINGLE, END, PARK, PINNED, PINNED_BY_CORRELATION, RETRY, ROUND_ROBIN, SKIP, START,
  KurrentDBClient, PersistentSubscriptionMaximumSubscribersReachedError, PersistentSubscriptionDoesNotExistError,
  PersistentSubscriptionDroppedError, PersistentSubscriptionExistsError, binaryEvent, jsonEvent,
  persistentSubscriptionToAllSettingsFromDefaults, persistentSubscriptionToStreamSettingsFromDefaults, streamNameFilter,
} from "@kurrent/kurrentdb-client";

const url = process.env.LEFTFOLD_URL ?? "kurrentdb://127.0.0.1:2113?tls=false";
const client = KurrentDBClient.connectionString(url);
const run = randomUUID().slice(0, 8);
const stream = (name) => `node_${name}-${run}`;
const numbered = (number) => jsonEvent({ type: `Numbered_${run}`, data: { number } });
const range = (count, first = 0) => [...Array(count).keys()].map((number) => number + first);
const numbers = (resolved) => resolved.map(({ event }) => event.data.number);
const settings = (given) => persistentSubscriptionToStreamSettingsFromDefaults({
  startFrom: START, checkPointAfter: 50, checkPointLowerBound: 1, ...given,
});

async function step(what, body) {
  await body();
  console.log(`ok  ${what}`);
}

async function until(condition) {
  while (!await condition()) await pause(10);
}

/** A consumer that hands each event to `handle`, with its number so far. */
function consume(name, group, handle, bufferSize = 10) {
  const subscription = client.subscribeToPersistentSubscriptionToStream(name, group, { bufferSize });
  const consumer = { subscription, events: [], ended: new Promise((resolve) => subscription.once("error", resolve)) };
  subscription.on("data", (resolved) => {
    consumer.events.push(resolved);
    handle(subscription, resolved, consumer.events.length);
  });
  consumer.confirmed = new Promise((resolve) => subscription.once("confirmation", resolve));
  return consumer;
}
const ack = (subscription, resolved) => subscription.ack(resolved).catch(() => {});
const info = (name, group) => client.getPersistentSubscriptionToStreamInfo(name, group);
const parked = async (name, group) => Number((await info(name, group)).stats.parkedMessageCount);

/** Replays what a group parked: as an operator does it on the command line, if there is one, else by the client. */
async function replay(name, group) {
  if (!process.env.LEFTFOLD) return client.replayParkedMessagesToStream(name, group);
  const server = `leftfold://${new URL(url).host}`;
  const command = ["groups", "--url", server, "replay", name, group];
  const { stdout } = await promisify(execFile)(process.env.LEFTFOLD, command);
  assert.equal(stdout, "1 parked events will be replayed\n");
}

await step("a group is created once, found, changed and deleted", async () => {
  const name = stream("managed");
  const given = settings({ maxRetryCount: 3, messageTimeout: 12_000, consumerStrategyName: DISPATCH_TO_SINGLE });
  await client.createPersistentSubscriptionToStream(name, "g", given);
  await assert.rejects(client.createPersistentSubscriptionToStream(name, "g", given), PersistentSubscriptionExistsError);
  const found = await info(name, "g");
  assert.deepEqual(found.settings, given);
  assert.deepEqual([found.eventSource, found.groupName, found.connections], [name, "g", []]);
  const changed = { ...given, maxRetryCount: 5, consumerStrategyName: PINNED, startFrom: 7n, extraStatistics: true };
  await client.updatePersistentSubscriptionToStream(name, "g", changed);
  assert.deepEqual((await info(name, "g")).settings, changed);
  const correlated = settings({ startFrom: END, consumerStrategyName: PINNED_BY_CORRELATION });
  await client.createPersistentSubscriptionToStream(name, "other", correlated);
  assert.deepEqual((await info(name, "other")).settings, correlated);
  const listed = await client.listPersistentSubscriptionsToStream(name);
  assert.deepEqual(listed.map(({ groupName }) => groupName).sort(), ["g", "other"]);
  assert.ok((await client.listAllPersistentSubscriptions()).length >= 2);
  await client.deletePersistentSubscriptionToStream(name, "g");
  for (const call of [
    () => client.deletePersistentSubscriptionToStream(name, "g"),
    () => client.updatePersistentSubscriptionToStream(name, "g", given),
    () => client.getPersistentSubscriptionToStreamInfo(name, "g"),
    () => client.listPersistentSubscriptionsToStream(stream("none")),
    () => client.replayParkedMessagesToStream(name, "g"),
  ]) {
    await assert.rejects(call, PersistentSubscriptionDoesNotExistError);
  }
  assert.ok(await consume(name, "g", ack).ended instanceof PersistentSubscriptionDoesNotExistError);
});

await step("consumers share the events of a stream, and each gets some", async () => {
  const name = stream("shared");
  await client.createPersistentSubscriptionToStream(name, "g", settings({ consumerStrategyName: ROUND_ROBIN }));
  const consumers = [1, 2, 3].map(() => consume(name, "g", ack, 2));
  await Promise.all(consumers.map(({ confirmed }) => confirmed));
  await client.appendToStream(name, range(60).map(numbered));
  await until(() => consumers.reduce((sum, { events }) => sum + events.length, 0) >= 60);
  const seen = consumers.flatMap(({ events }) => numbers(events)).sort((a, b) => a - b);
  assert.deepEqual(seen, range(60));
  assert.ok(consumers.every(({ events }) => events.length > 0));
  await until(async () => (await info(name, "g")).stats.lastCheckpointedEventRevision === 59n);
  const { connections, status, stats } = await info(name, "g");
  assert.equal(connections.length, 3);
  assert.deepEqual(connections.map(({ availableSlots }) => availableSlots), [2, 2, 2]);
  assert.deepEqual([status, stats.lastKnownEventRevision, stats.totalInFlightMessages], ["Live", 59n, 0]);
  await Promise.all(consumers.map(({ subscription }) => subscription.unsubscribe()));
});

await step("a group has no more consumers than it may, and deleting it ends them", async () => {
  const name = stream("full");
  await client.createPersistentSubscriptionToStream(name, "g", settings({ maxSubscriberCount: 1 }));
  const first = consume(name, "g", ack);
  await first.confirmed;
  assert.ok(await consume(name, "g", ack).ended instanceof PersistentSubscriptionMaximumSubscribersReachedError);
  await client.deletePersistentSubscriptionToStream(name, "g");
  assert.ok(await first.ended instanceof PersistentSubscriptionDroppedError);
});

await step("what a consumer throws on is parked after its retries, and nothing else is missed", async () => {
  const name = stream("poisoned");
  await client.createPersistentSubscriptionToStream(name, "g", settings({ maxRetryCount: 3 }));
  await client.appendToStream(name, range(20).map(numbered));
  let poisonous = true;
  const handle = (resolved) => {
    if (poisonous && resolved.event.data.number === 7) throw new Error("seven cannot be handled");
  };
  const handled = [];
  const consumer = consume(name, "g", (subscription, resolved) => {
    try {
      handle(resolved);
      handled.push(resolved.event.data.number);
      ack(subscription, resolved);
    } catch (error) {
      subscription.nack(RETRY, error.message, resolved);
    }
  });
  await until(async () => await parked(name, "g") === 1 && handled.length === 19);
  assert.equal(numbers(consumer.events).filter((number) => number === 7).length, 4);
  assert.deepEqual([...handled].sort((a, b) => a - b), range(20).filter((number) => number !== 7));
  poisonous = false;
  await replay(name, "g");
  await until(async () => handled.length === 20 && await parked(name, "g") === 0);
  await consumer.subscription.unsubscribe();
});

await step("events are parked and skipped by a word, and replayed as many as are asked for", async () => {
  const name = stream("parked");
  await client.createPersistentSubscriptionToStream(name, "g", settings());
  await client.appendToStream(name, range(4).map(numbered));
  let action = ({ event }) => (event.data.number === 3 ? SKIP : PARK);
  const consumer = consume(name, "g", (subscription, resolved) =>
    (action ? subscription.nack(action(resolved), "not now", resolved) : ack(subscription, resolved)));
  await until(async () => await parked(name, "g") === 3);
  action = undefined;
  await client.replayParkedMessagesToStream(name, "g", { stopAt: 2 });
  await until(async () => await parked(name, "g") === 1);
  await client.replayParkedMessagesToStream(name, "g");
  // What is replayed is no longer parked before its consumer has it.
  await until(async () => consumer.events.length === 7 && await parked(name, "g") === 0);
  assert.deepEqual(numbers(consumer.events), [0, 1, 2, 3, 0, 1, 2]);
  await consumer.subscription.unsubscribe();
});

await step("links are resolved for consumers, or not, and acknowledged as links", async () => {
  const [name, target] = [stream("linking"), stream("target")];
  await client.appendToStream(target, numbered(1));
  await client.appendToStream(name, binaryEvent({ type: "$>", data: Buffer.from(`0@${target}`) }));
  for (const resolveLinkTos of [true, false]) {
    const group = `resolved-${resolveLinkTos}`;
    await client.createPersistentSubscriptionToStream(name, group, settings({ resolveLinkTos }));
    const consumer = consume(name, group, ack);
    await until(() => consumer.events.length === 1);
    const [{ event, link }] = consumer.events;
    assert.deepEqual([event.streamId, link?.streamId], resolveLinkTos ? [target, name] : [name, undefined]);
    await until(async () => (await info(name, group)).stats.lastCheckpointedEventRevision === 0n);
    await consumer.subscription.unsubscribe();
  }
});

await step("a group of everything takes what its filter lets pass", async () => {
  const group = `all-${run}`;
  const filter = streamNameFilter({ prefixes: [`node_filtered-${run}`] });
  const given = persistentSubscriptionToAllSettingsFromDefaults({ startFrom: START });
  await client.createPersistentSubscriptionToAll(group, given, { filter });
  await client.appendToStream(stream("filtered"), range(3).map(numbered));
  await client.appendToStream(stream("other"), numbered(9));
  const subscription = client.subscribeToPersistentSubscriptionToAll(group);
  const seen = [];
  subscription.on("data", (resolved) => {
    seen.push(resolved);
    ack(subscription, resolved);
  });
  await until(() => seen.length === 3);
  assert.deepEqual(numbers(seen), [0, 1, 2]);
  const found = await client.getPersistentSubscriptionToAllInfo(group);
  assert.deepEqual([found.eventSource, found.settings.startFrom], ["$all", START]);
  await subscription.unsubscribe();
  await client.deletePersistentSubscriptionToAll(group);
});

await step("a server is killed under a group: every event is seen, and nothing is parked", async () => {
  const restart = process.env.LEFTFOLD_RESTART;
  const name = stream("survivor");
  await client.createPersistentSubscriptionToStream(name, "g", settings());
  const seen = new Set();
  let stopped = false;
  const consumers = range(3).map(async () => {
    while (!stopped) {
      const consumer = consume(name, "g", (subscription, resolved) => {
        seen.add(resolved.event.data.number);
        ack(subscription, resolved);
      });
      consumer.stop = () => consumer.subscription.unsubscribe();
      await Promise.race([consumer.ended, until(() => stopped)]);
      await consumer.subscription.unsubscribe().catch(() => {});
      await pause(50);
    }
  });
  let appended = 0;
  const append = async (count) => {
    for (const number of range(count, appended)) {
      const event = { ...numbered(number), id: randomUUID() };
      for (;;) {
        try {
          await client.appendToStream(name, event);
          break;
        } catch {
          // Whether it was stored is not known; the same event again is stored once.
          await pause(50);
        }
      }
      appended += 1;
    }
  };
  await append(100);
  await until(() => seen.size > 20);
  if (restart) await Promise.all([promisify(exec)(restart), append(100)]);
  await until(() => seen.size === appended);
  stopped = true;
  await Promise.all(consumers);
  assert.equal(await parked(name, "g"), 0);
});

await client.dispose();
console.log("the flow of groups of the JavaScript client is through");
