"""What a program in Python does with groups of competing consumers, step by step, through the published client.

Each step says what it expects; the first surprise ends the flow. LEFTFOLD_URL says where the server is;
LEFTFOLD_RESTART is a command that kills it and starts it again.
"""

import json
import os
import subprocess
import threading
import time
from uuid import uuid4

from kurrentdbclient import KurrentDBClient, NewEvent, StreamState
from kurrentdbclient.exceptions import (
    AlreadyExistsError,
    KurrentDBClientError,
    MaximumSubscriptionsReachedError,
    NotFoundError,
)

URL = os.environ.get("LEFTFOLD_URL", "kurrentdb://127.0.0.1:2113?tls=false")
client = KurrentDBClient(URL)
run = uuid4().hex[:8]
# What a call raises when the server is gone. The others: while a thread has this client reconnect, others' channel closes, and
# a consumer that is being made then fails half made.
GONE = (KurrentDBClientError, ValueError, AttributeError)
SOON = {"checkpoint_after": 0.05, "min_checkpoint_count": 1}


def stream(name):
    return f"python_{name}-{run}"


def numbered(number, **given):
    return NewEvent(type=f"Numbered_{run}", data=json.dumps({"number": number}).encode(), **given)


def append(name, *numbers):
    client.append_to_stream(name, current_version=StreamState.ANY, events=[numbered(number) for number in numbers])


def number_of(event):
    return json.loads(event.data)["number"]


def refused(expected, call, *args, **kwargs):
    try:
        answer = call(*args, **kwargs)
    except expected as error:
        return error
    raise AssertionError(f"{answer!r} instead of {expected.__name__}")


def step(what):
    def done(body):
        body()
        print(f"ok  {what}", flush=True)

    return done


def until(condition):
    while not condition():
        time.sleep(0.01)


def info(name, group="g"):
    return client.get_subscription_info(group, name)


def parked(name, group="g"):
    return info(name, group).parked_message_count


@step("a group is created once, found, changed and deleted")
def _():
    name = stream("managed")
    given = {"max_retry_count": 3, "message_timeout": 12.0, "consumer_strategy": "RoundRobin", "checkpoint_after": 0.5}
    client.create_subscription_to_stream("g", name, **given)
    refused(AlreadyExistsError, client.create_subscription_to_stream, "g", name)
    found = info(name)
    assert {key: getattr(found, key) for key in given} == given
    assert (found.event_source, found.group_name, found.start_from, found.connections) == (name, "g", "0", [])
    client.update_subscription_to_stream("g", name, max_retry_count=5)
    changed = info(name)
    assert (changed.max_retry_count, changed.message_timeout) == (5, 12.0)
    assert [it.group_name for it in client.list_subscriptions_to_stream(name)] == ["g"]
    assert name in [it.event_source for it in client.list_subscriptions()]
    client.delete_subscription("g", name)
    refused(NotFoundError, client.delete_subscription, "g", name)
    refused(NotFoundError, info, name)
    refused(NotFoundError, client.replay_parked_events, "g", name)
    refused(NotFoundError, client.read_subscription_to_stream, "g", name)


@step("a consumer acknowledges, has an event retried, parks one, skips one, and gets the parked one again")
def _():
    name = stream("handled")
    client.create_subscription_to_stream("g", name, max_retry_count=2, **SOON)
    append(name, 0, 1, 2, 3)
    seen = []
    with client.read_subscription_to_stream("g", name) as consumer:
        assert consumer.subscription_id == f"{name}::g"
        for event in consumer:
            number = number_of(event)
            seen.append((number, event.retry_count))
            if number == 1 and len(seen) <= 6:
                consumer.nack(event, "retry")
            elif number == 2 and len(seen) <= 6:
                consumer.nack(event, "park")
            elif number == 3:
                consumer.nack(event, "skip")
            else:
                consumer.ack(event)
            if len(seen) == 6:
                until(lambda: parked(name) == 2)
                client.replay_parked_events("g", name)
            if len(seen) == 8:
                break
        until(lambda: parked(name) == 0)
    assert sorted(seen[:6]) == [(0, 0), (1, 0), (1, 1), (1, 2), (2, 0), (3, 0)], seen
    assert sorted(seen[6:]) == [(1, 0), (2, 0)], seen


@step("a group has no more consumers than it may")
def _():
    name = stream("full")
    client.create_subscription_to_stream("g", name, max_subscriber_count=1)
    with client.read_subscription_to_stream("g", name):
        refused(MaximumSubscriptionsReachedError, client.read_subscription_to_stream, "g", name)


@step("a group of everything begins where it is told and leaves out what is the system's")
def _():
    name, group = stream("everything"), f"all-{run}"
    append(name, 0, 1, 2)
    first, second, _ = client.get_stream(name)
    client.create_subscription_to_all(group, commit_position=second.commit_position, **SOON)
    found = client.get_subscription_info(group)
    assert found.start_from == f"C:{second.commit_position}/P:{second.commit_position}", found.start_from
    # Creating it did not move the position of what this client sees without the system's events.
    assert client.get_commit_position() == second.commit_position + 1
    with client.read_subscription_to_all(group) as consumer:
        events = [next(consumer), next(consumer)]
        for event in events:
            consumer.ack(event)
    assert [number_of(event) for event in events] == [1, 2]
    client.delete_subscription(group)


class Consumer(threading.Thread):
    """A consumer that comes back when its server is gone."""

    def __init__(self, name, seen):
        super().__init__(daemon=True)
        self.name_of_stream, self.seen, self.stopped, self.subscription = name, seen, False, None
        self.start()

    def run(self):
        while not self.stopped:
            try:
                self.subscription = client.read_subscription_to_stream("g", self.name_of_stream)
                for event in self.subscription:
                    self.seen.add(number_of(event))
                    self.subscription.ack(event)
            except GONE:
                time.sleep(0.05)

    def stop(self):
        self.stopped = True
        self.subscription.stop()
        self.join()


@step("a server is killed under a group: every event is seen, and nothing is parked")
def _():
    name, seen = stream("survivor"), set()
    client.create_subscription_to_stream("g", name, consumer_strategy="RoundRobin", **SOON)
    consumers = [Consumer(name, seen) for _ in range(3)]
    for number in range(200):
        if number == 100:
            until(lambda: len(seen) > 20)
            if "LEFTFOLD_RESTART" in os.environ:
                subprocess.run(os.environ["LEFTFOLD_RESTART"], shell=True, check=True)
        event = numbered(number, id=uuid4())
        while True:
            try:
                client.append_to_stream(name, current_version=StreamState.ANY, events=event)
                break
            except GONE:
                # Whether it was stored is not known; the same event again is stored once.
                time.sleep(0.05)
    until(lambda: len(seen) == 200)
    for consumer in consumers:
        consumer.stop()
    assert parked(name) == 0


client.close()
print("the flow of groups of the Python client is through")
