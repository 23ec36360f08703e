"""What a log is trimmed of, and what it keeps for members that lag or load: every store does the same."""

from __future__ import annotations

from revocation.store import HOLD_MS, LOADING
from tests.store.test_contract import soon
from tests.store.world import LOG, OTHER_LOG, Actor, World, alone, joined, opened, operation, tokens


async def test_the_log_is_trimmed_by_members_and_never_too_far(world: World) -> None:
    actor = await alone(world)
    for number in range(1, 251):
        await actor.commit(operation(number, tokens(soon(world))))
    actor.log_id = OTHER_LOG
    await actor.beat(trim_below=200)
    assert len(await world.store.read_log(0, 0, 1000, 0)) == 250, "not by somebody in another history"
    actor.log_id = LOG
    await actor.beat(trim_below=200)
    left = [entry.seq for entry in await world.store.read_log(0, 0, 1000, 0)]
    assert left == list(range(left[0], 251))
    assert 1 < left[0] <= 200
    assert (await actor.commit(operation(300, tokens(soon(world))))).seq == 251


async def kept(world: World) -> int:
    """The first record that the log still has."""
    return (await world.store.read_log(0, 0, 1, 0))[0].seq


async def test_the_log_is_not_trimmed_past_a_member_that_lags(world: World) -> None:
    """Whoever is listed and has not read it may still read it; one that was struck off holds nothing back."""
    first, second = await joined(world, "a", "b")
    for number in range(1, 601):
        await first.commit(operation(number, tokens(soon(world))))
    await second.beat(applied=150)
    await first.beat(trim_below=500, applied=600)
    assert await kept(world) <= 151
    await second.beat(applied=450)
    await first.beat(trim_below=500, applied=600)
    assert 151 < await kept(world) <= 451
    assert await first.strike("b", "forced") is None
    await first.beat(trim_below=600, applied=600)
    assert 451 < await kept(world) <= 600


async def test_the_log_is_not_trimmed_past_where_a_load_began(world: World) -> None:
    """A process that is no member yet says that it loads; that holds as long as it says so again, and a while."""
    first = await alone(world)
    newcomer = Actor(world, "new")

    async def commit(numbers: range) -> None:
        for number in numbers:
            await first.commit(operation(number, tokens(soon(world))))

    async def loading() -> None:
        await world.store.beat(0, None, newcomer.name, world.now, 0, 0, applied=LOADING)

    await commit(range(1, 151))
    await loading()
    await commit(range(151, 601))
    await loading()
    await first.beat(trim_below=600)
    assert await kept(world) <= 151, "it goes on from where the log ended when it began"
    opened(await newcomer.confirm())
    await newcomer.beat(applied=600)
    await first.beat(trim_below=600)
    assert await kept(world) > 151, "it has loaded, and read on"
    await loading()
    await commit(range(601, 1001))
    assert await first.strike("new", "forced") is None
    await first.beat(trim_below=1_000)
    assert await kept(world) <= 601
    await world.advance(HOLD_MS + 1_000)
    await first.beat(trim_below=1_000)
    assert await kept(world) > 601, "it has ended without a word"
