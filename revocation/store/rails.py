"""What the service asks of a store for its safety rails: how many sessions there are, and what waits for approval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from revocation.store import Closed, Store
from revocation.store.audit import AuditStore
from revocation.store.mailbox import MailStore
from revocation.store.sessions import Entry, Sealed, SessionStore


@dataclass(frozen=True, slots=True)
class IndexPart:
    """A part of one index: how many entries were gone through, and those among them whose session lives."""

    count: int
    live: tuple[tuple[Entry, Sealed], ...]


class RailsStore(Protocol):
    """Every method may raise StoreUnavailable."""

    async def index_names(
        self, partition: int, log_id: str, realm: str, cursor: int, count: int
    ) -> tuple[int, list[str]] | Closed:
        """Some of the realm's indexes, one of which may come twice, and where to go on (0: all were named)."""

    async def index_entries(
        self, partition: int, log_id: str, realm: str, wanted: Sequence[tuple[str, int]], clients: bytes, most: int
    ) -> tuple[int, list[IndexPart]] | Closed:
        """The store's time, and of each wanted (index, offset) the live entries; all in all `most` are gone through.

        `clients`: only entries of these, 8 bytes each; empty: all.
        """

    async def approval(
        self, log_id: str, realm: str, name: str, life_ms: int, new: str, audit: bytes = b""
    ) -> str | Closed:
        """What waits for approval under this name after `new` (if not empty) was put there, unless there was some.

        `audit` is the entry for the realm's audit, if it was put there.
        """


class DeskStore(SessionStore, RailsStore, Protocol):
    """Sessions, and what is asked about all of them."""


class FullStore(Store, DeskStore, AuditStore, MailStore, Protocol):
    """A store that can do all that the service needs."""
