"""Sessions in memory, for `testing.py`: the rules of the service as an application meets them, and no more.

The service has them in full, with their proofs; here are rotation, reuse, timeouts, limits and ends.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

from revocation_sdk._judge import Versions
from revocation_sdk.errors import InvalidRequest, RefreshReused, SessionEnded, SessionLimit
from revocation_sdk.types import ClientSettings, Grant, SessionInfo

DEFAULT_SETTINGS = ClientSettings(absolute_timeout_s=30 * 86_400)
_TARGETS = ("subject", "client", "realm")
_MARKED = frozenset(("logout", "reuse", "limit"))
"""Ends that the service notes in the session's record; the others show by comparing."""
_HANDLE = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]")
"""16 bytes in base64url."""


@dataclass
class FakeSession:
    """One session and the end of its refresh chain."""

    subject: str
    client_id: str
    issuer: str | None
    versions: Versions
    created_at: float
    settings: ClientSettings
    shown: tuple[str, str, str]
    sid: str = field(default_factory=lambda: secrets.token_urlsafe(24))  # not of the form of a handle
    generation: int = 0
    rotated_at: float = 0.0
    last_seen_at: float = 0.0
    ended: str = ""

    @property
    def expires_at(self) -> int:
        """The absolute end."""
        return int(self.created_at) + self.settings.absolute_timeout_s

    @property
    def handle(self) -> str:
        """Names it in lists, without its id."""
        return base64.urlsafe_b64encode(hashlib.sha256(self.sid.encode()).digest()[:16]).rstrip(b"=").decode()

    def is_of(self, subject: str, issuer: str | None) -> bool:
        """Whose it is; None: whichever issuer's."""
        return self.subject == subject and issuer in (None, self.issuer)

    def info(self, current: str) -> SessionInfo:
        """As its owner sees it."""
        idle = self.settings.idle_timeout_s
        return SessionInfo(
            self.handle,
            self.client_id,
            *self.shown,
            created_at=int(self.created_at),
            last_seen_at=int(self.last_seen_at),
            idle_expires_at=min(int(self.last_seen_at) + idle, self.expires_at) if idle else self.expires_at,
            expires_at=self.expires_at,
            current=self.sid == current,
            issuer=self.issuer,
        )


