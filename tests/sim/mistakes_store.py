"""Mistakes of the store, of its gate, and of who acknowledges. See mutants.py."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from revocation.commit import Committer
from revocation.replication import replica
from revocation.replication.history import RealmHistory, Step
from revocation.store import Closed, Committed, Denials, OpResult, OpState, Registry, Standing
from revocation.store import memory as memory_store
from revocation.store.memory import MemoryStore
from revocation.store.memory_data import Data
from revocation_sdk._lattice import Group, join_groups, parse_groups
from tests.sim.store import SimStore

Change = tuple[Any, str, Any]


def gate_by_history(self: Any, data: Data, log_id: str) -> Closed | None:
    if not self.primary:
        return Closed.DEMOTED
    if not data.at.log_id:
        return Closed.REOPEN
    return Closed.HEAL if data.at.log_id != log_id else None


def note_usable_without_members(self: Data) -> None:
    self.at = replace(self.at, usable=self.at.settled)


def open_settled() -> Sequence[Change]:
    opened = MemoryStore.open_history

    async def open_history(self: Any, number: int, *arguments: Any) -> Any:
        closed = await opened(self, number, *arguments)
        if closed is None:
            self.data[number].at = replace(self.data[number].at, settled=True)
        return closed

    return [(MemoryStore, "open_history", open_history)]


def open_settled_if_known() -> Sequence[Change]:
    opened = MemoryStore.open_history

    async def open_history(self: Any, number: int, *arguments: Any) -> Any:
        known = bool(self.data[number].at.members)
        closed = await opened(self, number, *arguments)
        if closed is None and known:
            self.data[number].at = replace(self.data[number].at, settled=True)
        return closed

    return [(MemoryStore, "open_history", open_history)]


def standing_in_any_history(self: Data, who: Standing, newcomer: bool = False) -> Closed | None:
    member = self.at.members.get(who.member)
    return None if member is not None and member.incarnation == who.incarnation else Closed.HEAL


def commit_unusable() -> Sequence[Change]:
    """Neither the script nor the replica asks whether the others have confirmed."""

    def may_vouch(registry: Registry, _: str) -> bool:
        return registry.closed is None

    return [(Data, "standing", standing_in_any_history), (replica, "may_vouch", may_vouch)]


def confirm_alone() -> Sequence[Change]:
    confirm: Any = SimStore.confirm

    async def confirm_as(self: Any, *arguments: Any, **more: Any) -> Any:
        return await confirm(self, *arguments[:-1], [], **more)

    return [(SimStore, "confirm", confirm_as)]


def confirm(active: Callable[[bool, int | None], bool]) -> Sequence[Change]:
    confirm = MemoryStore.confirm

    async def confirm_as(
        self: Any, number: int, log_id: str, member: str, incarnation: int | None, *rest: Any, **more: Any
    ) -> Any:
        listed = member in self.data[number].at.members
        reply = await confirm(self, number, log_id, member, incarnation, *rest, **more)
        if not isinstance(reply, Closed) and active(listed, incarnation):
            members = self.data[number].at.members
            members[member] = replace(members[member], active=True)
        return reply

    return [(MemoryStore, "confirm", confirm_as)]


def heal_before_suspect() -> Sequence[Change]:
    beat = MemoryStore.beat

    async def beat_as(self: Any, number: int, who: Any, *rest: Any, **more: Any) -> Any:
        registry = await beat(self, number, who, *rest, **more)
        gate = self._gate(self.data[number], who.log_id if who else "")
        return replace(registry, closed=gate) if gate is Closed.HEAL else registry

    return [(MemoryStore, "beat", beat_as)]


def wait_for_connected() -> Sequence[Change]:
    wait = SimStore._wait

    async def wait_as(self: Any, node: Any, copies: int, timeout_ms: int, wrote: bool) -> int:
        connected = len(self.cluster.followers(node))
        reached = await wait(self, node, min(copies, connected), timeout_ms, wrote)
        return copies if reached >= min(copies, connected) else reached

    return [(SimStore, "_wait", wait_as)]


def answer(batch: Sequence[Any], reply: Committed) -> None:
    for waiting, result in zip(batch, reply.results, strict=True):
        if not waiting.future.done():
            waiting.future.set_result(result)


def apply_aside(self: Any, batch: Sequence[Any]) -> None:
    for waiting in batch:
        for group in waiting.op.groups:
            if isinstance(group, Denials):
                rows = join_groups([Group(group.kind, group.key_tag, group.rows)])
                self._replica.partition.realm(waiting.op.realm).view.merge(rows)


async def acknowledge_unread(self: Any, batch: Sequence[Any], reply: Committed, log_id: str) -> None:
    if self._replica.healing or self._replica.partition.log_id != log_id:
        await self._again(batch)
    else:
        answer(batch, reply)


async def acknowledge_unfenced(self: Any, batch: Sequence[Any], reply: Committed, log_id: str) -> None:
    apply_aside(self, batch)
    answer(batch, reply)


async def acknowledge_while_healing(self: Any, batch: Sequence[Any], reply: Committed, log_id: str) -> None:
    if self._replica.partition.log_id != log_id:
        await self._again(batch)
    else:
        await acknowledge_unfenced(self, batch, reply, log_id)


def commit_from_memory() -> Sequence[Change]:
    commit = Committer.commit

    async def commit_as(self: Any, op: Any, deadline: float) -> OpResult:
        known = {key: result for entry in self._replica.partition.recent() for key, result in results(entry)}
        if op.key in known:
            return known[op.key]
        return await commit(self, op, deadline)

    return [(Committer, "commit", commit_as)]


def results(entry: Any) -> Iterator[tuple[str, OpResult]]:
    for text in entry.ops.split():
        key, _, version, expires_at, at_ms = text.split(":")
        numbers = (entry.seq, entry.realm_seq, bytes.fromhex(entry.realm_digest))
        yield key, OpResult(OpState.AGAIN, int(version), int(at_ms), int(expires_at), *numbers)


def increment_versions() -> Sequence[Change]:
    """INCR: the counter is where the store was, and is not put back."""
    write, propose = MemoryStore._write, MemoryStore.propose

    def write_as(self: Any, number: int, ops: Any, now: int) -> None:
        with patch(f"{memory_store.__name__}.max", lambda *numbers, **more: _least(numbers, more), create=True):
            write(self, number, ops, now)

    async def propose_as(self: Any, number: int, log_id: str, _: int, *rest: Any) -> Any:
        return await propose(self, number, log_id, 0, *rest)

    return [(MemoryStore, "_write", write_as), (MemoryStore, "propose", propose_as)]


def _least(numbers: tuple[Any, ...], more: dict[str, Any]) -> Any:
    """`max(clock + 1, now, ...)` without the clock on the wall; any other maximum as it is."""
    return numbers[0] if len(numbers) > 1 else builtins.max(*numbers, **more)


def forget_ops() -> Sequence[Change]:
    commit = MemoryStore.commit

    async def commit_as(self: Any, number: int, *rest: Any) -> Any:
        self.data[number].ops.clear()
        return await commit(self, number, *rest)

    return [(MemoryStore, "commit", commit_as)]


def never_settle() -> Sequence[Change]:
    async def settle_as(*_: Any) -> Closed | None:
        return None

    return [(MemoryStore, "settle", settle_as)]


def blur_fingerprints() -> Sequence[Change]:
    """As a filter with false positives would: with each entry comes another."""
    append = RealmHistory.append

    def append_as(self: Any, rows: bytes) -> Step:
        for kind, key_tag, packed in parse_groups(rows):
            self.view.merge(join_groups([Group(kind, key_tag, bytes((packed[0] ^ 1,)) + packed[1:])]))
        return append(self, rows)

    return [(RealmHistory, "append", append_as)]
