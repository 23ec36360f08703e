"""What the service asks of a store about sessions. The store knows sealed records and names, never whose they are (I7).

A step of a session is decided outside (`revocation/session/machine.py`) on what a look has seen; the store commits it
only if all of that still holds, and says `Turned` what did not.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, Protocol

from revocation.store import Closed, Durability, Standing
from revocation_sdk._audit import AuditPoint

STAMP_BYTES = 12
_ENTRY = struct.Struct("<8sH8sI16s")
ENTRY_BYTES = 8 + _ENTRY.size
GRACE_ANSWERS = 100
"""How often one generation is answered once more."""


class Entry(NamedTuple):
    """A session in the index of its subject; it never changes. See lua/session.lua."""

    opened_ms: int
    client: bytes
    key_tag: int
    fingerprint: bytes
    """Of the session, 8 bytes little-endian, as in its rows."""
    life_s: int
    handle: bytes

    @property
    def record(self) -> str:
        """The name of the session's record."""
        return record_name(self.key_tag, self.fingerprint)

    def pack(self) -> bytes:
        """As the index holds it."""
        rest = _ENTRY.pack(self.client, self.key_tag, self.fingerprint, self.life_s, self.handle)
        return self.opened_ms.to_bytes(8, "big") + rest

    @classmethod
    def unpack(cls, packed: bytes) -> Entry:
        """The inverse of `pack`."""
        return cls(int.from_bytes(packed[:8], "big"), *_ENTRY.unpack(packed[8:]))


def record_name(key_tag: int, fingerprint: bytes) -> str:
    """The name of a session's record: whoever has its row can find it."""
    return f"{key_tag}:{fingerprint.hex()}"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A stored record. Either `body`, with the `stamp` of this version of it, or why the session `ended`."""

    stamp: bytes = b""
    body: bytes = b""
    ended: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """What to read: records by name, and of some indexes the entries, if there are at least so many."""

    realm: str
    records: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    at_least: int = 0
    with_records: bool = False
    """The record of each entry, too."""
    op: str = ""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was there at `now_ms`, when the log ended at `seq`. What is missing is None."""

    now_ms: int
    seq: int
    clock: int
    op: tuple[str, ...]
    """The fields of the op record: digest, version, at, expiry, seq, realm seq, realm digest."""
    entries: tuple[tuple[Entry, Sealed | None], ...]
    records: tuple[Sealed | None, ...]
    copies: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write the record; `ends_ms` is when the session ends by itself, `due_ms` when the record may go."""

    body: bytes
    stamp: bytes
    due_ms: int
    ends_ms: int


@dataclass(frozen=True, slots=True)
class Count:
    """Count one more answer of this generation, up to `most`."""

    most: int = GRACE_ANSWERS


@dataclass(frozen=True, slots=True)
class Finish:
    """End the session: `row` (12 bytes) goes into the log, and the record says `why`."""

    row: bytes
    why: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How many sessions there may be with the new one. `clients`: the names of its client, 8 bytes each."""

    of_subject: int
    of_client: int
    evict: bool
    clients: bytes
    slack_s: int
    forget: bytes = b""
    """Entries (packed) that are known to be over."""


@dataclass(frozen=True, slots=True)
class SubjectCutoff:
    """A cutoff with a version that was chosen outside, and must still be above the clock of the partition."""

    version: int
    key_tag: int
    horizon_s: int
    fingerprints: bytes


@dataclass(frozen=True, slots=True)
class Step:
    """One step of one session. `expect`: the stamp it was decided on; b"": no record; None: whatever there is."""

    realm: str
    applied: int
    watched: bytes
    record: str
    expect: bytes | None
    action: Put | Count | Finish
    entry: bytes
    indexes: tuple[str, ...]
    until_ms: int = 0
    op: str = ""
    digest: str = ""
    limits: Limits | None = None
    cutoff: SubjectCutoff | None = None
    audit: bytes = b""
    """What goes into the realm's audit if this revokes something."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """Committed at `now_ms`; `rows` is what it added to the log, `seq` where that ends."""

    now_ms: int
    seq: int
    rows: bytes = b""
    realm_seq: int = 0
    realm_digest: bytes = b""
    count: int = 0
    copies: int = 0
    audit: AuditPoint | None = None


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """The settings of a client as text, "" if there are none; and where the audit tells of their change."""

    text: str
    audit: AuditPoint | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """The op id has been used for this before. `fields` as in `Seen.op`, without the digest."""

    now_ms: int
    seq: int
    fields: tuple[str, ...]
    copies: int = 0


@dataclass(frozen=True, slots=True)
class Behind:
    """The log has gone on in a way that matters: apply it up to `seq`, and decide again."""

    seq: int


class Turned(Enum):
    """Why a step was not committed, and nothing was."""

    CHANGED = "changed"  # the record is not the one it was decided on
    LATE = "late"  # a deadline has passed since
    LIMIT = "limit"
    CAPPED = "capped"  # answered too often
    CONFLICT = "conflict"  # the op id was used for something else


class SessionStore(Protocol):
    """The sessions of a store, one partition at a time. Every method may raise StoreUnavailable."""

    async def look_sessions(
        self, partition: int, who: Standing, caller_ms: int, look: Look, durability: Durability
    ) -> Seen | Closed:
        """Reads, and says what time it is and where the log ends."""

    async def step_session(
        self, partition: int, who: Standing, caller_ms: int, step: Step, durability: Durability
    ) -> Stepped | Again | Behind | Turned | Closed:
        """Commits a step, or says why not."""

    async def client_settings(
        self, log_id: str, realm: str, names: tuple[str, ...], new: str, most: int, audit: bytes = b""
    ) -> ClientSettings | Closed | None:
        """The settings of a client after `new` (if not empty) was written, with the `audit`; None if full."""


def parse_record(value: bytes | None) -> Sealed | None:
    """A record as the store has it."""
    if not value:
        return None
    if value[:1] == b"E":
        return Sealed(ended=value[1:].decode())
    return Sealed(value[2 : 2 + STAMP_BYTES], value[2 + STAMP_BYTES :])


def record_value(put: Put) -> bytes:
    """The inverse, for a record that nobody has asked for yet."""
    return b"S\0" + put.stamp + put.body
