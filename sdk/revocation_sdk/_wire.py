"""Protobuf on one side, the follower's messages, the SDK's values and failures on the other.

Only this module and those that build requests know protobuf messages. A peer may send anything: what cannot be a
message of the contract is MalformedMessage, never a crash further in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from revocation_api.v1 import errors_pb2, revocation_pb2, session_pb2
from revocation_sdk._lattice import Kind, RealmKey
from revocation_sdk._messages import (
    Changes,
    Goodbye,
    Hello,
    Intent,
    Mark,
    Message,
    PartitionIntent,
    Ping,
    Poll,
    Progress,
    RealmSettings,
    SnapshotChunk,
    SnapshotEnd,
    TraceNote,
    Welcome,
)
from revocation_sdk._position import NOWHERE, ZERO_DIGEST, Position, encode_positions
from revocation_sdk._retry import Failure
from revocation_sdk._signed import Seal, Unsigned
from revocation_sdk.errors import SessionEnded
from revocation_sdk.types import (
    Canary,
    ClientSettings,
    Cutoff,
    Grant,
    Impact,
    Landed,
    Member,
    PartitionStatus,
    Receipt,
    ServiceStatus,
    SessionInfo,
    Subscriber,
    Subscribers,
    Versions,
)

PROTOCOL = 1
MAX_PARTITIONS = 1024
_LONGEST_STALENESS_S = 86_400.0 * 400
_STATUS_DETAILS = "grpc-status-details-bin"
_INTENTS: dict[int, Intent] = {
    revocation_pb2.Welcome.UP_TO_DATE: Intent.UP_TO_DATE,
    revocation_pb2.Welcome.RESUME: Intent.RESUME,
    revocation_pb2.Welcome.SNAPSHOT: Intent.SNAPSHOT,
}
_ACKS: dict[int, str] = {number: name.lower() for name, number in revocation_pb2.AckLevel.items()}


class MalformedMessage(ValueError):
    """Not a message of the contract, or of a version that this SDK does not know."""


# Watch


def watch_request(
    message: Hello | Ping,
    sdk_version: str = "",
    name: str = "",
    instance: bytes = b"",
    staleness_s: float = 0.0,
    *,
    challenge: bytes = b"",
) -> revocation_pb2.WatchRequest:
    """What the follower says, for the wire. `staleness_s`: the largest max_staleness of its verifiers."""
    staleness_ms = math.ceil(min(staleness_s, _LONGEST_STALENESS_S) * 1000)
    if isinstance(message, Ping):
        ping = revocation_pb2.Ping(
            nonce=message.nonce, applied=positions_to(message.applied), max_staleness_ms=staleness_ms
        )
        return revocation_pb2.WatchRequest(ping=ping)
    hello = revocation_pb2.Hello(
        realm=message.realm,
        resume=positions_to(message.resume),
        protocol=PROTOCOL,
        sdk_version=sdk_version,
        name=name,
        instance=instance,
        max_staleness_ms=staleness_ms,
        challenge=challenge,
    )
    return revocation_pb2.WatchRequest(hello=hello)


def unsealed(response: revocation_pb2.WatchResponse, seal: Seal) -> revocation_pb2.WatchResponse:
    """The answer in a signed one. Raises Unsigned if it is not from the service, or not for this stream."""
    if response.WhichOneof("kind") != "signed":
        raise Unsigned("unsigned")
    signed = response.signed
    try:
        inner = revocation_pb2.WatchResponse.FromString(signed.body)
    except DecodeError:
        raise MalformedMessage("the body of a signed message") from None
    kind = inner.WhichOneof("kind")
    if kind is None or kind == "signed":
        raise MalformedMessage("the body of a signed message")
    seal.check(kind, signed.body, signed.signature, signed.key_id)
    return inner


def watch_message(response: revocation_pb2.WatchResponse) -> Message:
    """What the service says, for the follower."""
    match response.WhichOneof("kind"):
        case "welcome":
            return _welcome(response.welcome)
        case "snapshot_chunk":
            return SnapshotChunk(response.snapshot_chunk.partition, response.snapshot_chunk.rows)
        case "snapshot_end":
            end = response.snapshot_end
            return SnapshotEnd(end.partition, position_from(end.position), end.count, end.digest)
        case "changes":
            changes = response.changes
            return Changes(*_step(changes), tuple(changes.records))
        case "mark":
            return Mark(*_step(response.mark), response.mark.rows)
        case "progress":
            progress = response.progress
            return Progress(progress.nonce, positions_from(progress.positions), progress.store_ms)
        case "goodbye":
            return Goodbye(response.goodbye.reason, response.goodbye.reconnect_after_ms)
        case "poll":
            return Poll()
        case "trace":
            return TraceNote(positions_from(response.trace.position), response.trace.traceparent)
        case _:
            raise MalformedMessage("unknown message")


def _welcome(welcome: revocation_pb2.Welcome) -> Welcome:
    if not 0 < len(welcome.partitions) <= MAX_PARTITIONS:
        raise MalformedMessage("welcome without partitions")
    partitions = tuple(
        PartitionIntent(_intent(item.intent), item.reason, position_from(item.position)) for item in welcome.partitions
    )
    told = welcome.settings
    settings = RealmSettings(told.max_token_life_s, told.max_leeway_s, told.margin_s)
    if settings.max_token_life_s <= 0 or settings.max_leeway_s < 0 or settings.margin_s < 0:
        raise MalformedMessage("welcome without settings")
    keys = tuple(RealmKey(item.tag, item.key) for item in welcome.keys)
    if not keys or any(len(key.key) != 32 for key in keys):
        raise MalformedMessage("welcome without keys")
    return Welcome(partitions, settings, keys, welcome.store_ms, welcome.replica)


def _intent(number: int) -> Intent:
    intent = _INTENTS.get(number)
    if intent is None:
        raise MalformedMessage("unknown intent")
    return intent


def _step(message: revocation_pb2.Changes | revocation_pb2.Mark) -> tuple[int, Position, Position]:
    return message.partition, position_from(message.previous), position_from(message.position)


def position_from(message: revocation_pb2.Position) -> Position:
    """A position; an empty one is NOWHERE."""
    if len(message.log_id) not in (0, 16) or len(message.digest) not in (0, 20):
        raise MalformedMessage("malformed position")
    if not message.log_id and not message.seq:
        return NOWHERE
    return Position(message.log_id, message.seq, message.digest or ZERO_DIGEST)


def positions_from(message: revocation_pb2.Positions) -> tuple[Position, ...]:
    """The positions of all partitions."""
    return tuple(position_from(item) for item in message.partitions)


def positions_to(positions: Iterable[Position]) -> revocation_pb2.Positions:
    """For the wire; NOWHERE travels as an empty message."""
    return revocation_pb2.Positions(
        partitions=[
            revocation_pb2.Position()
            if position == NOWHERE
            else revocation_pb2.Position(log_id=position.log_id, seq=position.seq, digest=position.digest)
            for position in positions
        ]
    )


# Answers of unary calls


def receipt(response: revocation_pb2.RevokeResponse) -> Receipt:
    """The receipt of a revocation."""
    cutoff = Cutoff(response.cutoff.version, response.cutoff.at_ms) if response.HasField("cutoff") else None
    return Receipt(_text(response.position), response.op_id, response.stored, cutoff)


def impact(response: revocation_pb2.RevokeResponse) -> Impact:
    """What a dry run found."""
    found = response.impact
    return Impact(found.sessions, found.subjects, found.exact, found.at_most)


def revoked(response: revocation_pb2.CheckResponse) -> tuple[str, int] | None:
    """What a Check found revoked: the kind of target, and since when in milliseconds."""
    if not response.HasField("revoked"):
        return None
    try:
        return Kind(response.revoked).name.lower(), response.since_ms
    except ValueError:  # a kind of a later version is a revocation all the same
        return "token", response.since_ms


def checked_position(response: revocation_pb2.CheckResponse) -> str:
    """The position that a Check was answered at."""
    return _text(response.position)


def versions(response: revocation_pb2.GetVersionResponse) -> Versions:
    """The versions to mint."""
    return Versions(tuple(response.version), response.now_ms, _text(response.position))


def status(response: revocation_pb2.GetStatusResponse) -> ServiceStatus:
    """The state of a replica."""
    partitions = tuple(
        PartitionStatus(encode_positions((position_from(item.position),)), item.state, tuple(item.waiting_for))
        for item in response.partitions
    )
    return ServiceStatus(
        replica=response.replica,
        version=response.version,
        partitions=partitions,
        entries=response.entries,
        subscribers=response.subscribers,
        store_ms=response.store_ms,
        clock_skew_ms=response.clock_skew_ms,
        store=response.store,
        ack=_ACKS.get(response.ack, "unknown"),
        canary=_canary(response.canary) if response.HasField("canary") else None,
        missing_secrets=tuple(response.missing_secrets),
        keys_not_refused=response.keys_not_refused,
    )


def _canary(response: revocation_pb2.Canary) -> Canary:
    return Canary(response.microseconds / 1e6, response.ms_ago / 1000, response.failure)


def members(response: revocation_pb2.ListMembersResponse) -> list[Member]:
    """The service replicas on the store's list."""
    return [
        Member(item.id, item.partition, item.active, item.confirmed, item.last_seen_ms) for item in response.members
    ]


