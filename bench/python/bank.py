"""The bank in the words of `eventsourcing`, on SQLite: fills a database, then carries out the commands that each line of input names."""

import sys
import time
import uuid

from eventsourcing.application import Application
from eventsourcing.domain import Aggregate, event

ACCOUNTS = 10_000


class Account(Aggregate):
    @event("Opened")
    def __init__(self, number: int):
        self.balance = 0

    @staticmethod
    def create_id(number: int):
        return uuid.uuid5(uuid.NAMESPACE_URL, f"/accounts/{number}")

    @event("Deposited")
    def deposit(self, cents: int):
        self.balance += cents


class Bank(Application):
    def deposit(self, number: int, cents: int) -> None:
        account = self.repository.get(Account.create_id(number))
        account.deposit(cents)
        self.save(account)


def history(number: int) -> int:
    spread = number * 7_919 % 1_000
    return 1 + 499 * spread * spread // 998_001


def account_of(command: int) -> int:
    mixed = (command * 6364136223846793005 + 1442695040888963407) % 2**64
    return mixed // 65_536 % ACCOUNTS


def main() -> None:
    bank = Bank(env={"PERSISTENCE_MODULE": "eventsourcing.sqlite", "SQLITE_DBNAME": sys.argv[1]})
    for number in range(ACCOUNTS):
        account = Account(number=number)
        for _ in range(history(number) - 1):
            account.deposit(1)
        bank.save(account)
    print("filled", flush=True)
    for line in sys.stdin:
        first, end = map(int, line.split())
        begun = time.perf_counter()
        for command in range(first, end):
            bank.deposit(account_of(command), 1)
        print((end - first) / (time.perf_counter() - begun), flush=True)


main()
