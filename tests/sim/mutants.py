"""Planted mistakes: each is a rule left out, and each must be found by the simulator.

The names of rules are those of the models (H1-H13, D1-D11). `focus` are the kinds of faults that a search for it uses.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from revocation import healing, partition
from revocation.barrier import Barrier, Proof
from revocation.commit import Committer
from revocation.history import RealmHistory, Resume, Step
from revocation.hub import Hub, RealmHub
from revocation.partition import Applied, Partition
from revocation.replica import NotReady, Replica
from revocation.rpc import stream
from revocation.store import Closed, Committed, Denials, Durability, OpResult, OpState, Registry, Standing
from revocation.store import memory as memory_store
from revocation.store.memory import MemoryStore
from revocation.store.memory_data import Data
from revocation.store.segments import split_all
from revocation_sdk._follower import Follower, Lease
from revocation_sdk._lattice import Group, join_groups
from revocation_sdk._position import Position
from tests.sim.cluster import SimStore

Change = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake."""

    rule: str
    what: str
    changes: Callable[[], Sequence[Change]]
    focus: tuple[str, ...] = ()
    copies: bool = False
    """Shows at level `replicated` only."""


# -- store and gate --------------------------------------------------


def _gate_by_history(self: Any, data: Data, log_id: str) -> Closed | None:
    if not self.primary:
        return Closed.DEMOTED
    if not data.at.log_id:
        return Closed.REOPEN
    return Closed.HEAL if data.at.log_id != log_id else None


def _gate_by_memory() -> Sequence[Change]:
    """Each replica remembers under which identity it confirmed, instead of the store."""
    call, confirm = SimStore._call, SimStore.confirm

    def gate(self: Any, data: Data, log_id: str) -> Closed | None:
        closed = _gate_by_history(self, data, log_id)
        remembered = getattr(self, "remembered", None)
        return Closed.REOPEN if closed is None and remembered not in {None, self.identity} else closed

    async def call_as(self: Any, script: Any) -> Any:
        async def as_me(memory: Any) -> Any:
            log_id, identity = getattr(self, "remembered", ("", None))
            memory.remembered = identity if memory.data[0].at.log_id == log_id else None
            try:
                return await script(memory)
            finally:
                memory.remembered = None

        return await call(self, as_me)

    async def confirm_as(self: Any, *arguments: Any) -> Any:
        identity = self.node.memory.identity
        reply = await confirm(self, *arguments)
        if not isinstance(reply, Closed):
            self.remembered = arguments[1], identity
        return reply

    return [(MemoryStore, "_gate", gate), (SimStore, "_call", call_as), (SimStore, "confirm", confirm_as)]


def _note_usable_without_members(self: Data) -> None:
    self.at = replace(self.at, usable=self.at.settled)


def _open_settled() -> Sequence[Change]:
    opened = MemoryStore.open_history

    async def open_history(self: Any, number: int, *arguments: Any) -> Any:
        closed = await opened(self, number, *arguments)
        if closed is None:
            self.data[number].at = replace(self.data[number].at, settled=True)
        return closed

    return [(MemoryStore, "open_history", open_history)]


def _open_settled_if_known() -> Sequence[Change]:
    opened = MemoryStore.open_history

    async def open_history(self: Any, number: int, *arguments: Any) -> Any:
        known = bool(self.data[number].at.members)
        closed = await opened(self, number, *arguments)
        if closed is None and known:
            self.data[number].at = replace(self.data[number].at, settled=True)
        return closed

    return [(MemoryStore, "open_history", open_history)]


def _standing_in_any_history(self: Data, who: Standing, newcomer: bool = False) -> Closed | None:
    member = self.at.members.get(who.member)
    return None if member is not None and member.incarnation == who.incarnation else Closed.HEAL


def _confirm(active: Callable[[bool, int | None], bool]) -> Sequence[Change]:
    confirm = MemoryStore.confirm

    async def confirm_as(self: Any, number: int, log_id: str, member: str, incarnation: int | None, *rest: Any) -> Any:
        listed = member in self.data[number].at.members
        reply = await confirm(self, number, log_id, member, incarnation, *rest)
        if not isinstance(reply, Closed) and active(listed, incarnation):
            members = self.data[number].at.members
            members[member] = replace(members[member], active=True)
        return reply

    return [(MemoryStore, "confirm", confirm_as)]


