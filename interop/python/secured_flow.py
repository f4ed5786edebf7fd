"""What a program in Python meets at a server with TLS and users: a right, a wrong and an insufficient user, and an API key.

Each step says what it expects; the first surprise ends the flow. LEFTFOLD_ADDRESS, LEFTFOLD_CA_FILE, LEFTFOLD_KEY and
LEFTFOLD_NARROW_KEY describe the server; see server.sh.
"""

import os

import umadb
from kurrentdbclient import KurrentDBClient, NewEvent, StreamState
from kurrentdbclient.exceptions import AccessDeniedError, GrpcError, UnauthenticatedError

ADDRESS, CA = os.environ["LEFTFOLD_ADDRESS"], os.environ["LEFTFOLD_CA_FILE"]
KEY, NARROW_KEY = os.environ["LEFTFOLD_KEY"], os.environ["LEFTFOLD_NARROW_KEY"]


def user(login, password=None):
    password = password or f"password-of-{login}"
    return KurrentDBClient(f"kurrentdb://{login}:{password}@{ADDRESS}?tls=true&tlsCaFile={CA}")


def opened(amount):
    return NewEvent(type="Opened", data=str(amount).encode())


def refused(kind, call, *args, **named):
    try:
        call(*args, **named)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind}")


def step(body):
    body()
    print("ok ", body.__doc__)


ann, bob = user("ann"), user("bob")


@step
def _():
    """a user with the right appends and reads"""
    ann.append_to_stream("secret-1", current_version=StreamState.NO_STREAM, events=[opened(7)])
    ann.append_to_stream("account-1", current_version=StreamState.ANY, events=[opened(1)])
    assert [event.data for event in ann.get_stream("secret-1")] == [b"7"]


@step
def _():
    """a user without the right is denied, and reads of everything leave out what is hidden"""
    refused(AccessDeniedError, bob.get_stream, "secret-1")
    refused(AccessDeniedError, bob.append_to_stream, "secret-1", current_version=StreamState.ANY, events=[opened(8)])
    streams = [event.stream_name for event in bob.read_all()]
    assert "account-1" in streams and "secret-1" not in streams, streams


@step
def _():
    """a subscription gives what may be read"""
    with bob.subscribe_to_all() as subscription:
        for event in subscription:
            assert event.stream_name != "secret-1"
            if event.stream_name == "account-1":
                break


@step
def _():
    """a wrong password is refused"""
    wrong = user("ann", "wrong-password")
    refused((UnauthenticatedError, GrpcError), wrong.get_stream, "account-1")


@step
def _():
    """an API key is the password of any login, within its rights"""
    shop, tenant = user("shop", KEY), user("tenant", NARROW_KEY)
    shop.append_to_stream("account-2", current_version=StreamState.ANY, events=[opened(2)])
    assert len(shop.get_stream("account-2")) == 1
    refused(AccessDeniedError, tenant.append_to_stream, "account-2", current_version=StreamState.ANY, events=[opened(3)])
    assert not any(event.stream_name.startswith("account-") for event in tenant.read_all())


def umadb_client(key):
    return umadb.Client(f"https://{ADDRESS}", ca_path=CA, api_key=key)


def of(tag):
    return umadb.Query(items=[umadb.QueryItem(tags=[tag])])


@step
def _():
    """UmaDB's client appends and reads by its key over TLS"""
    client = umadb_client(KEY)
    events = [umadb.Event(event_type="Opened", data=tag.encode(), tags=[tag]) for tag in ("tenant:1", "tenant:2")]
    client.append(events)
    assert [read.event.data for read in client.read(of("tenant:2"))] == [b"tenant:2"]


@step
def _():
    """a key with a tag reads the events of its tag, states conditions over them, and no more"""
    client = umadb_client(NARROW_KEY)
    assert [read.event.tags for read in client.read()] == [["tenant:1"]]
    assert list(client.read(of("tenant:2"))) == []
    event = umadb.Event(event_type="Opened", data=b"", tags=["tenant:1"])
    refused(Exception, client.append, [event])


@step
def _():
    """a wrong key is refused"""
    wrong = umadb_client("lfk_" + "0" * 43)
    refused(umadb.AuthenticationError, lambda: list(wrong.read()))


print("the flow of the Python clients with TLS and users is through")
