// The bank over Emmett's MongoDB store: commands that load an account, decide, and append.
//
// Reads from standard input, a line for each measurement, callers and milliseconds; answers with commands per second.
import { createInterface } from "node:readline";
import { CommandHandler } from "@event-driven-io/emmett";
import { getMongoDBEventStore } from "@event-driven-io/emmett-mongodb";
import { MongoClient } from "mongodb";

const COMMANDS_OF_ACCOUNT = 100;

const client = new MongoClient(process.argv[2], { writeConcern: { w: "majority", journal: true } });
await client.connect();
const store = getMongoDBEventStore({ client });

const evolve = (account, { type, data }) =>
  type === "DepositMade" ? { balance: account.balance + data.amount } : { balance: account.balance - data.amount };
const handle = CommandHandler({ evolve, initialState: () => ({ balance: 0 }) });

const deposit = () => ({ type: "DepositMade", data: { amount: 100 } });
const withdraw = (account) => {
  if (account.balance < 30) throw new Error("insufficient funds");
  return { type: "WithdrawalMade", data: { amount: 30 } };
};

async function caller(run, number, end) {
  let count = 0;
  while (performance.now() < end) {
    const account = `account:${run}-${number}-${Math.floor(count / COMMANDS_OF_ACCOUNT)}`;
    await handle(store, account, count % 2 === 0 ? deposit : withdraw);
    count += 1;
  }
  return count;
}

let run = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const [callers, milliseconds] = line.split(" ").map(Number);
  const begun = performance.now();
  run += 1;
  const counts = await Promise.all(
    Array.from({ length: callers }, (_, number) => caller(run, number, begun + milliseconds)),
  );
  const seconds = (performance.now() - begun) / 1000;
  console.log(counts.reduce((sum, count) => sum + count, 0) / seconds);
}
await client.close();
