"""A store that is measured: what commits, barriers and heartbeats take, how they end, and how the log lags."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from revocation.observability.telemetry import Metrics, timed
from revocation.store import (
    Closed,
    Committed,
    Denials,
    Durability,
    LogEntry,
    Op,
    OpState,
    Registry,
    Standing,
    StoreUnavailable,
    Tail,
)
from revocation.store.rails import FullStore


def measured(store: FullStore, metrics: Metrics, store_ms: Callable[[], int]) -> FullStore:
    """`store`, measured. `store_ms` is the store's time as this process knows it."""
    return cast(FullStore, _Measured(store, metrics, store_ms))


class _Measured:
    """Passes everything on; looks at what passes."""

    def __init__(self, store: FullStore, metrics: Metrics, store_ms: Callable[[], int]) -> None:
        self._store = store
        self._metrics = metrics
        self._store_ms = store_ms

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def commit(
        self, partition: int, who: Standing, caller_ms: int, ops: Sequence[Op], durability: Durability, *more: Any
    ) -> Committed | Closed:
        begun = time.perf_counter()
        outcome = "unknown"
        try:
            reply = await self._store.commit(partition, who, caller_ms, ops, durability, *more)
            outcome = "refused" if isinstance(reply, Closed) else "done"
        except StoreUnavailable as error:
            outcome = "refused" if error.did_nothing else "unknown"
            raise
        finally:
            self._metrics.commits.labels(outcome).inc()
            self._metrics.commit_seconds.labels(str(partition)).observe(time.perf_counter() - begun)
        if isinstance(reply, Committed):
            self._count_rows(ops, reply)
        return reply

    def _count_rows(self, ops: Sequence[Op], reply: Committed) -> None:
        for op, result in zip(ops, reply.results, strict=True):
            if result.state is OpState.DONE and not op.realm.startswith("-"):
                rows = sum(
                    len(group.rows) // 12 if isinstance(group, Denials) else len(group.fingerprints) // 8
                    for group in op.groups
                )
                self._metrics.rows_committed.labels(op.realm).inc(rows)

    async def barrier(
        self, partition: int, who: Standing, caller_ms: int, durability: Durability, *, newcomer: bool = False
    ) -> Tail | Closed:
        with timed(self._metrics.barrier_seconds.labels(str(partition)).observe):
            return await self._store.barrier(partition, who, caller_ms, durability, newcomer=newcomer)

    async def beat(
        self,
        partition: int,
        who: Standing | None,
        member: str,
        caller_ms: int,
        read: int,
        trim_below: int,
        **more: Any,
    ) -> Registry:
        with timed(self._metrics.store_seconds.labels(str(partition)).observe):
            return await self._store.beat(partition, who, member, caller_ms, read, trim_below, **more)

    async def read_log(self, partition: int, after: int, count: int, block_ms: int) -> list[LogEntry]:
        entries = await self._store.read_log(partition, after, count, block_ms)
        if entries and block_ms:  # without waiting it is history that is read
            # What is read now is queued for the subscribers in the next turn of the event loop.
            lag_ms = self._store_ms() - entries[-1].at_ms
            self._metrics.log_lag_seconds.labels(str(partition)).observe(max(0, lag_ms) / 1000)
        return entries