def subscriber(response: revocation_pb2.Subscriber) -> Subscriber:
    """A verifier that follows the realm."""
    return Subscriber(
        instance=response.instance.hex(),
        name=response.name,
        identity=response.identity,
        sdk_version=response.sdk_version,
        replica=response.replica,
        position=_text(response.applied),
        lag=response.lag,
        answered_s_ago=None if response.answered_ms_ago < 0 else response.answered_ms_ago / 1000,
        max_staleness_s=response.max_staleness_ms / 1000,
        fresh=response.fresh,
        connected_s_ago=response.connected_ms_ago / 1000,
        connected=response.connected,
    )


def landed(response: revocation_pb2.AwaitAppliedResponse) -> Landed:
    """How far a position has come."""
    return Landed(
        complete=response.complete,
        applied=response.applied,
        live=response.live,
        laggards=tuple(map(subscriber, response.laggards)),
        more_laggards=response.more_laggards,
        silent_replicas=tuple(response.silent_replicas),
    )


def subscriber_page(response: revocation_pb2.ListSubscribersResponse) -> tuple[Subscribers, str]:
    """One page of subscribers, and the token of the next."""
    found = tuple(map(subscriber, response.subscribers))
    return Subscribers(found, response.total, tuple(response.silent_replicas)), response.next_page_token


