"""The same random commands on both stores, side by side: every reply must be the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from revocation.store import SLOT_S, Cutoffs, Denials, Durability, LogEntry, Op, OpState, Standing, Store
from tests.store.world import MemoryWorld, ServerWorld, World, key_for_ever, operation, subjects, tokens

T = TypeVar("T")
PARTITION = st.sampled_from([0, 0, 0, 1])
REALM = st.sampled_from(["r", "s"])
MEMBER = st.sampled_from(["a", "b", "c"])
LONGEST_LOG = 5
DAY = 86_400
# Time moves by less than what an op record or a segment lives by the server's own clock.
STEPS = st.sampled_from([0, 0, 1, 7, 400, 1000, 2000, 31_000, -1, -999, -1000, -31_000])
ERRORS = st.sampled_from([0, 0, 0, 0, 0, 14_000, -14_000, 16_000, -16_000, 29_500, -29_500, 40_000, -40_000])
ABLE = st.sampled_from([True, True, True, False])
# A WAIT that nobody answers ends when the server next looks at its clock, ten times a second.
RARELY = st.integers(0, 19).map(lambda n: n == 7)
EXPIRIES = st.sampled_from([-9 * SLOT_S, DAY, DAY + 1, DAY + SLOT_S, 2 * DAY])


class SideBySide(RuleBasedStateMachine):
    """Replies are compared as they come. What a member remembers it takes from them."""

    url: str
    records = Bundle("records")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        options = {"partitions": 2, "longest_log": LONGEST_LOG}
        self.memory = MemoryWorld(**options)
        self.server = ServerWorld(self.url, **options)
        self.run(self.memory.advance(self.server.now - self.memory.now))
        self.worlds: tuple[World, World] = (self.memory, self.server)
        self.begun = False
        self.histories = 0
        self.seen: dict[tuple[str, int], Standing] = {}
        self.versions: dict[int, int] = {}
        self.read: dict[tuple[str, int], int] = {}

    def run(self, awaitable: Awaitable[T]) -> T:
        async def wrapped() -> T:
            return await awaitable

        return self.loop.run_until_complete(wrapped())

    def both(self, ask: Callable[[Store], Awaitable[T]]) -> T:
        expected = self.run(ask(self.memory.store))
        actual = self.run(ask(self.server.store))
        assert actual == expected
        return actual

    def teardown(self) -> None:
        if self.begun:
            for partition in (0, 1):
                for realm in ("r", "s"):
                    self.loads(partition, realm)
        for world in self.worlds:
            self.run(world.close())
        self.loop.close()

    def standing(self, member: str, partition: int) -> Standing:
        return self.seen.get((member, partition), Standing("", member, 1))

    # -- the world ----------------------------------------------------------------------------------------------

    @initialize(members=st.lists(MEMBER, unique=True))
    def begin(self, members: list[str]) -> None:
        self.run(self.server.lose())
        self.run(self.server.begin())
        self.begun = True
        if members:
            self.everybody_joins(0, members)

    @rule(ms=STEPS)
    def time_passes(self, ms: int) -> None:
        for world in self.worlds:
            self.run(world.advance(ms))

    @rule(data=st.data())
    def store_process_changes(self, data: st.DataObject) -> None:
        if data.draw(st.integers(0, 9)):  # not too often
            return
        for partition in (0, 1):
            if self.memory.store.data[partition].owner:
                self.run(self.server.new_identity(partition))
        self.run(self.memory.new_identity())

    @rule(data=st.data())
    def store_is_wiped(self, data: st.DataObject) -> None:
        if data.draw(st.integers(0, 19)):
            return
        for world in self.worlds:
            self.run(world.lose())
        self.versions.clear()  # until somebody proposes what it knows

    # -- membership ---------------------------------------------------------------------------------------------

    @rule(
        member=MEMBER,
        partition=PARTITION,
        settle_ms=st.sampled_from([0, 2000]),
        known=st.sets(MEMBER),
        current=st.booleans(),
    )
    def opens(self, member: str, partition: int, settle_ms: int, known: set[str], current: bool) -> None:
        self.histories += 1
        log_id = f"{self.histories:032x}"
        held = self.standing(member, partition).log_id
        seen = self.memory.store.data[partition].at.log_id if current else held
        self.both(lambda store: store.open_history(partition, seen, log_id, settle_ms, sorted(known | {member})))

    @rule(
        member=MEMBER, partition=PARTITION, new=st.booleans(), known=st.sets(MEMBER), error=ERRORS, stale=st.booleans(),
        nonce=st.sampled_from(["", "n", "m"]),
    )  # fmt: skip
    def confirms(
        self, member: str, partition: int, new: bool, known: set[str], error: int, stale: bool, nonce: str
    ) -> None:
        held = self.standing(member, partition)
        log_id = held.log_id if stale else self.memory.store.data[partition].at.log_id
        incarnation = None if new or (member, partition) not in self.seen else held.incarnation
        own_ms = self.memory.now + error
        answer = self.both(
            lambda store: store.confirm(
                partition, log_id, member, incarnation, own_ms, sorted(known | {member}), nonce=nonce
            )
        )
        if isinstance(answer, int):
            self.seen[member, partition] = Standing(log_id, member, answer)

    @rule(member=MEMBER, partition=PARTITION, error=ERRORS, below=st.just(0), look=st.booleans(), follow=st.booleans())
    def beats(self, member: str, partition: int, error: int, below: int, look: bool, follow: bool) -> None:
        who = None if look else self.standing(member, partition)
        read = self.read.get((member, partition), 0)
        own_ms = self.memory.now + error
        registry = self.both(lambda store: store.beat(partition, who, member, own_ms, read, below, applied=below))
        if follow:
            self.read[member, partition] = registry.version

    @rule(partition=PARTITION, settle_ms=st.sampled_from([0, 1, 2000]), stale=st.booleans())
    def settles(self, partition: int, settle_ms: int, stale: bool) -> None:
        log_id = "none" if stale else self.memory.store.data[partition].at.log_id
        self.both(lambda store: store.settle(partition, log_id, settle_ms))

    @rule(
        member=MEMBER,
        partition=PARTITION,
        mode=st.sampled_from(["quiet", "forced", "leave"]),
        silent=st.sampled_from([0, 1000, 30_000]),
        other=st.booleans(),
    )
    def strikes(self, member: str, partition: int, mode: str, silent: int, other: bool) -> None:
        log_id = self.memory.store.data[partition].at.log_id
        incarnation = self.standing(member, partition).incarnation + 1 if other else None
        self.both(lambda store: store.strike(partition, log_id, member, mode, incarnation, silent))

    @rule(partition=PARTITION, members=st.lists(MEMBER, min_size=1, unique=True))
    def everybody_joins(self, partition: int, members: list[str]) -> None:
        """What a healthy replica does, so that runs get far enough to commit."""
        self.opens(members[0], partition, 0, set(), True)
        for member in members:
            self.confirms(member, partition, False, set(), 0, False, "n")
        for _ in range(3):
            for member in members:
                self.beats(member, partition, 0, 0, False, True)

    def active(self, partition: int) -> Standing:
        """Somebody who may commit; if there is nobody, the members begin anew."""
        at = self.memory.store.data[partition].at
        for name, member in at.members.items():
            if member.active and at.usable:
                return Standing(at.log_id, name, member.incarnation)
        self.everybody_joins(partition, ["a", "b"])
        return self.standing("a", partition)

    # -- revocations --------------------------------------------------------------------------------------------

    @rule(
        member=MEMBER,
        partition=PARTITION,
        able=ABLE,
        error=ERRORS,
        wait=RARELY,
        shapes=st.lists(
            st.tuples(st.integers(0, 4), REALM, st.integers(0, 1), st.lists(EXPIRIES, max_size=3), st.integers(0, 2)),
            min_size=1,
            max_size=4,
        ),
    )
    def commits(
        self,
        member: str,
        partition: int,
        able: bool,
        error: int,
        wait: bool,
        shapes: list[tuple[int, str, int, list[int], int]],
    ) -> None:
        ops = [self.op(*shape) for shape in shapes]
        who, own_ms = self.active(partition) if able else self.standing(member, partition), self.memory.now + error
        durability = Durability(replicas=int(wait), timeout_ms=1)
        answer: Any = self.both(lambda store: store.commit(partition, who, own_ms, ops, durability))
        drawn = {r.version for r in getattr(answer, "results", ()) if r.state is OpState.DONE and r.version}
        assert len(drawn) <= 1
        for version in drawn:
            assert version > self.versions.get(partition, 0), "versions never repeat"
            self.versions[partition] = version

    def op(self, number: int, realm: str, content: int, expiries: list[int], cutoffs: int) -> Op:
        base = self.memory.now // 1000
        groups: list[Denials | Cutoffs] = [tokens(*(base + e for e in expiries), first=number)] if expiries else []
        groups += [subjects(*range(cutoffs), horizon_s=DAY)] if cutoffs else []
        # The op id binds the realm.
        return operation(number * 2 + (realm == "s"), *(groups or [key_for_ever(number)]), realm=realm, content=content)

    @rule(member=MEMBER, partition=PARTITION, able=ABLE, error=ERRORS, wait=RARELY)
    def proves(self, member: str, partition: int, able: bool, error: int, wait: bool) -> None:
        who, own_ms = self.active(partition) if able else self.standing(member, partition), self.memory.now + error
        self.both(lambda store: store.barrier(partition, who, own_ms, Durability(replicas=int(wait), timeout_ms=1)))

    @rule(target=records, partition=PARTITION, after=st.integers(0, LONGEST_LOG))
    def reads(self, partition: int, after: int) -> list[LogEntry]:
        return self.both(lambda store: store.read_log(partition, after, 5, 0))

    @rule(entries=records, partition=PARTITION, ahead=st.sampled_from([0, 1, 50_000]))
    def proposes(self, entries: list[LogEntry], partition: int, ahead: int) -> None:
        log_id = self.memory.store.data[partition].at.log_id
        clock = self.versions.get(partition, 0) + ahead
        for entry in entries:
            self.propose(partition, log_id, clock, entry)

    def propose(self, partition: int, log_id: str, clock: int, entry: LogEntry) -> None:
        self.both(lambda store: store.propose(partition, log_id, clock, entry.realm, entry.rows, entry.ops))

    @rule(partition=PARTITION, realm=REALM)
    def loads(self, partition: int, realm: str) -> None:
        log_id = self.memory.store.data[partition].at.log_id
        self.both(lambda store: store.heads(partition, log_id))
        names: Any = self.both(lambda store: store.segment_names(partition, log_id, realm, 0, 99))
        if isinstance(names, list):
            wanted = [(name, 0) for name in names]
            self.both(lambda store: store.segment_rows(partition, log_id, realm, wanted, 9999))


def test_both_stores_answer_alike(redis_url: str) -> None:
    machine: Any = type("Machine", (SideBySide,), {"url": redis_url})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
