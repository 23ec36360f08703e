"""Barriers: proof that a replica's view is current (rules D2, D3).

One barrier at a time per partition, shared by everybody who asked before it began, and by nobody later.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from revocation.replication.replica import Fenced, NotReady, Replica
from revocation.store import Closed, Durability, Store, StoreUnavailable


@dataclass(frozen=True, slots=True)
class Proof:
    """The view held everything that was acknowledged before the barrier began; `store_ms` is the store's time then."""

    store_ms: int
    clock: int
    """No version acknowledged by then is above it."""


class Barrier:
    """Barriers of one partition."""

    def __init__(self, replica: Replica, store: Store, durability: Durability) -> None:
        self._replica = replica
        self._store = store
        self._durability = durability
        self._next: asyncio.Future[Proof] | None = None
        self._running: asyncio.Task[None] | None = None

    async def prove(self) -> Proof:
        """Proof by a barrier that begins after this call. Raises NotReady or StoreUnavailable."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            # An unawaited failure (all askers gone) is nobody's concern.
            self._next.add_done_callback(lambda future: future.cancelled() or future.exception())
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name=f"barrier-{self._replica.index}")
        return await asyncio.shield(self._next)

    async def _run(self) -> None:
        while self._next is not None:
            waiting, self._next = self._next, None
            try:
                waiting.set_result(await self._once())
            except (NotReady, StoreUnavailable) as error:
                waiting.set_exception(error)
            except Fenced:
                waiting.set_exception(NotReady("healing"))
            except Exception as error:
                self._running = None
                waiting.set_exception(error)
                raise
        self._running = None

    async def _once(self) -> Proof:
        who = self._replica.standing()
        tail = await self._store.barrier(self._replica.index, who, self._replica.clock.wall_ms(), self._durability)
        if isinstance(tail, Closed):
            self._replica.doubt()
            raise NotReady(tail.value)
        if tail.copies < self._durability.replicas:
            raise NotReady("not_replicated")
        await self._replica.applied(who.log_id, tail.seq)
        return Proof(tail.now_ms, tail.clock)
