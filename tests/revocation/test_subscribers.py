"""What a replica writes down about its verifiers, when thousands of them come at once."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from revocation.fanout.landing import Roster, Verifier
from revocation.fanout.subscribers import Subscribers
from revocation.store import StoreUnavailable


class World:
    """A realm, and asks that count what is written at the same time."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
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
        await asyncio.sleep(0.01)
        self.at_once -= 1
        self.notes.append(note)
        if self.fails:
            raise StoreUnavailable("down")

    async def come(self, number: int, staleness_s: float = 15.0) -> None:
        verifier = Verifier(bytes([number % 256, number // 256]), "", "", "", 0.0, staleness_s=staleness_s)
        await self.subscribers.begin(cast(Any, self.realm), verifier)
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