def _restart_as_the_same() -> Sequence[Change]:
    confirm = MemoryStore.confirm

    async def confirm_as(self: Any, number: int, log_id: str, member: str, incarnation: int | None, *rest: Any) -> Any:
        before = self.data[number].at.members.get(member)
        reply = await confirm(self, number, log_id, member, incarnation, *rest)
        if before is not None and not isinstance(reply, Closed):
            members = self.data[number].at.members
            members[member] = replace(members[member], registered=before.registered)
        return reply

    return [(MemoryStore, "confirm", confirm_as)]


def _confirm_whatever() -> Sequence[Change]:
    confirm = MemoryStore.confirm

    async def confirm_as(self: Any, number: int, _: str, *rest: Any) -> Any:
        return await confirm(self, number, self.data[number].at.log_id, *rest)

    return [(MemoryStore, "confirm", confirm_as)]


def _heal_before_suspect() -> Sequence[Change]:
    beat = MemoryStore.beat

    async def beat_as(self: Any, number: int, who: Any, *rest: Any, **more: Any) -> Any:
        registry = await beat(self, number, who, *rest, **more)
        gate = self._gate(self.data[number], who.log_id if who else "")
        return replace(registry, closed=gate) if gate is Closed.HEAL else registry

    return [(MemoryStore, "beat", beat_as)]


async def _barrier_without_wait(
    self: Any, number: int, who: Standing, caller_ms: int, durability: Durability, *, newcomer: bool = False
) -> Any:
    tail = await self._run(lambda m: m.barrier(number, who, caller_ms, Durability(), newcomer=newcomer), writes=False)
    return tail if isinstance(tail, Closed) else replace(tail, copies=durability.replicas)


def _wait_for_connected() -> Sequence[Change]:
    wait = SimStore._wait

    async def wait_as(self: Any, node: Any, copies: int, timeout_ms: int, wrote: bool) -> int:
        connected = len(self.cluster.followers(node))
        reached = await wait(self, node, min(copies, connected), timeout_ms, wrote)
        return copies if reached >= min(copies, connected) else reached

    return [(SimStore, "_wait", wait_as)]


# -- acknowledging --------------------------------------------------


def _answer(batch: Sequence[Any], reply: Committed) -> None:
    for waiting, result in zip(batch, reply.results, strict=True):
        if not waiting.future.done():
            waiting.future.set_result(result)


def _apply_aside(self: Any, batch: Sequence[Any]) -> None:
    for waiting in batch:
        for group in waiting.op.groups:
            if isinstance(group, Denials):
                rows = join_groups([Group(group.kind, group.key_tag, group.rows)])
                self._replica.partition.realm(waiting.op.realm).view.merge(rows)


async def _acknowledge_unread(self: Any, batch: Sequence[Any], reply: Committed, log_id: str) -> None:
    if self._replica.healing or self._replica.partition.log_id != log_id:
        await self._again(batch)
    else:
        _answer(batch, reply)


async def _acknowledge_unfenced(self: Any, batch: Sequence[Any], reply: Committed, log_id: str) -> None:
    _apply_aside(self, batch)
    _answer(batch, reply)


async def _acknowledge_while_healing(self: Any, batch: Sequence[Any], reply: Committed, log_id: str) -> None:
    if self._replica.partition.log_id != log_id:
        await self._again(batch)
    else:
        await _acknowledge_unfenced(self, batch, reply, log_id)


def _commit_from_memory() -> Sequence[Change]:
    commit = Committer.commit

    async def commit_as(self: Any, op: Any, deadline: float) -> OpResult:
        known = {key: result for entry in self._replica.partition.recent() for key, result in _results(entry)}
        if op.key in known:
            return known[op.key]
        return await commit(self, op, deadline)

    return [(Committer, "commit", commit_as)]


def _results(entry: Any) -> Iterator[tuple[str, OpResult]]:
    for text in entry.ops.split():
        key, _, version, expires_at, at_ms = text.split(":")
        numbers = (entry.seq, entry.realm_seq, bytes.fromhex(entry.realm_digest))
        yield key, OpResult(OpState.AGAIN, int(version), int(at_ms), int(expires_at), *numbers)


# -- healing and membership --------------------------------------------------


