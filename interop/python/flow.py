"""What a program in Python does with an event store, step by step, through the published client.

Each step says what it expects; the first surprise ends the flow. LEFTFOLD_URL says where the server is;
LEFTFOLD_RESTART is a command that kills it and starts it again.
"""

import json
import os
import subprocess
import sys
import threading
import time
from uuid import uuid4

from kurrentdbclient import CaughtUp, Checkpoint, KurrentDBClient, NewEvent, NewEvents, StreamState
from kurrentdbclient.events import NewRecord, StreamStateCheck
from kurrentdbclient.exceptions import (
    ConsistencyChecksFailedError,
    InvalidCommitPositionError,
    KurrentDBClientError,
    NotFoundError,
    StreamIsDeletedError,
    WrongCurrentVersionError,
)

URL = os.environ.get("LEFTFOLD_URL", "kurrentdb://127.0.0.1:2113?tls=false")
client = KurrentDBClient(URL)
run = uuid4().hex[:8]


def stream(name):
    return f"python_{name}-{run}"


def deposited(amount, **given):
    return NewEvent(type=f"Deposited_{run}", data=json.dumps({"amount": amount}).encode(), **given)


def withdrawn(amount):
    return NewEvent(type=f"Withdrawn_{run}", data=json.dumps({"amount": amount}).encode())


def amounts(events):
    return [json.loads(event.data)["amount"] for event in events]


def ids(events):
    return [event.id for event in events]


def revisions(name, **how):
    return [event.stream_position for event in client.get_stream(name, **how)]


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
    account = stream("account")
    position = client.append_to_stream(
        account, current_version=StreamState.NO_STREAM, events=[deposited(100), withdrawn(30)]
    )
    assert position == client.get_commit_position(filter_exclude=[]), position
    assert amounts(client.get_stream(account)) == [100, 30]
    assert sum(a if "Deposited" in e.type else -a for e, a in
               zip(client.get_stream(account), amounts(client.get_stream(account)))) == 70
    assert revisions(account, backwards=True, limit=1) == [1]
    assert revisions(account, stream_position=1) == [1]
    assert revisions(account, stream_position=0, backwards=True) == [0]
    assert client.get_current_version(account) == 1


@step("a conflict names both versions")
def _():
    account = stream("account")
    for expected in (StreamState.NO_STREAM, 0, 7):
        error = refused(WrongCurrentVersionError, client.append_to_stream, account,
                        current_version=expected, events=deposited(1))
        assert "1" in str(error), error
    refused(WrongCurrentVersionError, client.append_to_stream, stream("nobody"),
            current_version=StreamState.EXISTS, events=deposited(1))


repeated, first_answer = deposited(5), None


@step("an append that is repeated is stored once, whatever it expected")
def _():
    global first_answer
    name = stream("repeated")
    first_answer = client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=repeated)
    # An event alone and a list of events are two different calls to the server.
    for events in (repeated, [repeated]):
        for expected in (StreamState.NO_STREAM, StreamState.ANY, StreamState.EXISTS):
            assert client.append_to_stream(name, current_version=expected, events=events) == first_answer
    pair = [deposited(6), deposited(7)]
    second = client.append_to_stream(name, current_version=0, events=pair)
    assert client.append_to_stream(name, current_version=0, events=pair) == second
    refused(WrongCurrentVersionError, client.append_to_stream, name, current_version=0, events=[pair[0], deposited(8)])
    assert revisions(name) == [0, 1, 2]


@step("bytes and metadata come back as they were")
def _():
    name = stream("bytes")
    event = NewEvent(type="Bytes", data=b"\0\1\xff", metadata=b"\2", content_type="application/octet-stream")
    client.append_to_stream(name, current_version=StreamState.ANY, events=event)
    [stored] = client.get_stream(name)
    assert (stored.data, stored.metadata, stored.content_type) == (event.data, event.metadata, event.content_type)
    assert stored.id == event.id and stored.recorded_at is not None


