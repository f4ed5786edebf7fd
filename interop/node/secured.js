// What a program in JavaScript meets at a server with TLS and users: a right, a wrong and an insufficient user, and an API key.
// Each step says what it expects; the first surprise ends the flow.
//
// LEFTFOLD_ADDRESS, LEFTFOLD_CA_FILE, LEFTFOLD_KEY and LEFTFOLD_NARROW_KEY describe the server; see server.sh.
import assert from "node:assert/strict";
import {
  AccessDeniedError, KurrentDBClient, NO_STREAM, START, UnavailableError, jsonEvent, persistentSubscriptionToStreamSettingsFromDefaults,
} from "@kurrent/kurrentdb-client";

const { LEFTFOLD_ADDRESS: address, LEFTFOLD_CA_FILE: ca, LEFTFOLD_KEY: key, LEFTFOLD_NARROW_KEY: narrow } = process.env;
const connected = (credentials, trusted = `&tlsCaFile=${encodeURIComponent(ca)}`) =>
  KurrentDBClient.connectionString(`kurrentdb://${credentials}${address}?tls=true&throwOnAppendFailure=true${trusted}`);
const user = (login, password = `password-of-${login}`) => connected(`${login}:${password}@`);
const opened = (amount) => jsonEvent({ type: "Opened", data: { amount } });

async function all(events) {
  const read = [];
  for await (const { event } of events) read.push(event);
  return read;
}

async function step(what, body) {
  await body();
  console.log(`ok  ${what}`);
}

const [ann, bob, admin] = [user("ann"), user("bob"), user("admin")];

await step("a user with the right appends and reads", async () => {
  await ann.appendToStream("secret-1", opened(7), { streamState: NO_STREAM });
  await ann.appendToStream("account-1", opened(1));
  assert.deepEqual((await all(ann.readStream("secret-1"))).map(({ data }) => data.amount), [7]);
});

await step("a user without the right is denied, and reads of everything leave out what is hidden", async () => {
  await assert.rejects(all(bob.readStream("secret-1")), AccessDeniedError);
  await assert.rejects(bob.appendToStream("secret-1", opened(8)), AccessDeniedError);
  const streams = (await all(bob.readAll())).map(({ streamId }) => streamId);
  assert.ok(streams.includes("account-1") && !streams.includes("secret-1"), streams.join());
});

await step("a subscription gives what may be read", async () => {
  const subscription = bob.subscribeToAll({ fromPosition: START });
  for await (const { event } of subscription) {
    assert.notEqual(event.streamId, "secret-1");
    if (event.streamId === "account-1") break;
  }
});

await step("a wrong password, and none, are refused", async () => {
  for (const client of [user("ann", "wrong-password"), connected("")]) {
    // This client has one class of errors for wrong credentials and for missing rights.
    await assert.rejects(all(client.readStream("account-1")), AccessDeniedError);
    await client.dispose();
  }
});

await step("an API key is the password of any login, within its rights", async () => {
  const [shop, tenant] = [user("shop", key), user("tenant", narrow)];
  await shop.appendToStream("account-2", opened(2));
  assert.equal((await all(shop.readStream("account-2"))).length, 1);
  await assert.rejects(tenant.appendToStream("account-2", opened(3)), AccessDeniedError);
  const streams = (await all(tenant.readAll())).map(({ streamId }) => streamId);
  assert.ok(!streams.some((name) => name.startsWith("account-")), streams.join());
  await Promise.all([shop, tenant].map((client) => client.dispose()));
});

await step("only administrators create groups, and their consumers need the right to read", async () => {
  const settings = persistentSubscriptionToStreamSettingsFromDefaults({ startFrom: START });
  await assert.rejects(bob.createPersistentSubscriptionToStream("secret-1", "mail", settings), AccessDeniedError);
  await admin.createPersistentSubscriptionToStream("secret-1", "mail", settings);
  const consume = async (client) => {
    for await (const { event } of client.subscribeToPersistentSubscriptionToStream("secret-1", "mail")) return event.data.amount;
  };
  await assert.rejects(consume(bob), AccessDeniedError);
  assert.equal(await consume(ann), 7);
});

await step("a server whose authority is not trusted is not talked to", async () => {
  const client = connected("ann:nothing@", "");
  await assert.rejects(all(client.readStream("account-1")), UnavailableError);
});

console.log("the flow of the JavaScript client with TLS and users is through");
process.exit(0);
