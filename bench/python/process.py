"""A process application of `eventsourcing`, on SQLite: fills a database with deposits, then adds them up in another one, for each line of input."""

import os
import sys
import time
import uuid
from functools import singledispatchmethod

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event
from eventsourcing.system import ProcessApplication

# Deposits that are saved together, as on the other side.
BATCH = 100


class Account(Aggregate):
    @event("Opened")
    def __init__(self):
        self.balance = 0

    @event("Deposited")
    def deposit(self, cents: int):
        self.balance += cents


class Bank(Application):
    name = "bank"


class Totals(ProcessApplication):
    """Exactly once: the position that was reached is recorded with what was decided, in one transaction."""

    name = "totals"
    total = 0

    @singledispatchmethod
    def policy(self, domain_event, processing_event):
        """Others are of no interest."""

    @policy.register
    def _(self, domain_event: Account.Deposited, processing_event):
        self.total += domain_event.cents


def env(database: str) -> dict:
    return {"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": database}


def main() -> None:
    directory, events = sys.argv[1], int(sys.argv[2])
    bank = Bank(env=env(os.path.join(directory, "bank.sqlite")))
    for _ in range(events // BATCH):
        account = Account()
        for _ in range(BATCH - 1):
            account.deposit(1)
        bank.save(account)
    print("filled", flush=True)
    for _ in sys.stdin:
        totals = Totals(env=env(os.path.join(directory, f"totals-{uuid.uuid4()}.sqlite")))
        totals.follow("bank", bank.notification_log)
        begun = time.perf_counter()
        totals.pull_and_process("bank")
        rate = events / (time.perf_counter() - begun)
        assert totals.total == events // BATCH * (BATCH - 1)
        print(rate, flush=True)


main()