@step("a missing stream is an error of its own")
def _():
    refused(NotFoundError, client.get_stream, stream("missing"))
    assert client.get_current_version(stream("missing")) == StreamState.NO_STREAM


@step("everything is read in both directions, from any position")
def _():
    everything = list(client.read_all(filter_exclude=[]))
    assert everything[0].type.startswith("$")
    assert not any(event.type.startswith("$") for event in client.read_all())
    backwards = client.read_all(filter_exclude=[], backwards=True)
    assert [e.commit_position for e in backwards] == [e.commit_position for e in reversed(everything)]
    # A position is part of what is read forwards from it, and not of what is read backwards.
    first, second = client.get_stream(stream("account"))
    assert ids(client.read_all(commit_position=first.commit_position, limit=2)) == ids([first, second])
    assert ids(client.read_all(commit_position=second.commit_position, backwards=True, limit=1)) == ids([first])
    newest = everything[-1].commit_position
    assert [e.commit_position for e in client.read_all(commit_position=newest, filter_exclude=[])] == [newest]
    refused(InvalidCommitPositionError, list, client.read_all(commit_position=newest + 1000))


@step("filters choose by type and by stream, by prefix and by expression")
def _():
    account = stream("account")
    assert amounts(client.read_all(filter_include=[f"Withdrawn_{run}"])) == [30]
    assert amounts(client.read_all(filter_include=[f"With.+_{run}"])) == [30]
    assert amounts(client.read_all(filter_include=["Nothing", f"Withdrawn_{run}"], filter_by_prefix=True)) == [30]
    for choice in ({"filter_include": [account]}, {"filter_include": [account[:-1]], "filter_by_prefix": True}):
        assert amounts(client.read_all(filter_by_stream_name=True, **choice)) == [100, 30]
        assert amounts(client.read_all(filter_by_stream_name=True, backwards=True, **choice)) == [30, 100]
    # Excluding is an expression that looks ahead.
    excluded = client.read_all(filter_exclude=[r"\$.+", f"Deposited_{run}", "Bytes"])
    assert {event.type for event in excluded} == {f"Withdrawn_{run}"}


@step("a subscription gives what is stored, says that it has caught up, and goes on live")
def _():
    name = stream("followed")
    client.append_to_stream(name, current_version=StreamState.ANY, events=[deposited(1), deposited(2)])
    seen = []
    with client.subscribe_to_stream(name, include_caught_up=True) as subscription:
        for event in subscription:
            if isinstance(event, CaughtUp):
                assert event.stream_position == 1
                client.append_to_stream(name, current_version=1, events=[deposited(3), deposited(4)])
                continue
            seen.append(event)
            if len(seen) == 4:
                break
    assert amounts(seen) == [1, 2, 3, 4]
    with client.subscribe_to_stream(name, stream_position=1) as subscription:
        assert amounts([next(subscription), next(subscription)]) == [3, 4]
    with client.subscribe_to_all(commit_position=seen[1].commit_position) as subscription:
        assert amounts([next(subscription), next(subscription)]) == [3, 4]


@step("a subscription with a filter tells checkpoints, and one can go on from there")
def _():
    name = stream("checked")
    client.append_to_stream(name, current_version=StreamState.ANY, events=[deposited(1), deposited(2), deposited(3)])
    stored = client.get_stream(name)
    with client.subscribe_to_all(filter_include=[f"Never_{run}"], include_checkpoints=True, window_size=1,
                                 checkpoint_interval_multiplier=1) as subscription:
        for checkpoint in subscription:
            assert isinstance(checkpoint, Checkpoint)
            # Not before this stream's first event, so that what comes behind the checkpoint is known.
            if checkpoint.commit_position >= stored[0].commit_position:
                break
    client.append_to_stream(name, current_version=StreamState.ANY, events=deposited(4))
    behind = [e for e in client.get_stream(name) if e.commit_position > checkpoint.commit_position]
    with client.subscribe_to_all(commit_position=checkpoint.commit_position, filter_include=[name],
                                 filter_by_stream_name=True) as subscription:
        assert ids(next(subscription) for _ in behind) == ids(behind)


