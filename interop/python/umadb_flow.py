"""What a program in Python does with an event store, step by step, through UmaDB's published client.

Each step says what it expects; the first surprise ends the flow. LEFTFOLD_UMADB_URL says where the server is;
LEFTFOLD_RESTART is a command that kills it and starts it again.
"""

import os
import subprocess
import threading
import time
from uuid import uuid4

import umadb
from umadb import AppendCondition, Client, Event, IntegrityError, Query, QueryItem, ServingStatus, TrackingInfo

client = Client(os.environ.get("LEFTFOLD_UMADB_URL", "http://127.0.0.1:2113"))
run = uuid4().hex[:8]
account = f"account:{run}"


def deposited(amount, tag=account, **given):
    return Event(event_type="Deposited", data=str(amount).encode(), tags=[tag], **given)


def withdrawn(amount):
    return Event(event_type="Withdrawn", data=str(amount).encode(), tags=[account])


def of(*tags, types=()):
    return Query(items=[QueryItem(types=list(types), tags=list(tags))])


def amounts(events):
    return [int(sequenced.event.data) for sequenced in events]


def refused(kind, call, *args, **named):
    try:
        call(*args, **named)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


def step(what):
    def now(body):
        body()
        print(f"ok  {what}", flush=True)

    return now


@step("an account is opened and read in both directions")
def _():
    last = client.append([deposited(100), withdrawn(30)])
    assert client.head() >= last
    events = list(client.read(of(account)))
    assert amounts(events) == [100, 30]
    assert events[1].position == last
    balance = sum(int(e.event.data) if e.event.event_type == "Deposited" else -int(e.event.data) for e in events)
    assert balance == 70
    assert amounts(client.read(of(account), backwards=True, limit=1)) == [30]
    assert amounts(client.read(of(account), start=last)) == [30]
    assert amounts(client.read(of(account, types=["Deposited"]))) == [100]
    assert amounts(client.read(of(account, "nothing:1"))) == []


@step("a condition refuses what was decided on less than there is")
def _():
    read = client.read(of(account))
    seen = amounts(read)
    assert seen == [100, 30]
    boundary = AppendCondition(fail_if_events_match=of(account), after=read.head())
    client.append([withdrawn(10)], condition=boundary)
    refused(IntegrityError, client.append, [withdrawn(10)], condition=boundary)
    assert amounts(client.read(of(account))) == [100, 30, 10]
    fresh = f"name:{run}"
    unique = AppendCondition(fail_if_events_match=of(fresh))
    client.append([deposited(1, tag=fresh)], condition=unique)
    refused(IntegrityError, client.append, [deposited(1, tag=fresh)], condition=unique)


@step("an append that is repeated is stored once")
def _():
    tag = f"repeated:{run}"
    event = deposited(5, tag=tag, uuid=uuid4())
    condition = AppendCondition(fail_if_events_match=of(tag))
    assert client.append([event], condition=condition) == client.append([event], condition=condition)
    assert amounts(client.read(of(tag))) == [5]


@step("progress is noted with the events, and never goes back")
def _():
    source, tag = f"source-{run}", f"tracked:{run}"
    assert client.get_tracking_info(source) is None
    client.append([deposited(1, tag=tag)], tracking_info=TrackingInfo(source=source, position=7))
    assert client.get_tracking_info(source) == 7
    refused(IntegrityError, client.append, [deposited(2, tag=tag)], tracking_info=TrackingInfo(source, 7))
    client.append([deposited(3, tag=tag)], tracking_info=TrackingInfo(source, 9))
    assert (client.get_tracking_info(source), amounts(client.read(of(tag)))) == (9, [1, 3])


@step("a subscription gives what is stored and goes on live")
def _():
    tag = f"followed:{run}"
    client.append([deposited(1, tag=tag), deposited(2, tag=tag)])
    subscription = client.subscribe(of(tag))
    first = [next(subscription), next(subscription)]
    client.append([deposited(3, tag=tag)])
    assert amounts(first + [next(subscription)]) == [1, 2, 3]
    subscription = client.subscribe(of(tag), after=first[0].position)
    assert amounts([next(subscription), next(subscription)]) == [2, 3]


@step("the server says that it is well")
def _():
    assert client.check_health() == ServingStatus.SERVING


@step("a server that is killed loses nothing it acknowledged, and the client comes back")
def _():
    tag, acknowledged, stopped = f"survivor:{run}", [], threading.Event()

    def write():
        amount = 0
        while not stopped.is_set():
            event = deposited(amount, tag=tag, uuid=uuid4())
            while True:
                try:
                    client.append([event], condition=AppendCondition(of(f"never:{run}")))
                    acknowledged.append(amount)
                    break
                except (umadb.TransportError, RuntimeError, OSError):
                    # Whether it was stored is not known; the same event again is stored once.
                    time.sleep(0.05)
            amount += 1

    writer = threading.Thread(target=write)
    writer.start()
    while len(acknowledged) < 50:
        time.sleep(0.005)
    before = len(acknowledged)
    if "LEFTFOLD_RESTART" in os.environ:
        subprocess.run(os.environ["LEFTFOLD_RESTART"], shell=True, check=True)
    while len(acknowledged) < before + 50:
        time.sleep(0.005)
    stopped.set()
    writer.join()
    assert amounts(client.read(of(tag))) == acknowledged


print("the flow of UmaDB's Python client is through")
