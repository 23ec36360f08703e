"""What the follower hears and says, free of protobuf: cheap to make in tests, and the hot path never meets the wire."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from revocation_sdk._lattice import RealmKey
from revocation_sdk._position import Position


class Intent(Enum):
    """What the server will do for a partition."""

    UP_TO_DATE = "up_to_date"
    RESUME = "resume"
    SNAPSHOT = "snapshot"


@dataclass(frozen=True, slots=True)
class RealmSettings:
    """Limits that make expiry safe; seconds."""

    max_token_life_s: int = 86_400
    max_leeway_s: int = 60
    margin_s: int = 60


@dataclass(frozen=True, slots=True)
class PartitionIntent:
    intent: Intent
    reason: str
    position: Position


@dataclass(frozen=True, slots=True)
class Welcome:
    partitions: tuple[PartitionIntent, ...]
    settings: RealmSettings
    keys: tuple[RealmKey, ...]
    store_ms: int
    replica: str


@dataclass(frozen=True, slots=True)
class SnapshotChunk:
    partition: int
    rows: bytes


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    partition: int
    position: Position
    count: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Changes:
    partition: int
    previous: Position
    position: Position
    records: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Mark:
    partition: int
    previous: Position
    position: Position
    rows: bytes


@dataclass(frozen=True, slots=True)
class Progress:
    nonce: int
    positions: tuple[Position, ...]
    store_ms: int


@dataclass(frozen=True, slots=True)
class Goodbye:
    reason: str
    reconnect_after_ms: int


@dataclass(frozen=True, slots=True)
class Poll:
    """Somebody waits: say at once how far the view has come."""


@dataclass(frozen=True, slots=True)
class TraceNote:
    """The revocation at a position belongs to a trace."""

    positions: tuple[Position, ...]
    traceparent: str


Message = Welcome | SnapshotChunk | SnapshotEnd | Changes | Mark | Progress | Goodbye | Poll | TraceNote


@dataclass(frozen=True, slots=True)
class Hello:
    realm: str
    resume: tuple[Position, ...]


@dataclass(frozen=True, slots=True)
class Ping:
    nonce: int
    applied: tuple[Position, ...]
