"""A herd of verifiers in one process: raw streams, each on a connection of its own, that all come at the same moment.

python -m tests.e2e.herd_process ADDRESS COUNT FRESH     each line of input begins a round; one line of JSON tells of it

A round ends all streams at once, opens them at once, and ends when every one has been vouched for. With FRESH=1 they
come with empty hands, else they resume from where they were. Who is refused comes back when it was told to.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter
from typing import Any

import grpc
import uvloop
from google.protobuf import duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub

_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 16 << 20))
_PING_S = 2.0


class Stream:
    """One verifier's stream."""

    def __init__(self, address: str, seen: Counter[str], fresh: bool) -> None:
        self._address, self._seen, self._from_nothing = address, seen, fresh
        self._positions = pb.Positions()
        self.vouched = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Ends the stream that there is, and begins another."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.vouched.clear()
        self._task = asyncio.create_task(self._insist())

    async def _insist(self) -> None:
        while True:
            try:
                await self._follow()
            except grpc.aio.AioRpcError as error:
                self._seen[f"refused {error.code().name}"] += 1
                print(error.code(), error.details(), error.debug_error_string(), file=sys.stderr)
                await asyncio.sleep(_retry_after_s(error) + random.uniform(0, 0.2))

    async def _follow(self) -> None:
        async with grpc.aio.insecure_channel(self._address, options=_OPTIONS) as channel:
            call: Any = RevocationServiceStub(channel).Watch()
            resume = pb.Positions() if self._from_nothing else self._positions
            await call.write(pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1, resume=resume)))
            pings: asyncio.Task[None] | None = None
            try:
                while (message := await call.read()) is not grpc.aio.EOF:
                    self._take(message)
                    # Not before the welcome: a write that meets a refusal turns it into INTERNAL (grpc#36066), and
                    # when to come back is lost with it.
                    pings = pings or asyncio.create_task(_ping(call))
                await call.code()
                raise grpc.aio.AioRpcError(
                    await call.code(), await call.initial_metadata(), await call.trailing_metadata()
                )
            finally:
                if pings is not None:
                    pings.cancel()
                call.cancel()

    def _take(self, message: pb.WatchResponse) -> None:
        kind = message.WhichOneof("kind")
        if kind == "welcome":
            for partition in message.welcome.partitions:
                self._seen[pb.Welcome.Intent.Name(partition.intent).lower()] += 1
        elif kind == "progress":
            self._positions = message.progress.positions
            self.vouched.set()


async def _ping(call: Any) -> None:
    nonce = 0
    while True:
        nonce += 1
        await call.write(pb.WatchRequest(ping=pb.Ping(nonce=nonce)))
        await asyncio.sleep(_PING_S)


def _retry_after_s(error: grpc.aio.AioRpcError) -> float:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.RetryInfo()
                if detail.Unpack(info):
                    delay: duration_pb2.Duration = info.retry_delay
                    return delay.ToMilliseconds() / 1000
    return 0.1


async def _main(address: str, count: int, fresh: bool) -> None:
    seen: Counter[str] = Counter()
    streams = [Stream(address, seen, fresh) for _ in range(count)]
    loop = asyncio.get_running_loop()
    print(json.dumps({"ready": True}), flush=True)
    while await loop.run_in_executor(None, sys.stdin.readline):
        seen.clear()
        begun = time.monotonic()
        await asyncio.gather(*(stream.begin() for stream in streams))
        await asyncio.gather(*(stream.vouched.wait() for stream in streams))
        print(json.dumps({"seconds": time.monotonic() - begun, **seen}), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "1"))
