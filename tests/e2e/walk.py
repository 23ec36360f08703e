"""Every method of every service that a server registers, with plausible requests made from its own descriptors."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from revocation_sdk._requests import make_op_id
from tests.e2e.rpc import CALL_S

VALUES = {"thumbprint": "a" * 43, "page_token": "", "protocol": 1, "approval": "0" * 32}
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Attempt:
    """One call that somebody could make."""

    service: str
    method: MethodDescriptor
    variant: str
    request: Any

    @property
    def name(self) -> str:
        return f"{self.method.name}:{self.variant}" if self.variant else str(self.method.name)

    def make(self, channel: grpc.Channel) -> tuple[str, str]:
        """Calls, and reads one answer. The status code, and what it says."""
        path = f"/{self.service}/{self.method.name}"
        incoming, outgoing = self.method.client_streaming, self.method.server_streaming
        kind = f"{'stream' if incoming else 'unary'}_{'stream' if outgoing else 'unary'}"
        call = getattr(channel, kind)(path, self._encode, bytes)
        answered = threading.Event()
        try:
            answer = call(self._and_stay(answered) if incoming else self.request, timeout=CALL_S)
            if outgoing:
                next(iter(answer), None)
                answer.cancel()
        except grpc.RpcError as error:
            return error.code().name, error.details() or ""
        finally:
            answered.set()
        return "OK", ""

    def _and_stay(self, answered: threading.Event) -> Iterator[Any]:
        """Who says no more is gone, and need not be answered."""
        yield self.request
        answered.wait(CALL_S)

    @staticmethod
    def _encode(message: Any) -> bytes:
        encoded: bytes = message.SerializeToString()
        return encoded


def methods(channel: grpc.Channel) -> list[tuple[str, MethodDescriptor]]:
    """By reflection: what the server says that it has, our own services only."""
    known = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(known)
    return [
        (name, method)
        for name in known.get_services()
        if not name.startswith("grpc.")
        for method in pool.FindServiceByName(name).methods
    ]


def attempts(channel: grpc.Channel, realm: str) -> list[Attempt]:
    """A request for every method, for every alternative in it, and with every switch on."""
    return [
        Attempt(service, method, variant, request)
        for service, method in methods(channel)
        for variant, request in _variants(method, realm)
    ]


def _variants(method: MethodDescriptor, realm: str) -> Iterator[tuple[str, Any]]:
    kind = method.input_type
    alternatives = [field.name for oneof in kind.oneofs if len(oneof.fields) > 1 for field in oneof.fields]
    switches = [field.name for field in kind.fields if field.type == FieldDescriptor.TYPE_BOOL]
    for chosen in alternatives or [""]:
        yield chosen, _filled(kind, realm, chosen)
        for switch in switches:
            request = _filled(kind, realm, chosen)
            setattr(request, switch, True)
            if switch == "dry_run":
                request.op_id = ""
            yield chosen, request


def _filled(kind: Any, realm: str, chosen: str = "", depth: int = 0) -> Any:
    message = GetMessageClass(kind)()
    for field in kind.fields:
        oneof = field.containing_oneof
        alternative = oneof is not None and len(oneof.fields) > 1
        if alternative and field.name != (chosen or oneof.fields[0].name):
            continue
        if field.message_type is not None and depth >= _DEEPEST:
            continue
        _set(message, field, realm, depth)
    return message


def _set(message: Any, field: FieldDescriptor, realm: str, depth: int) -> None:
    if field.message_type is not None:
        value = _filled(field.message_type, realm, depth=depth + 1)
        target = getattr(message, field.name)
        (target.add() if field.is_repeated else target).CopyFrom(value)
    elif not field.is_repeated and field.type not in (FieldDescriptor.TYPE_BOOL, FieldDescriptor.TYPE_BYTES):
        setattr(message, field.name, _value(field, realm))


def _value(field: FieldDescriptor, realm: str) -> Any:
    if field.name in VALUES:
        return VALUES[field.name]
    if field.type == FieldDescriptor.TYPE_STRING:
        return {"realm": realm, "op_id": make_op_id(time.time())}.get(field.name, "x")
    return int(time.time()) + 60 if field.name == "expires_at" else 1
