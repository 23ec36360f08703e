"""Clients of a replica across changes of history: whoever is where the replica is holds what the replica holds."""

from __future__ import annotations

import hashlib

from revocation.fanout.hub import RealmHub, Subscriber
from revocation.replication.partition import Applied, Partition
from revocation.rpc import stream
from revocation.store import Heads
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._follower import Follower
from revocation_sdk._lattice import DENIAL, Group, Kind, RealmKey, join_groups
from revocation_sdk._messages import RealmSettings
from revocation_sdk._position import ZERO_DIGEST, chain
from revocation_sdk._view import View
from revocation_sdk._wire import watch_message

REALM = "default"
A, B, C = ("aa" * 16, "bb" * 16, "cc" * 16)


def rows(key: int) -> bytes:
    return join_groups([Group(Kind.TOKEN, 1, DENIAL.pack(key, 2_000_000_000))])


def heads(*records: bytes) -> Heads:
    """Where the store stands after these records."""
    digest = ZERO_DIGEST
    for record in records:
        digest = chain(digest, record)
    return Heads(len(records), hashlib.sha1(b"".join(records)).hexdigest(), {REALM: (len(records), digest.hex())})


def adopt(partition: Partition, log_id: str, at: Heads, learned: bytes) -> list[Applied]:
    """As `healing` does it: the position first, then the view."""
    applied = partition.adopt_heads(log_id, at, {REALM: learned})
    partition.realm(REALM).view.merge(learned)
    return applied


class Client:
    """A follower on a stream of a hub."""

    def __init__(self) -> None:
        self.follower = Follower(REALM, View())

    def connect(self, hub: RealmHub) -> None:
        hello, self.subscriber = self.follower.hello(), Subscriber()
        beginning = hub.subscribe(self.subscriber, hello.resume, True)
        welcome = stream.welcome(beginning.intents, RealmSettings(), (RealmKey(1, bytes(32)),), 0, "replica")
        for message in (welcome, *beginning.messages):
            self._receive(message)

    def read(self) -> None:
        while message := self.subscriber.take():
            self._receive(message)

    def _receive(self, message: bytes) -> None:
        self.follower.receive(watch_message(pb.WatchResponse.FromString(message)), 0.0)


def client_of_another(*records: bytes) -> Client:
    """A client that has followed A at another replica, up to these records."""
    partition = Partition()
    adopt(partition, A, heads(*records), b"".join(records))
    client = Client()
    client.connect(RealmHub([partition], REALM))
    return client


async def test_a_load_that_read_ahead_is_not_passed_over_by_a_mark() -> None:
    """Found live: a primary stopped and resumed beside its successor, a replica that had just been restarted.

    1. The replica notes the tail of A, at 1, and reads the state, in which record 2 is already.
    2. A client that has A up to 1 connects: up to date.
    3. Before record 2 comes by the log, the history changes, and the merge teaches the replica nothing new.
    A mark without rows would leave the client fresh without record 2, for ever.
    """
    first, second = rows(1), rows(2)
    partition = Partition()
    adopt(partition, A, heads(first), first + second)
    hub = RealmHub([partition], REALM)
    client = client_of_another(first)
    client.connect(hub)
    assert len(client.follower.view) == 1

    for item in adopt(partition, B, heads(first, second), b""):
        hub.deliver(0, item.step)
    hub.flush()
    if client.subscriber.ended:
        client.connect(hub)
    client.read()
    assert client.follower.positions == (partition.realm(REALM).position,)
    assert len(client.follower.view) == len(partition.realm(REALM).view) == 2


async def test_a_change_of_history_is_no_resync_once_the_log_has_told_everything() -> None:
    first, second = rows(1), rows(2)
    partition = Partition()
    adopt(partition, A, heads(first), first)
    partition.cover(A, 1)
    hub = RealmHub([partition], REALM)
    client = client_of_another(first)
    client.connect(hub)
    for item in adopt(partition, B, heads(second), second):
        hub.deliver(0, item.step)
    hub.flush()
    assert client.subscriber.ended is None
    client.read()
    assert client.follower.positions == (partition.realm(REALM).position,)
    assert len(client.follower.view) == 2