def grant(response: session_pb2.SessionGrant) -> Grant:
    """What to mint an access token from."""
    return Grant(
        session_id=response.sid,
        refresh_token=response.refresh_token,
        subject=response.subject,
        client_id=response.client_id,
        version=tuple(response.version),
        issued_at=response.issued_at,
        expires_at=response.expires_at,
        session_expires_at=response.session_expires_at,
        generation=response.generation,
        issuer=response.issuer if response.HasField("issuer") else None,
    )


def renewed(request: session_pb2.RefreshSessionRequest, response: session_pb2.SessionGrant) -> Grant:
    """The grant of a refresh. Raises SessionEnded if an older service, which compares nothing, answers another's."""
    found = grant(response)
    other_issuer = request.HasField("issuer") and found.issuer not in (None, request.issuer)
    if other_issuer or (request.HasField("client_id") and found.client_id != request.client_id):
        raise SessionEnded("refresh_token: is not a refresh token of this realm")
    return found


def session(response: session_pb2.Session) -> SessionInfo:
    """A session as its owner sees it."""
    return SessionInfo(
        handle=response.handle,
        client_id=response.client_id,
        device=response.device.label,
        address=response.device.address,
        user_agent=response.device.user_agent,
        created_at=response.created_at,
        last_seen_at=response.last_seen_at,
        idle_expires_at=response.idle_expires_at,
        expires_at=response.expires_at,
        current=response.current,
        issuer=response.issuer if response.HasField("issuer") else None,
    )


def session_page(response: session_pb2.ListSessionsResponse) -> tuple[list[SessionInfo], str]:
    """One page of sessions, and the token of the next."""
    return [session(item) for item in response.sessions], response.next_page_token


def client_settings(response: session_pb2.ClientSettings) -> ClientSettings:
    """The settings of one client."""
    return ClientSettings(
        absolute_timeout_s=response.absolute_timeout_s,
        idle_timeout_s=response.idle_timeout_s,
        grace_ms=response.grace_ms,
        max_sessions_per_subject=response.max_sessions_per_subject,
        max_sessions_per_subject_and_client=response.max_sessions_per_subject_and_client,
        evict_oldest=response.overflow == session_pb2.ClientSettings.EVICT_OLDEST,
    )


def _text(positions: revocation_pb2.Positions) -> str:
    return encode_positions(positions_from(positions)) if positions.partitions else ""


# Failures


def failure_of(error: grpc.RpcError) -> Failure:
    """What a failed call says, from its google.rpc.Status where the service sent one."""
    code = error.code() if isinstance(error, grpc.Call) else None
    name = code.name if code is not None else "UNKNOWN"
    message = (error.details() if isinstance(error, grpc.Call) else None) or ""
    found = _Details(_details(error))
    return Failure(
        name,
        found.reason,
        _line(message),
        _line(found.field),
        session_end=found.session_end if _WORD.fullmatch(found.session_end) else "",
        sessions=found.sessions,
        approval=_line(found.approval),
        retry_after_s=max(0.0, found.retry_after_s),
    )


_WORD = re.compile(r"[a-z_]{1,32}")
"""How the session ended; a later version may know more ways than this one."""


def _line(text: str) -> str:
    """What a peer says, as it may stand in a log: one line, not too long, without control characters."""
    return "".join(character if character.isprintable() else " " for character in text[:500])


class _Details:
    """The parts of a google.rpc.Status that the contract uses."""

    def __init__(self, details: Iterable[Any]) -> None:
        self.reason = self.field = self.session_end = self.approval = ""
        self.sessions = 0
        self.retry_after_s = 0.0
        with suppress(DecodeError):  # what was read until then still counts
            for detail in details:
                self._read(detail)

    def _read(self, detail: Any) -> None:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
            if info.domain == "revocation" and info.reason in errors_pb2.ErrorReason.keys():  # noqa: SIM118
                self.reason = info.reason.lower()
            self.field = info.metadata.get("field", self.field)
            self.session_end = info.metadata.get("session_end", "")
            self.approval = info.metadata.get("approval", "")
            self.sessions = _number(info.metadata.get("sessions", ""))
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            self.retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            if bad.field_violations:
                self.field = self.field or bad.field_violations[0].field


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0


def _details(error: grpc.RpcError) -> Iterable[Any]:
    metadata: Iterable[tuple[str, str | bytes]] = ()
    if isinstance(error, grpc.Call):
        metadata = error.trailing_metadata() or ()
    packed = dict(metadata).get(_STATUS_DETAILS)
    with suppress(DecodeError):
        if isinstance(packed, bytes):
            return tuple(status_pb2.Status.FromString(packed).details)
    return ()