async def _put_first(self: Any, registry: Registry, epoch: int = 0) -> float:
    """Puts everything into the history that is over, opens the next one and confirms it unasked."""
    self._begin_healing("healing")
    await self._stop_reading()
    held = self.partition
    for name, history in held.realms.items():
        for rows in history.view.chunks():
            await self._store._run(lambda m, n=name, r=rows: _force(m, n, r))
    log_id = secrets.token_hex(16)
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


async def _force(memory: Any, realm: str, rows: bytes) -> None:
    data, now = memory._enter(0)
    for _, _, name, due, part in split_all(rows):
        data.keep(realm, name, due, part, now)
    memory._append(0, realm, rows, "", now)


async def _leave_first(self: Any, *_: Any) -> bool:
    who = self.standing()
    return await self._store.strike(self.index, who.log_id, who.member, "leave", who.incarnation, 0) is None


async def _always(*_: Any, **__: Any) -> bool:
    return True


def _never(*_: Any, **__: Any) -> bool:
    return False


async def _confirm_and_forget(self: Any, registry: Registry) -> int | Closed:
    """Remembers the history that it left only when the answer has come."""
    reply: int | Closed = await self._store.confirm(
        self.index,
        registry.log_id,
        self._options.member,
        self._incarnation,
        self.clock.wall_ms(),
        [] if registry.log_id == self.partition.log_id else sorted(self._known),
    )
    if not isinstance(reply, Closed):
        self._latest = registry.epoch, registry.log_id
    return reply


def _propose_without_ops() -> Sequence[Change]:
    propose = healing._propose

    async def propose_as(index: int, store: Any, registry: Registry, realm: str, rows: bytes, ops: str) -> None:
        await propose(index, store, registry, realm, rows, "")

    return [(healing, "_propose", propose_as)]


def _suffix_of_what_was_read() -> Sequence[Change]:
    suffix = Partition.suffix

    def suffix_as(self: Any, registry: Registry) -> Any:
        kept, self._covered = self._covered, 0
        try:
            return suffix(self, registry)
        finally:
            self._covered = kept

    return [(Partition, "suffix", suffix_as)]


async def _scan_first(index: int, store: Any, held: Partition, registry: Registry) -> healing.Plan:
    learned = {}
    heads = await store.heads(index, registry.log_id)
    if isinstance(heads, Closed):
        raise healing.Moved
    proposed = 0
    for realm in sorted({*heads.realms, *held.realms}):
        own = held.realms[realm].view if realm in held.realms else None
        stored, learned[realm] = await healing._compare(index, store, registry.log_id, realm, own)
        if own is not None:
            proposed += await healing._put_back_rest(index, store, registry, realm, own, stored)
    heads = await store.heads(index, registry.log_id)
    if isinstance(heads, Closed):
        raise healing.Moved
    late = heads
    return healing.Plan(lambda: healing._adopt(held, registry.log_id, late, learned), proposed, 0)


def _adopt_without_streaming() -> Sequence[Change]:
    adopt = Partition.adopt_heads

    def adopt_as(self: Any, log_id: str, heads: Any, learned: dict[str, bytes]) -> list[Applied]:
        return adopt(self, log_id, heads, {})

    return [(Partition, "adopt_heads", adopt_as)]


def _apply_over_gaps() -> Sequence[Change]:
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


# -- delivery --------------------------------------------------


def _resume_at_the_end() -> Sequence[Change]:
    resume = RealmHistory.resume

    def resume_as(self: Any, position: Position) -> Resume | str:
        found = resume(self, position)
        return Resume(replace(position, seq=0), ()) if found == "unknown_history" else found

    return [(RealmHistory, "resume", resume_as)]


def _place_by_number(self: Any, position: Position) -> int | str:
    start, first = self._eras[-1].start, self._eras[-1].first
    end: int = self._dropped + len(self._steps)
    index: int = min(max(start + position.seq - first, self._dropped), end)
    return index


def _progress_unflushed(self: Any, subscriber: Any, nonce: int, store_ms: int) -> None:
    self.flush()
    subscriber._queue.appendleft(stream.progress(nonce, self.positions(), store_ms))
    subscriber.wake.set()


