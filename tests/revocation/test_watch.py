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


async def begin(door: Door) -> Any:
    stream = door.watch()
    await stream.write(pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1)))
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
