"""Streams of verifiers, as the service serves them on one real store: how they end, and what stays behind."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from revocation import limits
from revocation.callers.roles import Caller
from revocation.fanout.hub import Subscriber
from revocation.rpc import watch as watch_module
from revocation.rpc.server import listening
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1 import revocation_pb2_grpc
from tests.revocation.eventually import LIMIT_S
from tests.revocation.session_nodes import Nodes, running

DAY_S = 86_400.0


class Bearers:
    """Lets everybody in, for a day."""

    generation = 0

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        return Caller("bearer", time.time() + DAY_S, ("bearer",), "verifier")


@pytest.fixture
async def nodes(redis_url: str) -> AsyncIterator[Nodes]:
    async with running(redis_url) as nodes:
        yield nodes


@dataclass
class Door:
    """A listener, and a channel to it."""

    stub: Any

    def watch(self) -> Any:
        return self.stub.Watch()


@pytest.fixture
async def door(nodes: Nodes, tmp_path: Path) -> AsyncIterator[Door]:
    address = f"unix:{tmp_path / 'door'}"
    async with listening(nodes.nodes[0], Bearers(), address), grpc.aio.insecure_channel(address) as channel:
        yield Door(revocation_pb2_grpc.RevocationServiceStub(channel))


async def comes(holds: Callable[[], object]) -> None:
    """Returns as soon as `holds()` is true."""
    for _ in range(int(LIMIT_S * 100)):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("not in time")


async def begin(door: Door, **hello: Any) -> Any:
    stream = door.watch()
    await stream.write(pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1, **hello)))
    assert (await stream.read()).WhichOneof("kind") == "welcome"
    return stream


async def test_a_stream_of_a_bearer_leaves_nothing_behind(
    nodes: Nodes, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the subscriber nor what was queued for it stays until the token expires (I8)."""
    alive: weakref.WeakSet[Subscriber] = weakref.WeakSet()

    class Noted(Subscriber):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            alive.add(self)

    monkeypatch.setattr(watch_module, "Subscriber", Noted)
    hub = nodes.nodes[0].hub.realms["default"]
    for _ in range(20):
        stream = await begin(door)
        for subscriber in hub.subscribers:
            subscriber.put(b"\0" * (limits.QUEUE_BYTES // 2))
        stream.cancel()
        await comes(lambda: not hub.subscribers)
    del stream, subscriber
    await asyncio.sleep(0)
    gc.collect()
    assert not alive


async def test_a_note_that_hangs_holds_up_the_answer_and_not_the_welcome(
    nodes: Nodes, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream hears that the service is there, and is answered when others can know of it, without another ping."""
    asks, go_on = nodes.nodes[0].asks, asyncio.Event()
    put = asks.put_note

    async def hang(*what: Any) -> None:
        await go_on.wait()
        await put(*what)

    await comes(lambda: nodes.nodes[0].subscribers._noted is not None)
    monkeypatch.setattr(asks, "put_note", hang)
    stream = await begin(door, instance=b"i" * 16, max_staleness_ms=30_000)
    await stream.write(pb.WatchRequest(ping=pb.Ping(nonce=7)))
    seen = [await _kind_after_beginning(stream) for _ in range(2)]
    assert seen == ["poll", "poll"]
    go_on.set()
    while (kind := await _kind_after_beginning(stream)) == "poll":
        pass
    assert kind == "progress"
    stream.cancel()


async def _kind_after_beginning(stream: Any) -> str:
    async with asyncio.timeout(LIMIT_S):
        while (kind := (await stream.read()).WhichOneof("kind")) in {"snapshot_chunk", "snapshot_end"}:
            pass
    return str(kind)
