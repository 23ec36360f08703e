"""A replica on the store in memory: what it does when the store fails in the middle of something."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest

from revocation.replication.barrier import Barrier
from revocation.replication.membership import ReplicaOptions, Timing
from revocation.replication.partition import Applied
from revocation.replication.replica import Replica
from revocation.store import (
    NO_WAIT,
    Closed,
    Cutoffs,
    Denials,
    Durability,
    LogEntry,
    Op,
    Registry,
    Standing,
    StoreUnavailable,
    Tail,
)
from revocation.store.memory import MemoryStore
from revocation_sdk._lattice import DENIAL, FIRST_CUTOFF_KIND, Kind
from tests.revocation.turning import eventually

LIMIT_S = 60


class Unreliable(MemoryStore):
    """Does what it is asked; the answer to the call named in `lose_reply` is lost, once."""

    def __init__(self) -> None:
        super().__init__(lambda: time.time_ns() // 1_000_000)
        self.lose_reply: set[str] = set()

    async def confirm(self, *arguments: Any, **more: Any) -> int | Closed:
        answer = await super().confirm(*arguments, **more)
        self._lose("confirm")
        return answer

    async def settle(self, *arguments: Any) -> Closed | None:
        if "settle" in self.lose_reply:
            self.lose_reply.remove("settle")
            raise RuntimeError("something that nobody thought of")
        return await super().settle(*arguments)

    async def read_log(self, partition: int, after: int, count: int, block_ms: int) -> list[LogEntry]:
        if block_ms == 0:
            self._lose("remember")
        return await super().read_log(partition, after, count, block_ms)

    def _lose(self, what: str) -> None:
        if what in self.lose_reply:
            self.lose_reply.remove(what)
            raise StoreUnavailable("a reply was lost")


class Counting(MemoryStore):
    """Counts the heartbeats of members. Its time stands still at `at_ms`, if that is not 0."""

    def __init__(self) -> None:
        super().__init__(lambda: self.at_ms or time.time_ns() // 1_000_000)
        self.at_ms = 0
        self.beats = Counter[str]()

    async def beat(self, partition: int, who: Standing | None, member: str, *rest: Any, **more: Any) -> Registry:
        registry = await super().beat(partition, who, member, *rest, **more)
        if who is not None:
            self.beats[member] += 1
        return registry


async def nothing_more(_: int) -> None: ...


@asynccontextmanager
async def running(
    store: MemoryStore, member: str, *, settle_ms: int = 0, strike_after_ms: int = 30_000, detect_ms: int = 1_000,
    on_confirmed: Callable[[int], Awaitable[None]] = nothing_more,
) -> AsyncIterator[Replica]:  # fmt: skip
    timing = Timing(settle_ms=settle_ms, detect_ms=min(detect_ms, strike_after_ms), strike_after_ms=strike_after_ms)
    options = ReplicaOptions(member, heartbeat_s=0.01, timing=timing)

    def on_applied(_: int, more: list[Applied]) -> None: ...

    replica = Replica(0, store, options, on_applied, on_confirmed)
    task = asyncio.create_task(replica.run(), name=member)
    try:
        await replica.usable(LIMIT_S)
        yield replica
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def commit(store: MemoryStore, replica: Replica, keys: Sequence[int]) -> None:
    for key in keys:
        row = DENIAL.pack(key, int(time.time()) + 600)
        op = Op("default", f"{key:032x}", "0" * 32, (Denials(Kind.TOKEN, 1, row),))
        answer = await store.commit(0, replica.standing(), time.time_ns() // 1_000_000, [op], Durability())
        assert not isinstance(answer, Closed)
        await asyncio.wait_for(replica.applied(replica.standing().log_id, answer.seq), LIMIT_S)


@pytest.mark.parametrize("lost", ["confirm", "remember"])
async def test_a_load_that_the_store_interrupts_is_done_again(lost: str) -> None:
    """Else the replica would count as usable, read no log, and hold up every commit and barrier for ever (I3)."""
    store = Unreliable()
    async with running(store, "first") as first:
        await commit(store, first, range(5))
        store.lose_reply.add(lost)
        async with running(store, "second") as second:
            assert not store.lose_reply
            assert len(second.partition.realm("default").view) == 5
            assert second.partition.recent(), "the retained log is read again, too"
            await asyncio.wait_for(Barrier(second, store, Durability()).prove(), LIMIT_S)
            await commit(store, second, [5])


@pytest.mark.parametrize("lost", ["", "remember"])
async def test_what_a_store_must_know_besides_is_put_back_until_that_succeeds(lost: str) -> None:
    """And before anything is acknowledged: a wiped store has forgotten the commitments to the master secret, too."""
    store, told = Unreliable(), list[int]()

    async def put_back(_: int) -> None:
        told.append(len(told))
        if len(told) in {1, 2, 4}:
            raise StoreUnavailable("away for a moment") if len(told) == 1 else RuntimeError("planted")

    async with running(store, "another") as another:
        await commit(store, another, range(3))
        store.lose_reply.update({lost} - {""})
        async with running(store, "first", on_confirmed=put_back) as replica:
            assert len(told) == 3
            store.wipe("another")
            for _ in range(500):
                if len(told) == 5 and replica.state == "usable":
                    break
                await asyncio.sleep(0.01)
            assert len(told) == 5
            await commit(store, replica, [5])


async def test_a_member_that_was_struck_off_and_whose_confirmation_goes_unanswered_comes_back() -> None:
    store = Unreliable()
    async with running(store, "first") as first, running(store, "second") as second:
        await commit(store, first, range(5))
        store.data[0].at.members.pop("second")
        store.lose_reply.add("confirm")
        await commit(store, first, [5])
        for _ in range(6_000):
            if not store.lose_reply and second.state == "usable" and not second.healing:
                break
            await asyncio.sleep(0.01)
        await asyncio.wait_for(Barrier(second, store, Durability()).prove(), LIMIT_S)
        await commit(store, second, [6])


async def test_a_fault_that_nobody_thought_of_does_not_end_the_replica() -> None:
    """What it holds in memory may be the last copy (I2)."""
    store = Unreliable()
    store.lose_reply.add("settle")
    async with running(store, "first", settle_ms=1) as first:
        assert not store.lose_reply
        await commit(store, first, [1])


async def test_a_member_whose_healing_takes_long_is_not_taken_for_dead() -> None:
    """Else it would be struck off by force, and what only its memory holds would be missing meanwhile (I1, H11)."""
    store = Slow()
    async with (
        running(store, "first", strike_after_ms=2_000) as first,
        running(store, "second", strike_after_ms=2_000) as second,
    ):
        await commit(store, second, range(3))
        store.slow = "second"
        store.wipe("another")
        await asyncio.wait_for(store.proposing.wait(), LIMIT_S)
        await asyncio.sleep(3.0)
        assert "second" in store.data[0].at.members
        assert first.state != "usable"
        store.go_on.set()
        await asyncio.wait_for(first.usable(LIMIT_S), LIMIT_S)
        await asyncio.wait_for(second.usable(LIMIT_S), LIMIT_S)


async def test_a_member_whose_look_at_the_log_of_before_takes_long_is_not_taken_for_dead() -> None:
    """Struck off, it would have to come again, and its registration would hold up newcomers (I3)."""
    store = Slow()
    async with running(store, "first") as first:
        await commit(store, first, range(3))
        store.slow = "second"
        joining = asyncio.create_task(_join(store, "second"))
        await asyncio.wait_for(store.remembering.wait(), LIMIT_S)
        store.at_ms = store.clock()
        for _ in range(8):
            beats = store.beats.copy()
            await eventually(lambda: store.beats["second"] > beats["second"] + 1, "it beats")  # noqa: B023
            await eventually(lambda: store.beats["first"] > beats["first"] + 1, "and so does the other one")  # noqa: B023
            assert "second" in store.data[0].at.members
            store.at_ms += 400  # beyond detect_ms in the end, and only then
        store.go_on.set()
        await joining


async def _join(store: MemoryStore, name: str) -> None:
    async with running(store, name) as replica:
        assert replica.partition.recent(), "it has read the log of before"


async def test_what_a_replica_may_do_does_not_wait_until_silent_members_are_struck_off() -> None:
    """And all of them are by one proof: with a store replica that hangs each takes seconds, without a heartbeat."""
    store = Proving()
    async with running(store, "first") as first:
        store.up = False
        await eventually(lambda: first.state == "unreachable", "the store is away")
        members, gone = store.data[0].at.members, [f"gone {number}" for number in range(5)]
        for name in gone:
            members[name] = replace(members["first"], beat_ms=store.clock() - 10_000)
        store.up = True
        await asyncio.wait_for(store.proving.wait(), LIMIT_S)
        assert first.state == "usable"
        await commit(store, first, [1])
        assert not {*gone} - {*members}
        store.go_on.set()
        await eventually(lambda: [*store.data[0].at.members] == ["first"], "they are struck off")
        assert store.proofs == 1


async def test_a_first_confirmation_that_arrives_late_does_not_end_its_process() -> None:
    """It was taken for lost and sent again; then the network delivers it, to be executed once more."""
    store = Late()
    patient = LIMIT_S * 1_000
    async with (
        running(store, "first", detect_ms=patient) as first,
        running(store, "second", detect_ms=patient) as second,
    ):
        store.late = "second"
        assert isinstance(await store.arrive(), int)
        beats = store.beats["second"]
        await eventually(lambda: store.beats["second"] > beats + 3, "the process goes on")
        await asyncio.wait_for(second.usable(LIMIT_S), LIMIT_S)
        await commit(store, second, [1])
        await commit(store, first, [2])


@pytest.mark.parametrize("late", [False, True])
async def test_a_member_that_left_does_not_come_back_while_its_process_still_turns(late: bool) -> None:
    """Other partitions of it may still be leaving. Nobody would be there for what it registers (H9).

    Also if a heartbeat hears that it is no member before it hears itself that it has left.
    """
    store = Leaving()
    async with running(store, "first") as first, running(store, "second", detect_ms=LIMIT_S * 1_000):
        if not late:
            store.told.set()
        leaving = asyncio.create_task(first.leave(LIMIT_S))
        await asyncio.wait_for(store.struck.wait(), LIMIT_S)
        beats = store.beats["first"]
        await eventually(lambda: store.beats["first"] > beats + 3, "it goes on turning")
        assert [*store.data[0].at.members] == ["second"]
        store.told.set()
        await asyncio.wait_for(leaving, LIMIT_S)
        beats = store.beats["first"]
        await eventually(lambda: store.beats["first"] > beats + 3, "it goes on turning")
        assert [*store.data[0].at.members] == ["second"]


async def test_a_member_that_may_not_leave_stays_one() -> None:
    store = Leaving()
    async with running(store, "first") as first:
        store.answer = Closed.WAIT
        store.told.set()
        await first.leave(0.2)
        beats = store.beats["first"]
        await eventually(lambda: store.beats["first"] > beats + 3, "it goes on turning")
        await asyncio.wait_for(first.usable(LIMIT_S), LIMIT_S)
        await commit(store, first, [1])
        store.answer = None
        await first.leave(LIMIT_S)
        assert not store.data[0].at.members


async def test_who_leaves_has_all_store_replicas_told() -> None:
    store = Leaving()
    store.replicas = 2
    store.told.set()
    async with running(store, "first") as first:
        await first.leave(LIMIT_S)
        assert store.copies == 2


class Leaving(Counting):
    """Tells who leaves so only when `told` is set; or gives it `answer` and does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.struck, self.told = asyncio.Event(), asyncio.Event()
        self.answer: Closed | None = None
        self.copies = 0

    async def strike(
        self, partition: int, log_id: str, member: str, mode: str, incarnation: int | None, silent_ms: int,
        *, durability: Durability = NO_WAIT,
    ) -> Closed | None:  # fmt: skip
        self.copies = durability.replicas
        closed = self.answer or await super().strike(partition, log_id, member, mode, incarnation, silent_ms)
        self.struck.set()
        await self.told.wait()
        return closed


