"""Requests to the service: bytes into protobuf, protobuf through validation. In memory; `live.py` does it over gRPC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from google.protobuf.message import DecodeError

from revocation.callers.roles import Caller
from revocation.errors import InvalidField
from revocation.rpc import session_wire, stream, wire
from revocation.rpc.errors import code_of, trailers
from revocation.session import refresh
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1 import session_pb2
from tests.fuzz.messages import a_message
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Finding, Target, check_text

Reader = Callable[[Any], object]
READERS: tuple[tuple[Any, tuple[Reader, ...]], ...] = (
    (pb.RevokeRequest, (wire.target, lambda m: wire.operation(m, Caller("me")), lambda m: wire.ack_level(m.min_ack))),
    (pb.BatchRevokeTokensRequest, (wire.batch, lambda m: wire.operation(m, Caller("me")))),
    (pb.CheckRequest, (wire.facts, lambda m: stream.positions_from(m.not_older_than))),
    (pb.GetVersionRequest, (wire.issuer_of,)),
    (pb.StrikeMemberRequest, (lambda m: wire.identifier("id", m.id),)),
    (
        pb.WatchRequest,
        (lambda m: stream.positions_from(m.hello.resume), lambda m: stream.positions_from(m.ping.applied)),
    ),
    (session_pb2.OpenSessionRequest, (lambda m: session_wire.opening(m, Caller("me")),)),
    (session_pb2.RefreshSessionRequest, (session_wire.renewal,)),
    (session_pb2.ListSessionsRequest, (session_wire.owner, session_wire.page_size)),
    (session_pb2.EndSessionRequest, (session_wire.owner, lambda m: session_wire.operation(m, Caller("me")))),
    (session_pb2.EndOtherSessionsRequest, (session_wire.owner, lambda m: session_wire.operation(m, Caller("me")))),
    (session_pb2.SetClientSettingsRequest, (lambda m: session_wire.settings(m.settings),)),
)


class Requests(Target):
    """Any bytes as any request: a value comes out, or InvalidField, whose status can be sent."""

    name = "request"

    def seeds(self) -> Sequence[bytes]:
        rng = Random(7)
        return [
            bytes([number]) + a_message(rng, kind).SerializeToString()
            for number, (kind, _) in enumerate(READERS)
            for _ in range(4)
        ]

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        if rng.random() < 0.3:
            return mutate(rng, rng.choice(seeds), seeds)
        number = rng.randrange(len(READERS))
        raw = a_message(rng, READERS[number][0]).SerializeToString()
        return bytes([number]) + (mutate(rng, raw) if rng.random() < 0.2 else raw)

    def one(self, data: bytes) -> str:
        kind, readers = READERS[(data[0] if data else 0) % len(READERS)]
        try:
            message = kind.FromString(data[1:])
        except DecodeError:
            return "DecodeError"
        words = "values"
        for read in readers:
            try:
                read(message)
            except InvalidField as error:
                check_text(error.message)
                if code_of(error).name != "INVALID_ARGUMENT" or len(trailers(error)[0][1]) > 4096:
                    raise Finding("a refusal that cannot be sent") from None
                words = "InvalidField"
        return words


class RefreshTokens(Target):
    """Refresh tokens and session ids: RefreshInvalid for all but the one spelling of one of ours."""

    name = "refresh-token"
    KEY, SECRET = b"k" * 32, b"s" * 32

    def seeds(self) -> Sequence[bytes]:
        sid = refresh.make_sid(3, b"r" * 16)
        made = [refresh.make_token(sid, n, "k1", "default", self.KEY, self.SECRET) for n in (1, 9, 10**15 - 1)]
        self.good = set(made)
        return [*(token.encode() for token in made), sid.encode(), b"", b"....", b"k1." + sid.encode() + b".01.a.b"]

    def one(self, data: bytes) -> str:
        text = data.decode("utf-8", "surrogateescape")
        partition = refresh.partition_of(text)
        if partition is not None and not 0 <= partition <= 255:
            raise Finding("a session id of no partition")
        try:
            claim = refresh.parse(text, "default", {"k1": self.KEY}.__getitem__)
        except refresh.RefreshInvalid as error:
            check_text(str(error))
            return "RefreshInvalid" if partition is None else "session id"
        if text not in self.good or not refresh.belongs(claim, self.SECRET):
            raise Finding("a refresh token that we did not make")
        return "ours"
