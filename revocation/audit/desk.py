"""The audit of one service process around the pure part: keeping it in the store, and reading it for auditors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import structlog

from revocation.audit.seal import INSTALLATION, Auditor
from revocation.callers.roles import Caller
from revocation.config.settings import Config
from revocation.errors import Unavailable
from revocation.keys.keyring import Keyring
from revocation.replication.replica import NotReady, Replica
from revocation.store import Closed, StoreUnavailable
from revocation.store.audit import AuditStore, Page
from revocation_sdk._audit import Action, AuditEntry, AuditFrom, AuditPoint, AuditStart

log = structlog.get_logger("revocation.audit")

_KEEP_EVERY_S = 10.0
_REALMS_AT_ONCE = 10
_ROUNDS = 16

_PAGE = 200
_LOOK_EVERY_S = 0.5


class AuditDesk:
    """Keeps the chains of all realms, and reads them."""

    def __init__(self, config: Config, keyring: Keyring, replicas: Sequence[Replica], store: AuditStore) -> None:
        self.auditor = Auditor(keyring, config.realms, replicas[0].clock.wall_ms, on=config.audit_retention_s > 0)
        self._replicas = replicas
        self._store = store
        self._retention_ms = config.audit_retention_s * 1000
        self._most = config.audit_max_mb * 1_000_000

    async def keep_forever(self) -> None:
        """Looks after the chains now and then, until cancelled."""
        while True:
            await asyncio.sleep(_KEEP_EVERY_S)
            for replica in self._replicas:
                with contextlib.suppress(StoreUnavailable):
                    await self.keep(replica.index)

    async def keep(self, partition: int, rounds: int = _ROUNDS) -> None:
        """Says what the store has lost of the chains of a partition, drops what is old, and remembers the rest.

        `rounds`: how many more scripts may drop entries of a few realms, before it is the turn of the next ones.
        """
        log_id = self._replicas[partition].partition.log_id
        if not log_id:
            return
        realms = self.auditor.realms
        for first in range(0, len(realms), _REALMS_AT_ONCE):
            due = await self._keep(partition, log_id, realms[first : first + _REALMS_AT_ONCE])
            for _ in range(rounds):
                if not due:
                    break
                due = await self._keep(partition, log_id, due)

    async def _keep(self, partition: int, log_id: str, realms: Sequence[str]) -> Sequence[str]:
        """One script's worth; the realms of which there is more to drop."""
        remembered = self.auditor.remembered(partition, log_id, realms)
        stands = await self._store.keep_audit(partition, log_id, self._retention_ms, self._most, remembered)
        if isinstance(stands, Closed):
            return ()
        for known, stand in zip(remembered, stands, strict=True):
            self.auditor.note(partition, log_id, known.realm, stand.head)
        return [known.realm for known, stand in zip(remembered, stands, strict=True) if stand.more]

    def striking(self, partition: int, log_id: str, member: str, caller: Caller) -> bytes:
        """The entry for a member that an operator strikes off."""
        record = self.auditor.record(
            Action.MEMBER_STRUCK, None, value=member, asked=1, stored=1, actor=caller.name, role=caller.role
        )
        return self.auditor.seal(partition, log_id, INSTALLATION, [record])

    # -- reading ------------------------------------------------------------------------------------------------

    async def starts(self, realm: str, after: Sequence[AuditPoint]) -> list[AuditStart]:
        """Where the chains of a realm stand, and from where each will be read. Raises Unavailable."""
        wanted = after if len(after) == len(self._replicas) else [AuditPoint()] * len(self._replicas)
        return [await self._start(index, realm, point) for index, point in enumerate(wanted)]

    async def _start(self, partition: int, realm: str, point: AuditPoint) -> AuditStart:
        page = await self._read(partition, realm, point.number, 0)
        if not point.number:
            begins = AuditFrom.OLDEST
        elif point.number < page.anchor.number:
            begins = AuditFrom.TOO_OLD
        else:
            begins = AuditFrom.RESUMED if page.there == point.digest else AuditFrom.DIVERGED
        return AuditStart(page.anchor, page.head, begins)

    async def entries(self, partition: int, realm: str, after: int, until: int) -> AsyncIterator[AuditEntry]:
        """The entries behind the number `after`, up to `until`. Raises Unavailable."""
        while after < until:
            page = await self._read(partition, realm, after, _PAGE)
            for stored in page.entries:
                if stored.number > until:
                    return
                yield self.auditor.open(partition, realm, stored)
                after = stored.number
            if not page.entries:
                return

    async def _read(self, partition: int, realm: str, after: int, count: int) -> Page:
        replica = self._replicas[partition]
        try:
            for _ in range(3):
                page = await self._store.read_audit(partition, replica.partition.log_id, realm, after, count)
                if isinstance(page, Page):
                    return page
                replica.doubt()
                with contextlib.suppress(NotReady):
                    await replica.usable(1.0)
        except StoreUnavailable:
            raise Unavailable("the store cannot be reached", reason="STORE_UNAVAILABLE") from None
        raise Unavailable("the store is not usable at the moment")

    async def wait(self) -> None:
        """Until it is worth looking for more."""
        await asyncio.sleep(_LOOK_EVERY_S)
