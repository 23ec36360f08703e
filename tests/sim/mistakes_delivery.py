"""Mistakes between replica and client. See mutants.py."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from revocation.fanout.hub import RealmHub, Subscriber
from revocation.replication.barrier import Proof
from revocation.replication.history import RealmHistory, Resume
from revocation.replication.replica import NotReady
from revocation.rpc import stream
from revocation.store import Closed
from revocation_sdk._follower import Follower, Lease, Resync
from revocation_sdk._lattice import MalformedRows
from revocation_sdk._messages import Intent, Mark
from revocation_sdk._position import Position
from revocation_sdk._view import View

Change = tuple[Any, str, Any]


def resume_at_the_end() -> Sequence[Change]:
    resume = RealmHistory.resume

    def resume_as(self: Any, position: Position) -> Resume | str:
        found = resume(self, position)
        return Resume(replace(position, seq=0), ()) if found == "unknown_history" else found

    return [(RealmHistory, "resume", resume_as)]


def place_by_number(self: Any, position: Position) -> int | str:
    start, first = self._eras[-1].start, self._eras[-1].first
    end: int = self._dropped + len(self._steps)
    index: int = min(max(start + position.seq - first, self._dropped), end)
    return index


def progress_unflushed(self: Any, subscriber: Any, nonce: int, store_ms: int) -> None:
    self.flush()
    subscriber._queue.appendleft(stream.progress(nonce, self.positions(), store_ms))
    subscriber.wake.set()


async def answer_latecomers(self: Any) -> None:
    try:
        while self._asked:
            try:
                proofs = await asyncio.gather(*(barrier.prove() for barrier in self._barriers))
            except (NotReady, Exception):
                self._asked.clear()
                return
            asked, self._asked = self._asked, {}
            self._tell(asked, min(proof.store_ms for proof in proofs))
    finally:
        self._answering = None


async def prove_unread(self: Any) -> Proof:
    who = self._replica.standing()
    tail = await self._store.barrier(self._replica.index, who, self._replica.clock.wall_ms(), self._durability)
    if isinstance(tail, Closed):
        raise NotReady(tail.value)
    return Proof(tail.now_ms, 0)


def subscribe_later() -> Sequence[Change]:
    subscribe = RealmHub.subscribe

    def subscribe_as(self: Any, subscriber: Any, *arguments: Any) -> Any:
        beginning = subscribe(self, subscriber, *arguments)
        self.subscribers.discard(subscriber)
        asyncio.get_running_loop().call_later(0.05, self.subscribers.add, subscriber)
        return beginning

    return [(RealmHub, "subscribe", subscribe_as)]


def lease_from_arrival() -> Sequence[Change]:
    progress = Follower._progress

    def progress_as(self: Any, message: Any, mono: float) -> None:
        before = self.lease
        progress(self, message, mono)
        if self.lease is not before and self.lease is not None:
            self.lease = Lease(mono, self.lease.wall, mono, self.lease.store_ms, self.lease.positions)

    return [(Follower, "_progress", progress_as)]


def put_twice() -> Sequence[Change]:
    put = Subscriber.put

    def put_as(self: Any, message: bytes) -> None:
        put(self, message)
        put(self, message)

    return [(Subscriber, "put", put_as)]


def put_in_disorder(self: Any, message: bytes) -> None:
    self._queue.appendleft(message)
    self._bytes += len(message)
    self.wake.set()


def put_and_drop() -> Sequence[Change]:
    put = Subscriber.put

    def put_as(self: Any, message: bytes) -> None:
        self.count = getattr(self, "count", 0) + 1
        if self.count % 3:
            put(self, message)

    return [(Subscriber, "put", put_as)]


def believe_progress() -> Sequence[Change]:
    """The server lets progress overtake, and the client does not compare."""
    progress = Follower._progress

    def progress_as(self: Any, message: Any, mono: float) -> None:
        progress(self, replace(message, positions=self._positions), mono)

    return [(RealmHub, "progress", progress_unflushed), (Follower, "_progress", progress_as)]


def latest_ping() -> Sequence[Change]:
    progress = Follower._progress

    def progress_as(self: Any, message: Any, mono: float) -> None:
        if message.nonce in self._pings:
            self._pings[message.nonce] = next(reversed(self._pings.values()))
        progress(self, message, mono)

    return [(Follower, "_progress", progress_as)]


def swallow_failed_apply() -> Sequence[Change]:
    changes = Follower._changes

    def changes_as(self: Any, message: Any) -> None:
        try:
            changes(self, message)
        except MalformedRows:
            self._move(message.partition, [message.position])

    return [(Follower, "_changes", changes_as)]


def move_before_apply() -> Sequence[Change]:
    changes = Follower._changes

    def changes_as(self: Any, message: Any) -> None:
        try:
            changes(self, message)
        except MalformedRows:
            self._move(message.partition, [message.position])
            raise

    return [(Follower, "_changes", changes_as)]


def replace_by_snapshot() -> Sequence[Change]:
    end, broken = Follower._snapshot_end, Follower._broken

    def end_as(self: Any, message: Any) -> None:
        self.view = View()
        end(self, message)

    def broken_as(self: Any, reason: str) -> Resync:
        lease = self.lease
        resync = broken(self, reason)
        self.lease = lease
        return resync

    return [(Follower, "_snapshot_end", end_as), (Follower, "_broken", broken_as)]


def replace_by_history() -> Sequence[Change]:
    dispatch = Follower._dispatch

    def dispatch_as(self: Any, message: Any, mono: float) -> None:
        if isinstance(message, Mark):
            self.view = View()
        dispatch(self, message, mono)

    return [(Follower, "_dispatch", dispatch_as)]


def reset_cursor() -> Sequence[Change]:
    """On a new stream both go on from wherever the server is."""
    begin = Follower._begin

    def begin_as(self: Any, index: int, partition: Any) -> None:
        if partition.intent is not Intent.SNAPSHOT:
            self._places[index].append(partition.position)
        begin(self, index, partition)

    def resume_as(self: Any, position: Position) -> Resume | str:
        return "first" if position.log_id == b"" else Resume(self.position, ())

    return [(Follower, "_begin", begin_as), (RealmHistory, "resume", resume_as)]


def ignore_gaps() -> Sequence[Change]:
    """Subscribed late, and the client does not compare where a change begins."""

    def expect_as(self: Any, partition: int, previous: Position) -> None:
        if partition not in self._snapshots:
            self._move(partition, [previous])

    return [*subscribe_later(), (Follower, "_expect", expect_as)]
