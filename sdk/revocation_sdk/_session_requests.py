"""What a client can ask about sessions: one method builds one call. Pure; the other half of `_requests.py`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message

from revocation_api.v1 import session_pb2
from revocation_api.v1.session_pb2_grpc import SessionServiceStub
from revocation_sdk import _wire
from revocation_sdk._operation import Operation, build
from revocation_sdk.errors import InvalidRequest
from revocation_sdk.types import ClientSettings, Grant, Receipt, SessionInfo

T = TypeVar("T")

MAX_PAGES = 100
"""Of a listing: a bound, far above any subject's sessions."""


class SessionRequests:
    """Builds the session calls of one client."""

    def __init__(self, realm: str, issuer: str | None, new_op_id: Callable[[], str]) -> None:
        self._realm = realm
        self._issuer = issuer
        self._new_op_id = new_op_id

    def open_session(
        self,
        subject: str,
        *,
        issuer: str | None,
        client_id: str | None,
        shown: session_pb2.Device,
        access_token_life: int,
        op_id: str | None,
    ) -> Operation[Grant]:
        """Opens a session."""
        op_id = op_id or self._new_op_id()
        request = build(
            session_pb2.OpenSessionRequest,
            realm=self._realm,
            subject=subject,
            issuer=self._or_default(issuer),
            client_id=client_id,
            device=shown,
            access_token_life_s=access_token_life,
            op_id=op_id,
        )
        return _session_call("OpenSession", request, _wire.grant, op_id=op_id, rows=True)

    def refresh_session(
        self,
        refresh_token: str,
        *,
        issuer: str | None,
        client_id: str | None,
        shown: session_pb2.Device,
        access_token_life: int,
    ) -> Operation[Grant]:
        """Exchanges a refresh token. Repeating it is safe inside the grace window, and no worse than a loss after."""
        request = build(
            session_pb2.RefreshSessionRequest,
            realm=self._realm,
            refresh_token=refresh_token,
            access_token_life_s=access_token_life,
            device=shown,
            issuer=issuer,
            client_id=client_id,
        )
        read = partial(_wire.renewed, request)
        return _session_call("RefreshSession", request, read, mutates=True, rows=True)

    def get_session(self, session: str, subject: str | None, issuer: str | None) -> Operation[SessionInfo]:
        """One session, by its id, or by its handle and subject."""
        request = build(
            session_pb2.GetSessionRequest,
            realm=self._realm,
            sid=session,
            subject=subject,
            issuer=self._or_default(issuer),
        )
        return _session_call("GetSession", request, _wire.session)

    def list_sessions(
        self, subject: str, issuer: str | None, current: str | None, page: str
    ) -> Operation[tuple[list[SessionInfo], str]]:
        """One page of the live sessions of a subject."""
        request = build(
            session_pb2.ListSessionsRequest,
            realm=self._realm,
            subject=subject,
            issuer=self._or_default(issuer),
            current=current,
            page_token=page,
        )
        return _session_call("ListSessions", request, _wire.session_page)

    def end_session(
        self, session: str, subject: str | None, issuer: str | None, op_id: str | None, reason: str
    ) -> Operation[Receipt]:
        """Ends a session, by its id, or by its handle and subject."""
        op_id = op_id or self._new_op_id()
        request = build(
            session_pb2.EndSessionRequest,
            realm=self._realm,
            sid=session,
            subject=subject,
            issuer=self._or_default(issuer),
            op_id=op_id,
            reason=reason,
        )
        return _session_call("EndSession", request, _wire.receipt, op_id=op_id, rows=True)

    def end_other_sessions(
        self, subject: str, keep: str, issuer: str | None, access_token_life: int, op_id: str | None
    ) -> Operation[Grant]:
        """Ends all sessions of a subject but one, which gets a new grant."""
        op_id = op_id or self._new_op_id()
        request = build(
            session_pb2.EndOtherSessionsRequest,
            realm=self._realm,
            subject=subject,
            issuer=self._or_default(issuer),
            keep=keep,
            op_id=op_id,
            access_token_life_s=access_token_life,
        )
        return _session_call("EndOtherSessions", request, _wire.grant, op_id=op_id, rows=True)

    def touch_session(self, sid: str) -> Operation[SessionInfo]:
        """Says that a session is in use."""
        request = build(session_pb2.TouchSessionRequest, realm=self._realm, sid=sid)
        return _session_call("TouchSession", request, _wire.session)

    def set_client_settings(self, client_id: str, settings: ClientSettings) -> Operation[ClientSettings]:
        """Settings of the sessions of one client."""
        kind = session_pb2.ClientSettings
        message = build(
            kind,
            absolute_timeout_s=settings.absolute_timeout_s,
            idle_timeout_s=settings.idle_timeout_s,
            grace_ms=settings.grace_ms,
            max_sessions_per_subject=settings.max_sessions_per_subject,
            max_sessions_per_subject_and_client=settings.max_sessions_per_subject_and_client,
            overflow=kind.EVICT_OLDEST if settings.evict_oldest else kind.DENY,
        )
        request = build(session_pb2.SetClientSettingsRequest, realm=self._realm, client_id=client_id, settings=message)
        return _session_call("SetClientSettings", request, _wire.client_settings, mutates=True)

    def get_client_settings(self, client_id: str) -> Operation[ClientSettings]:
        """Settings of the sessions of one client."""
        request = build(session_pb2.GetClientSettingsRequest, realm=self._realm, client_id=client_id)
        return _session_call("GetClientSettings", request, _wire.client_settings)

    def _or_default(self, issuer: str | None) -> str | None:
        return self._issuer if issuer is None else issuer


def shown(device: str | None, address: str | None, user_agent: str | None) -> session_pb2.Device:
    """Display data of a session, cut to what the service takes."""
    return session_pb2.Device(
        label=_cut("device", device, 128),
        address=_cut("address", address, 128),
        user_agent=_cut("user_agent", user_agent, 256),
    )


def _cut(field: str, text: str | None, size: int) -> str:
    """At most `size` bytes of UTF-8, whole characters; what cannot be encoded is replaced. Raises InvalidRequest."""
    if not isinstance(text, str | None):
        raise InvalidRequest(f"{field}: must be text", field=field)
    return (text or "").encode("utf-8", "replace")[:size].decode("utf-8", "ignore")


def _session_call(
    method: str,
    request: Message,
    read: Callable[[Any], T],
    *,
    op_id: str = "",
    mutates: bool = False,
    rows: bool = False,
) -> Operation[T]:
    return Operation(SessionServiceStub, method, request, read, mutates or bool(op_id), op_id, rows)
