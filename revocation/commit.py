"""Group commit: concurrent operations of a partition share one script call, each with its own answer.

While one round is under way the next one fills, and an idle service adds no delay: what fills a script goes at once,
what does not waits for the acknowledgement of the round before it, as TCP does with small segments, and then, where
there is company, a few milliseconds more. An operation is acknowledged when its script found the history usable, this
replica is still in that history and not healing, and its own view holds the record (rule H5); else the same operation
runs again, under the same key, until the caller's deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace

import structlog

from revocation.audit.seal import Auditor
from revocation.errors import InvalidField, OutcomeUnknown, Overloaded, ServiceError, Unavailable
from revocation.fairness.turns import FairQueue
from revocation.replication.replica import LACKING, SECRET_MISSING, Fenced, NotReady, Replica
from revocation.store import (
    NO_AUDIT,
    Closed,
    Committed,
    Denials,
    Durability,
    Op,
    OpResult,
    OpState,
    Store,
    StoreUnavailable,
)
from revocation.store.hints import FULL

log = structlog.get_logger("revocation.commit")

MAX_ROWS = 1_000
"""Rows of one script, which blocks the store for about a millisecond: two operations of a batch."""

MAX_WAITING = 20_000
_PATIENCE_S = 0.02
"""How long what does not fill a script waits at most for the round before it."""

_GATHER_S, _GATHER_EACH_S = 0.004, 0.001
"""How much longer at most, and for each other operation that was seen lately. A round costs the service as much as
several calls do, and calls that are answered together are followed by others that come together."""


@dataclass(slots=True)
class _Waiting:
    op: Op
    rows: int
    deadline: float
    tried: bool
    future: asyncio.Future[OpResult]


class Committer:
    """Commits of one partition."""

    def __init__(self, replica: Replica, store: Store, durability: Durability, auditor: Auditor | None = None) -> None:
        self._replica = replica
        self._store = store
        self._durability = durability
        self._queue: FairQueue[_Waiting] = FairQueue()
        self._auditor = auditor
        self._rows = 0
        """Rows of what waits in the queue."""
        self._told_full = False
        self._last_size, self._last_at = 0, 0.0
        """Operations of the last round, and when it was put together."""
        self._last_round: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Operations that wait for a script."""
        return len(self._queue)

    async def commit(self, op: Op, deadline: float) -> OpResult:
        """Commits one operation by `deadline` (event-loop time).

        Raises Unavailable (nothing committed), OutcomeUnknown, Overloaded, or InvalidField for a reused op id.
        """
        if len(self._queue) >= MAX_WAITING:
            text = "too many operations are waiting for the store"
            raise Overloaded(text, retry_after_ms=200, limit="commit_queue")
        loop = asyncio.get_running_loop()
        rows = sum(len(g.rows) // 12 if isinstance(g, Denials) else len(g.fingerprints) // 8 for g in op.groups)
        waiting = _Waiting(op, rows, deadline, False, loop.create_future())
        self._queue.put(op.realm, waiting)
        self._rows += rows
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name=f"commit-{self._replica.index}")
        # One plain timer: a scope with a time-out around each call costs several times as much.
        timer = loop.call_at(deadline, self._expire, waiting)
        try:
            return await waiting.future
        finally:
            timer.cancel()

    def _expire(self, waiting: _Waiting) -> None:
        self._fail(waiting, self._late(waiting.tried))

    def _late(self, tried: bool) -> ServiceError:
        if tried:
            return OutcomeUnknown("the store did not answer in time; retry with the same op id")
        if self._replica.state == "unreachable":
            return Unavailable("the store cannot be reached", reason="STORE_UNAVAILABLE")
        if self._replica.state == SECRET_MISSING:
            return Unavailable(LACKING)
        return Unavailable(f"the store is not usable ({self._replica.state}); retry with the same op id")

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._fill()
                await self._round(self._take())
        finally:
            self._running = None

    async def _fill(self) -> None:
        """Lets the queue fill while the round before is not acknowledged, up to a whole script."""
        if self._last_round is None or self._rows >= MAX_ROWS:
            return
        now = asyncio.get_running_loop().time()
        others = self._last_size - 1 if now - self._last_at < _PATIENCE_S else 0
        if not self._last_round.done():
            others += 1
            await asyncio.wait((self._last_round,), timeout=_PATIENCE_S)
        if others > 0 and self._rows < MAX_ROWS:
            await asyncio.sleep(min(_GATHER_S, others * _GATHER_EACH_S))

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        rows = 0
        while self._queue and (not batch or rows + self._queue.first().rows <= MAX_ROWS):
            waiting = self._queue.take()
            self._rows -= waiting.rows
            if not waiting.future.done():  # else its caller has gone
                batch.append(waiting)
                rows += waiting.rows
        self._last_size, self._last_at = len(batch), asyncio.get_running_loop().time()
        return batch

    async def _round(self, batch: list[_Waiting]) -> None:
        if not batch:
            return
        try:
            await self._attempt(batch)
        except (NotReady, Fenced):
            await self._again(batch)
        except StoreUnavailable as error:
            log.warning(
                "commit_unanswered", partition=self._replica.index, operations=len(batch), error=str(error),
                kind=error.kind, hint=error.hint,
            )  # fmt: skip
            self._replica.doubt()
            for waiting in batch:
                self._fail(waiting, _gone(waiting.tried))

    async def _attempt(self, batch: list[_Waiting]) -> None:
        who = self._replica.standing()
        first_tried = [waiting for waiting in batch if not waiting.tried]
        for waiting in batch:
            waiting.tried = True
        ops = [waiting.op for waiting in batch]
        index, now_ms = self._replica.index, self._replica.clock.wall_ms()
        audits = self._auditor.seal_round(index, who.log_id, ops) if self._auditor else NO_AUDIT
        try:
            reply = await self._store.commit(index, who, now_ms, ops, self._durability, audits)
        except StoreUnavailable as error:
            for waiting in first_tried:
                waiting.tried = not error.did_nothing
            raise
        if isinstance(reply, Closed):
            # This script did nothing; one before it may have, in a history that is over.
            for waiting in first_tried:
                waiting.tried = False
            await self._closed(reply, batch)
        else:
            self._told_full = False
            self._note(who.log_id, ops, reply)
            # Not awaited: the next call need not wait until the log has brought this one back.
            self._last_round = asyncio.create_task(self._acknowledge(batch, reply, who.log_id))

    def _note(self, log_id: str, ops: list[Op], reply: Committed) -> None:
        if self._auditor:
            points = {op.realm: result.audit for op, result in zip(ops, reply.results, strict=True) if result.audit}
            for realm, point in points.items():
                self._auditor.note(self._replica.index, log_id, realm, point)

    async def _closed(self, closed: Closed, batch: list[_Waiting]) -> None:
        if closed in FULL:
            limit, text, hint = FULL[closed]
            if not self._told_full:
                log.error("commits_refused", partition=self._replica.index, limit=limit, hint=hint)
            self._told_full = True
            self._replica.doubt()  # its next heartbeat trims what may go
            for waiting in batch:
                self._fail(waiting, _no_room(waiting.tried, text, limit))
            return
        self._replica.doubt()
        raise NotReady(closed.value)

    async def _acknowledge(self, batch: list[_Waiting], reply: Committed, log_id: str) -> None:
        try:
            await self._replica.applied(log_id, reply.seq)
        except Fenced:
            # Committed in a past that may be gone: ask the store again, never one's memory.
            await self._again(batch)
            return
        enough = reply.copies >= max(self._durability.replicas, int(self._durability.fsync))
        for waiting, result in zip(batch, reply.results, strict=True):
            if result.state is OpState.CONFLICT:
                text = "was used before, with another content"
                self._fail(waiting, InvalidField("op_id", text, reason="OP_ID_REUSED"))
            elif not enough:
                self._fail(waiting, OutcomeUnknown("the copies asked for were not reached; retry with the same op id"))
            elif not waiting.future.done():
                waiting.future.set_result(replace(result, log_id=log_id))

    async def _again(self, batch: list[_Waiting]) -> None:
        """Puts the batch back and waits until the replica is usable, or the first deadline."""
        if self._replica.state in ("unreachable", SECRET_MISSING):
            for waiting in batch:
                self._fail(waiting, self._late(waiting.tried))
            return
        for realm in dict.fromkeys(waiting.op.realm for waiting in batch):
            self._queue.put_back(realm, (waiting for waiting in batch if waiting.op.realm == realm))
        self._rows += sum(waiting.rows for waiting in batch)
        loop = asyncio.get_running_loop()
        first = min(waiting.deadline for waiting in batch) - loop.time()
        with contextlib.suppress(NotReady):
            await self._replica.usable(min(max(first, 0.01), 1.0))
        if self._running is None and self._queue:
            self._running = asyncio.create_task(self._run(), name=f"commit-{self._replica.index}")

    def _fail(self, waiting: _Waiting, error: ServiceError) -> None:
        if not waiting.future.done():
            waiting.future.set_exception(error)


def _no_room(tried: bool, text: str, limit: str) -> ServiceError:
    if tried:  # by a script before this one, which may have done it
        return OutcomeUnknown(f"{text}; an attempt before may have done it: retry with the same op id")
    return Overloaded(text, retry_after_ms=1_000, limit=limit)


def _gone(tried: bool) -> ServiceError:
    if tried:
        return OutcomeUnknown("the store went away; retry with the same op id")
    return Unavailable("the store refuses to work at the moment; its state is in the log", reason="STORE_UNAVAILABLE")
