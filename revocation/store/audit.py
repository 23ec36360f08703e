"""What the service asks of a store about the audit. The store chains what the service has sealed, and can read none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from revocation.store import Closed
from revocation_sdk._audit import AuditPoint


class Remembered(NamedTuple):
    """What a replica knows of a realm's chain; `declaration` is sealed, and goes in if the store lacks it."""

    realm: str
    point: AuditPoint
    declaration: bytes


@dataclass(frozen=True, slots=True)
class Stand:
    """Where a realm's chain stands in a partition."""

    head: AuditPoint
    anchor: AuditPoint
    entries: int
    more: bool = False
    """Whether more is to be dropped than one script may: ask again."""


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """One entry of a chain as the store has it."""

    number: int
    time_ms: int
    log_seq: int
    extra: str
    sealed: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries. `there`: the digest of the entry after which they come, "" if it is not there."""

    head: AuditPoint
    anchor: AuditPoint
    there: str
    entries: tuple[StoredEntry, ...]


class AuditStore(Protocol):
    """The audit of a store, one partition at a time. Every method may raise StoreUnavailable."""

    async def keep_audit(
        self, partition: int, log_id: str, retention_ms: int, most: int, remembered: Sequence[Remembered]
    ) -> list[Stand] | Closed:
        """Declares what was lost of each of these chains, and drops entries that are too old or too many.

        All in one script: so a few realms at a time, and a few hundred entries, where there is `more`.
        """

    async def strike_by_order(
        self, partition: int, log_id: str, member: str, silent_ms: int, audit: bytes
    ) -> AuditPoint | Closed:
        """Takes a member off by force, and says so in the audit of the installation."""

    async def read_audit(self, partition: int, log_id: str, realm: str, after: int, count: int) -> Page | Closed:
        """At most `count` entries behind the number `after`, oldest first."""
