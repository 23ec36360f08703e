"""Row "ack to refused": from the acknowledgement of a revocation to the verifier, beside a bare fan-out.

The same client counts for both: raw streams, a connection each, that note when a message has come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import grpc
import redis.asyncio
import uvloop

from bench.bare import SERVICE, STREAM
from bench.lab import Lab
from bench.measure import percentile
from bench.revoke import revocation
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub

_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
HELLO = pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1)).SerializeToString()


@dataclass
class Propagation:
    """Milliseconds from acknowledgement to arrival, and from the call to arrival; one for each event and stream."""

    from_ack: list[float] = field(default_factory=list)
    from_call: list[float] = field(default_factory=list)

    def both(self, since: str = "from_ack") -> tuple[float, float]:
        values = getattr(self, since)
        return percentile(values, 0.5), percentile(values, 0.99)


class Streams:
    """So many open streams to one server."""

    def __init__(self, address: str, count: int) -> None:
        self._address = address
        self._count = count
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[None]] = []
        self.arrived: list[float] = []
        self.calls: list[Any] = []
        self._all = asyncio.Event()

    async def open(self) -> None:
        for start in range(0, self._count, 50):
            await asyncio.gather(*(self._one() for _ in range(min(50, self._count - start))))

    async def _one(self) -> None:
        channel = await self._stack.enter_async_context(grpc.aio.insecure_channel(self._address, options=_OPTIONS))
        call: Any = channel.stream_stream(f"/{SERVICE}/Watch")()
        await call.write(HELLO)
        await call.read()
        self.calls.append(call)

    def listen(self) -> None:
        """From now on every message is an arrival. What is left of a snapshot has been read."""
        self._tasks = [asyncio.create_task(self._read(call)) for call in self.calls]

    async def _read(self, call: Any) -> None:
        while True:
            await call.read()
            self.arrived.append(time.perf_counter())
            if len(self.arrived) == self._count:
                self._all.set()

    async def settle(self) -> None:
        """Waits until nothing comes any more."""
        count = -1
        while count != len(self.arrived):
            count = len(self.arrived)
            await asyncio.sleep(0.3)

    def expect(self) -> None:
        self.arrived = []
        self._all.clear()

    async def wait(self) -> None:
        async with asyncio.timeout(20):
            await self._all.wait()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for call in self.calls:
            call.cancel()
        await self._stack.aclose()


async def _events(streams: Streams, send: Callable[[], Awaitable[object]], count: int, into: Propagation) -> None:
    for _ in range(count):
        streams.expect()
        called = time.perf_counter()
        await send()
        acknowledged = time.perf_counter()
        await streams.wait()
        # What came before the acknowledgement was refused from the start.
        into.from_ack += [max(0.0, at - acknowledged) * 1e3 for at in streams.arrived]
        into.from_call += [(at - called) * 1e3 for at in streams.arrived]
        await asyncio.sleep(0.01)


async def _compare(
    ours: str, bare: str, url: str, count: int, events: int, rounds: int
) -> list[tuple[Propagation, Propagation]]:
    found = []
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(ours))
        stub = RevocationServiceStub(channel)
        store = redis.asyncio.Redis.from_url(url)
        stack.push_async_callback(store.aclose)
        both = [Streams(ours, count), Streams(bare, count)]
        for streams in both:
            stack.push_async_callback(streams.close)
            await streams.open()
            streams.listen()
        for streams in both:
            await streams.settle()

        async def revoke() -> None:
            await stub.Revoke(revocation(), timeout=20)

        async def add() -> None:
            await store.xadd(STREAM, {"b": b"x" * 130})

        for number in range(rounds + 1):
            pair = (Propagation(), Propagation())
            for streams, send, into in zip(both, (revoke, add), pair, strict=True):
                await _events(streams, send, events if number else 3, into)
            if number:
                found.append(pair)
    return found


def measure(lab: Lab, subscribers: list[int], quick: bool) -> dict[int, list[tuple[Propagation, Propagation]]]:
    """By number of subscribers: rounds of (ours, bare)."""
    store = lab.store()
    service = lab.service(store)
    _, bare = lab.bare("fanout", store.url)
    found = {}
    for count in subscribers:
        events = max(4 if quick else 10, (40 if quick else 300) // count)
        found[count] = uvloop.run(_compare(service.address, bare, store.url, count, events, 3 if quick else 7))
    return found
