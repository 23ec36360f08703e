"""What every store answers. One suite, on the store in memory and on a server."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest
from redis.crc import key_slot

from revocation.store import (
    SLOT_S,
    ZERO,
    Closed,
    Durability,
    Heads,
    LogEntry,
    OpState,
    Registry,
    StoreRefused,
    StoreUnavailable,
    opening_digest,
)
from revocation_sdk._lattice import CUTOFF, Kind, count_rows, parse_groups
from tests.store.conftest import Make
from tests.store.world import (
    LOG,
    OTHER_LOG,
    Actor,
    MemoryWorld,
    ServerWorld,
    World,
    alone,
    joined,
    key_for_ever,
    opened,
    operation,
    subjects,
    tokens,
)

HOUR_MS = 3_600_000


def soon(world: World) -> int:
    """An expiry that is neither over nor far."""
    return world.now // 1000 + 3600


def sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


def check_chains(entries: list[LogEntry], log_id: str = LOG) -> tuple[str, dict[str, tuple[int, str]]]:
    """Recomputes both chains from the beginning of a history that opened an empty store; returns their ends."""
    digest, realms = opening_digest(ZERO, log_id), dict[str, tuple[int, str]]()
    for number, entry in enumerate(entries, 1):
        before = realms.get(entry.realm, (0, ZERO))
        realms[entry.realm] = (before[0] + 1, sha1(before[1].encode() + entry.rows))
        assert entry.seq == number
        assert (entry.realm_seq, entry.realm_digest) == realms[entry.realm]
        text = f"{digest}{entry.realm} {entry.realm_seq} {entry.realm_digest} {entry.at_ms} {entry.ops}"
        digest = sha1(text.encode())
        assert entry.digest == digest
    return digest, realms


# -- commit: numbers, chains, rows ------------------------------------------------------------------------------------


async def test_numbers_have_no_gap_and_both_chains_hold(world: World) -> None:
    actor = await alone(world)
    await actor.commit(operation(1, tokens(soon(world))))
    await actor.commit(operation(2, subjects(7)), operation(3, key_for_ever(), realm="s"))
    await actor.commit(operation(4, tokens(soon(world), soon(world) + 9999), subjects(1, 2)))
    entries = await world.store.read_log(0, 0, 100, 0)
    digest, realms = check_chains(entries)
    assert [entry.realm for entry in entries] == ["r", "r", "s", "r"]
    assert await world.store.heads(0, LOG) == Heads(4, digest, realms)
    registry = await actor.look()
    assert (registry.seq, registry.digest) == (4, digest)


async def test_a_result_names_the_place_of_its_record(world: World) -> None:
    actor = await alone(world)
    await actor.commit(operation(1, tokens(soon(world))))
    committed = await actor.commit(
        operation(2, subjects(7)), operation(3, tokens(soon(world)), realm="s"), operation(4, tokens(soon(world)))
    )
    by_seq = {entry.seq: entry for entry in await world.store.read_log(0, 0, 100, 0)}
    assert committed.seq == max(by_seq)
    assert [result.seq for result in committed.results] == [2, 3, 2]
    for result in committed.results:
        entry = by_seq[result.seq]
        assert (result.realm_seq, result.realm_digest.hex()) == (entry.realm_seq, entry.realm_digest)
        assert result.at_ms == entry.at_ms == committed.now_ms == world.now


async def test_a_script_makes_one_record_for_each_realm_with_all_its_operations(world: World) -> None:
    actor = await alone(world)
    ops = [operation(n, tokens(soon(world) + n, first=n), realm="rs"[n % 2]) for n in range(1, 7)]
    await actor.commit(*ops)
    entries = await world.store.read_log(0, 0, 100, 0)
    assert {entry.realm: count_rows(entry.rows) for entry in entries} == {"r": 3, "s": 3}
    assert sorted(text.split(":")[0] for entry in entries for text in entry.ops.split()) == [op.key for op in ops]


async def test_what_was_committed_is_what_is_loaded(world: World) -> None:
    actor = await alone(world)
    denials, far = tokens(soon(world), soon(world) + 1), tokens(soon(world) + 9 * SLOT_S, first=3)
    await actor.commit(operation(1, denials), operation(2, far, key_for_ever(5)))
    await actor.commit(operation(3, subjects(1, 2)), operation(4, tokens(soon(world)), realm="s"))
    logged: dict[tuple[int, int], list[bytes]] = {}
    for entry in await world.store.read_log(0, 0, 100, 0):
        for kind, key_tag, rows in parse_groups(entry.rows):
            logged.setdefault((kind, key_tag), []).append(rows)
    segments = await actor.load("r") | {f"{name} ": rows for name, rows in (await actor.load("s")).items()}
    loaded: dict[tuple[int, int], list[bytes]] = {}
    for name, rows in segments.items():
        family, tag, _ = name.split("-")
        loaded.setdefault((int(family), int(tag)), []).append(rows)
    assert {key: sorted(rows) for key, rows in loaded.items()} == {key: sorted(rows) for key, rows in logged.items()}


async def test_a_segment_lives_to_the_end_of_its_slot(world: World) -> None:
    actor = await alone(world)
    expiries = [soon(world), soon(world) // SLOT_S * SLOT_S, soon(world) // SLOT_S * SLOT_S - 1, soon(world) + 86_400]
    await actor.commit(operation(1, tokens(*expiries), key_for_ever()), operation(2, subjects(1, horizon_s=500)))
    segments = await actor.load()
    assert sum(len(rows) for rows in segments.values()) == 5 * 12 + 28
    for name, rows in segments.items():
        kind, _, slot = name.split("-")
        due = await world.due_of(0, "r", name)
        if slot == "n":
            assert (int(kind), due) == (Kind.KEY, None)
            continue
        assert due == (int(slot) + 1) * SLOT_S * 1000
        size = 12 if int(kind) < 64 else 28
        last = max(int.from_bytes(rows[at + 8 : at + 12], "little") for at in range(0, len(rows), size))
        assert last * 1000 < due <= (last + SLOT_S) * 1000


async def test_what_is_over_is_logged_but_not_loaded(world: World) -> None:
    actor = await alone(world)
    await actor.commit(operation(1, tokens(1, soon(world)), tokens(world.now // 1000 - 2 * SLOT_S, first=8)))
    assert sum(len(rows) for rows in (await actor.load()).values()) == 12
    (entry,) = await world.store.read_log(0, 0, 100, 0)
    assert count_rows(entry.rows) == 3


async def test_a_segment_is_gone_after_its_slot_and_not_before() -> None:
    world = MemoryWorld()
    actor = await alone(world)
    expires = soon(world)
    due_ms = (expires // SLOT_S + 1) * SLOT_S * 1000
    await actor.commit(operation(1, tokens(expires)))
    await world.advance(due_ms - 1 - world.now)
    assert await actor.load()
    await world.advance(1)
    assert not await actor.load()


# -- operations: once, and all or nothing -----------------------------------------------------------------------------


async def test_a_retry_gets_the_first_answer_and_changes_nothing(world: World) -> None:
    actor = await alone(world)
    ops = operation(1, subjects(7)), operation(2, tokens(soon(world)))
    first = await actor.commit(*ops)
    await world.advance(5)
    before = await actor.look(), await world.store.read_log(0, 0, 100, 0), await actor.load()
    again = await actor.commit(*ops)
    assert [result.state for result in first.results] == [OpState.DONE] * 2
    assert [result.state for result in again.results] == [OpState.AGAIN] * 2
    for one, other in zip(first.results, again.results, strict=True):
        assert one.version == other.version
        assert one == type(one)(OpState.DONE, *(getattr(other, name) for name in _NUMBERS))
    assert (await actor.look(), await world.store.read_log(0, 0, 100, 0), await actor.load()) == before


_NUMBERS = ("version", "at_ms", "expires_at", "seq", "realm_seq", "realm_digest")


async def test_the_same_op_id_with_other_content_is_a_conflict(world: World) -> None:
    actor = await alone(world)
    await actor.commit(operation(1, subjects(7)))
    before = await actor.load()
    committed = await actor.commit(operation(1, subjects(8), content=1))
    assert [result.state for result in committed.results] == [OpState.CONFLICT]
    assert await actor.load() == before
    assert committed.seq == 1


async def test_a_conflict_does_not_stop_the_others_in_its_script(world: World) -> None:
    actor = await alone(world)
    await actor.commit(operation(1, subjects(7)))
    committed = await actor.commit(operation(1, subjects(8), content=1), operation(2, subjects(9)))
    assert [result.state for result in committed.results] == [OpState.CONFLICT, OpState.DONE]
    (entry,) = await world.store.read_log(0, 1, 100, 0)
    assert [group.rows[:8] for group in parse_groups(entry.rows)] == [(9).to_bytes(8, "little")]


async def test_a_retry_beside_its_first_try_runs_once(world: World) -> None:
    actor = await alone(world)
    op = operation(1, subjects(7))
    committed = await actor.commit(op, operation(2, tokens(soon(world))), op, operation(1, subjects(8), content=1))
    first, _, twin, conflict = committed.results
    assert twin == first
    assert conflict.state is OpState.CONFLICT
    (entry,) = await world.store.read_log(0, 0, 100, 0)
    assert count_rows(entry.rows) == 2
    assert len(entry.ops.split()) == 2


async def test_op_ids_are_independent_of_each_other(world: World) -> None:
    one, other = await alone(world), await alone(world, partition=1)
    for actor in (one, other):  # the same key in two partitions
        committed = await actor.commit(operation(1, subjects(7)), operation(2, subjects(7), realm="s"))
        assert [result.state for result in committed.results] == [OpState.DONE] * 2


async def test_an_op_record_is_forgotten_after_its_retention(make_world: Make) -> None:
    world = await make_world(op_retention_ms=1)
    actor = await alone(world)
    op = operation(1, subjects(7))
    first = (await actor.commit(op)).results[0]

    async def forgotten() -> Any:
        await world.advance(2)
        result = (await actor.commit(op)).results[0]
        return result if result.state is OpState.DONE else None

    async with asyncio.timeout(60):
        while not (second := await forgotten()):
            pass
    assert second.version > first.version


async def test_a_refused_commit_leaves_no_trace(make_world: Make) -> None:
    world = await make_world(longest_log=2)
    actor = await alone(world)
    await actor.commit(operation(1, subjects(1)))
    await actor.commit(operation(2, subjects(2)))
    before = await actor.look(), await world.store.read_log(0, 0, 100, 0), await actor.load()
    assert await actor.try_commit(operation(3, subjects(3)), operation(4, tokens(soon(world)))) is Closed.FULL
    assert (await actor.look(), await world.store.read_log(0, 0, 100, 0), await actor.load()) == before
    retried = await actor.commit(operation(2, subjects(2)))
    assert retried.results[0].state is OpState.AGAIN, "a retry needs no room"


# -- versions and cutoffs ---------------------------------------------------------------------------------------------


async def test_versions_grow_even_within_a_millisecond(world: World) -> None:
    actor = await alone(world)
    drawn = [(await actor.commit(operation(n, subjects(7)))).results[0].version for n in range(1, 6)]
    assert drawn == [world.now + n for n in range(5)]
    await world.advance(1000)
    assert (await actor.commit(operation(6, subjects(7)))).results[0].version == world.now


async def test_a_cutoff_is_drawn_once_for_a_script_and_stands_in_the_row(world: World) -> None:
    actor = await alone(world)
    committed = await actor.commit(operation(1, subjects(7, 8, horizon_s=500)), operation(2, subjects(9)))
    first, second = committed.results
    assert first.version == second.version == world.now
    assert first.expires_at == world.now // 1000 + 501
    (entry,) = await world.store.read_log(0, 0, 100, 0)
    rows = [row for group in parse_groups(entry.rows) for row in CUTOFF.iter_unpack(group.rows)]
    assert rows == [(7, first.expires_at, first.version, world.now), (8, first.expires_at, first.version, world.now),
                    (9, second.expires_at, second.version, world.now)]  # fmt: skip


async def test_tokens_draw_no_version(world: World) -> None:
    actor = await alone(world)
    result = (await actor.commit(operation(1, tokens(soon(world)), key_for_ever()))).results[0]
    assert (result.version, result.expires_at) == (0, 0)
    assert (await actor.look()).clock == 0


async def test_a_proposed_clock_is_never_drawn_again(world: World) -> None:
    actor = await alone(world)
    first = (await actor.commit(operation(1, subjects(7)))).results[0].version
    await world.lose()
    await world.advance(-500)
    assert await actor.open(OTHER_LOG) is None
    assert await actor.propose(clock=first + 1_000_000) is None
    assert await actor.propose(clock=5) is None, "and never goes back"
    opened(await actor.confirm())
    await actor.beat()
    assert (await actor.commit(operation(2, subjects(7)))).results[0].version == first + 1_000_001


# -- histories: gate, open, heal, confirm, settle ---------------------------------------------------------------------


async def answers(actor: Actor) -> dict[str, Any]:
    """What every gated call answers, those that change nothing first."""
    store, p, log_id = actor.store, actor.partition, actor.log_id
    return {
        "barrier": await actor.barrier(),
        "heads": await store.heads(p, log_id),
        "segment_names": await store.segment_names(p, log_id, "r", 0, 9),
        "segment_rows": await store.segment_rows(p, log_id, "r", [("1-0-1", 0)], 9),
        "settle": await store.settle(p, log_id, 1 << 40),
        "strike": await actor.strike("nobody"),
        "commit": await actor.try_commit(operation(1, subjects(7))),
        "propose": await actor.propose(),
        "beat": (await actor.beat()).closed,
        "confirm": await actor.confirm(),
    }


async def test_without_a_history_everything_says_reopen(world: World) -> None:
    assert set((await answers(Actor(world))).values()) == {Closed.REOPEN}
    registry = await Actor(world).look()
    assert registry == Registry(Closed.REOPEN, now_ms=world.now)


async def test_under_another_identity_everything_says_reopen(world: World) -> None:
    actor = await alone(world)
    await actor.commit(operation(2, subjects(1)))
    await world.new_identity()
    assert set((await answers(actor)).values()) == {Closed.REOPEN}


async def test_in_another_history_everything_says_heal(world: World) -> None:
    actor = await alone(world)
    await world.new_identity()
    assert await actor.open(OTHER_LOG) is None
    actor.log_id = LOG
    assert set((await answers(actor)).values()) == {Closed.HEAL}


async def test_an_onlooker_sees_the_registry(world: World) -> None:
    actor = await alone(world)
    registry = await Actor(world, "newcomer").look()
    assert registry.closed is Closed.HEAL
    assert (registry.log_id, registry.usable, set(registry.members)) == (LOG, True, {actor.name})


async def test_what_a_history_tells_of_the_one_before(world: World) -> None:
    actor = await alone(world)
    await actor.commit(operation(1, subjects(7)))
    before = await actor.look()
    await world.advance(10)
    await world.new_identity()
    assert await actor.open(OTHER_LOG, 2000) is None
    after = await actor.look()
    assert (after.log_id, after.previous, after.opened_ms) == (OTHER_LOG, LOG, world.now)
    assert (after.base, after.base_digest) == (before.seq, before.digest)
    assert (after.seq, after.digest) == (1, opening_digest(before.digest, OTHER_LOG)), "its records fit behind no other"
    assert (after.usable, after.full) == (False, False)
    assert after.settled, "a store that knows its members waits for them, and needs no settle time"


async def test_a_process_without_memory_gives_members_time_that_a_store_may_have_forgotten(world: World) -> None:
    """Two faults: the store is rolled back to before b came, and a, which opens, has restarted with nothing."""
    first, second = await joined(world, "a", "b")
    assert await first.strike("b", "forced") is None  # as in the copy that is put back
    await world.new_identity()
    again = Actor(world, "a")
    assert await again.open(OTHER_LOG, 2000) is None
    opened(await again.confirm())
    assert not (await again.look()).settled
    assert await again.barrier() is Closed.WAIT, "b may still be there, with what only it holds"
    opened(await second.confirm(log_id=OTHER_LOG))
    await world.advance(2_000)
    assert await again.store.settle(0, OTHER_LOG, 2_000) is None
    assert set((await again.look()).members) == {"a", "b"}


async def test_after_a_reopening_members_confirm_and_go_on_as_they_were(world: World) -> None:
    first, second = await joined(world, "a", "b")
    incarnations = first.incarnation, second.incarnation
    await world.new_identity()
    await first.open(OTHER_LOG)
    opened(await first.confirm())
    assert await first.barrier() is Closed.WAIT, "H6: b has not confirmed"
    assert await first.try_commit(operation(1, subjects(7))) is Closed.WAIT
    opened(await second.confirm(log_id=OTHER_LOG))
    assert (first.incarnation, second.incarnation) == incarnations
    assert await first.commit(operation(1, subjects(7)))
    assert opened(await second.barrier()).seq == 1


async def test_of_two_openers_one_wins(world: World) -> None:
    one, other = Actor(world, "a"), Actor(world, "b")
    assert await world.store.open_history(0, "", LOG, 0, ["a"]) is None
    assert await world.store.open_history(0, "", OTHER_LOG, 0, ["b"]) is Closed.LATE
    assert await world.store.open_history(0, LOG, OTHER_LOG, 0, ["b"]) is Closed.LATE, "it needs no opening"
    assert (await one.look()).log_id == (await other.look()).log_id == LOG


async def test_an_opener_lists_whom_it_knows(world: World) -> None:
    actor = Actor(world)
    assert await actor.open(LOG, 0, "b", "c") is None
    assert set((await actor.look()).members) == {"a", "b", "c"}


async def test_a_history_in_a_store_that_knows_nobody_has_to_settle(world: World) -> None:
    actor = Actor(world)
    await actor.open(LOG, 2000)
    opened(await actor.confirm())
    registry = await actor.beat()
    assert (registry.settled, registry.usable) == (False, False)
    assert await actor.barrier() is Closed.WAIT
    await world.advance(1999)
    assert await world.store.settle(0, LOG, 2000) is Closed.EARLY
    await world.advance(1)
    assert await world.store.settle(0, LOG, 2000) is None
    assert opened(await actor.barrier()).seq == 0


async def test_settling_does_not_replace_confirming(world: World) -> None:
    actor = Actor(world)
    await actor.open(LOG, 2000, "b")
    opened(await actor.confirm())
    await world.advance(2000)
    assert await world.store.settle(0, LOG, 2000) is None
    assert not (await actor.beat()).usable


async def test_who_confirms_lists_whom_it_knows(world: World) -> None:
    actor = await alone(world)
    newcomer = Actor(world, "b")
    opened(await newcomer.confirm("c", "a"))
    registry = await actor.beat()
    assert set(registry.members) == {"a", "b", "c"}
    assert not registry.usable, "H4: c has not confirmed"


async def test_a_newcomer_is_active_once_everybody_has_read_of_it(world: World) -> None:
    first, second = await joined(world, "a", "b")
    third = Actor(world, "c")
    opened(await third.confirm())
    assert (await third.beat()).usable
    for _ in range(3):
        await third.beat()
        assert await third.barrier() is Closed.WAIT
        assert await third.try_commit(operation(1, subjects(7))) is Closed.WAIT
        assert opened(await first.barrier()), "which does not hold up the others"
    await first.beat(), await first.beat()  # the first brings the registry, the second says that it was read
    await third.beat()
    assert await third.barrier() is Closed.WAIT, "b has not read of it"
    await second.beat(), await second.beat()
    await third.beat()
    assert opened(await third.barrier())


async def test_a_newcomer_must_have_read_the_registry_itself(world: World) -> None:
    first, _ = await joined(world, "a", "b")
    await first.strike("b")
    third = Actor(world, "c")
    opened(await third.confirm())
    await first.beat(), await first.beat()
    registry = await third.beat()
    assert not registry.members["c"].active
    assert (await third.beat()).members["c"].active


async def test_what_was_read_in_another_history_does_not_count(world: World) -> None:
    first, second = await joined(world, "a", "b")
    first.read = 1000
    await first.beat()
    await world.lose()
    await first.open(OTHER_LOG, 0, "b")
    opened(await first.confirm())
    opened(await second.confirm(log_id=OTHER_LOG))
    first.log_id, first.read = LOG, 1000
    await first.beat()
    for _ in range(3):
        assert not (await second.beat()).members["b"].active


# -- members: incarnations, striking, leaving -------------------------------------------------------------------------


async def test_a_newer_incarnation_fences_the_older(world: World) -> None:
    old, other = await joined(world, "a", "b")
    new = Actor(world, "a")
    opened(await new.confirm())
    assert new.incarnation is not None
    assert old.incarnation is not None
    assert new.incarnation > old.incarnation
    assert await old.try_commit(operation(1, subjects(7))) is Closed.FENCED
    assert await old.barrier() is Closed.FENCED
    assert (await old.beat()).closed is Closed.FENCED
    assert await old.confirm() is Closed.FENCED
    assert (await new.beat()).usable, "the same member again: nobody waits for a ghost"
    await new.beat()
    assert await new.barrier() is Closed.WAIT, "H8: is the other one still here?"
    await other.beat(), await other.beat()
    await new.beat()
    assert opened(await new.barrier())


async def test_a_first_confirmation_that_is_executed_twice_fences_nobody(world: World) -> None:
    """Its answer got lost, it was sent again, and the network delivered the first one late."""
    members = [*await joined(world, "a", "b"), process := Actor(world, "c")]

    async def confirm(nonce: str) -> int:
        drawn: int = opened(await world.store.confirm(0, LOG, "c", None, world.now, ["c"], nonce=nonce))
        return drawn

    process.incarnation = await confirm("one")
    await world.advance(2_000)
    assert await confirm("one") == process.incarnation
    for _ in range(3):
        registries = [await member.beat() for member in members]
    assert registries[-1].members["c"].active
    await world.advance(12_600)
    assert await confirm("one") == process.incarnation
    assert opened(await process.barrier()), "and it is no newcomer by that"
    assert (await process.beat()).closed is None
    assert await confirm("another") > process.incarnation
    assert (await process.beat()).closed is Closed.FENCED


async def test_a_process_that_was_followed_by_another_does_not_get_the_incarnation_of_that_one(world: World) -> None:
    await alone(world)

    async def confirm(nonce: str) -> int:
        drawn: int = opened(await world.store.confirm(0, LOG, "b", None, world.now, ["b"], nonce=nonce))
        return drawn

    drawn = [await confirm(nonce) for nonce in ("one", "two", "one", "", "one", "", "")]  # "": of release 0.1.0
    assert drawn == sorted({*drawn})


async def test_who_is_listed_by_hearsay_only_heals_and_is_not_fenced(world: World) -> None:
    actor = await alone(world)
    await world.lose()
    await Actor(world, "b").open(OTHER_LOG, 0, "a")
    actor.log_id = OTHER_LOG
    assert await actor.try_commit(operation(1, subjects(7))) is Closed.HEAL
    assert (await actor.beat()).closed is Closed.HEAL
    incarnation = actor.incarnation
    assert await actor.confirm() == incarnation


async def test_nobody_acknowledges_before_it_confirmed(world: World) -> None:
    await alone(world)
    stranger = Actor(world, "b")
    assert await stranger.barrier() is Closed.HEAL
    assert await stranger.try_commit(operation(1, subjects(7))) is Closed.HEAL


async def test_a_silent_member_is_struck_off_quietly(world: World) -> None:
    first, second = await joined(world, "a", "b")
    await world.advance(3000)
    assert await first.strike("b", silent=3000) is Closed.ALIVE, "the silence counts up to somebody's heartbeat"
    await first.beat()
    assert await first.strike("b", silent=3001) is Closed.ALIVE
    assert await first.strike("b", silent=3000) is None
    assert await first.strike("b", silent=3000) is Closed.GONE
    assert set((await first.beat()).members) == {"a"}
    assert opened(await first.barrier())
    assert await second.barrier() is Closed.HEAL
    opened(await second.confirm())
    assert await second.barrier() is Closed.WAIT, "it comes back as a newcomer"


async def test_who_is_waited_for_is_struck_off_by_force_only(world: World) -> None:
    first, _ = await joined(world, "a", "b")
    await world.new_identity()
    await first.open(OTHER_LOG)
    opened(await first.confirm())
    await world.advance(30_000)
    assert (await first.beat()).closed is None
    assert await first.strike("b", silent=3000) is Closed.WAIT
    assert await first.strike("b", "forced", silent=30_001) is Closed.ALIVE
    assert await first.strike("b", "forced", silent=30_000) is None
    assert opened(await first.barrier())


async def test_a_strike_can_name_the_incarnation(world: World) -> None:
    first, second = await joined(world, "a", "b")
    assert second.incarnation is not None
    assert await first.strike("b", incarnation=second.incarnation + 1) is Closed.FENCED
    assert await first.strike("b", incarnation=second.incarnation) is None


async def test_leaving_needs_a_usable_history(world: World) -> None:
    first, second = await joined(world, "a", "b")
    await world.new_identity()
    await first.open(OTHER_LOG)
    opened(await first.confirm())
    assert await first.strike("a", "leave", first.incarnation) is Closed.WAIT, "its memory may be needed"
    opened(await second.confirm(log_id=OTHER_LOG))
    assert await first.strike("a", "leave", first.incarnation) is None
    assert await second.strike("b", "leave", second.incarnation) is None, "the last one, too"
    assert not (await second.look()).members


async def test_a_leap_of_the_clock_makes_nobody_silent(world: World) -> None:
    first, _ = await joined(world, "a", "b")
    await world.advance(HOUR_MS)
    first.clock_error = -HOUR_MS
    assert (await first.beat()).closed is Closed.CLOCK
    assert await first.strike("b", "forced", silent=3000) is Closed.REOPEN
    await world.advance(-HOUR_MS)
    first.clock_error = 0
    assert (await first.beat()).closed is Closed.REOPEN
    assert all(member.beat_ms <= world.now for member in (await first.look()).members.values())


# -- healing ----------------------------------------------------------------------------------------------------------


async def lost_and_opened(world: World, actor: Actor) -> None:
    await world.lose()
    assert await actor.open(OTHER_LOG) is None


async def test_proposed_rows_are_loaded_and_logged(world: World) -> None:
    actor = await alone(world)
    await actor.commit(operation(1, tokens(soon(world), soon(world) + 999), subjects(3), key_for_ever()))
    (entry,) = await world.store.read_log(0, 0, 100, 0)
    before = await actor.load()
    await lost_and_opened(world, actor)
    assert await actor.propose(entry.rows) is None
    assert await actor.load() == before
    (proposed,) = await world.store.read_log(0, 0, 100, 0)
    assert sorted(parse_groups(proposed.rows)) == sorted(parse_groups(entry.rows))
    check_chains([proposed], OTHER_LOG)
    assert await actor.propose(entry.rows) is None, "twice does no harm"
    assert {name: set(_rows(name, rows)) for name, rows in (await actor.load()).items()} == {
        name: set(_rows(name, rows)) for name, rows in before.items()
    }


def _rows(name: str, rows: bytes) -> list[bytes]:
    size = 12 if int(name.split("-")[0]) < 64 else 28
    return [rows[at : at + size] for at in range(0, len(rows), size)]


async def test_a_retry_across_a_loss_gets_the_first_answer(world: World) -> None:
    actor = await alone(world)
    op, other = operation(1, subjects(7)), operation(2, tokens(soon(world)))
    first = await actor.commit(op, other)
    (entry,) = await world.store.read_log(0, 0, 100, 0)
    await world.advance(50)
    await lost_and_opened(world, actor)
    assert await actor.propose(entry.rows, entry.ops) is None
    opened(await actor.confirm())
    await actor.beat()
    again = await actor.commit(op, other)
    for one, second in zip(first.results, again.results, strict=True):
        assert second.state is OpState.AGAIN
        assert (second.version, second.at_ms, second.expires_at) == (one.version, one.at_ms, one.expires_at)
    conflict = await actor.commit(operation(1, subjects(7), content=9))
    assert conflict.results[0].state is OpState.CONFLICT


async def test_proposing_does_not_overwrite_what_an_operation_answered(world: World) -> None:
    actor = await alone(world)
    op = operation(1, subjects(7))
    first = (await actor.commit(op)).results[0]
    await actor.propose(ops=f"{op.key}:{'f' * 32}:5:6:7")
    again = (await actor.commit(op)).results[0]
    assert (again.state, again.version, again.at_ms) == (OpState.AGAIN, first.version, first.at_ms)


async def test_what_several_replicas_put_back_of_operations_is_logged_once(world: World) -> None:
    """Each puts back what it read of all of them: else the log grows by a factor with every healing."""
    actor = await alone(world)
    await actor.commit(operation(1, subjects(7)), operation(2, subjects(8)))
    (entry,) = await world.store.read_log(0, 0, 100, 0)
    one, other = entry.ops.split()
    await lost_and_opened(world, actor)
    # One that a replica put back and read again it has twice, and may name twice in one call.
    for ops in (f"{one} {one}", f"{entry.ops} {other}", entry.ops):
        assert await actor.propose(ops=ops) is None
    assert await actor.propose(entry.rows, entry.ops) is None
    logged = await world.store.read_log(0, 0, 100, 0)
    assert [record.ops for record in logged] == [one, other, ""]
    check_chains(logged, OTHER_LOG)


# -- reading: segments and the log ------------------------------------------------------------------------------------


async def test_segments_come_in_pages_and_rows_in_pieces(world: World) -> None:
    actor = await alone(world)
    slots = [soon(world) + n * SLOT_S for n in range(5)]
    await actor.commit(operation(1, tokens(*slots)), operation(2, key_for_ever()), operation(3, subjects(1, 2)))
    store = world.store
    everything = opened(await store.segment_names(0, LOG, "r", 0, 100))
    assert len(everything) == len(set(everything)) == 7
    pages = [opened(await store.segment_names(0, LOG, "r", start, start + 2)) for start in (0, 3, 6, 9)]
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert [name for page in pages for name in page] == everything
    name = next(name for name in everything if name.startswith(f"{Kind.SUBJECT:d}-"))
    (whole,) = opened(await store.segment_rows(0, LOG, "r", [(name, 0)], 1000))
    assert len(whole) == 56
    wanted = [(name, 0), (name, 28), (name, 56), ("1-0-99", 0)]
    assert await store.segment_rows(0, LOG, "r", wanted, 28) == [whole[:28], whole[28:], b"", b""]
    assert await store.segment_names(0, LOG, "unknown", 0, 100) == []


async def test_what_expires_between_two_pages_hides_nothing(world: World) -> None:
    actor = await alone(world)
    slots = [soon(world) + n * SLOT_S for n in range(6)]
    await actor.commit(operation(1, tokens(*slots)))
    everything = opened(await world.store.segment_names(0, LOG, "r", 0, 100))
    first = opened(await world.store.segment_names(0, LOG, "r", 0, 1))
    by_due = sorted(everything, key=lambda name: int(name.split("-")[2]))
    for name in by_due[:2]:
        await world.expire(0, "r", name)
    await actor.commit(operation(2, tokens(soon(world) + 99 * SLOT_S, first=99)))  # which tidies the index up
    seen = set(first)
    for start in (2, 4, 6):
        seen |= set(opened(await world.store.segment_names(0, LOG, "r", start, start + 1)))
    assert seen >= set(by_due[2:])


async def test_the_log_is_read_in_pages(world: World) -> None:
    actor = await alone(world)
    for number in range(1, 8):
        await actor.commit(operation(number, tokens(soon(world))))
    pages = [await world.store.read_log(0, after, 3, 0) for after in (0, 3, 6, 7, 1000)]
    assert [[entry.seq for entry in page] for page in pages] == [[1, 2, 3], [4, 5, 6], [7], [], []]


async def test_a_reader_waits_for_the_next_record(world: World) -> None:
    actor = await alone(world)
    reading = asyncio.create_task(world.store.read_log(0, 0, 10, 60_000))
    other = asyncio.create_task(world.store.read_log(1, 0, 10, 1))
    assert await other == []
    assert not reading.done()
    await actor.commit(operation(1, subjects(7)))
    assert [entry.seq for entry in await asyncio.wait_for(reading, 60)] == [1]


# -- sane time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [30_001, -30_001])
async def test_who_is_far_from_the_stores_time_does_nothing(world: World, error: int) -> None:
    actor = await alone(world)
    actor.clock_error = error
    assert await actor.try_commit(operation(1, subjects(7))) is Closed.CLOCK
    assert await actor.barrier() is Closed.CLOCK
    assert (await actor.beat()).closed is Closed.CLOCK
    assert await actor.confirm() is Closed.CLOCK
    assert await world.store.read_log(0, 0, 10, 0) == []


@pytest.mark.parametrize("error", [30_000, -30_000])
async def test_up_to_the_limit_clocks_may_differ(world: World, error: int) -> None:
    actor = await alone(world)
    actor.clock_error = error
    assert await actor.commit(operation(1, subjects(7)))


async def test_a_store_that_was_ahead_is_opened_anew_and_healed_in_full(world: World) -> None:
    actor = await alone(world)
    await world.advance(HOUR_MS)
    actor.clock_error = -HOUR_MS
    assert await actor.barrier() is Closed.CLOCK
    await world.advance(-HOUR_MS)
    actor.clock_error = 0
    assert await actor.barrier() is Closed.REOPEN
    assert (await actor.beat()).closed is Closed.REOPEN
    assert await actor.open(OTHER_LOG) is None
    registry = await actor.look()
    assert registry.full
    opened(await actor.confirm())
    assert opened(await actor.barrier())


async def test_a_store_that_is_behind_is_not_suspected(world: World) -> None:
    actor = await alone(world)
    actor.clock_error = HOUR_MS
    assert await actor.barrier() is Closed.CLOCK
    actor.clock_error = 0
    assert opened(await actor.barrier())


async def test_one_member_with_a_slow_clock_harms_itself_only(world: World) -> None:
    first, second = await joined(world, "a", "b")
    second.clock_error = -HOUR_MS
    assert (await second.beat()).closed is Closed.CLOCK
    assert await second.barrier() is Closed.CLOCK
    assert opened(await first.barrier())
    assert await first.commit(operation(1, subjects(7)))


async def test_if_all_clocks_say_so_the_store_was_ahead(world: World) -> None:
    first, second = await joined(world, "a", "b")
    await world.advance(HOUR_MS)
    first.clock_error = second.clock_error = -HOUR_MS
    assert (await second.beat()).closed is Closed.CLOCK
    await world.advance(-HOUR_MS)
    first.clock_error = second.clock_error = 0
    assert await first.barrier() is Closed.REOPEN


async def test_time_that_goes_back_stops_everything_until_it_has_passed_again(world: World) -> None:
    actor = await alone(world)
    await world.advance(5000)
    await actor.commit(operation(1, subjects(7)))
    await world.advance(-999)
    assert await actor.commit(operation(2, subjects(7)))
    await world.advance(-1)
    assert await actor.try_commit(operation(3, subjects(7))) is Closed.CLOCK
    assert await actor.barrier() is Closed.CLOCK
    assert await actor.strike("a", "leave") is Closed.CLOCK
    await world.new_identity()
    assert await actor.open(OTHER_LOG) is Closed.CLOCK
    await world.advance(1)
    assert await actor.open(OTHER_LOG) is None
    assert (await actor.look()).full


async def test_opening_by_a_clock_that_is_ahead_does_not_lock_the_store(world: World) -> None:
    actor = await alone(world)
    await world.new_identity()
    await world.advance(HOUR_MS)
    assert await actor.open(OTHER_LOG) is None
    await world.advance(-HOUR_MS)
    opened(await actor.confirm())
    assert opened(await actor.barrier())


# -- the rest ---------------------------------------------------------------------------------------------------------


async def test_a_store_keeps_to_one_secret(world: World) -> None:
    assert await world.store.agree_on_secret({"k1": "c1", "k2": "c2"}) == ()
    assert await world.store.agree_on_secret({"k2": "c2", "k3": "c3"}) == ("k1",)
    assert await world.store.agree_on_secret({"k1": "c1"}) == ("k2", "k3")
    with pytest.raises(StoreRefused, match="another master secret") as refused:
        await world.store.agree_on_secret({"k3": "c4"})
    assert "c3" not in str(refused.value)
    assert "c4" not in str(refused.value)


async def test_partitions_know_nothing_of_each_other(world: World) -> None:
    one = await alone(world)
    assert await Actor(world, partition=1).barrier() is Closed.REOPEN
    other = await alone(world, partition=1)
    await one.commit(operation(1, subjects(7)))
    assert opened(await other.barrier()).seq == 0
    assert await other.load() == {}
    assert await world.store.read_log(1, 0, 10, 0) == []
    await other.commit(operation(2, subjects(8)))
    assert opened(await one.barrier()).seq == 1


async def test_the_keys_of_a_partition_lie_together(make_world: Make) -> None:
    world = await make_world(partitions=3)
    for partition in range(3):
        actor = await alone(world, partition=partition)
        await actor.commit(operation(1, subjects(7), tokens(soon(world))), operation(2, key_for_ever(), realm="x{y}z"))
    if isinstance(world, ServerWorld):
        for partition in range(3):
            keys = [key async for key in world.raw.scan_iter(f"revocation:{{p{partition}}}:*")]
            assert len(keys) >= 10
            assert {key_slot(key.encode()) for key in keys} == {key_slot(f"p{partition}".encode())}


async def test_without_store_replicas_a_barrier_has_no_copies(world: World) -> None:
    actor = await alone(world)
    durability = Durability(replicas=1, timeout_ms=1)
    assert opened(await actor.barrier(durability)).copies == 0
    assert (await actor.commit(operation(1, subjects(7)), durability=durability)).copies == 0


async def test_the_store_in_memory_can_be_down_demoted_and_rolled_back() -> None:
    world = MemoryWorld()
    store, actor = world.store, await alone(world)
    await actor.commit(operation(1, subjects(7)))
    earlier = store.snapshot()
    await actor.commit(operation(2, subjects(8)))
    store.restore(earlier, "2")
    assert len(await store.read_log(0, 0, 10, 0)) == 1
    assert await actor.barrier() is Closed.REOPEN
    store.primary = False
    assert await actor.barrier() is Closed.DEMOTED
    assert (await actor.beat()).closed is Closed.DEMOTED
    assert await actor.store.open_history(0, LOG, OTHER_LOG, 0, []) is Closed.DEMOTED
    store.up = False
    with pytest.raises(StoreUnavailable):
        await actor.barrier()
    store.up = store.primary = True
    await actor.open(OTHER_LOG)
    opened(await actor.confirm())
    await actor.commit(operation(3, subjects(9)))
    assert len(earlier[0].log) == 1, "a snapshot is not touched by what comes later"
