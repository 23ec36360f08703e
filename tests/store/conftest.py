"""Fixtures of the store's tests: one suite, two stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from tests.store.world import MemoryWorld, ServerWorld, World

Make = Callable[..., Awaitable[World]]


@pytest.fixture(params=["memory", "server"])
async def make_world(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    """Makes an empty store of one kind with the options given."""
    made: list[World] = []

    async def make(**options: Any) -> World:
        world: World
        if request.param == "memory":
            world = MemoryWorld(**options)
        else:
            world = ServerWorld(request.getfixturevalue("redis_url"), **options)
            await world.begin()
        made.append(world)
        return world

    yield make
    for world in made:
        await world.close()


@pytest.fixture
async def world(make_world: Make) -> World:
    """An empty store with two partitions."""
    return await make_world(partitions=2)
