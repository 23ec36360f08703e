"""What the service asks of a store, one partition at a time. Redis commits, Python decides.

Two implementations: `redis.py` (Redis and Valkey) and `memory.py`, the executable specification; one contract suite
runs on both. A store knows rows, numbers and digests, and never an identifier (I7). Scripts answer `Closed` where a
gate is shut; they raise StoreUnavailable only when nothing is known about what happened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Protocol

from revocation_sdk._audit import AuditPoint, AuditRecord

FORMAT = 1
"""Version of the layout. A newer one is refused."""

SLOT_S = 256
"""Width of a segment in expiry time: rows that expire in the same slot lie in one key."""

ZERO = "0" * 40


NO_AUDIT: Mapping[str, bytes] = MappingProxyType({})


class StoreUnavailable(Exception):
    """The store did not answer, or not as a store should.

    `kind` is a key of `hints.HINTS`, and `hint` says what an operator can do. Unless `did_nothing`, nothing is known
    about a change that was under way.
    """

    def __init__(self, text: str = "", *, kind: str = "other", hint: str = "", did_nothing: bool = False) -> None:
        super().__init__(text)
        self.kind, self.hint, self.did_nothing = kind, hint, did_nothing


class StoreRefused(Exception):
    """The store can be reached and is not fit: version, eviction policy, layout, rights. The text says what to do."""


class Closed(Enum):
    """Why a script did nothing. See `lua/partition.lua` and the rules H1-H8 of the model."""

    DEMOTED = "demoted"  # this server is no primary
    REOPEN = "reopen"  # the history belongs to another process: somebody must open a new one
    HEAL = "heal"  # another history, or the caller is no member: re-propose and confirm
    FENCED = "fenced"  # a newer incarnation of this member exists
    WAIT = "wait"  # not usable yet, or the caller is not active yet
    CLOCK = "clock"  # the store's clock went back, or is too far from the caller's
    FULL = "full"  # the log has reached its hard cap
    MEMORY = "memory"  # the store has no memory left for a write
    LATE = "late"  # somebody else opened a history first
    EARLY = "early"  # the settle time is not over
    ALIVE = "alive"  # the member to strike has been heard of
    GONE = "gone"  # the member to strike is not listed


@dataclass(frozen=True, slots=True)
class Standing:
    """In whose name a script runs: the history the caller is in, its member id and its incarnation."""

    log_id: str
    member: str
    incarnation: int


@dataclass(frozen=True, slots=True)
class Denials:
    """Rows of tokens, sessions or keys (12 bytes each), any expiry."""

    kind: int
    key_tag: int
    rows: bytes
    if_session: bool = False
    """One row, which is a session's: left out if the store has no live record of this name."""


@dataclass(frozen=True, slots=True)
class Cutoffs:
    """Fingerprints (8 bytes each) whose version, time and expiry the script draws."""

    kind: int
    key_tag: int
    horizon_s: int
    fingerprints: bytes


@dataclass(frozen=True, slots=True)
class Op:
    """One operation: all or nothing, and once. `key` and `digest` are 32 hex characters each."""

    realm: str
    key: str
    digest: str
    groups: tuple[Denials | Cutoffs, ...]
    above: int = 0
    """The version of its cutoffs must be larger than this one, which another partition has drawn."""
    audit: AuditRecord | None = None


class OpState(Enum):
    """What became of an operation."""

    DONE = "done"
    AGAIN = "again"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class OpResult:
    """What became of an operation; a retry (AGAIN) gets the numbers of the first time."""

    state: OpState
    version: int = 0
    at_ms: int = 0
    expires_at: int = 0
    seq: int = 0
    realm_seq: int = 0
    realm_digest: bytes = b""
    audit: AuditPoint | None = None
    """Where the audit says so; None: it does not, or not by this script."""
    log_id: str = ""
    """The history in which it was acknowledged; who acknowledges says so, and no store."""


@dataclass(frozen=True, slots=True)
class Committed:
    """`copies`: on how many copies (WAIT, WAITAOF) beyond the primary's memory it is known to be."""

    now_ms: int
    seq: int
    results: tuple[OpResult, ...]
    copies: int


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of the log at a moment after the barrier began."""

    now_ms: int
    seq: int
    copies: int
    clock: int
    """No version was drawn above it, acknowledged before."""


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One record: `rows` and the realm's numbers are what clients see, the rest is for replicas."""

    seq: int
    realm: str
    realm_seq: int
    realm_digest: str
    digest: str
    at_ms: int
    rows: bytes
    ops: str


@dataclass(frozen=True, slots=True)
class Member:
    """A service replica in the registry.

    `registered` and `read` are versions of it (H8), `log_id` is confirmed, `applied` a number of the log (H9).
    """

    incarnation: int
    log_id: str
    registered: int
    read: int
    active: bool
    beat_ms: int
    applied: int = 0


@dataclass(frozen=True, slots=True)
class Registry:
    """The history and its members, as one script saw them. `closed` is None when the asker is in good standing.

    `replicas` is how many store replicas are connected, `nodes` how many have been: by that a cut-off primary knows
    that it is one. Histories are ordered by `epoch`, then by `log_id`: nobody goes back to an earlier one.
    """

    closed: Closed | None
    now_ms: int = 0
    log_id: str = ""
    settled: bool = False
    opened_ms: int = 0
    previous: str = ""
    base: int = 0
    base_digest: str = ZERO
    full: bool = False
    seq: int = 0
    digest: str = ZERO
    clock: int = 0
    version: int = 0
    usable: bool = False
    replicas: int = 0
    nodes: int = 0
    epoch: int = 0
    members: dict[str, Member] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Heads:
    """Number and digest of the partition's log, and of each realm that has records in it."""

    seq: int
    digest: str
    realms: dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Durability:
    """What a commit or barrier waits for after its script: `replicas` (WAIT) and `fsync` (WAITAOF)."""

    replicas: int = 0
    fsync: bool = False
    timeout_ms: int = 1000


