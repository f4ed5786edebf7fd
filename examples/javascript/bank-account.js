// A bank account whose state is the left fold of its events.
//
// Start a server with `leftfold serve --memory`, then run `npm install` and `npm start` here.
import { KurrentDBClient, NO_STREAM, StreamNotFoundError, jsonEvent } from "@kurrent/kurrentdb-client";
import { randomUUID } from "node:crypto";

const client = KurrentDBClient.connectionString(process.env.LEFTFOLD_URL ?? "kurrentdb://127.0.0.1:2113?tls=false");

class BankAccount {
  balance = 0;
  revision = NO_STREAM;

  static async load(id) {
    const account = new BankAccount();
    account.stream = `account-${id}`;
    try {
      for await (const { event } of client.readStream(account.stream)) {
        account.apply(event);
        account.revision = event.revision;
      }
    } catch (error) {
      if (!(error instanceof StreamNotFoundError)) throw error;
    }
    return account;
  }

  apply({ type, data }) {
    if (type === "DepositMade") this.balance += data.amount;
    if (type === "WithdrawalMade") this.balance -= data.amount;
  }

  deposit(amount) {
    return this.record("DepositMade", { amount });
  }

  withdraw(amount) {
    if (amount > this.balance) throw new Error("insufficient funds");
    return this.record("WithdrawalMade", { amount });
  }

  // Appends under the revision that was loaded: after a concurrent append, this fails and nothing is written.
  async record(type, data) {
    const event = jsonEvent({ type, data });
    const { nextExpectedRevision } = await client.appendToStream(this.stream, event, { streamState: this.revision });
    this.revision = nextExpectedRevision;
    this.apply({ type, data });
  }
}

const id = randomUUID();
const account = await BankAccount.load(id);
await account.deposit(100);
await account.withdraw(30);
try {
  await account.withdraw(1000);
} catch (error) {
  console.log(`refused: ${error.message}`);
}

const reloaded = await BankAccount.load(id);
console.log(`balance after a reload: ${reloaded.balance}`);
await client.dispose();
process.exit(reloaded.balance === 70 ? 0 : 1);
