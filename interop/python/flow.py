"""What a program in Python does with an event store, step by step, through the published client.

Each step says what it expects; the first surprise ends the flow. LEFTFOLD_URL says where the server is;
LEFTFOLD_RESTART is a command that kills it and starts it again.
"""

import json
import os
import subprocess
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


@step("an append that is repeated is stored once")
def _():
    name, event = stream("repeated"), deposited(5)
    first = client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=event)
    again = client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=event)
    assert first == again
    client.append_to_stream(name, current_version=StreamState.ANY, events=[event])
    assert revisions(name) == [0]


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


@step("filters choose by type and by stream, and exclude what is the system's")
def _():
    by_type = client.read_all(filter_include=[f"Withdrawn_{run}"])
    assert amounts(by_type) == [30]
    by_stream = client.read_all(filter_include=[f"python_account-{run}"], filter_by_stream_name=True)
    assert len(list(by_stream)) == 2
    by_prefix = client.read_all(filter_include=[f"Depos"], filter_by_prefix=True, backwards=True, limit=2)
    assert len(list(by_prefix)) == 2
    assert not any(event.type.startswith("$") for event in client.read_all())
    everything = list(client.read_all(filter_exclude=[]))
    assert everything[0].type.startswith("$")
    newest = everything[-1].commit_position
    refused(InvalidCommitPositionError, list, client.read_all(commit_position=newest + 1000))
    assert [e.commit_position for e in client.read_all(commit_position=newest, filter_exclude=[])] == [newest]


@step("a subscription gives what is stored, says that it has caught up, and goes on live")
def _():
    name = stream("followed")
    client.append_to_stream(name, current_version=StreamState.ANY, events=[deposited(1), deposited(2)])
    seen = []
    with client.subscribe_to_stream(name, include_caught_up=True) as subscription:
        for event in subscription:
            if isinstance(event, CaughtUp):
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


@step("a subscription with a filter tells checkpoints")
def _():
    with client.subscribe_to_all(filter_include=[f"Never_{run}"], include_checkpoints=True, window_size=1,
                                 checkpoint_interval_multiplier=1) as subscription:
        assert isinstance(next(subscription), Checkpoint)


@step("metadata bounds a stream")
def _():
    name = stream("bounded")
    client.append_to_stream(name, current_version=StreamState.ANY, events=[deposited(n) for n in range(4)])
    client.set_stream_metadata(name, metadata={"$maxCount": 2, "owner": "ann"})
    assert revisions(name) == [2, 3]
    metadata, version = client.get_stream_metadata(name)
    assert (metadata, version) == ({"$maxCount": 2, "owner": "ann"}, 0)
    client.set_stream_metadata(name, metadata={"$tb": 3}, current_version=0)
    assert revisions(name) == [3]


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


@step("a tombstone is for ever, and metadata can be set on it")
def _():
    name = stream("tombstoned")
    client.append_to_stream(name, current_version=StreamState.NO_STREAM, events=deposited(1))
    client.tombstone_stream(name, current_version=0)
    refused(StreamIsDeletedError, client.get_stream, name)
    refused(StreamIsDeletedError, client.append_to_stream, name, current_version=StreamState.ANY,
            events=[deposited(2), deposited(3)])
    refused(StreamIsDeletedError, client.get_stream_metadata, name)
    refused(StreamIsDeletedError, client.tombstone_stream, name, current_version=StreamState.ANY)
    client.set_stream_metadata(name, metadata={"owner": "ann"})


@step("a link leads to its event")
def _():
    name, [target, *_] = stream("linked"), client.get_stream(stream("account"))
    link = NewEvent(type="$>", data=f"{target.stream_position}@{target.stream_name}".encode())
    client.append_to_stream(name, current_version=StreamState.ANY, events=link)
    [resolved] = client.get_stream(name, resolve_links=True)
    assert resolved.id == target.id and resolved.link.stream_name == name


@step("several streams are appended to at once, with checks on others")
def _():
    source, target, limit = stream("from"), stream("to"), stream("limit")

    def transfer(version):
        return [NewEvents(source, [withdrawn(5)], version), NewEvents(target, [deposited(5)], version)]

    client.multi_append_to_stream(transfer(StreamState.NO_STREAM))
    refused(KurrentDBClientError, client.multi_append_to_stream, transfer(StreamState.NO_STREAM))
    assert revisions(target) == [0]
    records = [NewRecord(source, "Moved", b"{}"), NewRecord(target, "Moved", b"{}"), NewRecord(source, "Moved", b"{}")]
    client.append_records(records, checks=[StreamStateCheck(limit, StreamState.NO_STREAM)])
    assert (revisions(source), revisions(target)) == ([0, 1, 2], [0, 1])
    refused(ConsistencyChecksFailedError, client.append_records,
            [NewRecord(source, "Moved", b"{}")], checks=[StreamStateCheck(limit, 3)])


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


@step("a server that is killed loses nothing it acknowledged, and the client comes back")
def _():
    name, acknowledged, stopped = stream("survivor"), [], threading.Event()

    def write():
        while not stopped.is_set():
            event = deposited(len(acknowledged))
            while True:
                try:
                    client.append_to_stream(name, current_version=StreamState.ANY, events=event)
                    acknowledged.append(event.id)
                    break
                except KurrentDBClientError:
                    # Whether it was stored is not known; the same event again is stored once.
                    time.sleep(0.05)

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
    assert [event.id for event in client.get_stream(name)] == acknowledged


client.close()
print("the flow of the Python client is through")