class FakeSessions:
    """All sessions. `cutoffs` tells the versions in force; `revoke` takes the tokens of a session back."""

    def __init__(self, cutoffs: Callable[[FakeSession], Versions], revoke: Callable[[FakeSession], None]) -> None:
        self.settings: dict[str, ClientSettings] = {}
        self._cutoffs = cutoffs
        self._revoke = revoke
        self._all: dict[str, FakeSession] = {}

    def open(self, session: FakeSession, now: float, life: int) -> Grant:
        """Opens a session, at the price of the oldest where the limit says so."""
        session.versions = self._cutoffs(session)
        session.last_seen_at = now
        mine = [other for other in self.live(session.subject, session.issuer, now) if other.issuer == session.issuer]
        self._make_room(mine, session.settings.max_sessions_per_subject, session.settings)
        same = [other for other in mine if other.client_id == session.client_id and not other.ended]
        self._make_room(same, session.settings.max_sessions_per_subject_and_client, session.settings)
        self._all[session.sid] = session
        return self._grant(session, now, life)

    def refresh(self, refresh_token: str, now: float, life: int, *, issuer: str | None, client_id: str | None) -> Grant:
        """The successor; the same one for a retry inside the grace window. None: does not matter."""
        sid, _, generation = refresh_token.removeprefix("fake.").rpartition(".")
        session = self.by_sid(sid, now)
        if issuer not in (None, session.issuer) or client_id not in (None, session.client_id):
            raise SessionEnded("refresh_token: is not a refresh token of this realm")
        asked = int(generation) if generation.isdecimal() else -1
        retried = asked == session.generation - 1 and now - session.rotated_at <= session.settings.grace_ms / 1000
        if asked == session.generation:
            session.generation += 1
            session.rotated_at = now
        elif not retried:
            self.end(session, "reuse")
            raise RefreshReused
        session.last_seen_at = now
        return self._grant(session, now, life)

    def keep_only(self, keep: FakeSession, now: float, life: int) -> Grant:
        """The subject's cutoff was raised: `keep` goes on above it."""
        keep.versions = self._cutoffs(keep)
        return self._grant(keep, now, life)

    def by_sid(self, sid: str, now: float) -> FakeSession:
        """A live session by its id. Raises SessionEnded."""
        session = self.known(sid, now)
        if session is None or session.ended:
            raise SessionEnded(reason=session.ended if session else "unknown")
        return session

    def find(self, name: str, subject: str, now: float, issuer: str | None = None) -> FakeSession:
        """A live session by its id, or by handle and subject. Raises SessionEnded, InvalidRequest."""
        _require_subject(name, subject)
        if name not in self._all:
            return self._by_handle(name, subject, issuer, now)
        session = self.by_sid(name, now)
        if subject and not session.is_of(subject, issuer):
            raise SessionEnded(reason="unknown")
        return session

    def to_end(self, name: str, subject: str, now: float, issuer: str | None) -> FakeSession | None:
        """As `find`; None: a sid under which none of ours lives, whose tokens are taken back all the same."""
        _require_subject(name, subject)
        session = self.known(name, now)
        if session is None:
            return self._by_handle(name, subject, issuer, now) if subject else None
        if subject and session.ended not in _MARKED and not session.is_of(subject, issuer):
            raise SessionEnded(reason="unknown")
        return None if session.ended else session

    def known(self, sid: str, now: float) -> FakeSession | None:
        """The session of this id, ended or not; None: none of ours."""
        session = self._all.get(sid)
        if session is not None:
            session.ended = session.ended or self._why_ended(session, now)
        return session

    def _by_handle(self, handle: str, subject: str, issuer: str | None, now: float) -> FakeSession:
        for session in self.live(subject, issuer, now):
            if session.handle == handle:
                return session
        raise SessionEnded(reason="unknown")

    def live(self, subject: str, issuer: str | None, now: float) -> list[FakeSession]:
        """The live sessions of a subject, newest first."""
        mine = [one for one in self._all.values() if one.is_of(subject, issuer)]
        for one in mine:
            one.ended = one.ended or self._why_ended(one, now)
        return [one for one in reversed(mine) if not one.ended]

    def all_live(self, now: float) -> list[FakeSession]:
        """The live sessions of all subjects."""
        for one in self._all.values():
            one.ended = one.ended or self._why_ended(one, now)
        return [one for one in self._all.values() if not one.ended]

    def end(self, session: FakeSession, reason: str) -> None:
        """Ends a session, unless it has ended, and takes its tokens back."""
        session.ended = session.ended or reason
        self._revoke(session)

    def settings_of(self, client_id: str) -> ClientSettings:
        """How sessions of a client live."""
        return self.settings.get(client_id, DEFAULT_SETTINGS)

    def _make_room(self, rivals: list[FakeSession], limit: int, settings: ClientSettings) -> None:
        if not limit or len(rivals) < limit:
            return
        if not settings.evict_oldest:
            raise SessionLimit
        for oldest in rivals[limit - 1 :]:
            self.end(oldest, "limit")

    def _why_ended(self, session: FakeSession, now: float) -> str:
        idle = session.settings.idle_timeout_s
        if now >= session.expires_at:
            return "absolute"
        if idle and now >= session.last_seen_at + idle:
            return "idle"
        pairs = zip(_TARGETS, session.versions, self._cutoffs(session), strict=True)
        return next((target for target, own, cutoff in pairs if own < cutoff), "")

    def _grant(self, session: FakeSession, now: float, life: int) -> Grant:
        return Grant(
            session_id=session.sid,
            refresh_token=f"fake.{session.sid}.{session.generation}",
            subject=session.subject,
            client_id=session.client_id,
            version=session.versions,
            issued_at=int(now),
            expires_at=min(int(now) + life, session.expires_at),
            session_expires_at=session.expires_at,
            generation=session.generation,
            issuer=session.issuer,
        )


def _require_subject(name: str, subject: str) -> None:
    """A handle is looked for among the sessions of its subject."""
    if not subject and _HANDLE.fullmatch(name):
        raise InvalidRequest("subject: must be given: a handle needs its subject", field="subject")
