"""A relay between service and verifier that reads along and lies: a real gRPC proxy for Watch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import grpc

from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub

WATCH = "/revocation.v1.RevocationService/Watch"
Meddle = Callable[[pb.WatchResponse], list[pb.WatchResponse]]


def inner(response: pb.WatchResponse) -> pb.WatchResponse:
    """What is in a signed answer."""
    return pb.WatchResponse.FromString(response.signed.body)


def kind(response: pb.WatchResponse) -> str:
    """Of what is in a signed answer."""
    return inner(response).WhichOneof("kind") or ""


class Relay:
    """Passes streams on to `address`; `meddle` says what becomes of each answer, `change_request` of each request."""

    def __init__(self, address: str) -> None:
        self.meddle: Meddle = lambda response: [response]
        self.change_request: Callable[[pb.WatchRequest], list[pb.WatchRequest]] = lambda request: [request]
        self.seen: list[pb.WatchResponse] = []
        """Every answer of the service."""
        self.streams = 0
        self._lock = threading.Lock()
        self._channel = grpc.insecure_channel(address)
        self._stub = RevocationServiceStub(self._channel)
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        handler = grpc.stream_stream_rpc_method_handler(
            self._watch, pb.WatchRequest.FromString, pb.WatchResponse.SerializeToString
        )
        handlers = {"Watch": handler}
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("revocation.v1.RevocationService", handlers),)
        )
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(0).wait()
        self._channel.close()

    def _watch(self, requests: Iterator[pb.WatchRequest], context: Any) -> Iterator[pb.WatchResponse]:
        self.streams += 1
        said: queue.SimpleQueue[pb.WatchRequest | None] = queue.SimpleQueue()

        def read() -> None:
            try:
                for request in requests:
                    for changed in self.change_request(request):
                        said.put(changed)
            except grpc.RpcError:
                pass
            said.put(None)

        threading.Thread(target=read, daemon=True).start()
        call = self._stub.Watch(iter(said.get, None))
        context.add_callback(call.cancel)
        try:
            for answer in call:
                with self._lock:
                    self.seen.append(answer)
                    found = self.meddle(answer)
                yield from found
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
