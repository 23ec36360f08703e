"""The client on event loops."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from revocation_sdk import AsyncRevocationClient, NotFresh, OutcomeUnknown, State, TokenRevoked, Unavailable
from revocation_sdk._lattice import Kind
from tests.sdk.peer import Peer, fail, row

LIMIT_S = 30.0


def claims(jti: str = "good") -> dict[str, Any]:
    return {"jti": jti, "sub": "alice", "exp": time.time() + 600}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


async def test_the_whole_life_of_a_client(peer: Peer) -> None:
    peer.commit(row(Kind.TOKEN, "bad"))
    async with AsyncRevocationClient(peer.address, ping_interval=0.1) as client:
        await client.wait_until_fresh(LIMIT_S)
        client.check(claims())
        with pytest.raises(TokenRevoked):
            client.check(claims("bad"))
        receipt = await client.revoke_subject("alice")
        with pytest.raises(TokenRevoked):
            client.check(claims())
        fresh = await client.check_remote(claims(), not_older_than=receipt.position, timeout=LIMIT_S)
        assert fresh.position == receipt.position
        assert [session.handle for session in await client.list_sessions("alice")] == ["h0", "h1", "h2"]
        assert (await client.status()).replica == "peer"
    assert client.state is State.CLOSED


async def test_what_fails_is_the_same_as_on_threads(peer: Peer) -> None:
    unknown = [lambda _, context: fail(context, grpc.StatusCode.ABORTED, "OUTCOME_UNKNOWN")] * 100
    peer.answers["Revoke"].extend(unknown)
    client = AsyncRevocationClient(peer.address)
    with pytest.raises(OutcomeUnknown):
        await client.revoke_subject("alice", timeout=3)
    with Peer() as gone:
        pass
    lonely = AsyncRevocationClient(gone.address)
    with pytest.raises(Unavailable):
        await lonely.revoke_subject("alice", timeout=0.3)
    with pytest.raises(NotFresh):
        await lonely.wait_until_fresh(0.3)
    await client.close()
    await lonely.close()


async def test_a_cancelled_task_cancels_its_call_on_the_wire(peer: Peer) -> None:
    begun, cancelled = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hang(_: Any, context: grpc.ServicerContext) -> None:
        context.add_callback(cancelled.set)
        loop.call_soon_threadsafe(begun.set)
        cancelled.wait(LIMIT_S)

    peer.answers["Revoke"].append(hang)
    async with AsyncRevocationClient(peer.address) as client:
        task = asyncio.create_task(client.revoke_subject("alice", timeout=LIMIT_S))
        await asyncio.wait_for(begun.wait(), LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(cancelled.wait, LIMIT_S)


async def test_many_calls_at_once(peer: Peer) -> None:
    async with AsyncRevocationClient(peer.address) as client:
        receipts = await asyncio.gather(*(client.revoke_subject(f"user-{number}") for number in range(200)))
    assert len({receipt.op_id for receipt in receipts}) == 200


def test_several_event_loops_share_a_client(peer: Peer) -> None:
    client = AsyncRevocationClient(peer.address, ping_interval=0.1)
    failures: list[BaseException] = []

    async def use() -> None:
        await client.wait_until_fresh(LIMIT_S)
        await asyncio.gather(*(client.revoke_subject("alice") for _ in range(50)))
        client.check({**claims(), "tver": [10]})

    def run() -> None:
        try:
            asyncio.run(use())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    asyncio.run(client.close())
    assert failures == []


def test_a_loop_that_ends_in_the_middle_of_a_call_harms_nobody(peer: Peer) -> None:
    release = threading.Event()
    begun = threading.Event()

    def hang(*_: Any) -> None:
        begun.set()
        release.wait(LIMIT_S)

    peer.answers["Revoke"].append(hang)
    client = AsyncRevocationClient(peer.address)
    loop = asyncio.new_event_loop()

    async def wait_for_it() -> None:
        task = asyncio.ensure_future(client.revoke_subject("alice", timeout=LIMIT_S))
        assert await asyncio.to_thread(begun.wait, LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(wait_for_it())
    loop.close()
    release.set()
    assert asyncio.run(client.get_version("alice")).now_ms == 17
    asyncio.run(client.close())
