"""What every store does with sessions. One suite, on the store in memory and on a server."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from typing import Any

import pytest

from revocation.store import Closed, Cutoffs, Denials, Durability, Op
from revocation.store.rails import FullStore
from revocation.store.sessions import (
    Again,
    Behind,
    ClientSettings,
    Count,
    Entry,
    Finish,
    Limits,
    Look,
    Put,
    Sealed,
    Seen,
    Step,
    Stepped,
    SubjectCutoff,
    Turned,
    record_name,
)
from revocation_sdk._lattice import CUTOFF, DENIAL, Group, Kind, join_groups, parse_groups
from tests.store.conftest import Make
from tests.store.world import NO_COPIES, Actor, MemoryWorld, ServerWorld, World, alone

TAG = 7
CLIENT = b"client01"
SUBJECT_FP = (4242).to_bytes(8, "little")
HOUR_MS = 3_600_000
_numbers = itertools.count(1)


class Desk:
    """One member's view of sessions in realm "r"."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.store: FullStore = actor.store
        self.world = actor.world

    async def look(self, *records: str, **options: Any) -> Seen:
        look = Look("r", tuple(records), **options)
        seen = await self.store.look_sessions(self.actor.partition, self.actor.who, self.actor.own_ms, look, NO_COPIES)
        assert isinstance(seen, Seen), seen
        return seen

    async def step(self, step: Step) -> Stepped | Again | Behind | Turned | Closed:
        return await self.store.step_session(self.actor.partition, self.actor.who, self.actor.own_ms, step, NO_COPIES)

    async def done(self, step: Step) -> Stepped:
        result = await self.step(step)
        assert isinstance(result, Stepped), result
        return result

    async def open(self, opened_ms: int = 0, **options: Any) -> Entry:
        """Opens a session of the subject "i" and returns its entry."""
        entry, step = self.opening(opened_ms, **options)
        await self.done(step)
        return entry

    def opening(self, opened_ms: int = 0, client: bytes = CLIENT, **options: Any) -> tuple[Entry, Step]:
        number = next(_numbers)
        fingerprint = (10_000 + number).to_bytes(8, "little")
        entry = Entry(opened_ms or self.world.now, client, TAG, fingerprint, 600, number.to_bytes(16, "big"))
        step = Step("r", 0, b"", entry.record, b"", self.put(b"body"), entry.pack(), ("i",), **options)
        return entry, step

    def put(self, body: bytes, stamp: bytes = b"s" * 12, lasts_ms: int = HOUR_MS) -> Put:
        return Put(body, stamp, self.world.now + lasts_ms + 60_000, self.world.now + lasts_ms)

    def on(self, entry: Entry, action: Put | Count | Finish, **options: Any) -> Step:
        given: dict[str, Any] = {"expect": b"s" * 12, "applied": 0, "watched": b"", "indexes": ("i",)} | options
        return Step("r", record=entry.record, action=action, entry=entry.pack(), **given)

    def row(self, entry: Entry) -> bytes:
        return DENIAL.pack(int.from_bytes(entry.fingerprint, "little"), self.world.now // 1000 + 1_000)

    def finish(self, entry: Entry, why: str = "logout", **options: Any) -> Step:
        return self.on(entry, Finish(self.row(entry), why), **options)

    async def listed(self) -> set[bytes]:
        return {entry.fingerprint for entry, _ in (await self.look(indexes=("i",))).entries}

    async def why(self, entry: Entry) -> str | None:
        """How its session ended; None if it lives."""
        sealed = (await self.look(entry.record)).records[0]
        return "gone" if sealed is None else sealed.ended or None


def limits(of_subject: int = 0, of_client: int = 0, *, evict: bool = False, forget: bytes = b"") -> Limits:
    return Limits(of_subject, of_client, evict, CLIENT, 120, forget)


def cutoff_op(fingerprint: bytes, realm: str = "r") -> Op:
    number = next(_numbers)
    return Op(realm, f"{number:032x}", "d" * 32, (Cutoffs(Kind.SUBJECT, TAG, 3_600, fingerprint),))


@pytest.fixture
async def desk(world: World) -> Desk:
    return Desk(await alone(world))


async def test_a_record_is_read_as_it_was_written(desk: Desk) -> None:
    entry = await desk.open()
    seen = await desk.look(entry.record, "7:none")
    assert seen.records == (Sealed(b"s" * 12, b"body"), None)
    assert (seen.now_ms, seen.op) == (desk.world.now, ())
    assert (await desk.look(indexes=("i", "j"))).entries == ((entry, None),)
    assert (await desk.look(indexes=("i",), with_records=True)).entries == ((entry, Sealed(b"s" * 12, b"body")),)
    assert (await desk.look(indexes=("i",), at_least=2)).entries == ()


async def test_of_steps_decided_on_the_same_record_one_is_committed(desk: Desk) -> None:
    entry = await desk.open()
    steps = [desk.on(entry, desk.put(b"%d" % n, stamp=b"%012d" % n)) for n in range(20)]
    results = await asyncio.gather(*map(desk.step, steps))
    assert sorted(isinstance(result, Stepped) for result in results) == [False] * 19 + [True]
    assert {result for result in results if not isinstance(result, Stepped)} == {Turned.CHANGED}


async def test_a_session_is_opened_once(desk: Desk) -> None:
    _, step = desk.opening()
    await desk.done(step)
    assert await desk.step(step) is Turned.CHANGED


async def test_a_decision_is_refused_after_its_deadline(desk: Desk) -> None:
    entry = await desk.open()
    step = desk.on(entry, desk.put(b"x"), until_ms=desk.world.now + 10)
    await desk.world.advance(10)
    assert await desk.step(step) is Turned.LATE
    assert (await desk.look(entry.record)).records[0] == Sealed(b"s" * 12, b"body")


async def test_a_cutoff_behind_the_callers_back_is_noticed(desk: Desk) -> None:
    entry = await desk.open()
    watched = (1).to_bytes(8, "little") + SUBJECT_FP
    before = (await desk.look()).seq
    await desk.actor.commit(cutoff_op(SUBJECT_FP))
    step = desk.on(entry, desk.put(b"x"), applied=before, watched=watched)
    assert await desk.step(step) == Behind(before + 1)
    await desk.done(replace(step, applied=before + 1))


async def test_what_does_not_concern_it_does_not_hold_it_up(desk: Desk) -> None:
    entry = await desk.open()
    before = (await desk.look()).seq
    for n in range(5):
        await desk.actor.commit(cutoff_op((n + 1).to_bytes(8, "little")))
    await desk.actor.commit(cutoff_op(SUBJECT_FP, realm="other"))
    await desk.done(desk.on(entry, desk.put(b"x"), applied=before, watched=SUBJECT_FP))


async def test_a_view_that_is_far_behind_has_to_catch_up(desk: Desk) -> None:
    entry = await desk.open()
    for _ in range(257):
        await desk.actor.commit(cutoff_op(b"\x01" * 8))
    seq = (await desk.look()).seq
    assert await desk.step(desk.on(entry, desk.put(b"x"), watched=SUBJECT_FP)) == Behind(seq)
    assert await desk.step(desk.on(entry, desk.put(b"x"), applied=seq + 1, watched=SUBJECT_FP)) == Behind(seq)


async def test_answers_are_counted_and_change_nothing_else(desk: Desk) -> None:
    entry = await desk.open()
    assert [(await desk.done(desk.on(entry, Count(3)))).count for _ in range(3)] == [1, 2, 3]
    assert await desk.step(desk.on(entry, Count(3))) is Turned.CAPPED
    assert (await desk.look(entry.record)).records[0] == Sealed(b"s" * 12, b"body")
    await desk.done(desk.on(entry, desk.put(b"next", stamp=b"t" * 12)))
    assert (await desk.done(desk.on(entry, Count(3), expect=b"t" * 12))).count == 1


async def test_an_end_takes_record_entry_and_tokens_at_once(desk: Desk) -> None:
    entry = await desk.open()
    result = await desk.done(desk.finish(entry, expect=None))
    assert result.rows == join_groups([Group(Kind.SESSION, TAG, desk.row(entry))])
    assert await desk.why(entry) == "logout"
    assert await desk.listed() == set()
    log = await desk.actor.store.read_log(desk.actor.partition, result.seq - 1, 1, 0)
    assert (log[0].rows, log[0].realm_seq) == (result.rows, result.realm_seq)
    assert b"".join((await desk.actor.load()).values()) == desk.row(entry)
    assert await desk.step(desk.on(entry, desk.put(b"x"))) is Turned.CHANGED, "a refresh in flight"


@pytest.mark.parametrize("path", ["commit", "propose"])
async def test_every_row_of_a_session_ends_its_record(desk: Desk, path: str) -> None:
    """Whoever revokes a session, and a replica that puts back what a store forgot."""
    entry, other = await desk.open(), await desk.open()
    if path == "commit":
        op = Op("r", f"{next(_numbers):032x}", "d" * 32, (Denials(Kind.SESSION, TAG, desk.row(entry)),))
        await desk.actor.commit(op)
    else:
        assert await desk.actor.propose(join_groups([Group(Kind.SESSION, TAG, desk.row(entry))])) is None
    assert (await desk.why(entry), await desk.why(other)) == ("logout", None)
    assert await desk.step(desk.on(entry, desk.put(b"x"))) is Turned.CHANGED


async def test_rows_of_foreign_sessions_leave_no_record(desk: Desk) -> None:
    row = DENIAL.pack(99, desk.world.now // 1000 + 1_000)
    await desk.actor.commit(Op("r", f"{next(_numbers):032x}", "d" * 32, (Denials(Kind.SESSION, TAG, row),)))
    assert (await desk.look(record_name(TAG, (99).to_bytes(8, "little")))).records == (None,)


async def test_an_op_id_is_answered_once_and_repeated(desk: Desk) -> None:
    entry, step = desk.opening(op="a" * 32, digest="d" * 32)
    first = await desk.done(step)
    again = await desk.step(step)
    assert isinstance(again, Again)
    assert again.fields == ("0", str(first.now_ms), "0", "0", "0", "0" * 40)
    assert (await desk.look(op="a" * 32)).op == ("d" * 32, *again.fields)
    assert await desk.step(replace(step, digest="e" * 32)) is Turned.CONFLICT
    assert (await desk.look(indexes=("i",))).entries == ((entry, None),)


async def test_op_ids_of_ends_are_healed_and_those_of_openings_forgotten_with_the_session(desk: Desk) -> None:
    entry, opening = desk.opening(op="a" * 32, digest="d" * 32, limits=limits(1, evict=True))
    await desk.open()
    opened = await desk.done(opening)
    ended = await desk.done(desk.finish(entry, expect=None, op="b" * 32, digest="d" * 32))
    log = await desk.actor.store.read_log(desk.actor.partition, opened.seq - 1, 2, 0)
    expires_at = DENIAL.unpack(desk.row(entry))[1]
    assert [one.ops for one in log] == ["", f"{'b' * 32}:{'d' * 32}:0:{expires_at}:{ended.now_ms}"]


async def test_a_cutoff_with_the_one_that_it_spares(desk: Desk) -> None:
    entry = await desk.open()
    clock = (await desk.look()).clock
    version = max(clock + 1, desk.world.now)
    spare = SubjectCutoff(version, TAG, 3_600, SUBJECT_FP)
    result = await desk.done(desk.on(entry, desk.put(b"kept", stamp=b"t" * 12), cutoff=spare))
    expires_at = desk.world.now // 1000 + 3_601
    row = CUTOFF.pack(4242, expires_at, version, desk.world.now)
    assert result.rows == join_groups([Group(Kind.SUBJECT, TAG, row)])
    assert (await desk.look(entry.record)).records[0] == Sealed(b"t" * 12, b"kept")
    assert (await desk.look()).clock == version
    late = desk.on(entry, desk.put(b"late"), expect=b"t" * 12, cutoff=spare)
    assert await desk.step(late) is Turned.CHANGED, "the version was drawn by somebody else"
    drawn = (await desk.actor.commit(cutoff_op(SUBJECT_FP))).results[0].version
    assert drawn > version


# -- limits ----------------------------------------------------------------------------------------------------


async def test_a_limit_denies(desk: Desk) -> None:
    for _ in range(3):
        await desk.open(limits=limits(3))
    assert await desk.step(desk.opening(limits=limits(3))[1]) is Turned.LIMIT
    assert len(await desk.listed()) == 3


async def test_a_limit_evicts_the_oldest_everywhere(desk: Desk) -> None:
    now = desk.world.now
    entries = [await desk.open(now - age, limits=limits(3, evict=True)) for age in (20, 30, 10)]
    newest, step = desk.opening(now, limits=limits(3, evict=True))
    result = await desk.done(step)
    assert [await desk.why(entry) for entry in entries] == [None, "limit", None]
    group = next(parse_groups(result.rows))
    assert (group.kind, group.key_tag, group.rows[:8]) == (Kind.SESSION, TAG, entries[1].fingerprint)
    assert DENIAL.unpack(group.rows)[1] == now // 1000 + 600 + 120 + 1
    assert await desk.listed() == {entries[0].fingerprint, entries[2].fingerprint, newest.fingerprint}


async def test_a_lowered_limit_is_reached_by_one_login(desk: Desk) -> None:
    """Evicting one for each login would never get there."""
    for _ in range(20):
        await desk.open()
    await desk.open(limits=limits(2, evict=True))
    assert len(await desk.listed()) == 2


async def test_a_limit_of_one_client_leaves_the_others(desk: Desk) -> None:
    others = [await desk.open(client=b"client02") for _ in range(3)]
    own = [await desk.open(desk.world.now + n, limits=limits(0, 2, evict=True)) for n in range(4)]
    assert await desk.listed() == {entry.fingerprint for entry in (*others, *own[2:])}
    assert await desk.step(desk.opening(limits=limits(0, 2))[1]) is Turned.LIMIT


async def test_both_limits_together_evict_no_more_than_needed(desk: Desk) -> None:
    others = [await desk.open(desk.world.now - 50 + n, client=b"client02") for n in range(2)]
    own = [await desk.open(desk.world.now - 20 + n) for n in range(2)]
    await desk.open(limits=limits(4, 2, evict=True))
    assert [await desk.why(entry) for entry in (*others, *own)] == [None, None, "limit", None]


async def test_what_is_over_does_not_count(desk: Desk) -> None:
    ended, known, expired, live = [await desk.open() for _ in range(4)]
    op = Op("r", f"{next(_numbers):032x}", "d" * 32, (Denials(Kind.SESSION, TAG, desk.row(ended)),))
    await desk.actor.commit(op)
    await desk.done(desk.on(expired, desk.put(b"x", lasts_ms=1_000)))
    await desk.world.advance(1_000)
    await desk.open(limits=limits(2, forget=known.pack()))
    assert live.fingerprint in await desk.listed()
    assert {known.fingerprint, ended.fingerprint, expired.fingerprint}.isdisjoint(await desk.listed())
    assert await desk.step(desk.opening(limits=limits(2))[1]) is Turned.LIMIT


@pytest.mark.parametrize("evict", [True, False])
async def test_a_limit_holds_under_100_logins_at_once(desk: Desk, evict: bool) -> None:
    steps = [desk.opening(limits=limits(5, evict=evict))[1] for _ in range(100)]
    results = await asyncio.gather(*map(desk.step, steps))
    assert len(await desk.listed()) == 5
    assert sum(isinstance(result, Stepped) for result in results) == (100 if evict else 5)
    live = [seen for step in steps if (seen := (await desk.look(step.record)).records[0]) and not seen.ended]
    assert len(live) == 5


async def test_entries_under_an_older_key_count_too(desk: Desk) -> None:
    for _ in range(2):
        await desk.open()
    _, step = desk.opening(limits=limits(2))
    assert await desk.step(replace(step, indexes=("new", "i"))) is Turned.LIMIT


# -- time, gates, bounds ---------------------------------------------------------------------------------------


async def test_an_index_lives_as_long_as_its_last_entry(desk: Desk) -> None:
    entry = await desk.open()
    await desk.done(desk.on(entry, desk.put(b"x", lasts_ms=2 * HOUR_MS)))
    await desk.open()
    if isinstance(desk.world, ServerWorld):
        key = desk.world.key(0, "idx:r:i")
        assert await desk.world.raw.pexpiretime(key) == desk.world.now + 2 * HOUR_MS
    await desk.world.advance(HOUR_MS + 1)
    assert await desk.listed() == {entry.fingerprint}
    await desk.world.advance(HOUR_MS)
    assert await desk.listed() == set()
    if isinstance(desk.world, MemoryWorld):
        assert not desk.world.store.data[0].sessions.indexes


async def test_what_has_expired_leaves_with_the_next_step(desk: Desk) -> None:
    for _ in range(10):
        await desk.open()
    await desk.world.advance(HOUR_MS + 1)
    await desk.open()
    if isinstance(desk.world, ServerWorld):
        assert await desk.world.raw.zcard(desk.world.key(0, "idx:r:i")) == 1


async def test_a_full_log_refuses_what_must_be_logged(make_world: Make) -> None:
    desk = Desk(await alone(await make_world(longest_log=3)))
    entry = await desk.open()
    for _ in range(3):
        await desk.actor.commit(cutoff_op(b"\x01" * 8))
    assert await desk.step(desk.finish(entry, expect=None)) is Closed.FULL
    assert await desk.why(entry) is None
    await desk.done(desk.on(entry, desk.put(b"x")))


async def test_the_gate_is_that_of_commits(desk: Desk) -> None:
    entry = await desk.open()
    stranger = Actor(desk.world, "stranger")
    step = desk.on(entry, desk.put(b"x"))
    assert await Desk(stranger).step(step) is Closed.HEAL
    desk.actor.clock_error = 31_000
    assert await desk.step(step) is Closed.CLOCK
    desk.actor.clock_error = 0
    await desk.world.new_identity()
    assert await desk.step(step) is Closed.REOPEN
    answer = await desk.store.look_sessions(0, desk.actor.who, desk.actor.own_ms, Look("r"), Durability())
    assert answer is Closed.REOPEN
    assert await desk.store.client_settings(desk.actor.log_id, "r", ("a",), "", 1) is Closed.REOPEN


async def test_settings_of_clients(desk: Desk) -> None:
    async def ask(*names: str, new: str = "", realm: str = "r") -> str | Closed | None:
        answer = await desk.store.client_settings(desk.actor.log_id, realm, names, new, 2)
        return answer.text if isinstance(answer, ClientSettings) else answer

    assert await ask("a") == ""
    assert await ask("a", new="1") == "1"
    assert await ask("new-a", "a") == "1", "under an older key id"
    assert await ask("new-a", "a", new="2") == "2"
    assert (await ask("a"), await ask("new-a")) == ("", "2")
    assert await ask("b", new="3") == "3"
    assert await ask("c", new="4") is None, "as many as there may be"
    assert await ask("b", new="5") == "5"
    assert await ask("c", new="6", realm="s") == "6"


# -- what safety rails ask for ------------------------------------------------------------------------------------


async def test_indexes_are_enumerated_a_little_at_a_time(desk: Desk) -> None:
    expected = {f"subject-{number}" for number in range(25)}
    for name in expected:
        _, step = desk.opening()
        await desk.done(replace(step, indexes=(name,)))
    _, foreign = desk.opening()
    await desk.done(replace(foreign, realm="r2", indexes=("another-realms",)))
    log_id, found, cursor, rounds = desk.actor.who.log_id, set[str](), 0, 0
    while cursor or not rounds:
        answer = await desk.store.index_names(0, log_id, "r", cursor, 10)
        assert not isinstance(answer, Closed)
        cursor, names = answer
        found.update(names)
        rounds += 1
    assert found == expected
    assert rounds > 1
    assert await desk.store.index_names(0, "0" * 32, "r", 0, 10) is Closed.HEAL


async def test_entries_are_read_in_parts_and_only_live_ones(desk: Desk) -> None:
    entries = [await desk.open(client=CLIENT if number % 2 else b"client02") for number in range(10)]
    await desk.done(desk.finish(entries[0], indexes=()))
    log_id = desk.actor.who.log_id

    async def read(*wanted: tuple[str, int], clients: bytes = b"", most: int = 100) -> list[tuple[int, set[bytes]]]:
        answer = await desk.store.index_entries(0, log_id, "r", wanted, clients, most)
        assert not isinstance(answer, Closed)
        assert answer[0] == desk.world.now
        return [(part.count, {entry.fingerprint for entry, _ in part.live}) for part in answer[1]]

    live = {entry.fingerprint for entry in entries[1:]}
    assert await read(("i", 0), ("none", 0)) == [(10, live), (0, set())]
    assert await read(("i", 0), clients=CLIENT) == [(10, {entry.fingerprint for entry in entries[1::2]})]
    parts = [await read(("i", offset), most=4) for offset in (0, 4, 8)]
    assert [part[0][0] for part in parts] == [4, 4, 2]
    assert set.union(*(part[0][1] for part in parts)) == live
    assert [count for count, _ in await read(("i", 0), ("i", 0), ("i", 0), most=12)] == [10, 2, 0]
    assert await desk.store.index_entries(0, "0" * 32, "r", (), b"", 1) is Closed.HEAL


async def test_an_approval_is_kept_as_it_was_first_asked_for_until_its_time_is_over(desk: Desk) -> None:
    log_id = desk.actor.who.log_id
    assert await desk.store.approval(log_id, "r", "a", 60_000, "") == ""
    assert await desk.store.approval(log_id, "r", "a", 60_000, "first") == "first"
    assert await desk.store.approval(log_id, "r", "a", 60_000, "second") == "first"
    assert await desk.store.approval(log_id, "r", "a", 60_000, "") == "first"
    assert await desk.store.approval(log_id, "other", "a", 60_000, "") == ""
    assert await desk.store.approval("0" * 32, "r", "a", 60_000, "x") is Closed.HEAL
    assert await desk.store.approval(log_id, "r", "short", 1, "x") == "x"
