"""Calls without the SDK: one attempt, and what the service says to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub
from revocation_sdk._requests import make_op_id

CALL_S = 20.0
"""Long enough for an answer of a busy machine."""


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended."""

    code: str
    reason: str = ""
    field: str = ""
    message: str = ""
    seconds: float = 0.0
    response: Any = None


@contextmanager
def stub(address: str) -> Iterator[Any]:
    """A stub of the service on a channel of its own."""
    with grpc.insecure_channel(address) as channel:
        yield RevocationServiceStub(channel)


def call(method: Any, request: Any, timeout: float = CALL_S) -> Answer:
    """One attempt."""
    begun = time.monotonic()
    try:
        response = method(request, timeout=timeout)
    except grpc.RpcError as error:
        return answer_of(error, time.monotonic() - begun)
    return Answer("OK", seconds=time.monotonic() - begun, response=response)


def answer_of(error: Any, seconds: float = 0.0) -> Answer:
    """What the error of a call says."""
    reason = field = ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                info = error_details_pb2.ErrorInfo()
                if detail.Unpack(info):
                    reason, field = info.reason, info.metadata.get("field", "")
    return Answer(error.code().name, reason, field, error.details() or "", seconds)


def a_revocation(**changes: Any) -> pb.RevokeRequest:
    """A good request, but for `changes`."""
    given = {"realm": "default", "op_id": make_op_id(time.time()), **changes}
    if not {"token", "session", "subject", "client", "key", "whole_realm"} & given.keys():
        given["session"] = pb.SessionTarget(sid="some-session")
    return pb.RevokeRequest(**given)