@step("metadata bounds a stream, and keeps keys of one's own")
def _():
    name = stream("bounded")
    client.append_to_stream(name, current_version=StreamState.ANY, events=[deposited(n) for n in range(4)])
    metadata = {"$maxCount": 2, "owner": "ann", "limits": {"daily": [1, 2]}}
    client.set_stream_metadata(name, metadata=metadata, current_version=StreamState.NO_STREAM)
    assert revisions(name) == [2, 3]
    assert client.get_stream_metadata(name) == (metadata, 0)
    client.set_stream_metadata(name, metadata={"$tb": 3}, current_version=0)
    assert revisions(name) == [3]
    refused(WrongCurrentVersionError, client.set_stream_metadata, name, metadata={}, current_version=0)
    assert client.get_stream_metadata(name) == ({"$tb": 3}, 1)


@step("ages, caching and rights come back as they were set")
def _():
    name = stream("governed")
    client.append_to_stream(name, current_version=StreamState.ANY, events=deposited(1))
    acl = {"$r": ["ann", "bob"], "$w": "ann", "$d": "$admins", "$mr": ["$all"], "$mw": []}
    metadata = {"$maxAge": 3600, "$cacheControl": 10, "$acl": acl}
    client.set_stream_metadata(name, metadata=metadata)
    assert client.get_stream_metadata(name) == (metadata, 0)
    # Nothing is an hour old yet.
    assert revisions(name) == [0]


@step("a link leads to its event, also in a subscription, or shows itself")
def _():
    name, account = stream("linked"), stream("account")
    links = [NewEvent(type="$>", data=place.encode()) for place in (f"1@{account}", f"7@{stream('missing')}", f"0@{account}")]
    client.append_to_stream(name, current_version=StreamState.ANY, events=links)
    unresolved = client.get_stream(name)
    assert [(e.type, e.link, e.data) for e in unresolved] == [("$>", None, link.data) for link in links]
    with client.subscribe_to_stream(name, resolve_links=True) as subscription:
        subscribed = next(subscription), next(subscription)
    for resolved in (client.get_stream(name, resolve_links=True), subscribed):
        assert amounts(resolved) == [30, 100]
        # This client leaves out a link that leads nowhere, here the second one.
        assert [(e.link.stream_name, e.link.stream_position) for e in resolved] == [(name, 0), (name, 2)]


# What a call raises when the server is gone. The second: while a thread has this client reconnect, others' channel closes.
GONE = (KurrentDBClientError, ValueError)


def fail(raised):
    sys.excepthook(*raised[:3])
    os._exit(1)


# A surprise in a thread ends the flow too.
threading.excepthook = fail


class Following(threading.Thread):
    """A subscription that comes back: this client ends one with an error when its server is gone, and opens no new one, so
    the program does, behind the last position it was told. `subscribe` is called with that position, or with None at first.
    """

    def __init__(self, subscribe, position_of):
        super().__init__(daemon=True)
        self.subscribe, self.position_of = subscribe, position_of
        self.events, self.opened, self.subscription, self.stopped = [], 0, None, False
        self.start()

    def run(self):
        position = None
        while not self.stopped:
            try:
                self.subscription = self.subscribe(position)
                self.opened += 1
                for event in self.subscription:
                    position = self.position_of(event)
                    if not isinstance(event, Checkpoint):
                        self.events.append(event)
            except GONE:
                time.sleep(0.05)

    def stop(self):
        self.stopped = True
        self.subscription.stop()
        self.join()


class Writer(threading.Thread):
    """Appends one event after the other, and the same one again until it is acknowledged."""

    def __init__(self, name):
        super().__init__(daemon=True)
        self.stream_name, self.acknowledged, self.stopped = name, [], False
        self.start()

    def run(self):
        while not self.stopped:
            event = deposited(len(self.acknowledged))
            while True:
                try:
                    client.append_to_stream(self.stream_name, current_version=StreamState.ANY, events=event)
                    break
                except GONE:
                    # Whether it was stored is not known; the same event again is stored once.
                    time.sleep(0.05)
            self.acknowledged.append(event.id)


