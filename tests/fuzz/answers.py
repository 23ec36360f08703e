"""A client and what comes to it from both sides: answers of a hostile service, and arguments of a careless caller."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.message import DecodeError

from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1 import session_pb2
from revocation_sdk import RevocationClient, ServiceError
from revocation_sdk.errors import RevocationError
from tests.fuzz.messages import a_message
from tests.fuzz.mutation import mutate
from tests.fuzz.streams import ROWS
from tests.fuzz.target import Target, check_text

ANSWERS: tuple[tuple[str, Any, Callable[[Any], object]], ...] = (
    ("Revoke", pb.RevokeResponse, lambda c: c.revoke_session("s")),
    ("Revoke", pb.RevokeResponse, lambda c: c.revoke_subject("s")),
    ("BatchRevokeTokens", pb.RevokeResponse, lambda c: c.revoke_tokens([("a", 4e9)])),
    ("Check", pb.CheckResponse, lambda c: c.check_remote({"jti": "a", "exp": 4_000_000_000})),
    ("GetStatus", pb.GetStatusResponse, lambda c: c.status()),
    ("ListMembers", pb.ListMembersResponse, lambda c: c.members()),
    ("OpenSession", session_pb2.SessionGrant, lambda c: c.open_session("s", access_token_life=60)),
    ("RefreshSession", session_pb2.SessionGrant, lambda c: c.refresh_session("t", access_token_life=60)),
    ("GetSession", session_pb2.Session, lambda c: c.get_session("s")),
    ("ListSessions", session_pb2.ListSessionsResponse, lambda c: c.list_sessions("s")),
    ("GetClientSettings", session_pb2.ClientSettings, lambda c: c.get_client_settings("s")),
)


class Answers(Target):
    """Any answer to any call: a value, or an error of the public tree."""

    name = "answer"

    def __init__(self) -> None:
        self.client = RevocationClient("127.0.0.1:1")
        self.answer: Any = None
        for calls in (self.client._core.calls, self.client._core.checks):
            calls.run = lambda operation, timeout: self.answer  # type: ignore[method-assign]

    def seeds(self) -> Sequence[bytes]:
        rng = Random(3)
        return [bytes([n]) + a_message(rng, kind).SerializeToString() for n, (_, kind, _) in enumerate(ANSWERS)]

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        number = rng.randrange(len(ANSWERS))
        made = a_message(rng, ANSWERS[number][1])
        if "rows" in made.DESCRIPTOR.fields_by_name and rng.random() < 0.5:
            made.rows = rng.choice(ROWS)
        raw = made.SerializeToString()
        return bytes([number]) + (mutate(rng, raw) if rng.random() < 0.2 else raw)

    def one(self, data: bytes) -> str:
        _, kind, call = ANSWERS[(data[0] if data else 0) % len(ANSWERS)]
        try:
            self.answer = kind.FromString(data[1:])
        except DecodeError:  # gRPC says so by itself
            return "DecodeError"
        try:
            call(self.client)
        except RevocationError as error:
            check_text(str(error))
            return type(error).__name__
        return "value"


ODD: tuple[Any, ...] = (
    None,
    "",
    "x",
    "\0",
    "\ud800",
    "é" * 300,
    "x" * 70_000,
    0,
    -1,
    1.5,
    math.nan,
    math.inf,
    -math.inf,
    10**400,
    True,
    b"x",
    b"\xff",
    [],
    ["x"],
    {},
    object(),
    ("a", 1),
    "a.b.c",
    "e30.e30.e30",
)
TAKERS: tuple[Callable[[Any, Any, Any], object], ...] = (
    lambda c, a, b: c.revoke_token(a),
    lambda c, a, b: c.revoke_token(jti=a, expires_at=b),
    lambda c, a, b: c.revoke_tokens([(a, b)]),
    lambda c, a, b: c.revoke_session(a, reason=b),
    lambda c, a, b: c.revoke_subject(a, issuer=b),
    lambda c, a, b: c.revoke_client(a, op_id=b),
    lambda c, a, b: c.revoke_key(a),
    lambda c, a, b: c.revoke_key(thumbprint=a, issuer=b),
    lambda c, a, b: c.check_remote({"jti": a, "exp": b}),
    lambda c, a, b: c.check({"jti": a, "exp": b}),
    lambda c, a, b: c.get_version(a, client_id=b),
    lambda c, a, b: c.open_session(a, device=b, access_token_life=60),
    lambda c, a, b: c.refresh_session(a, access_token_life=60),
    lambda c, a, b: c.list_sessions(a, current=b),
    lambda c, a, b: c.end_session(a, subject=b),
    lambda c, a, b: c.strike_member(a),
)


class Arguments(Target):
    """Any two values as arguments of a method: an error of the public tree, or TypeError for what is no text at all."""

    name = "argument"

    def __init__(self) -> None:
        self.client = RevocationClient("127.0.0.1:1")

        def refuse(operation: Any, timeout: float) -> Any:
            operation.request.SerializeToString()
            raise ServiceError("no")

        for calls in (self.client._core.calls, self.client._core.checks):
            calls.run = refuse  # type: ignore[method-assign]

    def seeds(self) -> Sequence[bytes]:
        return [bytes([n, a, b]) for n in range(len(TAKERS)) for a in range(len(ODD)) for b in range(len(ODD))]

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        return rng.choice(seeds)

    def one(self, data: bytes) -> str:
        take, a, b = TAKERS[data[0]], ODD[data[1]], ODD[data[2]]
        try:
            take(self.client, a, b)
        except RevocationError as error:
            check_text(str(error))
            return f"{type(error).__name__}"
        return "value"
