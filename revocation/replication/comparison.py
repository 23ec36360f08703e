"""Now and then a replica compares what the store holds with what it holds itself, and puts back what was lost there.

A store can lose state under an intact log: keys deleted by hand, or evicted, or a backup of which only a part came
back. No chain shows that, and a replica that starts afterwards does not know of it. Whoever still holds it puts it back
as a new record, from which the other replicas and their verifiers learn of it, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence

import structlog

from revocation.replication import healing
from revocation.replication.replica import NotReady, Replica
from revocation.store import Store, StoreUnavailable
from revocation_sdk._lattice import Group, count_rows, join_groups, parse_groups, row_size
from revocation_sdk._view import View, rows_missing

log = structlog.get_logger("revocation.comparison")

EVERY_S = 600.0
_LOOK_S = 1.0
_SPREAD_S = 2.0
"""Replicas that notice a newcomer do not all compare at the same moment: who is later finds it done."""

_ABOUT_TO_EXPIRE_S = 60
"""What expires so soon is not worth a record; the clocks may differ by as much."""


class Comparison:
    """Of one partition. Every `EVERY_S`, and when a member has just taken its state from the store."""

    def __init__(
        self, replica: Replica, store: Store, count: Callable[[str, int], None] = lambda realm, rows: None
    ) -> None:
        self._replica, self._store, self._count = replica, store, count
        self._members: set[tuple[str, int]] | None = None

    async def run(self) -> None:
        """Compares for ever."""
        while True:
            await self._due()
            # In another history, or without a store, there will be a next time.
            with contextlib.suppress(healing.Moved, NotReady, StoreUnavailable):
                await self.once()

    async def once(self) -> int:
        """Puts back what the store lacks, and returns how many rows that were. Raises Moved and NotReady."""
        replica = self._replica
        log_id, total = replica.standing().log_id, 0
        for realm, history in tuple(replica.partition.realms.items()):
            # What is held now, and not what comes while the store is read: that would look lost.
            held = await asyncio.to_thread(list, history.view.chunks())
            stored = [rows async for rows in healing.stored_rows(replica.index, self._store, log_id, realm)]
            lost = await asyncio.to_thread(_lost, held, stored, replica.store_ms() // 1000 + _ABOUT_TO_EXPIRE_S)
            if lost:
                await healing.put_back(replica.index, self._store, log_id, realm, lost)
                total += self._tell(realm, sum(map(count_rows, lost)))
        return total

    def _tell(self, realm: str, rows: int) -> int:
        hint = "put back from memory; something deletes keys of the store, or evicts them"
        log.error("store_lost_rows", partition=self._replica.index, realm=realm, rows=rows, hint=hint)
        self._count(realm, rows)
        return rows

    async def _due(self) -> None:
        clock = self._replica.clock
        end = clock.mono() + EVERY_S * random.uniform(0.8, 1.2)
        while clock.mono() < end:
            await asyncio.sleep(_LOOK_S)
            if self._newcomer():
                await asyncio.sleep(random.uniform(0, _SPREAD_S))
                return

    def _newcomer(self) -> bool:
        """Whether somebody is in the registry who was not there at the last look."""
        replica = self._replica
        if replica.state != "usable":
            return False
        seen, self._members = self._members, {(name, m.incarnation) for name, m in replica.registry.members.items()}
        return seen is not None and bool(self._members - seen)


def _lost(held: Sequence[bytes], stored: Sequence[bytes], expires_after: int) -> list[bytes]:
    """The part of `held` that `stored` lacks and that expires later than that."""
    there = View()
    there.merge(*stored)
    lacking = (_later(rows_missing(there, chunk), expires_after) for chunk in held)
    return [rows for rows in lacking if rows]


def _later(chunk: bytes, expires_after: int) -> bytes:
    groups = []
    for kind, key_tag, rows in parse_groups(chunk):
        size = row_size(kind)
        each = (rows[at : at + size] for at in range(0, len(rows), size))
        kept = b"".join(row for row in each if int.from_bytes(row[8:12], "little") > expires_after)
        groups.append(Group(kind, key_tag, kept))
    return join_groups(groups)