def until(condition):
    while not condition():
        time.sleep(0.005)


@step("a server is killed under appends and subscriptions: nothing is lost, nothing is delivered twice")
def _():
    everyone = {"filter_include": [stream("survivor").split("-")[0]], "filter_by_stream_name": True, "filter_by_prefix": True}
    writers = [Writer(stream(f"survivor_{number}")) for number in range(4)]
    to_all = Following(lambda position: client.subscribe_to_all(
        commit_position=position, include_checkpoints=True, window_size=1, checkpoint_interval_multiplier=1, **everyone,
    ), lambda event: event.commit_position)
    to_stream = Following(lambda position: client.subscribe_to_stream(
        writers[0].stream_name, stream_position=position,
    ), lambda event: event.stream_position)

    def each_has(count):
        return all(len(writer.acknowledged) >= count for writer in writers)

    until(lambda: each_has(25) and to_all.events and to_stream.events)
    if "LEFTFOLD_RESTART" in os.environ:
        # All four writers are waiting for an answer. This client asks a few times more by itself, with the same ids.
        subprocess.run(os.environ["LEFTFOLD_RESTART"], shell=True, check=True)
        newest = max(len(writer.acknowledged) for writer in writers)
        until(lambda: each_has(newest + 25))
    for writer in writers:
        writer.stopped = True
    for writer in writers:
        writer.join()
    stored = ids(client.read_all(**everyone))
    until(lambda: len(to_all.events) >= len(stored) and len(to_stream.events) >= len(writers[0].acknowledged))
    to_all.stop()
    to_stream.stop()
    for writer in writers:
        assert ids(client.get_stream(writer.stream_name)) == writer.acknowledged
    assert len(stored) == sum(len(writer.acknowledged) for writer in writers)
    assert ids(to_all.events) == stored
    assert ids(to_stream.events) == writers[0].acknowledged
    if "LEFTFOLD_RESTART" in os.environ:
        assert to_all.opened > 1 and to_stream.opened > 1, "the subscriptions were not interrupted"


@step("what was there before the server was killed still is")
def _():
    assert amounts(client.get_stream(stream("account"))) == [100, 30]
    for expected in (StreamState.ANY, StreamState.NO_STREAM):
        assert client.append_to_stream(stream("repeated"), current_version=expected, events=repeated) == first_answer
    assert revisions(stream("bounded")) == [3]
    assert client.get_stream_metadata(stream("governed"))[0]["$maxAge"] == 3600


@step("a deleted stream comes back with its next event")
def _():
    name = stream("deleted")
    client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=[deposited(1), deposited(2)])
    refused(WrongCurrentVersionError, client.delete_stream, name, current_version=0)
    client.delete_stream(name, current_version=1)
    refused(NotFoundError, client.get_stream, name)
    assert client.get_current_version(name) == StreamState.NO_STREAM
    refused(StreamIsDeletedError, client.delete_stream, name, current_version=StreamState.EXISTS)
    client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=deposited(3))
    assert revisions(name) == [2]
    refused(NotFoundError, client.delete_stream, stream("missing"), current_version=StreamState.ANY)


@step("a tombstone is permanent, ends subscriptions, and metadata can be set on it")
def _():
    name = stream("tombstoned")
    client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=deposited(1))
    with client.subscribe_to_stream(name) as subscription:
        assert amounts([next(subscription)]) == [1]
        client.tombstone_stream(name, current_version=0)
        refused(StreamIsDeletedError, next, subscription)
    refused(StreamIsDeletedError, client.get_stream, name)
    refused(StreamIsDeletedError, client.append_to_stream, name, current_version=StreamState.ANY,
            events=[deposited(2), deposited(3)])
    refused(StreamIsDeletedError, client.get_stream_metadata, name)
    refused(StreamIsDeletedError, client.tombstone_stream, name, current_version=StreamState.ANY)
    client.set_stream_metadata(name, metadata={"owner": "ann"})