NO_WAIT = Durability()


LOADING = -1
"""In place of the number that a view holds: it is being loaded, and will go on from where the log ends now."""

LOG_PAGE = 128
"""Records in one read of the log. A script's operations make one record of up to some 150 kB, so 20 MB at most."""

HOLD_MS = 30_000
"""So long a load that says nothing keeps the log from being trimmed. `lua/beat.lua` has the same."""


class Store(Protocol):
    """One store with its partitions. Every method may raise StoreUnavailable."""

    partitions: int

    async def start(self) -> str:
        """Connects and checks that the store is fit (StoreRefused). Returns its name and version."""

    async def close(self) -> None:
        """Ends all connections."""

    async def reconnect(self) -> None:
        """Drops all connections: what comes next finds out anew who the primary is."""

    async def commit(
        self,
        partition: int,
        who: Standing,
        caller_ms: int,
        ops: Sequence[Op],
        durability: Durability,
        audits: Mapping[str, bytes] = NO_AUDIT,
    ) -> Committed | Closed:
        """Commits operations, all or none; each with its own result. `audits`: by realm, what goes into its audit."""

    async def barrier(
        self, partition: int, who: Standing, caller_ms: int, durability: Durability, *, newcomer: bool = False
    ) -> Tail | Closed:
        """Where the log ends, proven on a store that this member may vouch for.

        A `newcomer`, not active yet, may ask too, but may not vouch by the answer (H8).
        """

    async def beat(
        self,
        partition: int,
        who: Standing | None,
        member: str,
        caller_ms: int,
        read: int,
        trim_below: int,
        *,
        applied: int = 0,
    ) -> Registry:
        """A heartbeat, or just a look (`who` None).

        The registry version `read` is what the caller holds; its view holds the log up to `applied`, or is LOADING.
        Records below `trim_below` go, unless a member has not applied them, or a load began before them.
        """

    async def open_history(
        self, partition: int, seen: str, log_id: str, settle_ms: int, members: Sequence[str], epoch: int = 0
    ) -> Closed | None:
        """Opens a history if `seen` is still the last one; None if it did (H2).

        Only if it needs to be opened: it belongs to another process, it is suspect, or its epoch is below the caller's.
        The new one's epoch is above both.
        """

    async def confirm(
        self, partition: int, log_id: str, member: str, incarnation: int | None, caller_ms: int, known: Sequence[str],
        *, nonce: str = "",
    ) -> int | Closed:  # fmt: skip
        """Confirms and registers; returns the incarnation to use from then on.

        Without an incarnation one is drawn, once for each `nonce`: who asks again with the same gets the same.
        """

    async def settle(self, partition: int, log_id: str, settle_ms: int) -> Closed | None:
        """Marks the history as settled when its settle time is over; None if it did (H7)."""

    async def strike(
        self, partition: int, log_id: str, member: str, mode: str, incarnation: int | None, silent_ms: int,
        *, durability: Durability = NO_WAIT,
    ) -> Closed | None:  # fmt: skip
        """Takes a member off: mode "quiet", "forced" or "leave". It has gone also if the copies are not reached."""

    async def propose(
        self, partition: int, log_id: str, clock: int, realm: str, rows: bytes, ops: str
    ) -> Closed | None:
        """Puts rows back as they are; idempotent for views."""

    async def heads(self, partition: int, log_id: str) -> Heads | Closed:
        """Where the log and every realm in it stand, at one moment."""

    async def segment_names(self, partition: int, log_id: str, realm: str, start: int, stop: int) -> list[str] | Closed:
        """Names of live segments from index `start` to `stop` inclusive."""

    async def segment_rows(
        self, partition: int, log_id: str, realm: str, wanted: Sequence[tuple[str, int]], size: int
    ) -> list[bytes] | Closed:
        """At most `size` bytes of each wanted (name, offset)."""

    async def read_log(self, partition: int, after: int, count: int, block_ms: int) -> list[LogEntry]:
        """Records behind `after`, in order, at most `count`; waits for the first at most `block_ms` (0: not at all)."""

    async def agree_on_secret(self, commitments: dict[str, str]) -> tuple[str, ...]:
        """Writes down a commitment to each key id, or compares; the other key ids that were ever written down.

        Raises StoreRefused if they differ.
        """


def segment_of(kind: int, key_tag: int, expires_at: int) -> tuple[str, str]:
    """Name of the segment of a row, and when all of it has expired ("never" for keys)."""
    if expires_at == 0xFFFFFFFF:
        return f"{kind}-{key_tag}-n", "never"
    slot = expires_at // SLOT_S
    return f"{kind}-{key_tag}-{slot}", str((slot + 1) * SLOT_S)


def opening_digest(digest: str, log_id: str) -> str:
    """The partition's digest where a history begins, from the one before it.

    So no record of a history fits behind one of another, even where the numbers go on: who reads on while somebody
    opens a new history notices. `lua/open.lua` computes the same.
    """
    return hashlib.sha1(f"{digest}{log_id}".encode(), usedforsecurity=False).hexdigest()
