"""The audit of a store: gapless chains beside what they tell of, their end by age and size, and what a loss leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from revocation.store import Closed, Op
from revocation.store.audit import Page, Remembered, Stand
from revocation_sdk._audit import (
    NOWHERE,
    AuditEntry,
    AuditFrom,
    AuditPoint,
    AuditRecord,
    AuditStart,
    ChainCheck,
    Fault,
    chain_digest,
)
from tests.store.conftest import Make
from tests.store.world import NO_COPIES, OTHER_LOG, Actor, World, alone, joined, opened, operation, tokens

HOUR_MS = 3_600_000
RECORD = AuditRecord(1)


def audited(number: int, expiry: int, realm: str = "r", content: int = 0) -> Op:
    return replace(operation(number, tokens(expiry, first=number), realm=realm, content=content), audit=RECORD)


async def commit(actor: Actor, *ops: Op, realm: str = "r", sealed: bytes = b"sealed") -> list[AuditPoint | None]:
    reply = await actor.store.commit(
        actor.partition, actor.who, actor.own_ms, ops, NO_COPIES, {realm: sealed}
    )  # fmt: skip
    return [result.audit for result in opened(reply).results]


async def read(actor: Actor, after: int = 0, count: int = 100, realm: str = "r") -> Page:
    page = await actor.store.read_audit(actor.partition, actor.log_id, realm, after, count)
    assert isinstance(page, Page)
    return page


async def keep(
    actor: Actor, *remembered: Remembered, retention_ms: int = HOUR_MS, most: int = 1_000_000
) -> Sequence[Stand]:
    wanted = remembered or (Remembered("r", NOWHERE, b""),)
    stands = await actor.store.keep_audit(actor.partition, actor.log_id, retention_ms, most, wanted)
    assert not isinstance(stands, Closed)
    return stands


def soon(world: World) -> int:
    return world.now // 1000 + 600


async def test_one_entry_for_what_shares_a_script_and_the_chain_can_be_recomputed(world: World) -> None:
    actor = await alone(world)
    first = await commit(actor, audited(1, soon(world)), audited(2, soon(world)), sealed=b"\x00one")
    await world.advance(5)
    second = await commit(actor, audited(3, soon(world)), sealed=b"two")
    page = await read(actor)
    assert [entry.number for entry in page.entries] == [1, 2]
    assert first == [page.entries[0].digest and AuditPoint(1, page.entries[0].digest)] * 2
    assert second == [AuditPoint(2, page.entries[1].digest)]
    digest = NOWHERE.digest
    for entry in page.entries:
        digest = chain_digest(digest, entry.number, entry.time_ms, entry.log_seq, entry.extra, entry.sealed)
        assert digest == entry.digest
    assert (page.anchor, page.head) == (NOWHERE, AuditPoint(2, digest))
    assert [(e.log_seq, e.extra, e.sealed) for e in page.entries] == [(1, "", b"\x00one"), (2, "", b"two")]
    assert page.entries[1].time_ms == world.now


async def test_a_repetition_leaves_no_entry_and_is_marked_in_one_that_it_shares(world: World) -> None:
    actor = await alone(world)
    await commit(actor, audited(1, soon(world)))
    assert await commit(actor, audited(1, soon(world))) == [None]
    assert await commit(actor, audited(1, soon(world), content=7)) == [None], "a conflict"
    again, new = await commit(actor, audited(1, soon(world)), audited(2, soon(world)))
    assert again is None
    assert new is not None
    page = await read(actor)
    assert [(entry.number, entry.extra) for entry in page.entries] == [(1, ""), (2, "01")]


async def test_realms_and_partitions_have_chains_of_their_own(world: World) -> None:
    actor, other = await alone(world), await alone(world, 1)
    await commit(actor, audited(1, soon(world)))
    await commit(actor, audited(2, soon(world), realm="s"), realm="s")
    await commit(other, audited(3, soon(world)))
    for page in (await read(actor), await read(actor, realm="s"), await read(other)):
        assert [entry.number for entry in page.entries] == [1]
    assert (await read(actor, realm="t")).head == NOWHERE


async def test_what_is_not_audited_leaves_nothing(world: World) -> None:
    actor = await alone(world)
    await actor.commit(operation(1, tokens(soon(world))))
    assert (await read(actor)).entries == ()


async def test_pages_and_where_one_may_go_on(world: World) -> None:
    actor = await alone(world)
    points = [(await commit(actor, audited(number, soon(world))))[0] for number in range(1, 6)]
    page = await read(actor, 2, 2)
    assert [entry.number for entry in page.entries] == [3, 4]
    assert points[1] is not None
    assert page.there == points[1].digest
    assert (await read(actor, 9)).there == ""
    assert (await read(actor, 0)).there == NOWHERE.digest


async def test_what_is_old_is_dropped_and_the_anchor_takes_its_place(world: World) -> None:
    actor = await alone(world)
    for number in range(1, 4):
        await commit(actor, audited(number, soon(world)))
    before = await read(actor)
    await world.advance(HOUR_MS + 1)
    opened(await actor.beat())
    await commit(actor, audited(4, soon(world)))
    stand = (await keep(actor))[0]
    page = await read(actor)
    assert [entry.number for entry in page.entries] == [4]
    assert page.anchor == stand.anchor == before.head
    assert stand.entries == 1
    checked(page)


async def test_what_is_too_much_is_dropped_oldest_first(world: World) -> None:
    actor = await alone(world)
    for number in range(1, 150):
        await commit(actor, audited(number, soon(world)), sealed=bytes(100))
    stand = (await keep(actor, most=2_000))[0]
    page = await read(actor, count=1000)
    assert [entry.number for entry in page.entries] == list(range(140, 150))
    assert (stand.anchor.number, stand.head.number) == (139, 149)
    checked(page)
    assert (await keep(actor, most=2_000))[0] == stand


async def test_much_is_dropped_by_many_short_scripts(world: World) -> None:
    """However many realms have however much to drop, one script drops a few hundred entries, of each realm some."""
    actor = await alone(world)
    realms = ("r", "s", "t")
    for number in range(900):
        realm = realms[number % 3]
        await commit(actor, audited(number + 1, soon(world), realm), realm=realm)
    await world.advance(HOUR_MS + 1)
    opened(await actor.beat())
    wanted = [Remembered(realm, NOWHERE, b"") for realm in realms]
    counts, rounds = [300] * 3, 0
    more = True
    while more:
        stands = await keep(actor, *wanted)
        dropped = [before - stand.entries for before, stand in zip(counts, stands, strict=True)]
        assert sum(dropped) <= 550
        assert all(went or not before for went, before in zip(dropped, counts, strict=True))
        counts, rounds = [stand.entries for stand in stands], rounds + 1
        more = any(stand.more for stand in stands)
    assert (counts, rounds) == ([0, 0, 0], 2)


async def test_a_wiped_store_says_so_and_numbers_go_on(world: World) -> None:
    actor = await alone(world)
    for number in range(1, 4):
        await commit(actor, audited(number, soon(world)))
    head = (await read(actor)).head
    await world.lose()
    assert await actor.open(OTHER_LOG) is None
    opened(await actor.confirm())
    await keep(actor, Remembered("r", head, b"lost"))
    page = await read(actor)
    assert page.anchor == head, "who has followed up to here goes on without a break"
    assert [(entry.number, entry.sealed) for entry in page.entries] == [(4, b"lost")]
    again = await keep(actor, Remembered("r", page.head, b"lost"))
    assert again[0].head == page.head, "said once"


async def test_a_chain_that_fell_back_says_so_and_no_number_comes_twice(world: World) -> None:
    actor = await alone(world)
    for number in range(1, 4):
        await commit(actor, audited(number, soon(world)))
    kept = (await read(actor)).head
    later = AuditPoint(7, "ab" * 20)
    await keep(actor, Remembered("r", later, b"lost"))
    page = await read(actor)
    assert [entry.number for entry in page.entries] == [1, 2, 3, 8]
    assert page.entries[-1].digest == chain_digest(kept.digest, 8, page.entries[-1].time_ms, 0, "", b"lost")


@pytest.mark.parametrize("number", [2, 3])
async def test_another_past_at_a_remembered_number_is_declared(world: World, number: int) -> None:
    actor = await alone(world)
    for one in range(1, 4):
        await commit(actor, audited(one, soon(world)))
    await keep(actor, Remembered("r", AuditPoint(number, "cd" * 20), b"lost"))
    assert [entry.sealed for entry in (await read(actor)).entries][3:] == [b"lost"]


async def test_who_remembers_less_than_the_store_has_declares_nothing(world: World) -> None:
    actor = await alone(world)
    points = [(await commit(actor, audited(number, soon(world))))[0] for number in range(1, 4)]
    for point in points:
        assert point is not None
        await keep(actor, Remembered("r", point, b"lost"))
    assert (await read(actor)).head == points[-1]


async def test_a_member_struck_off_by_order_is_in_the_audit_of_the_installation(world: World) -> None:
    first, _ = await joined(world, "a", "b")
    store = first.store
    assert await store.strike_by_order(0, first.log_id, "c", 0, b"no") is Closed.GONE
    assert await store.strike_by_order(0, first.log_id, "b", 0, b"yes") == (await read(first, realm="*")).head
    assert [entry.sealed for entry in (await read(first, realm="*")).entries] == [b"yes"]


async def test_without_the_gate_nothing_is_read_or_kept(make_world: Make) -> None:
    world = await make_world()
    actor = await alone(world)
    await world.new_identity()
    store = actor.store
    assert await store.read_audit(0, actor.log_id, "r", 0, 1) is Closed.REOPEN
    assert await store.keep_audit(0, actor.log_id, 1, 1, []) is Closed.REOPEN


def checked(page: Page) -> None:
    """A chain without a fault, as far as one can tell without the key."""
    check = ChainCheck(0, AuditStart(page.anchor, page.head, AuditFrom.OLDEST))
    for stored in page.entries:
        fields = stored.number, stored.time_ms, stored.log_seq, stored.extra, stored.sealed, stored.digest
        check.add(AuditEntry(0, *fields, unreadable="key"))
    assert {finding.fault for finding in check.finish()} <= {Fault.KEY_GONE}
