"""The audit in Redis and Valkey: arguments of `lua/audit_keep.lua` and its like, and their replies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from revocation.store import Closed
from revocation.store.audit import Page, Remembered, Stand, StoredEntry
from revocation_sdk._audit import AuditPoint

AUDIT_SCRIPTS = ("audit_keep", "audit_read")
AUDITED_SCRIPTS = (*AUDIT_SCRIPTS, "commit", "session", "clients", "strike", "approval")
"""The scripts that `lua/audit.lua` is put in front of."""


class RedisAudit(ABC):
    """The part of RedisStore that is about the audit."""

    @abstractmethod
    async def _run(self, script: str, partition: int, *arguments: Any) -> list[Any]: ...

    async def keep_audit(
        self, partition: int, log_id: str, retention_ms: int, most: int, remembered: Sequence[Remembered]
    ) -> list[Stand] | Closed:
        """See lua/audit_keep.lua."""
        flat: list[Any] = []
        for realm, point, declaration in remembered:
            flat += [realm, point.number, point.digest, declaration]
        reply = await self._run("audit_keep", partition, log_id, retention_ms, most, *flat)
        if reply[0] != b"ok":
            return Closed(reply[0].decode())
        return [Stand(audit_point(*item[:2]), audit_point(*item[2:4]), item[4], bool(item[5])) for item in reply[1:]]

    async def strike_by_order(
        self, partition: int, log_id: str, member: str, silent_ms: int, audit: bytes
    ) -> AuditPoint | Closed:
        """See lua/strike.lua."""
        reply = await self._run("strike", partition, log_id, member, "forced", "", silent_ms, audit)
        return audit_point(*reply[1:]) if reply[0] == b"ok" else Closed(reply[0].decode())

    async def read_audit(self, partition: int, log_id: str, realm: str, after: int, count: int) -> Page | Closed:
        """See lua/audit_read.lua."""
        reply = await self._run("audit_read", partition, log_id, realm, after, count)
        if reply[0] != b"ok":
            return Closed(reply[0].decode())
        entries = tuple(
            StoredEntry(int(number), int(time), int(seq), extra.decode("latin-1"), sealed, digest.decode("latin-1"))
            for number, time, seq, extra, sealed, digest in reply[6:]
        )
        return Page(audit_point(*reply[1:3]), audit_point(*reply[3:5]), reply[5].decode("latin-1"), entries)


def audit_point(number: bytes, digest: bytes) -> AuditPoint:
    """A point as scripts answer it."""
    return AuditPoint(int(number), digest.decode("latin-1"))
