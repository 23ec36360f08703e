"""A call that is stopped anywhere while somebody else ends its session: what it answers afterwards is worth nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from revocation.errors import ServiceError, SessionOver
from revocation.session.desk import Grant
from revocation.session.machine import TOUCH_MS
from revocation_sdk._lattice import Kind
from tests.revocation.session_nodes import Caller, Nodes, running

MOST_POINTS = 12
Ender = Callable[[Caller, Grant], Awaitable[object]]

ENDERS: dict[str, Ender] = {
    "logout": lambda other, grant: other.end(grant.sid),
    "revoke_session": lambda other, grant: other.revoke(Kind.SESSION, grant.sid),
    "revoke_subject": lambda other, grant: other.revoke(Kind.SUBJECT, grant.subject),
    "revoke_client": lambda other, grant: other.revoke(Kind.CLIENT, grant.client_id),
    "revoke_realm": lambda other, _: other.revoke(Kind.REALM, ""),
    "others": lambda other, grant: _others(other, grant),
    "eviction": lambda other, grant: _crowd_out(other, grant),
    "reuse": lambda other, grant: _replay(other, grant),
}


async def _others(other: Caller, grant: Grant) -> None:
    await other.end_others(await other.open(grant.subject, grant.client_id))


async def _crowd_out(other: Caller, grant: Grant) -> None:
    for _ in range(3):
        await other.open(grant.subject, grant.client_id)


async def _replay(other: Caller, grant: Grant) -> None:
    """Somebody else goes on with the session until the token in flight is an old one."""
    with contextlib.suppress(SessionOver):
        while True:
            await other.refresh(await other.refresh(await other.refresh(grant)))


@pytest.fixture(params=[1, 2], ids=["one partition", "two partitions"])
async def nodes(request: pytest.FixtureRequest, redis_url: str) -> AsyncIterator[Nodes]:
    limits = {"max_sessions_per_subject": 3, "overflow": "evict_oldest"}
    async with running(redis_url, count=2, partitions=request.param, realm=limits) as nodes:
        yield nodes


async def opened(nodes: Nodes, number: int) -> Grant:
    """A session of its own subject; with several partitions one that is not where the realm's cutoffs are."""
    for attempt in range(100):
        grant = await nodes.caller(number % 2).open(f"user {number} {attempt}", f"client {number}")
        if grant.sid.startswith(f"s1{len(nodes.nodes[0].replicas) - 1:02x}"):
            return grant
    raise AssertionError


async def stopped_everywhere(
    nodes: Nodes, call: Callable[[Grant], Awaitable[object]], meanwhile: Ender
) -> AsyncIterator[tuple[Grant, object]]:
    """Runs `call` on the first node once for each place, with `meanwhile` on the second while it stands there."""
    for point in range(MOST_POINTS):
        grant = await opened(nodes, point)
        nodes.stores[0].arm(point)
        arrived = nodes.stores[0].arrived
        assert arrived is not None
        task = asyncio.ensure_future(call(grant))
        waiting = asyncio.ensure_future(arrived.wait())
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            assert point >= 4, "the call has more places than that"
            return
        await meanwhile(nodes.caller(1), grant)
        nodes.stores[0].go_on.set()
        yield grant, (await asyncio.gather(task, return_exceptions=True))[0]
    raise AssertionError("the call has more places than the test expects")


@pytest.mark.parametrize("how", [*ENDERS])
async def test_a_refresh_in_flight_does_not_outlive_an_end(nodes: Nodes, how: str) -> None:
    async for grant, answer in stopped_everywhere(nodes, nodes.caller(0).refresh, ENDERS[how]):
        if isinstance(answer, Grant):
            # Minted before the end, or dead on arrival: no verifier that knows of the end accepts it.
            assert nodes.verdict(answer, 1) is not None
            await nodes.nodes[0].barriers[0].prove()
            assert nodes.verdict(answer, 0) is not None
            assert isinstance(await _refused(nodes.caller(1).refresh(answer)), SessionOver)
        else:
            assert isinstance(answer, SessionOver), answer
        assert isinstance(await _refused(nodes.caller(0).refresh(grant)), SessionOver)
        assert nodes.verdict(grant, 1) is not None


@pytest.mark.parametrize("how", [*ENDERS])
async def test_a_touch_in_flight_revives_nothing(nodes: Nodes, how: str) -> None:
    async def touch_when_due(grant: Grant) -> object:
        await nodes.advance(TOUCH_MS / 1000)
        return await nodes.caller(0).touch(grant.sid)

    async for grant, _ in stopped_everywhere(nodes, touch_when_due, ENDERS[how]):
        assert isinstance(await _refused(nodes.caller(0).touch(grant.sid)), SessionOver)
        assert isinstance(await _refused(nodes.caller(1).refresh(grant)), SessionOver)


@pytest.mark.parametrize("how", ["revoke_subject", "revoke_client", "revoke_realm"])
async def test_an_opening_in_flight_is_before_or_after_a_cutoff(nodes: Nodes, how: str) -> None:
    """If it answers, then either the session is dead at once, or its versions are those of after the cutoff."""

    async def open_again(grant: Grant) -> Grant:
        return await nodes.caller(0).open(grant.subject, grant.client_id)

    async for grant, answer in stopped_everywhere(nodes, open_again, ENDERS[how]):
        assert isinstance(answer, Grant)
        dead = nodes.verdict(answer, 1) is not None
        place = ["revoke_subject", "revoke_client", "revoke_realm"].index(how)
        assert dead == (answer.versions[place] == grant.versions[place])
        outcome = (await asyncio.gather(nodes.caller(1).refresh(answer), return_exceptions=True))[0]
        assert isinstance(outcome, SessionOver if dead else Grant)


async def test_the_kept_session_in_flight_is_spared_by_its_own_cutoff_only(nodes: Nodes) -> None:
    async for grant, answer in stopped_everywhere(nodes, nodes.caller(0).end_others, ENDERS["revoke_subject"]):
        if isinstance(answer, Grant) and nodes.verdict(answer, 1) is None:
            # The other cutoff came first, and this one later: the session must have been dead by then.
            raise AssertionError("kept alive beyond a revoke that was acknowledged before")
        assert isinstance(await _refused(nodes.caller(1).refresh(grant)), SessionOver)


async def _refused(awaitable: Awaitable[object]) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await awaitable
    return caught.value
