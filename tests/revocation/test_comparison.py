"""What the store loses under an intact log is put back by whoever still holds it."""

from __future__ import annotations

import asyncio
import time

import pytest

from revocation.replication import comparison
from revocation.replication.comparison import Comparison
from revocation.replication.replica import NotReady, Replica
from revocation.store import Closed, Cutoffs, Durability, Op
from revocation.store.memory import MemoryStore
from revocation_sdk._lattice import Kind
from tests.revocation.test_replica import commit, running
from tests.revocation.turning import eventually

REALM = "default"


def fresh_store() -> MemoryStore:
    return MemoryStore(lambda: time.time_ns() // 1_000_000)


def lose(store: MemoryStore) -> None:
    """All keys of the state; and the log is trimmed, or who loads would learn it all from there."""
    store.data[0].segments.clear()
    store.data[0].log.clear()


def held(replica: Replica) -> int:
    return len(replica.partition.realm(REALM).view)


async def cut_off(store: MemoryStore, replica: Replica) -> None:
    group = Cutoffs(Kind.SUBJECT, 1, 3_600, (7).to_bytes(8, "little"))
    op = Op(REALM, "ff" * 16, "0" * 32, (group,))
    answer = await store.commit(0, replica.standing(), time.time_ns() // 1_000_000, [op], Durability())
    assert not isinstance(answer, Closed)
    await asyncio.wait_for(replica.applied(replica.standing().log_id, answer.seq), 5)


async def test_keys_that_the_store_lost_are_put_back_and_reach_those_who_loaded_without_them() -> None:
    store = fresh_store()
    told: list[tuple[str, int]] = []
    async with running(store, "first") as first:
        await commit(store, first, range(5))
        await cut_off(store, first)
        lose(store)
        async with running(store, "second") as second:
            assert held(second) == 0, "the loss must be real, or this shows nothing"
            assert await Comparison(first, store, lambda realm, rows: told.append((realm, rows))).once() == 6
            await eventually(lambda: held(second) == 6, "the other replica learns of it from the log")
        async with running(store, "third") as third:
            assert held(third) == 6
    assert told == [(REALM, 6)]


async def test_a_part_of_the_rows_of_a_key_is_put_back_and_nothing_else() -> None:
    store = fresh_store()
    async with running(store, "first") as first:
        await commit(store, first, range(5))
        (segment,) = store.data[0].segments.values()
        del segment.rows[12:36]
        assert await Comparison(first, store).once() == 2
        async with running(store, "second") as second:
            assert held(second) == 5


async def test_a_whole_store_gets_no_record_also_while_revocations_go_on() -> None:
    store = fresh_store()
    async with running(store, "first") as first, running(store, "second") as second:
        await commit(store, first, range(20))
        stop = asyncio.Event()

        async def go_on() -> int:
            count = 20
            while not stop.is_set():
                await commit(store, second, [count])
                count += 1
            return count

        load = asyncio.create_task(go_on())
        for _ in range(5):
            assert await Comparison(first, store).once() == 0
        stop.set()
        assert store.data[0].at.seq == await load


async def test_what_is_about_to_expire_is_left_to_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_ABOUT_TO_EXPIRE_S", 3_600)
    store = fresh_store()
    async with running(store, "first") as first:
        await commit(store, first, range(5))  # for ten minutes
        store.data[0].segments.clear()
        assert await Comparison(first, store).once() == 0


async def test_who_may_not_vouch_puts_nothing_back() -> None:
    store = fresh_store()
    async with running(store, "first") as first:
        await commit(store, first, range(5))
        first.state = "healing"
        with pytest.raises(NotReady):
            await Comparison(first, store).once()


async def test_a_newcomer_is_a_reason_to_compare(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_LOOK_S", 0.01)
    monkeypatch.setattr(comparison, "_SPREAD_S", 0.0)
    store = fresh_store()
    async with running(store, "first") as first:
        await commit(store, first, range(5))
        compared = Comparison(first, store)
        task = asyncio.create_task(compared.run())
        try:
            await eventually(lambda: compared._members, "it has looked once")
            lose(store)
            async with running(store, "second") as second:
                await eventually(lambda: held(second) == 5, "the newcomer is given what it could not load")
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_without_a_newcomer_it_compares_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "_LOOK_S", 0.01)
    monkeypatch.setattr(comparison, "EVERY_S", 0.05)
    monkeypatch.setattr(Comparison, "_newcomer", lambda _: False)
    store = fresh_store()
    told: list[int] = []
    async with running(store, "first") as first:
        await commit(store, first, range(5))
        task = asyncio.create_task(Comparison(first, store, lambda _, rows: told.append(rows)).run())
        try:
            for times in (1, 2):
                lose(store)
                await eventually(lambda times=times: told == [5] * times, "it is put back")  # type: ignore[misc]
        finally:
            task.cancel()
            await asyncio.wait({task})


async def test_a_loss_that_all_replicas_have_started_after_stays() -> None:
    """Who has loaded without it knows of nothing: this is the limit that the page tells of."""
    store = fresh_store()
    async with running(store, "first") as first:
        await commit(store, first, range(5))
        lose(store)
    async with running(store, "first") as first:
        assert await Comparison(first, store).once() == 0
        assert held(first) == 0