class Late(Counting):
    """Keeps what the first confirmation of each member said, and can have it arrive again."""

    def __init__(self) -> None:
        super().__init__()
        self.late = ""
        self.said: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    async def confirm(self, *arguments: Any, **more: Any) -> int | Closed:
        self.said.setdefault(arguments[2], (arguments, more))
        return await super().confirm(*arguments, **more)

    async def arrive(self) -> int | Closed:
        arguments, more = self.said[self.late]
        return await super().confirm(*arguments, **more)


class Proving(MemoryStore):
    """Lets nobody prove that all copies hold everything before `go_on` is set."""

    def __init__(self) -> None:
        super().__init__(lambda: time.time_ns() // 1_000_000)
        self.proving, self.go_on, self.proofs = asyncio.Event(), asyncio.Event(), 0

    async def barrier(self, *arguments: Any, newcomer: bool = False) -> Tail | Closed:
        if newcomer:
            self.proofs += 1
            self.proving.set()
            await self.go_on.wait()
        return await super().barrier(*arguments, newcomer=newcomer)


async def test_a_member_that_has_not_read_again_what_it_put_back_does_not_leave_with_it() -> None:
    """Its position does not tell of it yet, so that nobody can be known to hold it, too (H9)."""
    store = Unread()
    async with running(store, "first") as first:
        await commit(store, first, range(3))
        store.shown.clear()
        store.wipe("another")
        await eventually(lambda: first.partition.ahead and first.state == "usable", "it has put back what it holds")
        members = store.data[0].at.members
        members["second"] = replace(members["first"], applied=first.partition.seq)
        await first.leave(0.5)
        assert "first" in members
        store.shown.set()
        await eventually(lambda: not first.partition.ahead, "it has read it again")
        members["second"] = replace(members["first"], applied=first.partition.seq)
        await first.leave(10)
        assert "first" not in members


class Unread(MemoryStore):
    """A store whose log is shown to nobody while `shown` is clear."""

    def __init__(self) -> None:
        super().__init__(lambda: time.time_ns() // 1_000_000)
        self.shown = asyncio.Event()
        self.shown.set()

    async def read_log(self, partition: int, after: int, count: int, block_ms: int) -> list[LogEntry]:
        await self.shown.wait()
        return await super().read_log(partition, after, count, block_ms)


class Slow(Counting):
    """Takes for ever to take in what the member `slow` puts back, and to show it the log of before."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = ""
        self.proposing, self.remembering, self.go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def read_log(self, partition: int, after: int, count: int, block_ms: int) -> list[LogEntry]:
        task = asyncio.current_task()
        if block_ms == 0 and task is not None and task.get_name() == self.slow:
            self.remembering.set()
            await self.go_on.wait()
        return await super().read_log(partition, after, count, block_ms)

    async def propose(self, *arguments: Any) -> Closed | None:
        task = asyncio.current_task()
        if task is not None and task.get_name() == self.slow:
            self.proposing.set()
            await self.go_on.wait()
        return await super().propose(*arguments)


@pytest.mark.parametrize("kind", [9, 63, 99, 127])
async def test_entries_of_kinds_that_only_a_later_release_knows_are_healed_like_all_others(kind: int) -> None:
    """A replica that was not upgraded yet may be the only one whose memory survives (I2)."""
    store = MemoryStore(lambda: time.time_ns() // 1_000_000)
    expires_at = int(time.time()) + 600
    rows = DENIAL.pack(7, expires_at)
    async with running(store, "first") as first:
        now = time.time_ns() // 1_000_000
        group = Denials(kind, 1, rows) if kind < FIRST_CUTOFF_KIND else Cutoffs(kind, 1, 600, (7).to_bytes(8, "little"))
        op = Op("default", "1" * 32, "0" * 32, (group,))
        answer = await store.commit(0, first.standing(), now, [op], Durability())
        assert not isinstance(answer, Closed)
        await asyncio.wait_for(first.applied(first.standing().log_id, answer.seq), LIMIT_S)
        held = b"".join(first.partition.realm("default").view.chunks())
        assert held[0] == kind
        log_id = first.standing().log_id
        store.wipe("another")
        for _ in range(6_000):
            if first.state == "usable" and first.partition.log_id != log_id:
                break
            await asyncio.sleep(0.01)
        assert first.partition.log_id != log_id
        async with running(store, "second") as second:
            assert b"".join(second.partition.realm("default").view.chunks()) == held


class Mixed:
    """After a failover: calls go by connections to the new primary or to the old one, until all are dropped."""

    def __init__(self, old: MemoryStore, new: MemoryStore) -> None:
        self.old, self.new = old, new
        self.partitions = 1
        self.turns = iter(lambda: old, None)
        self.dropped = False

    def __getattr__(self, name: str) -> Any:
        return getattr(next(self.turns), name)

    def fail_over(self) -> None:
        self.new.restore(self.old.snapshot(), "another")
        chance = random.Random(1)
        self.turns = iter(lambda: chance.choice((self.new, self.old)), None)

    async def reconnect(self) -> None:
        self.dropped = True
        self.turns = iter(lambda: self.new, None)


async def test_connections_to_an_old_primary_are_dropped_before_a_history_is_opened_there() -> None:
    """Else the replica would open one on both in turn, and everybody would heal for as long as the old one lives."""
    old, new = Unreliable(), Unreliable()
    mixed = Mixed(old, new)
    store = cast(MemoryStore, mixed)
    async with running(store, "first") as first:
        await commit(store, first, range(5))
        mixed.fail_over()
        for _ in range(6_000):
            if mixed.dropped and first.state == "usable":
                break
            await asyncio.sleep(0.01)
        assert (old.data[0].at.epoch, new.data[0].at.epoch) == (1, 2)
        await commit(store, first, [5])
        assert new.data[0].at.seq > old.data[0].at.seq


async def test_a_store_that_shows_its_past_on_new_connections_too_is_opened_anew() -> None:
    """It was rolled back without a restart."""
    store = Unreliable()
    async with running(store, "first") as first:
        await commit(store, first, range(5))
        before = store.snapshot()
        await commit(store, first, range(5, 10))
        store.restore(before, store.identity)
        for _ in range(6_000):
            if store.data[0].at.epoch > 1 and first.state == "usable":
                break
            await asyncio.sleep(0.01)
        assert store.data[0].at.epoch > 1
        await commit(store, first, [10])
        assert len(first.partition.realm("default").view) == 11
