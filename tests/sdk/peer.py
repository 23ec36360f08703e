"""A peer for unit tests of the SDK: a real gRPC server that speaks the contract, truthfully unless told otherwise."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1 import session_pb2, session_pb2_grpc
from revocation_api.v1.revocation_pb2_grpc import (
    RevocationServiceServicer,
    add_RevocationServiceServicer_to_server,
)
from revocation_sdk._lattice import CUTOFF, DENIAL, FIRST_CUTOFF_KIND, Group, Kind, RealmKey, join_groups
from revocation_sdk._position import ZERO_DIGEST, Position, encode_positions
from revocation_sdk._wire import position_from, positions_to

KEY = RealmKey(7, b"k" * 32)
T = TypeVar("T")
Answer = Callable[[Any, grpc.ServicerContext], Any]


def row(
    kind: Kind, value: str, *, issuer: str | None = None, version: int = 1, at_ms: int = 0, expires_at: int = 0
) -> bytes:
    """Rows of one entry, that lives for an hour unless it is said."""
    fp = KEY.fingerprint(kind, issuer, value)
    expires_at = expires_at or int(time.time()) + 3600
    packed = DENIAL.pack(fp, expires_at) if kind < FIRST_CUTOFF_KIND else CUTOFF.pack(fp, expires_at, version, at_ms)
    return join_groups([Group(kind, KEY.tag, packed)])


def fail(context: grpc.ServicerContext, code: grpc.StatusCode, reason: str = "", **metadata: Any) -> NoReturn:
    """Ends a call as the contract's errors.proto says; `retry_s` becomes RetryInfo."""
    retry_s = metadata.pop("retry_s", None)
    status = status_pb2.Status(code=code.value[0], message="for people")
    if reason:
        info = error_details_pb2.ErrorInfo(reason=reason, domain="revocation", metadata=metadata)
        status.details.append(_any(info))
    if retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(retry_s * 1000))
        status.details.append(_any(error_details_pb2.RetryInfo(retry_delay=delay)))
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, "for people")
    raise AssertionError


