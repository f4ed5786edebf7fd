"""What a program in Python does with an event store, step by step, through UmaDB's published client.

Each step says what it expects; the first surprise ends the flow. LEFTFOLD_UMADB_URL says where the server is;
LEFTFOLD_RESTART is a command that kills it and starts it again.
"""

import os
import subprocess
import sys
import threading
import time
from uuid import UUID, uuid4

from umadb import (
    AppendCondition,
    CancelledByUserError,
    Client,
    Event,
    IntegrityError,
    Query,
    QueryItem,
    ServingStatus,
    TrackingInfo,
)

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


unique = deposited(5, tag=f"repeated:{run}", uuid=uuid4())
answers = []


@step("an append that is repeated under its condition is stored once")
def _():
    tag = f"repeated:{run}"
    condition = AppendCondition(fail_if_events_match=of(tag))
    answers.append(client.append([unique], condition=condition))
    assert answers == [client.append([unique], condition=condition)]
    assert amounts(client.read(of(tag))) == [5]
    refused(IntegrityError, client.append, [deposited(7, tag=tag, uuid=uuid4())], condition=condition)


@step("ids are looked at only after the condition has failed, and a nil id is none")
def _():
    tag = f"ids:{run}"
    event, nil = deposited(1, tag=tag, uuid=uuid4()), deposited(2, tag=tag, uuid=UUID(int=0))
    first = client.append([event])
    assert client.append([event]) == first + 1
    assert client.append([event], condition=AppendCondition(of(tag), after=first + 1)) == first + 2
    assert client.append([event, event]) == first + 4
    assert client.append([nil]) == first + 5
    assert client.append([nil, nil, deposited(3, tag=tag)]) == first + 8
    events = list(client.read(of(tag)))
    assert amounts(events) == [1] * 5 + [2] * 3 + [3]
    assert [stored.event.uuid for stored in events] == [event.uuid] * 5 + [nil.uuid] * 3 + [None]
    # A nil id tells no repetition.
    fresh = f"nil:{run}"
    condition = AppendCondition(of(fresh))
    client.append([deposited(1, tag=fresh, uuid=UUID(int=0))], condition=condition)
    refused(IntegrityError, client.append, [deposited(1, tag=fresh, uuid=UUID(int=0))], condition=condition)


@step("a query of many items and a condition of as many are answered")
def _():
    tag = f"many:{run}"
    last = client.append([deposited(number, tag=f"{tag}:{number}") for number in range(1000)])
    many = Query(items=[QueryItem(types=["Deposited"], tags=[f"{tag}:{number}"]) for number in range(1000)])
    assert amounts(client.read(many)) == list(range(1000))
    client.append([deposited(1000, tag=tag)], condition=AppendCondition(many, after=last))
    refused(IntegrityError, client.append, [deposited(1001, tag=tag)], condition=AppendCondition(many, after=last - 1))


@step("events come back as they were")
def _():
    tags = [f"kept:{run}", "z", "a"]
    event = Event(event_type="Bytes", data=b"\0\1\xff", tags=tags, uuid=uuid4(), metadata={"by": "ann"})
    position = client.append([event])
    [stored] = client.read(of(f"kept:{run}", types=["Bytes"]))
    assert stored.position == position
    for name in ("event_type", "data", "tags", "uuid", "metadata"):
        assert getattr(stored.event, name) == getattr(event, name), name


@step("progress is noted with the events, and never goes back")
def _():
    source, tag = f"source-{run}", f"tracked:{run}"
    assert client.get_tracking_info(source) is None
    before = client.head()
    first = client.append([deposited(1, tag=tag)], tracking_info=TrackingInfo(source=source, position=7))
    assert (first, client.head()) == (before + 1, before + 1)
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


def fail(raised):
    sys.excepthook(*raised[:3])
    os._exit(1)


# A surprise in a thread ends the flow too.
threading.excepthook = fail


class Following(threading.Thread):
    """A subscription that comes back: this client ends one with an error when its server is gone, and opens no new one, so
    the program does, behind the last position it was given.
    """

    def __init__(self, tag):
        super().__init__(daemon=True)
        self.tag, self.amounts, self.opened, self.subscription, self.stopped = tag, [], 0, None, False
        self.start()

    def run(self):
        after = None
        while not self.stopped:
            try:
                self.subscription = client.subscribe(of(self.tag), after=after)
                self.opened += 1
                for sequenced in self.subscription:
                    after = sequenced.position
                    self.amounts += amounts([sequenced])
            except CancelledByUserError:
                return
            except Exception:
                # A TransportError or, if it was cut off in the middle, only this.
                time.sleep(0.05)

    def stop(self):
        self.stopped = True
        self.subscription.cancel()
        self.join()


class Writer(threading.Thread):
    """Appends one event after the other, and the same one again until it is acknowledged."""

    def __init__(self, number, tag):
        super().__init__(daemon=True)
        self.number, self.tags, self.acknowledged, self.failures, self.stopped = number, [tag, f"{tag}:{number}"], [], 0, False
        self.start()

    def run(self):
        while not self.stopped:
            # Amounts tell the writers apart.
            amount = len(self.acknowledged) * 10 + self.number
            own = f"{self.tags[1]}:{amount}"
            event = Event(event_type="Deposited", data=str(amount).encode(), tags=[*self.tags, own], uuid=uuid4())
            while True:
                try:
                    # The event itself makes this condition fail, so the server recognises a repetition by its id.
                    client.append([event], condition=AppendCondition(of(own)))
                    break
                except IntegrityError:
                    raise
                except Exception:
                    # As above. Whether it was stored is not known; the same event again is stored once.
                    self.failures += 1
                    time.sleep(0.05)
            self.acknowledged.append(amount)


def until(condition):
    while not condition():
        time.sleep(0.005)


@step("a server is killed under appends and a subscription: nothing is lost, nothing is delivered twice")
def _():
    tag = f"survivor:{run}"
    following, writers = Following(tag), [Writer(number, tag) for number in range(4)]

    def each_has(count):
        return all(len(writer.acknowledged) >= count for writer in writers)

    until(lambda: each_has(25) and following.amounts)
    if "LEFTFOLD_RESTART" in os.environ:
        # All four writers are waiting for an answer.
        subprocess.run(os.environ["LEFTFOLD_RESTART"], shell=True, check=True)
        newest = max(len(writer.acknowledged) for writer in writers)
        until(lambda: each_has(newest + 25))
    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join()
    stored = amounts(client.read(of(tag)))
    until(lambda: len(following.amounts) >= len(stored))
    following.stop()
    assert len(stored) == sum(len(writer.acknowledged) for writer in writers)
    for writer in writers:
        assert amounts(client.read(of(writer.tags[1]))) == writer.acknowledged
    assert following.amounts == stored
    if "LEFTFOLD_RESTART" in os.environ:
        assert sum(writer.failures > 0 for writer in writers) > 1, "no two appends were interrupted"
        assert following.opened > 1, "the subscription was not interrupted"


@step("what was there before the server was killed still is")
def _():
    assert amounts(client.read(of(account))) == [100, 30, 10]
    condition = AppendCondition(fail_if_events_match=of(f"repeated:{run}"))
    assert answers == [client.append([unique], condition=condition)]
    assert client.get_tracking_info(f"source-{run}") == 9


@step("the server says that it is well")
def _():
    assert client.check_health() == ServingStatus.SERVING
    assert client.check_health("umadb.v1.DCB") == ServingStatus.SERVING


print("the flow of UmaDB's Python client is through")
