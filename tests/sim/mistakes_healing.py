"""Mistakes in healing and membership. See mutants.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

from revocation.replication import healing, replica
from revocation.replication.history import Step
from revocation.replication.partition import Applied, Partition
from revocation.store import Closed, Registry
from revocation.store.segments import split_all
from revocation_sdk._view import rows_missing

Change = tuple[Any, str, Any]


async def put_first(self: Any, registry: Registry, epoch: int = 0) -> float:
    """Puts everything into the history that is over, opens the next one and confirms it unasked."""
    self._begin_healing("healing")
    await self._stop_reading()
    held = self.partition
    for name, history in held.realms.items():
        for rows in history.view.chunks():
            await self._store._run(lambda m, n=name, r=rows: force(m, n, r))
    log_id = cast(Any, replica).secrets.token_hex(16)
    opened = await self._store.open_history(
        self.index, registry.log_id, log_id, 0, sorted(self._known), max(epoch, self._latest[0])
    )
    if opened is not None:
        return 0.1
    heads = await self._store.heads(self.index, log_id)
    incarnation = await self._confirm(replace(registry, log_id=log_id))
    if isinstance(incarnation, Closed) or isinstance(heads, Closed):
        return 0.1
    self._incarnation, self.healing = incarnation, False
    self._on_applied(self.index, held.adopt_heads(log_id, heads, {}))
    self._start_reading()
    return 0.0


async def force(memory: Any, realm: str, rows: bytes) -> None:
    data, now = memory._enter(0)
    for _, _, name, due, part in split_all(rows):
        data.keep(realm, name, due, part, now)
    memory._append(0, realm, rows, "", now)


async def leave_first(self: Any, *_: Any) -> bool:
    who = self._replica.standing()
    return await self._store.strike(0, who.log_id, who.member, "leave", who.incarnation, 0) is None


def never(*_: Any, **__: Any) -> bool:
    return False


def propose_without_ops() -> Sequence[Change]:
    propose = healing._propose

    async def propose_as(index: int, store: Any, log_id: str, realm: str, rows: bytes, ops: str) -> None:
        await propose(index, store, log_id, realm, rows, "")

    return [(healing, "_propose", propose_as)]


async def scan_first(index: int, store: Any, held: Partition, registry: Registry) -> healing.Plan:
    learned = {}
    heads = await store.heads(index, registry.log_id)
    if isinstance(heads, Closed):
        raise healing.Moved
    proposed = 0
    for realm in sorted({*heads.realms, *held.realms}):
        own = held.realms[realm].view if realm in held.realms else None
        stored, learned[realm] = await healing._compare(index, store, registry.log_id, realm, own)
        if own is not None:
            lost = (rows_missing(stored, chunk) for chunk in own.chunks())
            proposed += await healing.put_back(index, store, registry.log_id, realm, lost)
    heads = await store.heads(index, registry.log_id)
    if isinstance(heads, Closed):
        raise healing.Moved
    late = heads
    return healing.Plan(lambda: healing._adopt(held, registry.log_id, late, learned), proposed, 0)


def adopt_without_streaming() -> Sequence[Change]:
    adopt = Partition.adopt_heads

    def adopt_as(self: Any, log_id: str, heads: Any, learned: dict[str, bytes]) -> list[Applied]:
        return adopt(self, log_id, heads, {})

    return [(Partition, "adopt_heads", adopt_as)]


def apply_over_gaps() -> Sequence[Change]:
    apply = Partition.apply

    def apply_as(self: Any, entry: Any) -> Applied:
        if entry.seq <= self.seq + 1:
            return apply(self, entry)
        history = self.realm(entry.realm)
        before = history.position
        history.position = replace(before, seq=entry.realm_seq - 1)
        step = history.append(entry.rows)
        history.position = replace(before, seq=entry.realm_seq, digest=bytes.fromhex(entry.realm_digest))
        step = Step(before, history.position, step.rows, mark=True)
        history._steps[-1] = step
        self.seq, self.digest = entry.seq, entry.digest
        return Applied(entry.realm, step)

    return [(Partition, "apply", apply_as)]


async def put_back_nothing(*_: Any) -> None:
    """Believes that the store has it all."""
