"""The service in memory, for `testing.py`: it answers the calls of a client, and keeps a log for its followers."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from revocation_sdk import types
from revocation_sdk._clock import Clock
from revocation_sdk._fake_sessions import FakeSession, FakeSessions
from revocation_sdk._judge import Facts, Versions, judge, versions_for
from revocation_sdk._lattice import CUTOFF, DENIAL, NEVER, Group, Kind, RealmKey, join_groups
from revocation_sdk._messages import RealmSettings
from revocation_sdk._position import ZERO_DIGEST, Position, encode_positions
from revocation_sdk._view import View
from revocation_sdk.errors import InvalidRequest, TokenRevoked

_CUTOFF_KINDS = {"subject": Kind.SUBJECT, "client": Kind.CLIENT, "whole_realm": Kind.REALM}


class FakeService:
    """One realm. Its time is the machine's, plus what tests have advanced it by."""

    def __init__(self, settings: RealmSettings) -> None:
        self.settings = settings
        self.lock = threading.RLock()
        """Held by whoever reads the log or changes anything."""
        self.keys = (RealmKey(1, secrets.token_bytes(32)),)
        self.records: list[bytes] = []
        self.positions = [Position(secrets.token_bytes(16), 0, ZERO_DIGEST)]
        self.offset = 0.0
        self.clock = Clock(lambda: time.monotonic() + self.offset, lambda: time.time() + self.offset)
        self._view = View()
        self._drawn = 0
        self._done: dict[str, tuple[bytes, Any]] = {}
        self._sessions = FakeSessions(self._cutoffs, self._end)
        self._methods: dict[str, Callable[[Any], Any]] = {
            "Revoke": self._revoke,
            "BatchRevokeTokens": self._revoke_tokens,
            "GetVersion": self._get_version,
            "GetStatus": self._status,
            "ListMembers": lambda request: [],
            "StrikeMember": lambda request: None,
            "AwaitApplied": lambda request: types.Landed(request.verifiers <= 1, applied=1, live=1),
            "ListSubscribers": lambda request: (types.Subscribers((), 0, ()), ""),
            "OpenSession": self._open_session,
            "RefreshSession": self._refresh_session,
            "GetSession": lambda request: self._find(request).info(""),
            "ListSessions": self._list_sessions,
            "EndSession": self._end_session,
            "EndOtherSessions": self._end_other_sessions,
            "TouchSession": self._touch_session,
            "SetClientSettings": self._set_client_settings,
            "GetClientSettings": lambda request: self._sessions.settings_of(request.client_id),
        }

    @property
    def now_ms(self) -> int:
        """The store's time."""
        return int(self.clock.wall() * 1000)

    def call(self, method: str, request: Any) -> tuple[Any, bytes]:
        """The answer to a call, and the rows that it committed. An op id is executed once."""
        with self.lock:
            before = len(self.records)
            answer = self._once(method, request)
            return answer, b"".join(self.records[before:])

    def _once(self, method: str, request: Any) -> Any:
        op_id = getattr(request, "op_id", "")
        if not op_id:
            return self._methods[method](request)
        content = method.encode() + request.SerializeToString(deterministic=True)
        if op_id not in self._done:
            self._done[op_id] = (content, self._methods[method](request))
        known, answer = self._done[op_id]
        if known != content:
            raise InvalidRequest("the op id was used for something else", field="op_id", reason="op_id_reused")
        return answer

    def check(self, facts: Facts) -> tuple[str, int]:
        """The verdict of the service itself: position and time of one that is not revoked."""
        with self.lock:
            now_ms = self.now_ms
            revoked = judge(self._view, self.keys, facts, now_ms / 1000, self.settings.margin_s)
            if revoked is not None:
                since = revoked.since_ms / 1000 if revoked.since_ms else None
                raise TokenRevoked(target=revoked.target.name.lower(), since=since)
            return self.position, now_ms

    @property
    def position(self) -> str:
        """How far the log has come, as opaque text."""
        return encode_positions((self.positions[-1],))

    # Revocations

    def _revoke(self, request: Any) -> types.Receipt | types.Impact:
        name = request.WhichOneof("target")
        target = getattr(request, name)
        if request.dry_run:
            return self._impact(name, target)
        if name in _CUTOFF_KINDS:
            return self._cut_off(_CUTOFF_KINDS[name], target, request.op_id)
        if name == "token":
            stored = self._store_token(_optional(target, "issuer"), target.jti, target.expires_at)
            return types.Receipt(self.position, request.op_id, stored)
        if name == "session":
            self._end_sid(_optional(target, "issuer"), target.sid)
        elif target.WhichOneof("key") == "kid":
            self._deny(Kind.KEY, _optional(target, "issuer"), "kid:" + target.kid, NEVER)
        else:
            self._deny(Kind.KEY, None, "jkt:" + target.thumbprint, NEVER)
        return types.Receipt(self.position, request.op_id, True)

    def _impact(self, name: str, target: Any) -> types.Impact:
        hit = [
            session
            for session in self._sessions.all_live(self.clock.wall())
            if name in {"key", "whole_realm"}
            or (
                {"subject": session.subject, "client": session.client_id}[name]
                == (target.subject if name == "subject" else target.client_id)
                and (not target.HasField("issuer") or session.issuer == target.issuer)
            )
        ]
        subjects = len({(session.issuer, session.subject) for session in hit})
        return types.Impact(len(hit), subjects, exact=name != "key", at_most=name == "key")

    def _revoke_tokens(self, request: Any) -> types.Receipt:
        issuer = _optional(request, "issuer")
        stored = [self._store_token(issuer, item.jti, item.expires_at) for item in request.items]
        return types.Receipt(self.position, request.op_id, any(stored))

    def _store_token(self, issuer: str | None, jti: str, expires_at: int) -> bool:
        now = self.now_ms / 1000
        if expires_at > now + self.settings.max_token_life_s + self.settings.max_leeway_s:
            raise InvalidRequest("expires_at is beyond the horizon", field="expires_at", reason="beyond_horizon")
        until = expires_at + self.settings.max_leeway_s + self.settings.margin_s
        if until < now:
            return False
        self._deny(Kind.TOKEN, issuer, jti, until)
        return True

    def _cut_off(self, kind: Kind, target: Any, op_id: str) -> types.Receipt:
        field = {Kind.SUBJECT: "subject", Kind.CLIENT: "client_id"}.get(kind)
        value = getattr(target, field) if field else ""
        issuer = _optional(target, "issuer") if field else None
        cutoff = self._draw(kind, issuer, value)
        return types.Receipt(self.position, op_id, True, cutoff)

    def _draw(self, kind: Kind, issuer: str | None, value: str) -> types.Cutoff:
        self._drawn = max(self._drawn + 1, self.now_ms)
        cutoff = types.Cutoff(self._drawn, self.now_ms)
        fp = self.keys[0].fingerprint(kind, issuer, value)
        self._commit(kind, CUTOFF.pack(fp, self._horizon, cutoff.version, cutoff.at_ms))
        return cutoff

    def _deny(self, kind: Kind, issuer: str | None, value: str, expires_at: int) -> None:
        if not value:
            raise InvalidRequest("must not be empty", field=kind.name.lower())
        self._commit(kind, DENIAL.pack(self.keys[0].fingerprint(kind, issuer, value), expires_at))

    def _commit(self, kind: Kind, row: bytes) -> None:
        rows = join_groups([Group(kind, self.keys[0].tag, row)])
        self._view.merge(rows)
        self.positions.append(self.positions[-1].advance(rows))
        self.records.append(rows)

    @property
    def _horizon(self) -> int:
        """Until when whatever a token could still stand on is remembered."""
        limits = self.settings
        return self.now_ms // 1000 + limits.max_token_life_s + limits.max_leeway_s + limits.margin_s

    # Questions

    def _versions(self, issuer: str | None, subject: str, client_id: str) -> Versions:
        return versions_for(self._view, self.keys, issuer, subject, client_id or None, self.now_ms / 1000)

    def _get_version(self, request: Any) -> types.Versions:
        versions = self._versions(_optional(request, "issuer"), request.subject, request.client_id)
        return types.Versions(versions, self.now_ms, self.position)

    def _status(self, request: Any) -> types.ServiceStatus:
        partition = types.PartitionStatus(self.position, "usable", ())
        return types.ServiceStatus(
            "fake", "0", (partition,), len(self._view), 1, self.now_ms, 0, "memory", ack="memory"
        )

    # Sessions

    def _cutoffs(self, session: FakeSession) -> Versions:
        return self._versions(session.issuer, session.subject, session.client_id)

    def _end(self, session: FakeSession) -> None:
        self._deny(Kind.SESSION, session.issuer, session.sid, self._horizon)

    def _end_sid(self, issuer: str | None, sid: str) -> None:
        """Takes the tokens of a session back; one of ours ends with them."""
        session = self._sessions.known(sid, self.clock.wall())
        if session is None:
            self._deny(Kind.SESSION, issuer, sid, self._horizon)
        else:
            self._sessions.end(session, "logout")

    def _life(self, request: Any) -> int:
        life: int = request.access_token_life_s
        if not 0 < life <= self.settings.max_token_life_s:
            raise InvalidRequest("access_token_life_s", field="access_token_life_s")
        return life

    def _open_session(self, request: Any) -> types.Grant:
        device, now = request.device, self.clock.wall()
        session = FakeSession(
            subject=request.subject,
            client_id=request.client_id,
            issuer=_optional(request, "issuer"),
            versions=(0, 0, 0),
            created_at=now,
            settings=self._sessions.settings_of(request.client_id),
            shown=(device.label, device.address, device.user_agent),
        )
        return self._sessions.open(session, now, self._life(request))

    def _refresh_session(self, request: Any) -> types.Grant:
        issuer, client_id = _optional(request, "issuer"), _optional(request, "client_id")
        return self._sessions.refresh(
            request.refresh_token, self.clock.wall(), self._life(request), issuer=issuer, client_id=client_id
        )

    def _find(self, request: Any) -> FakeSession:
        return self._sessions.find(request.sid, request.subject, self.clock.wall(), _optional(request, "issuer"))

    def _list_sessions(self, request: Any) -> tuple[list[types.SessionInfo], str]:
        live = self._sessions.live(request.subject, _optional(request, "issuer"), self.clock.wall())
        return [session.info(request.current) for session in live], ""

    def _end_session(self, request: Any) -> types.Receipt:
        issuer = _optional(request, "issuer")
        session = self._sessions.to_end(request.sid, request.subject, self.clock.wall(), issuer)
        self._end_sid(issuer, session.sid if session is not None else request.sid)
        return types.Receipt(self.position, request.op_id, True)

    def _end_other_sessions(self, request: Any) -> types.Grant:
        now, life = self.clock.wall(), self._life(request)
        keep = self._sessions.by_sid(request.keep, now)
        if (keep.issuer, keep.subject) != (_optional(request, "issuer"), request.subject):
            raise InvalidRequest("keep: is not a session of this subject", field="keep")
        self._draw(Kind.SUBJECT, keep.issuer, keep.subject)
        return self._sessions.keep_only(keep, now, life)

    def _touch_session(self, request: Any) -> types.SessionInfo:
        session = self._sessions.by_sid(request.sid, self.clock.wall())
        session.last_seen_at = self.clock.wall()
        return session.info(session.sid)

    def _set_client_settings(self, request: Any) -> types.ClientSettings:
        told = request.settings
        self._sessions.settings[request.client_id] = types.ClientSettings(
            absolute_timeout_s=told.absolute_timeout_s,
            idle_timeout_s=told.idle_timeout_s,
            grace_ms=told.grace_ms,
            max_sessions_per_subject=told.max_sessions_per_subject,
            max_sessions_per_subject_and_client=told.max_sessions_per_subject_and_client,
            evict_oldest=told.overflow == 2,  # EVICT_OLDEST
        )
        return self._sessions.settings[request.client_id]


def _optional(message: Any, field: str) -> str | None:
    return getattr(message, field) if message.HasField(field) else None