def _any(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


class PeerStream:
    """One Watch stream as the peer sees it."""

    def __init__(self, hello: pb.Hello, context: grpc.ServicerContext) -> None:
        self.hello = hello
        self.metadata = dict(context.invocation_metadata())
        self.pings: queue.SimpleQueue[pb.Ping] = queue.SimpleQueue()
        self.out: queue.SimpleQueue[pb.WatchResponse | None] = queue.SimpleQueue()
        self.over = threading.Event()
        context.add_callback(self._end)

    def _end(self) -> None:
        self.over.set()
        self.out.put(None)

    def say(self, **message: Any) -> None:
        self.out.put(pb.WatchResponse(**message))


class Peer(RevocationServiceServicer, session_pb2_grpc.SessionServiceServicer):
    """The service, in small."""

    def __init__(self, address: str = "127.0.0.1:0", credentials: grpc.ServerCredentials | None = None) -> None:
        self.lock = threading.RLock()
        self.log_id = b"L" * 16
        self.records: list[bytes] = []
        self.live: list[PeerStream] = []
        self.opened: queue.SimpleQueue[PeerStream] = queue.SimpleQueue()
        self.store_ahead_s = 0.0
        self.mute = False
        """Pings stay unanswered."""
        self.refuse: Answer | None = None
        """How streams are refused."""
        self.on_stream: Callable[[PeerStream], None] | None = None
        """Speaks instead of the peer, from the hello on."""
        self.calls: list[tuple[str, Any, dict[str, Any]]] = []
        self.answers: dict[str, deque[Answer]] = defaultdict(deque)
        self.server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        add_RevocationServiceServicer_to_server(self, self.server)
        session_pb2_grpc.add_SessionServiceServicer_to_server(self, self.server)
        if credentials is None:
            port = self.server.add_insecure_port(address)
        else:
            port = self.server.add_secure_port(address, credentials)
        self.address = address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"
        self.server.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self.server.stop(0).wait()

    @property
    def position(self) -> Position:
        return self._position(len(self.records))

    def _position(self, seq: int) -> Position:
        position = Position(self.log_id, 0, ZERO_DIGEST)
        for rows in self.records[:seq]:
            position = position.advance(rows)
        return position

    def commit(self, rows: bytes) -> str:
        """Appends a record and streams it. Returns the position as text."""
        with self.lock:
            before = self.position
            self.records.append(rows)
            for stream in self.live:
                stream.say(changes=self.changes(before, [rows], self.position))
            return encode_positions((self.position,))

    @staticmethod
    def changes(previous: Position, records: list[bytes], position: Position) -> pb.Changes:
        one, two = positions_to((previous, position)).partitions
        return pb.Changes(partition=0, previous=one, position=two, records=records)

    def next_stream(self, timeout: float = 20) -> PeerStream:
        return self.opened.get(timeout=timeout)

    # Watch

    def Watch(self, requests: Iterator[pb.WatchRequest], context: grpc.ServicerContext) -> Iterator[pb.WatchResponse]:
        if self.refuse is not None:
            self.refuse(None, context)
        stream = PeerStream(next(requests).hello, context)
        with self.lock:
            self.live.append(stream)
            self.opened.put(stream)
            (self.on_stream or self.welcome)(stream)
        threading.Thread(target=self._hear, args=(stream, requests), daemon=True).start()
        while (message := stream.out.get()) is not None:
            yield message
        with self.lock:
            self.live.remove(stream)

    def _hear(self, stream: PeerStream, requests: Iterator[pb.WatchRequest]) -> None:
        try:
            for request in requests:
                stream.pings.put(request.ping)
                with self.lock:
                    if not self.mute:
                        self.progress(stream, request.ping.nonce)
        except grpc.RpcError:
            pass

    def progress(self, stream: PeerStream, nonce: int, store_ms: int | None = None) -> None:
        now_ms = int((time.time() + self.store_ahead_s) * 1000) if store_ms is None else store_ms
        positions = positions_to((self.position,))
        stream.say(progress=pb.Progress(nonce=nonce, positions=positions, store_ms=now_ms))

    def welcome(self, stream: PeerStream) -> None:
        """Says what it will do, and does it."""
        resume = [position_from(item) for item in stream.hello.resume.partitions]
        if resume and resume[0].log_id == self.log_id and resume[0] == self._position(resume[0].seq):
            self.say_welcome(stream, pb.Welcome.RESUME, resume[0])
            rest = self.records[resume[0].seq :]
            if rest:
                stream.say(changes=self.changes(resume[0], rest, self.position))
            return
        self.say_welcome(stream, pb.Welcome.SNAPSHOT, None)
        stream.say(snapshot_chunk=pb.SnapshotChunk(partition=0, rows=b"".join(self.records)))
        self.end_snapshot(stream)

    def end_snapshot(self, stream: PeerStream, count: int | None = None) -> None:
        end = pb.SnapshotEnd(
            partition=0,
            position=positions_to((self.position,)).partitions[0],
            count=len(self.records) if count is None else count,
            digest=hashlib.sha256(b"".join(self.records)).digest(),
        )
        stream.say(snapshot_end=end)

    def say_welcome(
        self, stream: PeerStream, intent: pb.Welcome.Intent.ValueType, position: Position | None, key: RealmKey = KEY
    ) -> None:
        partition = pb.Welcome.Partition(intent=intent)
        if position is not None:
            partition.position.CopyFrom(positions_to((position,)).partitions[0])
        welcome = pb.Welcome(
            partitions=[partition],
            settings=pb.RealmSettings(max_token_life_s=86_400, max_leeway_s=60, margin_s=60),
            keys=[pb.RealmKey(tag=key.tag, key=key.key)],
            store_ms=int(time.time() * 1000),
            replica="peer",
        )
        stream.say(welcome=welcome)

    # Unary calls: what `answers` says, in turn, else the truth

    def _unary(self, method: str, request: Any, context: grpc.ServicerContext, truth: Callable[[], T]) -> T:
        self.calls.append((method, request, dict(context.invocation_metadata())))
        if self.answers[method]:
            answer = self.answers[method].popleft()(request, context)
            if answer is not None:
                return cast(T, answer)
        return truth()

    def _committed(self, request: Any, rows: bytes) -> pb.RevokeResponse:
        self.commit(rows)
        return pb.RevokeResponse(position=positions_to((self.position,)), op_id=request.op_id, stored=True, rows=rows)

    def Revoke(self, request: pb.RevokeRequest, context: grpc.ServicerContext) -> pb.RevokeResponse:
        return self._unary("Revoke", request, context, lambda: self._revoked(request))

    def _revoked(self, request: pb.RevokeRequest) -> pb.RevokeResponse:
        if request.HasField("token"):
            issuer = request.token.issuer if request.token.HasField("issuer") else None
            return self._committed(request, row(Kind.TOKEN, request.token.jti, issuer=issuer))
        if request.HasField("subject"):
            answer = self._committed(request, row(Kind.SUBJECT, request.subject.subject, version=10, at_ms=5))
            answer.cutoff.CopyFrom(pb.Cutoff(version=10, at_ms=5))
            return answer
        return self._committed(request, row(Kind.REALM, ""))

    def BatchRevokeTokens(
        self, request: pb.BatchRevokeTokensRequest, context: grpc.ServicerContext
    ) -> pb.RevokeResponse:
        rows = b"".join(row(Kind.TOKEN, item.jti) for item in request.items)
        return self._unary("BatchRevokeTokens", request, context, lambda: self._committed(request, rows))

    def Check(self, request: pb.CheckRequest, context: grpc.ServicerContext) -> pb.CheckResponse:
        def truth() -> pb.CheckResponse:
            return pb.CheckResponse(position=positions_to((self.position,)))

        return self._unary("Check", request, context, truth)

    def GetVersion(self, request: pb.GetVersionRequest, context: grpc.ServicerContext) -> pb.GetVersionResponse:
        answer = pb.GetVersionResponse(version=[3, 2, 1], now_ms=17, position=positions_to((self.position,)))
        return self._unary("GetVersion", request, context, lambda: answer)

    def GetStatus(self, request: pb.GetStatusRequest, context: grpc.ServicerContext) -> pb.GetStatusResponse:
        answer = pb.GetStatusResponse(replica="peer", entries=len(self.records), ack=pb.MEMORY)
        answer.partitions.add(state="usable")
        return self._unary("GetStatus", request, context, lambda: answer)

    def ListMembers(self, request: pb.ListMembersRequest, context: grpc.ServicerContext) -> pb.ListMembersResponse:
        answer = pb.ListMembersResponse(members=[pb.ListMembersResponse.Member(id="peer", active=True)])
        return self._unary("ListMembers", request, context, lambda: answer)

    def AwaitApplied(self, request: pb.AwaitAppliedRequest, context: grpc.ServicerContext) -> pb.AwaitAppliedResponse:
        def truth() -> pb.AwaitAppliedResponse:
            laggard = pb.Subscriber(instance=b"i" * 16, name="slow", replica="r1", answered_ms_ago=-1)
            return pb.AwaitAppliedResponse(applied=2, live=3, laggards=[laggard], complete=request.verifiers == 2)

        return self._unary("AwaitApplied", request, context, truth)

    def ListSubscribers(
        self, request: pb.ListSubscribersRequest, context: grpc.ServicerContext
    ) -> pb.ListSubscribersResponse:
        return self._unary("ListSubscribers", request, context, pb.ListSubscribersResponse)

    def StrikeMember(self, request: pb.StrikeMemberRequest, context: grpc.ServicerContext) -> pb.StrikeMemberResponse:
        return self._unary("StrikeMember", request, context, pb.StrikeMemberResponse)

    # Sessions

    def _grant(self, request: Any, generation: int) -> session_pb2.SessionGrant:
        return session_pb2.SessionGrant(
            sid="sid-1",
            refresh_token=f"secret-{generation}",
            subject="alice",
            client_id="web",
            version=[4, 0, 0],
            issued_at=100,
            expires_at=700,
            session_expires_at=9000,
            generation=generation,
        )

    def OpenSession(
        self, request: session_pb2.OpenSessionRequest, context: grpc.ServicerContext
    ) -> session_pb2.SessionGrant:
        return self._unary("OpenSession", request, context, lambda: self._grant(request, 1))

    def RefreshSession(
        self, request: session_pb2.RefreshSessionRequest, context: grpc.ServicerContext
    ) -> session_pb2.SessionGrant:
        return self._unary("RefreshSession", request, context, lambda: self._grant(request, 2))

    def ListSessions(
        self, request: session_pb2.ListSessionsRequest, context: grpc.ServicerContext
    ) -> session_pb2.ListSessionsResponse:
        number = int(request.page_token or "0")
        answer = session_pb2.ListSessionsResponse(
            sessions=[session_pb2.Session(handle=f"h{number}", device=session_pb2.Device(label="phone"))],
            next_page_token=str(number + 1) if number < 2 else "",
        )
        return self._unary("ListSessions", request, context, lambda: answer)

    def EndSession(self, request: session_pb2.EndSessionRequest, context: grpc.ServicerContext) -> pb.RevokeResponse:
        rows = row(Kind.SESSION, request.sid)
        return self._unary("EndSession", request, context, lambda: self._committed(request, rows))

    def EndOtherSessions(
        self, request: session_pb2.EndOtherSessionsRequest, context: grpc.ServicerContext
    ) -> session_pb2.SessionGrant:
        return self._unary("EndOtherSessions", request, context, lambda: self._grant(request, 3))

    def GetSession(self, request: session_pb2.GetSessionRequest, context: grpc.ServicerContext) -> session_pb2.Session:
        return self._unary("GetSession", request, context, lambda: session_pb2.Session(handle="h"))

    def TouchSession(
        self, request: session_pb2.TouchSessionRequest, context: grpc.ServicerContext
    ) -> session_pb2.Session:
        return self._unary("TouchSession", request, context, lambda: session_pb2.Session(handle="h"))

    def SetClientSettings(
        self, request: session_pb2.SetClientSettingsRequest, context: grpc.ServicerContext
    ) -> session_pb2.ClientSettings:
        return self._unary("SetClientSettings", request, context, lambda: request.settings)

    def GetClientSettings(
        self, request: session_pb2.GetClientSettingsRequest, context: grpc.ServicerContext
    ) -> session_pb2.ClientSettings:
        answer = session_pb2.ClientSettings(absolute_timeout_s=60)
        return self._unary("GetClientSettings", request, context, lambda: answer)