async def _answer_latecomers(self: Any) -> None:
    try:
        while self._asked:
            try:
                proofs = await asyncio.gather(*(barrier.prove() for barrier in self._barriers))
            except (NotReady, Exception):
                self._asked.clear()
                return
            asked, self._asked = self._asked, []
            for hub, subscriber, nonce in asked:
                if subscriber in hub.subscribers:
                    hub.progress(subscriber, nonce, min(proof.store_ms for proof in proofs))
    finally:
        self._answering = None


async def _prove_unread(self: Any) -> Proof:
    who = self._replica.standing()
    tail = await self._store.barrier(self._replica.index, who, self._replica.clock.wall_ms(), self._durability)
    if isinstance(tail, Closed):
        raise NotReady(tail.value)
    return Proof(tail.now_ms)


def _subscribe_later() -> Sequence[Change]:
    subscribe = RealmHub.subscribe

    def subscribe_as(self: Any, subscriber: Any, *arguments: Any) -> Any:
        beginning = subscribe(self, subscriber, *arguments)
        self.subscribers.discard(subscriber)
        asyncio.get_running_loop().call_later(0.05, self.subscribers.add, subscriber)
        return beginning

    return [(RealmHub, "subscribe", subscribe_as)]


def _lease_from_arrival() -> Sequence[Change]:
    progress = Follower._progress

    def progress_as(self: Any, message: Any, mono: float) -> None:
        before = self.lease
        progress(self, message, mono)
        if self.lease is not before and self.lease is not None:
            self.lease = Lease(mono, self.lease.wall, mono, self.lease.store_ms, self.lease.positions)

    return [(Follower, "_progress", progress_as)]


def _unsalted() -> Sequence[Change]:
    return [(module, "opening_digest", lambda digest, _: digest) for module in (partition, memory_store)]


def _one(target: Any, name: str, value: Any) -> Callable[[], Sequence[Change]]:
    return lambda: [(target, name, value)]


SPLIT = ("split", "split", "slow_reads", "slow_scripts", "late", "retarget", "off")
FAILOVER = ("lose", "lose", "slow_reads", "slow_commits", "slow_scripts")
WIPE = ("wipe", "wipe_restart", "failover", "late", "slow")

