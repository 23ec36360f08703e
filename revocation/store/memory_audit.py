"""The audit in memory: what `lua/audit.lua` and its like do, to be read and to be tested against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from revocation.store import Closed
from revocation.store.audit import Page, Remembered, Stand, StoredEntry
from revocation_sdk._audit import NOWHERE, AuditPoint, chain_digest

if TYPE_CHECKING:
    from revocation.store.memory_data import Data


_MOST_DROPPED = 512


@dataclass(slots=True)
class Chain:
    """One realm's chain in one partition."""

    head: AuditPoint = NOWHERE
    anchor: AuditPoint = NOWHERE
    entries: list[StoredEntry] = field(default_factory=list)

    def add(self, now: int, seq: int, extra: str, sealed: bytes) -> AuditPoint:
        """The next entry."""
        number = self.head.number + 1
        digest = chain_digest(self.head.digest, number, now, seq, extra, sealed)
        self.entries.append(StoredEntry(number, now, seq, extra, sealed, digest))
        self.head = AuditPoint(number, digest)
        return self.head

    def digest_at(self, number: int) -> str:
        """The digest of an entry, "" if it is not there."""
        if number == self.anchor.number:
            return self.anchor.digest
        return next((entry.digest for entry in self.entries if entry.number == number), "")

    def lacks(self, point: AuditPoint) -> bool:
        """Whether an entry that somebody remembers is not there, and was not dropped."""
        if point.number > self.head.number:
            return True
        if point.number == self.head.number:
            return point != self.head
        return point.number > self.anchor.number and self.digest_at(point.number) != point.digest

    def declare(self, point: AuditPoint, now: int, sealed: bytes) -> None:
        """Goes on behind both what is there and what was, and says so."""
        if self.head.number == 0:
            self.anchor = self.head = point
        self.head = AuditPoint(max(self.head.number, point.number), self.head.digest)
        self.add(now, 0, "", sealed)

    def drop(self, now: int, retention_ms: int, most: int, left: int) -> int:
        """Drops what is too old or too much, `left` entries at most, but one at least; how many may still go."""
        while self.due(now, retention_ms, most):
            oldest = self.entries.pop(0)
            self.anchor = AuditPoint(oldest.number, oldest.digest)
            left -= 1
            if left <= 0:
                break
        return left

    def due(self, now: int, retention_ms: int, most: int) -> bool:
        """Whether the oldest entry has to go."""
        if not self.entries:
            return False
        return now - self.entries[0].time_ms > retention_ms or sum(map(_size, self.entries)) > most


def _size(entry: StoredEntry) -> int:
    return len(entry.sealed) + 100


class MemoryAudit(ABC):
    """The part of MemoryStore that is about the audit."""

    @abstractmethod
    def _enter(self, partition: int) -> tuple[Data, int]: ...
    @abstractmethod
    def _gate(self, data: Data, log_id: str) -> Closed | None: ...

    @abstractmethod
    async def strike(
        self, partition: int, log_id: str, member: str, mode: str, incarnation: int | None, silent_ms: int
    ) -> Closed | None: ...

    async def strike_by_order(
        self, partition: int, log_id: str, member: str, silent_ms: int, audit: bytes
    ) -> AuditPoint | Closed:
        """See lua/strike.lua."""
        closed = await self.strike(partition, log_id, member, "forced", None, silent_ms)
        if closed is not None:
            return closed
        data, now = self._enter(partition)
        return data.audit("*", now, 0, "", audit) if audit else NOWHERE

    async def keep_audit(
        self, partition: int, log_id: str, retention_ms: int, most: int, remembered: Sequence[Remembered]
    ) -> list[Stand] | Closed:
        """See lua/audit_keep.lua."""
        data, now = self._enter(partition)
        if closed := self._gate(data, log_id):
            return closed
        stands, left = [], _MOST_DROPPED
        for realm, point, declaration in remembered:
            chain = data.audits.setdefault(realm, Chain())
            if declaration and point.number and chain.lacks(point):
                chain.declare(point, now, declaration)
            left = chain.drop(now, retention_ms, most, left)
            more = chain.due(now, retention_ms, most)
            stands.append(Stand(chain.head, chain.anchor, len(chain.entries), more))
        return stands

    async def read_audit(self, partition: int, log_id: str, realm: str, after: int, count: int) -> Page | Closed:
        """See lua/audit_read.lua."""
        data, _ = self._enter(partition)
        if closed := self._gate(data, log_id):
            return closed
        chain = data.audits.get(realm, Chain())
        found = tuple(entry for entry in chain.entries if entry.number > after)[:count]
        return Page(chain.head, chain.anchor, chain.digest_at(after), found)
