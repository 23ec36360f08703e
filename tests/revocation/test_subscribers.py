"""What a replica writes down about its verifiers, when thousands of them come at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from revocation.fanout import subscribers as subscribers_module
from revocation.fanout.landing import Roster, Verifier
from revocation.fanout.subscribers import Subscribers
from revocation.store import StoreUnavailable
from tests.revocation.turning import eventually


class World:
    """A realm, and asks that count what is written at the same time."""

    def __init__(self, *, fails: bool = False, kind: str = "unreachable") -> None:
        self.fails, self.kind = fails, kind
        self.answers = asyncio.Event()
        self.answers.set()
        self.at_once = self.most_at_once = 0
        self.notes: list[dict[str, float] | None] = []
        self.realm = SimpleNamespace(realm="default", roster=Roster())
        hub = SimpleNamespace(realms={"default": self.realm})
        self.subscribers = Subscribers("me", cast(Any, None), cast(Any, hub), cast(Any, self), set)
        self.subscribers._noted = {}

    def register(self, *_: Any) -> None: ...

    def listen(self, *_: Any) -> None: ...

    async def put_note(self, _kind: str, _replica: str, note: dict[str, float] | None) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        answers = self.answers
        try:
            await asyncio.sleep(0.01)
            await answers.wait()
        finally:
            self.at_once -= 1
        self.notes.append(note)
        if self.fails:
            raise StoreUnavailable("down", kind=self.kind)

    def known(self, verifier: Verifier) -> bool:
        return self.subscribers.known("default", verifier)

    async def begin(self, number: int = 0, staleness_s: float = 15.0) -> Verifier:
        verifier = Verifier(bytes([number % 256, number // 256]), "", "", "", 0.0, staleness_s=staleness_s)
        async with asyncio.timeout(30):
            await self.subscribers.begin(cast(Any, self.realm), verifier)
        return verifier

    async def come(self, number: int, staleness_s: float = 15.0) -> None:
        await self.begin(number, staleness_s)
        if not self.fails:
            assert self.subscribers._noted is not None
            assert self.subscribers._noted["default"] >= staleness_s, "others could not know what it may be owed"


async def test_a_herd_writes_one_note_together() -> None:
    """Else each takes a connection to the store, and heartbeats find none."""
    world = World()
    await asyncio.gather(*(world.come(number) for number in range(2_000)))
    assert (len(world.notes), world.most_at_once) == (1, 1)


async def test_who_comes_while_a_note_is_written_is_in_the_next_one() -> None:
    world = World()

    async def later(number: int) -> None:
        await asyncio.sleep(0.002 * number)
        await world.come(number, 15.0 + number)

    await asyncio.gather(*(later(number) for number in range(60)))
    assert world.most_at_once == 1
    assert len(world.notes) < 30


async def test_without_a_store_streams_begin_all_the_same() -> None:
    world = World(fails=True)
    async with asyncio.timeout(60):
        await asyncio.gather(*(world.come(number) for number in range(500)))
    assert len(world.notes) == 1


async def test_a_store_that_hangs_holds_up_no_welcome_but_nobody_is_told_that_it_is_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If this replica died then, those who wait for its verifiers would not know of them."""
    monkeypatch.setattr(subscribers_module, "_WELCOME_S", 0.02)
    monkeypatch.setattr(subscribers_module, "_WRITE_S", 1_000.0)
    world = World()
    world.answers.clear()
    verifier = await world.begin()
    for _ in range(20):
        assert not world.known(verifier)
        await asyncio.sleep(0.002)
    assert world.most_at_once == 1
    world.answers.set()
    await eventually(lambda: world.known(verifier), "the note covers it")
    assert world.notes[-1] == {"default": 15.0}


async def test_a_write_that_is_lost_is_given_up_and_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection of the pool may be dead, while the store is back."""
    monkeypatch.setattr(subscribers_module, "_WELCOME_S", 0.02)
    monkeypatch.setattr(subscribers_module, "_WRITE_S", 0.1)
    world = World()
    world.answers = asyncio.Event()
    verifier = await world.begin()
    await eventually(lambda: world.at_once, "a write is under way")
    world.answers = asyncio.Event()
    world.answers.set()
    await eventually(lambda: world.known(verifier), "the note covers it")
    assert world.notes == [{"default": 15.0}]


async def test_who_judges_by_a_longer_staleness_from_now_on_waits_for_the_note_again() -> None:
    world = World()
    verifier = await world.begin()
    assert world.known(verifier)
    verifier.judged_by(60_000)
    assert not world.known(verifier)
    await eventually(lambda: world.known(verifier), "the note covers it")
    assert world.notes == [{"default": 15.0}, {"default": 60.0}]


@pytest.mark.parametrize("kind", ["memory", "disk", "replicas", "rights"])
async def test_a_store_that_refuses_to_write_keeps_nobody_from_being_fresh(kind: str) -> None:
    world = World(fails=True, kind=kind)
    verifier = await world.begin()
    assert world.known(verifier)
    world.fails = False
    await world.subscribers._write_note()
    assert world.known(verifier)


async def test_a_note_that_is_being_made_smaller_counts_as_small() -> None:
    """Whatever becomes of the write."""
    world = World()
    long = await world.begin(1, 60.0)
    world.subscribers.end(cast(Any, world.realm), long)
    middle = Verifier(b"m", "", "", "", 0.0, staleness_s=30.0)
    assert world.known(middle)
    world.answers.clear()
    writing = asyncio.create_task(world.subscribers._write_note())
    await eventually(lambda: world.at_once, "a write is under way")
    assert not world.known(middle)
    world.answers.set()
    await writing
    assert not world.known(middle)


async def test_before_it_has_seen_what_an_earlier_process_left_nobody_is_fresh() -> None:
    world = World()
    world.subscribers._noted = None
    verifier = await world.begin()
    assert not world.known(verifier)
    assert world.notes == [], "it would be lost"