@step("several streams are appended to at once, or none")
def _():
    source, target = stream("from"), stream("to")

    def transfer(*events):
        return client.multi_append_to_stream([
            NewEvents(name, [event], StreamState.NO_STREAM) for name, event in zip((source, target), events)
        ])

    events = withdrawn(5), deposited(5, metadata=json.dumps({"by": "ann"}).encode())
    assert transfer(*events) == transfer(*events)
    refused(KurrentDBClientError, transfer, withdrawn(5), deposited(5))
    assert revisions(source) == [0]
    # Its kind stands in the metadata of a record.
    [stored] = client.get_stream(target)
    assert json.loads(stored.metadata) == {"by": "ann", "$schema.format": "Json", "$schema.name": stored.type}


@step("records of several streams are appended with checks on others")
def _():
    source, target, limit = stream("from"), stream("to"), stream("limit")

    def records():
        return [NewRecord(name, "Moved", b"{}") for name in (source, target, source)]

    moved, check = records(), StreamStateCheck(limit, StreamState.NO_STREAM)
    assert client.append_records(moved, checks=[check]) == client.append_records(moved, checks=[check])
    assert (revisions(source), revisions(target)) == ([0, 1, 2], [0, 1])
    for checks in ([StreamStateCheck(limit, 3)], [check, StreamStateCheck(target, 0)]):
        refused(ConsistencyChecksFailedError, client.append_records, records(), checks=checks)
    assert (revisions(source), revisions(target)) == ([0, 1, 2], [0, 1])


@step("checks of deleted and tombstoned streams are answered, and failing ones can be read")
def _():
    log, soft, hard = stream("log"), stream("soft"), stream("hard")
    for name in (soft, hard):
        client.append_to_stream(name, current_version=StreamState.ANY, events=[deposited(1), deposited(2)])
    client.delete_stream(soft, current_version=StreamState.ANY)
    client.tombstone_stream(hard, current_version=StreamState.ANY)
    to, tombstone = (lambda name: [NewRecord(name, "Noted", b"{}")]), 2**63 - 1
    none = [StreamStateCheck(name, StreamState.NO_STREAM) for name in (soft, hard)]
    client.append_records(to(log), checks=none)
    for records, checks, actual in (
        (to(log), [StreamStateCheck(soft, 7)], [-1]),
        (to(log), [StreamStateCheck(soft, 7), StreamStateCheck(hard, 7)], [-1, tombstone]),
        (to(log), [StreamStateCheck(hard, StreamState.EXISTS)], [tombstone]),
        (to(hard), [StreamStateCheck(hard, StreamState.ANY)], [tombstone]),
        (to(hard), [], [tombstone]),
    ):
        error = refused(ConsistencyChecksFailedError, client.append_records, records, checks=checks)
        assert [failure.stream_state_failure.actual_state for failure in error.failures] == actual
    assert revisions(log) == [0]


@step("an event id belongs to its stream")
def _():
    event, names = deposited(7, id=uuid4(), metadata=b'{"by":"ann"}'), [stream("one"), stream("other")]
    first = [client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=event) for name in names]
    assert first == [client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=event) for name in names]
    for name in names:
        [stored] = client.get_stream(name)
        assert (stored.id, stored.metadata) == (event.id, event.metadata)


@step("tags in metadata are kept with the event")
def _():
    name = stream("tagged")
    event = deposited(1, metadata=json.dumps({"$tags": [f"account:{run}"]}).encode())
    client.append_to_stream(name, current_version=StreamState.ANY, events=event)
    [stored] = client.get_stream(name)
    assert json.loads(stored.metadata)["$tags"] == [f"account:{run}"]


@step("a large append of many events is stored whole")
def _():
    name = stream("many")
    client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=[deposited(n) for n in range(3000)])
    assert len(revisions(name)) == 3000


@step("a cluster of one tells who leads it")
def _():
    [member] = client.read_gossip()
    assert (member.state, member.port) == ("NODE_STATE_LEADER", int(URL.split(":")[-1].split("?")[0]))


client.close()
print("the flow of the Python client is through")
