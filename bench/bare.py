"""The floors: what grpc.aio and Redis do when nobody adds anything. Each is a process of its own, on uvloop.

python -m bench.bare echo ADDRESS              answers every Revoke with its op id
python -m bench.bare fanout ADDRESS REDIS_URL  one XREAD, every record written to every stream
python -m bench.bare ping ADDRESS              answers each message of a stream
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import redis.asyncio
import uvloop

from revocation_api.v1 import revocation_pb2 as pb

SERVICE = "revocation.v1.RevocationService"
STREAM = "bench"
_OPTIONS = (("grpc.server.max_pending_requests", 100_000), ("grpc.server.max_pending_requests_hard_limit", 200_000))


async def revoke(request: pb.RevokeRequest, context: Any) -> pb.RevokeResponse:
    """No revocation: an answer of the same form."""
    return pb.RevokeResponse(op_id=request.op_id)


class FanOut:
    """One reader of a Redis stream; every record goes to every stream as it is."""

    def __init__(self, url: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(url)
        self._queues: set[asyncio.Queue[bytes]] = set()

    async def read(self) -> None:
        last: bytes | str = "$"
        while True:
            reply: Any = await self._redis.xread({STREAM: last}, 512, 1_000)
            for record, fields in _records(reply):
                last = record
                for queue in self._queues:
                    queue.put_nowait(fields[b"b"])

    async def watch(self, requests: AsyncIterator[bytes], context: Any) -> None:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.add(queue)
        try:
            await context.write(b"")
            while True:
                await context.write(await queue.get())
        finally:
            self._queues.discard(queue)


def _records(reply: Any) -> Any:
    """RESP2 answers pairs of (stream, records), RESP3 a mapping to lists of them."""
    if not reply:
        return ()
    return next(iter(reply.values()))[0] if isinstance(reply, dict) else reply[0][1]


async def pong(requests: AsyncIterator[bytes], context: Any) -> None:
    """Answers each message with itself."""
    async for request in requests:
        await context.write(request)


async def serve(address: str, handlers: dict[str, Any], beside: Callable[[], Awaitable[None]] | None = None) -> None:
    server = grpc.aio.server(options=_OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    server.add_insecure_port(address)
    await server.start()
    print("ready", flush=True)
    await (beside() if beside else server.wait_for_termination())


def main() -> None:
    kind, address, *rest = sys.argv[1:]
    if kind == "echo":
        unary = grpc.unary_unary_rpc_method_handler(
            revoke, pb.RevokeRequest.FromString, pb.RevokeResponse.SerializeToString
        )
        uvloop.run(serve(address, {"Revoke": unary}))
    elif kind == "ping":
        uvloop.run(serve(address, {"Watch": grpc.stream_stream_rpc_method_handler(pong)}))
    else:

        async def fan_out() -> None:
            made = FanOut(rest[0])
            await serve(address, {"Watch": grpc.stream_stream_rpc_method_handler(made.watch)}, made.read)

        uvloop.run(fan_out())


if __name__ == "__main__":
    main()
