"""Requests that are no protobuf. Left to itself, gRPC answers them UNKNOWN, with the text of its own exception."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from revocation.errors import InvalidField
from revocation.rpc.calls import Calls, Context

_MALFORMED = object()
Method = Callable[[Any, Context], Awaitable[Any]]


def one_request(
    calls: Calls, name: str, method: Method, request: Any, response: Any, *, streams: bool = False
) -> grpc.RpcMethodHandler[Any, Any]:
    """The handler of a method with one request; what cannot be read is refused like any other bad input.

    A method that `streams` its answers writes them to its context.
    """

    def read(raw: bytes) -> Any:
        try:
            return request.FromString(raw)
        except DecodeError:
            return _MALFORMED

    async def handle(message: Any, context: Context) -> Any:
        if message is _MALFORMED:
            await calls.refuse(context, name, InvalidField("request", f"is no {request.DESCRIPTOR.name} in protobuf"))
        return await method(message, context)

    kind: Any = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    handler: grpc.RpcMethodHandler[Any, Any] = kind(
        handle, request_deserializer=read, response_serializer=response.SerializeToString
    )
    return handler


def or_empty(read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """A deserializer that takes what it cannot read for an empty message, which the methods here refuse or ignore."""

    def lenient(raw: bytes) -> Any:
        try:
            return read(raw)
        except DecodeError:
            return read(b"")

    return lenient


class Lenient:
    """Stands in for the server where health and reflection register, which would else show gRPC's exceptions."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Registers the methods of a service."""
        made = {
            name: handler._replace(request_deserializer=or_empty(handler.request_deserializer))
            for name, handler in handlers.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, made),))

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """The same methods in an older form; they are registered already."""
