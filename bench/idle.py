"""Row "idle subscribers": streams that only ping, at the SDK's default interval. The client is a process of its own.

python -m bench.idle ADDRESS COUNT PING_S     reports on standard output, ends with its input
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from dataclasses import dataclass
from typing import Any

import grpc
import uvloop

from bench.bare import SERVICE
from bench.fanout import HELLO
from bench.lab import Lab
from bench.measure import cpu_seconds, memory_bytes
from revocation_api.v1 import revocation_pb2 as pb
from tests.e2e.processes import Process

PING_S = 2.0
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Idle:
    """What idle streams cost a server."""

    streams: int
    kilobytes: float
    cores: float
    answered: float
    """Share of the pings that were answered in the interval."""


class _Crowd:
    """Streams that ping, each on a connection of its own, and what has become of them together."""

    def __init__(self, address: str, count: int, ping_s: float) -> None:
        self._address, self._count, self._ping_s = address, count, ping_s
        self._rush = asyncio.Semaphore(_AT_ONCE)
        self._waiting = count
        self.open = asyncio.Event()
        self.pings = self.answers = 0

    async def stream(self, number: int) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            async with self._rush:
                call = await _begun(channel)
            self._waiting -= 1
            if not self._waiting:
                self.open.set()
            reading = asyncio.create_task(self._read(call))
            try:
                await asyncio.sleep(self._ping_s * number / self._count)
                await self._ping(call)
            finally:
                reading.cancel()
                call.cancel()

    async def _read(self, call: Any) -> None:
        while await call.read():
            self.answers += 1

    async def _ping(self, call: Any) -> None:
        for nonce in itertools.count(1):
            await call.write(pb.WatchRequest(ping=pb.Ping(nonce=nonce)).SerializeToString())
            self.pings += 1
            await asyncio.sleep(self._ping_s)


async def _begun(channel: Any) -> Any:
    """A stream that has been welcomed. In a rush some connections fail; every client would come again."""
    while True:
        call: Any = channel.stream_stream(f"/{SERVICE}/Watch")()
        try:
            await call.write(HELLO)
            if await call.read():
                return call
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.1)


async def _client(address: str, count: int, ping_s: float) -> None:
    crowd = _Crowd(address, count, ping_s)
    streams = [asyncio.create_task(crowd.stream(number)) for number in range(count)]
    await crowd.open.wait()
    print("open", flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(crowd.pings, crowd.answers, flush=True)
    for stream in streams:
        stream.cancel()


def measure(lab: Lab, count: int, seconds: float, kind: str = "service") -> Idle:
    """Opens them, waits until they ping in their pace, and looks for so many seconds."""
    if kind == "service":
        server: Any = lab.service(lab.store(), max_subscribers=max(count, 10))
        address = server.address
    else:
        server, address = lab.bare("ping")
    before = memory_bytes(server.pid)
    client = Process(f"idle-{kind}-{count}", ["-m", "bench.idle", address, str(count), str(PING_S)], lab.folder)
    lab.installation.processes.append(client)
    client.start()
    pipes = client.pipes
    assert pipes.stdout is not None
    assert pipes.stdin is not None
    assert pipes.stdout.readline().strip() == "open", client.log()[-2000:]
    time.sleep(PING_S * 1.5)

    def counts() -> tuple[int, int]:
        assert pipes.stdout is not None
        assert pipes.stdin is not None
        pipes.stdin.write("\n")
        pipes.stdin.flush()
        pings, answers = pipes.stdout.readline().split()
        return int(pings), int(answers)

    pings, answers = counts()
    used, begun = cpu_seconds(server.pid), time.monotonic()
    time.sleep(seconds)
    cores = (cpu_seconds(server.pid) - used) / (time.monotonic() - begun)
    later_pings, later_answers = counts()
    kilobytes = (memory_bytes(server.pid) - before) / count / 1000
    client.kill()
    server.kill()
    return Idle(count, kilobytes, cores, (later_answers - answers) / max(1, later_pings - pings))


def main() -> None:
    address, count, ping_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    uvloop.run(_client(address, count, ping_s))


if __name__ == "__main__":
    main()
