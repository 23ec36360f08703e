"""Requests about sessions from the wire to values, validated; answers back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from revocation import limits
from revocation.callers.roles import Caller
from revocation.errors import InvalidField
from revocation.model import Operation, request_digest
from revocation.rpc import stream, wire
from revocation.session.desk import Grant, Owner
from revocation.session.lists import PAGE, Shown
from revocation.session.machine import NO_END_MS, Device
from revocation.session.policy import SessionSettings
from revocation.session.service import Opening, Renewal
from revocation_api.v1 import session_pb2 as pb

_MOST_SECONDS = 0xFFFFFFFE


def opening(request: pb.OpenSessionRequest, caller: Caller) -> Opening:
    """Who wants a session. Raises InvalidField."""
    return Opening(
        operation=operation(request, caller),
        issuer=wire.issuer_of(request),
        subject=wire.identifier("subject", request.subject),
        client_id=wire.bounded("client_id", request.client_id, limits.ID_BYTES),
        device=device(request.device),
        life_s=request.access_token_life_s,
    )


def renewal(request: pb.RefreshSessionRequest) -> Renewal:
    """Who wants to exchange a refresh token. Raises InvalidField."""
    client_id = wire.bounded("client_id", request.client_id, limits.ID_BYTES)
    return Renewal(
        realm=request.realm,
        token=request.refresh_token,
        life_s=request.access_token_life_s,
        device=device(request.device),
        issuer=wire.issuer_of(request),
        client_id=client_id if request.HasField("client_id") else None,
    )


def operation(request: Any, caller: Caller) -> Operation:
    """The identity of what is to be done: op id, caller and a digest of the content. Raises InvalidField."""
    content = type(request)()
    content.CopyFrom(request)
    for field in {"op_id", "reason"} & set(request.DESCRIPTOR.fields_by_name):
        content.ClearField(field)
    text = f"{request.DESCRIPTOR.name}\0".encode() + content.SerializeToString(deterministic=True)
    reason = request.reason if "reason" in request.DESCRIPTOR.fields_by_name else ""
    return Operation(request.realm, caller.name, wire.op_id(request.op_id), request_digest(text), caller.role, reason)


def owner(request: Any) -> Owner:
    """Whose sessions; the subject may be absent. Raises InvalidField."""
    subject = wire.bounded("subject", request.subject, limits.ID_BYTES)
    return Owner(request.realm, wire.issuer_of(request), subject)


def device(message: pb.Device) -> Device:
    """Display data. Raises InvalidField for what is too long; a user agent, which its user did not choose, is cut."""
    return Device(
        wire.bounded("device.label", message.label, limits.LABEL_BYTES),
        wire.bounded("device.address", message.address, limits.LABEL_BYTES),
        message.user_agent.encode()[: limits.USER_AGENT_BYTES].decode("utf-8", "ignore"),
    )


def page_size(request: pb.ListSessionsRequest) -> int:
    """How many sessions at once. Raises InvalidField."""
    if not 0 <= request.page_size <= PAGE:
        raise InvalidField("page_size", f"must be 1 to {PAGE}, or 0 for {PAGE}")
    return request.page_size


def settings(message: pb.ClientSettings) -> SessionSettings:
    """Settings of a client. Raises InvalidField."""
    for field in ("idle_timeout_s", "grace_ms"):
        if not 0 <= getattr(message, field) <= _MOST_SECONDS:
            raise InvalidField(f"settings.{field}", "must be 0 or more")
    if message.absolute_timeout_s < 1:
        raise InvalidField("settings.absolute_timeout_s", "is mandatory: every session ends at some time")
    if message.overflow not in {pb.ClientSettings.OVERFLOW_UNSPECIFIED, *_OVERFLOW.values()}:
        raise InvalidField("settings.overflow", "is not known in this version")
    return SessionSettings(
        absolute_timeout_s=message.absolute_timeout_s,
        idle_timeout_s=message.idle_timeout_s,
        grace_ms=message.grace_ms,
        max_sessions_per_subject=message.max_sessions_per_subject,
        max_sessions_per_subject_and_client=message.max_sessions_per_subject_and_client,
        evict_oldest=message.overflow == pb.ClientSettings.EVICT_OLDEST,
    )


def settings_answer(value: SessionSettings) -> pb.ClientSettings:
    """Settings as they hold."""
    return pb.ClientSettings(
        absolute_timeout_s=value.absolute_timeout_s,
        idle_timeout_s=value.idle_timeout_s,
        grace_ms=value.grace_ms,
        max_sessions_per_subject=value.max_sessions_per_subject,
        max_sessions_per_subject_and_client=value.max_sessions_per_subject_and_client,
        overflow=_OVERFLOW[value.evict_oldest],
    )


_OVERFLOW = {False: pb.ClientSettings.DENY, True: pb.ClientSettings.EVICT_OLDEST}


def grant(value: Grant) -> pb.SessionGrant:
    """What an issuer mints from."""
    return pb.SessionGrant(
        sid=value.sid,
        refresh_token=value.refresh_token,
        subject=value.subject,
        issuer=value.issuer,
        client_id=value.client_id,
        version=value.versions,
        issued_at=value.issued_at,
        expires_at=value.expires_at,
        session_expires_at=value.session_expires_at,
        generation=value.generation,
        rows=value.rows,
        position=stream.positions(value.positions),
    )


def session(shown: Shown) -> pb.Session:
    """A session as its owner sees it."""
    value = shown.session
    idle_end_ms = value.idle_end_ms
    return pb.Session(
        handle=shown.handle,
        issuer=value.issuer,
        client_id=value.client_id,
        device=pb.Device(label=value.device.label, address=value.device.address, user_agent=value.device.user_agent),
        created_at=value.opened_ms // 1000,
        last_seen_at=value.seen_ms // 1000,
        idle_expires_at=0 if idle_end_ms == NO_END_MS else idle_end_ms // 1000,
        expires_at=value.ends_ms // 1000,
        current=shown.current,
    )


def page(shown: Iterable[Shown], next_page: str) -> pb.ListSessionsResponse:
    """One page of a list."""
    return pb.ListSessionsResponse(sessions=[session(one) for one in shown], next_page_token=next_page)