MUTANTS: dict[str, Mutant] = {
    "gate_by_history": Mutant(
        "H1",
        "scripts compare the history only",
        _one(MemoryStore, "_gate", _gate_by_history),
        ("split", "failover", "freeze"),
    ),
    "gate_by_memory": Mutant(
        "H1",
        "the replica remembers the identity, not the store",
        _gate_by_memory,
        ("failover", "wipe_restart", "lose", "slow_reads", "slow_scripts"),
    ),
    "put_first": Mutant(
        "H2", "put back, then opened", _one(Replica, "_open", _put_first), ("failover", "wipe_restart", "slow")
    ),
    "confirm_whatever": Mutant(
        "H3",
        "a confirmation counts for whatever history there is",
        _confirm_whatever,
        ("failover", "wipe_restart", "slow", "freeze"),
    ),
    "suffix_of_what_was_read": Mutant(
        "H3",
        "what was put back or learned, and not read again yet, counts as in the log",
        _suffix_of_what_was_read,
        FAILOVER,
    ),
    "unsalted": Mutant("H3", "a history goes on from the digest of the last one", _unsalted, FAILOVER),
    "ack_unfenced": Mutant(
        "H5",
        "acknowledged as soon as the reply comes",
        _one(Committer, "_acknowledge", _acknowledge_unfenced),
        FAILOVER,
    ),
    "ack_while_healing": Mutant(
        "H5", "the fence compares histories only", _one(Committer, "_acknowledge", _acknowledge_while_healing), FAILOVER
    ),
    "ack_unread": Mutant(
        "H5", "acknowledged before applied", _one(Committer, "_acknowledge", _acknowledge_unread), FAILOVER
    ),
    "ack_from_memory": Mutant("H5", "acknowledged from memory", _commit_from_memory, ("split", "late", "slow", "off")),
    "commit_unusable": Mutant(
        "H5",
        "commits and vouches in a history that is not usable",
        _one(Data, "standing", _standing_in_any_history),
        SPLIT,
    ),
    "no_registry": Mutant(
        "H6", "usable although members are missing", _one(Data, "note_usable", _note_usable_without_members), SPLIT
    ),
    "no_settle": Mutant("H7", "a wiped store is not given time", _open_settled, ("wipe_late", "slow_scripts")),
    "settled_if_known": Mutant(
        "H7",
        "the time ends when the history is opened again",
        _open_settled_if_known,
        ("wipe_restart", "late", "restart", "pause", "off"),
    ),
    "join_at_once": Mutant(
        "H8", "a newcomer is active at once", lambda: _confirm(lambda *_: True), ("split", "late", "freeze")
    ),
    "readmit": Mutant(
        "H8",
        "one that was struck off comes back as active",
        lambda: _confirm(lambda listed, inc: not listed and inc is not None),
        ("split", "off", "pause", "freeze", "failover"),
    ),
    "restart_as_the_same": Mutant(
        "H8", "a new process is known already", _restart_as_the_same, ("split", "crash", "flap")
    ),
    "leave_first": Mutant(
        "H9",
        "leaves before another holds what it holds",
        _one(Replica, "_leave", _leave_first),
        ("leave", "failover", "lose", "slow_reads", "slow_scripts"),
    ),
    "strike_blind": Mutant(
        "H10",
        "strikes although nodes are missing",
        _one(Replica, "_held_everywhere", _always),
        ("split", "late", "off", "pause"),
    ),
    "retry_writes_nothing": Mutant(
        "H12",
        "a retry writes nothing, so that WAIT waits for nothing",
        _one(SimStore, "retry_writes", False),
        ("failover", "crash", "slow", "freeze"),
        True,
    ),
    "wait_for_connected": Mutant(
        "H12", "WAIT for those who are connected", _wait_for_connected, ("split", "crash", "freeze"), True
    ),
    "back_to_the_old": Mutant(
        "H2",
        "goes back into a history that it has left",
        _one(Replica, "_is_past", _never),
        ("flap", "flap", "slow_scripts"),
    ),
    "lost_confirmation": Mutant(
        "H2",
        "a history counts as left only if the confirmation was heard",
        _one(Replica, "_confirm", _confirm_and_forget),
        ("flap", "flap", "off", "slow_scripts"),
    ),
    "heal_the_suspect": Mutant(
        "H1", "heals a history that is to be opened anew", _heal_before_suspect, ("skew_node", "failover", "split")
    ),
    "no_ops": Mutant("H3", "op ids are not put back", _propose_without_ops, FAILOVER),
    "learned_unstreamed": Mutant(
        "H13",
        "what a merge taught is not streamed",
        _adopt_without_streaming,
        ("failover", "wipe_restart", "split", "freeze", "trim"),
    ),
    "resume_at_the_end": Mutant(
        "H13", "an unknown history resumes", _resume_at_the_end, ("failover", "cut", "crash", "restart")
    ),
    "place_by_number": Mutant(
        "H13",
        "the number is looked up without its history",
        _one(RealmHistory, "_place", _place_by_number),
        ("failover", "cut", "crash", "freeze"),
    ),
    "lease_from_arrival": Mutant(
        "D1", "fresh as of the arrival of the answer", _lease_from_arrival, ("hold", "pause_client")
    ),
    "barrier_for_latecomers": Mutant(
        "D2", "a barrier covers pings that came after it began", _one(Hub, "_answer", _answer_latecomers), ("slow",)
    ),
    "prove_unread": Mutant(
        "D3", "proof before the tail is reached", _one(Barrier, "_once", _prove_unread), ("slow", "freeze")
    ),
    "progress_unflushed": Mutant(
        "D4", "progress overtakes changes", _one(RealmHub, "progress", _progress_unflushed), ("cut",)
    ),
    "skip_trimmed": Mutant(
        "D7", "a trimmed range is skipped", _apply_over_gaps, ("trim", "slow", "off", "pause", "trim")
    ),
    "scan_first": Mutant(
        "D8",
        "scanned, then noted the tail",
        _one(healing, "_merge_all", _scan_first),
        ("late", "crash", "wipe", "trim"),
    ),
    "subscribe_later": Mutant(
        "D9", "subscribed after the snapshot was taken", _subscribe_later, ("cut", "cut", "crash")
    ),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """The mistake of this name, while it lasts."""
    with ExitStack() as stack:
        for target, attribute, value in MUTANTS[name].changes() if name else ():
            stack.enter_context(patch.object(target, attribute, value))
        yield
