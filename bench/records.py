"""What a record of the log costs whoever follows it: a replica that applies it, a verifier that hears of it."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass

from bench.measure import Spread, once
from revocation.replication.partition import Partition, chain
from revocation.rpc import stream
from revocation.store import ZERO, LogEntry
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._follower import Follower
from revocation_sdk._lattice import DENIAL, Group, Kind, RealmKey, join_groups
from revocation_sdk._messages import Changes, Intent, PartitionIntent, RealmSettings, SnapshotEnd, Welcome
from revocation_sdk._position import NOWHERE, ZERO_DIGEST, Position
from revocation_sdk._position import chain as realm_chain
from revocation_sdk._view import View
from revocation_sdk._wire import watch_message

REALM, LOG_ID = "default", b"l" * 16
JOINED = 25
COUNT = 5_000


@dataclass(frozen=True, slots=True)
class Records:
    """Microseconds a record of one revocation."""

    replica: Spread
    verifier: Spread
    verifier_joined: Spread
    """With so many of them in one message, as a busy service sends them."""
    message_b: float
    joined_b: float


def measure(rounds: int) -> Records:
    taken: list[tuple[float, float, float]] = []
    single_b = joined_b = 0.0
    for _ in range(rounds):
        entries = _log(COUNT)
        single, joined = _messages(entries, 1), _messages(entries, JOINED)
        single_b, joined_b = (sum(map(len, found)) / COUNT for found in (single, joined))
        partition = Partition()
        partition.log_id = LOG_ID.hex()
        taken.append((once(partition.apply, entries), _heard(single), _heard(joined)))
    replica, verifier, together = (Spread.of(value * 1e6 for value in one) for one in zip(*taken, strict=True))
    return Records(replica, verifier, together, single_b, joined_b)


def _heard(messages: list[bytes]) -> float:
    """Seconds a record for a verifier that begins with nothing."""
    follower = Follower(REALM, View())
    follower.hello()
    intent = PartitionIntent(Intent.SNAPSHOT, "first", NOWHERE)
    follower.receive(Welcome((intent,), RealmSettings(), (RealmKey(1, b"k" * 32),), 1, "replica"), 0.0)
    start = Position(LOG_ID, 0, ZERO_DIGEST)
    follower.receive(SnapshotEnd(0, start, 0, hashlib.sha256().digest()), 0.0)

    def take(message: bytes) -> None:
        follower.receive(watch_message(pb.WatchResponse.FromString(message)), 0.0)

    return once(take, messages) * len(messages) / COUNT


def _messages(entries: list[LogEntry], size: int) -> list[bytes]:
    previous, found = Position(LOG_ID, 0, ZERO_DIGEST), []
    for start in range(0, len(entries), size):
        some = entries[start : start + size]
        position = Position(LOG_ID, some[-1].realm_seq, bytes.fromhex(some[-1].realm_digest))
        found.append(stream.changes(Changes(0, previous, position, tuple(entry.rows for entry in some))))
        previous = position
    return found


def _log(count: int) -> list[LogEntry]:
    """Records of one revocation each, as `commit.lua` writes them."""
    entries, digest, realm_digest, until = [], ZERO, ZERO_DIGEST, int(time.time()) + 3_600
    ops = "0" * 120
    for seq in range(1, count + 1):
        row = DENIAL.pack(secrets.randbits(64), until)
        rows = join_groups([Group(Kind.TOKEN, 1, row)])
        realm_digest = realm_chain(realm_digest, rows)
        entry = LogEntry(seq, REALM, seq, realm_digest.hex(), "", 1, rows, ops)
        digest = chain(digest, entry)
        entries.append(LogEntry(seq, REALM, seq, realm_digest.hex(), digest, 1, rows, ops))
    return entries
