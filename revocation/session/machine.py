"""The life of a session, as a function: what a command makes of a session at a moment. Pure.

    decide(session | none, command, now, cutoffs) -> Commit | Refusal

The store commits what comes out by compare-and-set, so that of several commands at once one is decided on what the
other made. `now` is the store's time and `cutoffs` are those in force for the session's subject, client and realm.
A Commit holds for a while only (`until_ms`): the committing script looks at its own clock again.

Rotation: generation g is exchanged for g + 1. Within the grace window, which begins when g + 1 is first issued, g
gets g + 1 again, so a lost answer or two tabs fork nothing (I5). Whatever else is not the newest was replayed, and the
session ends (RFC 9700 section 4.14.2, RFC 6819 section 5.2.2.3). A generation *above* the stored one proves by its MAC
that the store was rolled back, and the session goes on from there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum, StrEnum

from revocation_sdk._judge import Versions

TOUCH_MS = 60_000
"""`last seen` is written at most so often; and, for short idle timeouts, ten times in one of them."""

NO_END_MS = 1 << 52
"""Later than every deadline; below 2^53, up to which the store's scripts count exactly."""


class End(StrEnum):
    """Why a session is over; the reasons of `SessionEnded` in the SDK."""

    LOGOUT = "logout"
    REUSE = "reuse"
    IDLE = "idle"
    ABSOLUTE = "absolute"
    LIMIT = "limit"
    SUBJECT = "subject"
    CLIENT = "client"
    REALM = "realm"
    UNKNOWN = "unknown"


_BY_CUTOFF = (End.SUBJECT, End.CLIENT, End.REALM)


@dataclass(frozen=True, slots=True)
class Device:
    """Who uses the session, as its owner sees it in "your devices"; given by the caller, believed by nobody."""

    label: str = ""
    address: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """How a session lives; fixed when it is opened. Milliseconds; `idle_ms` 0: it never idles out."""

    absolute_ms: int
    idle_ms: int = 0
    grace_ms: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """A live session. `generation` is that of the newest refresh token, first issued at `issued_ms`."""

    issuer: str | None
    subject: str
    client_id: str
    device: Device
    policy: Policy
    opened_ms: int
    ends_ms: int
    seen_ms: int
    life_s: int
    """The longest life of its access tokens: so one knows when the last of them has expired."""
    versions: Versions
    """[subject, client, realm] at its opening; a higher cutoff ends it."""
    generation: int
    issued_ms: int
    kid: str
    """Server key of the newest refresh token, so that a retry gets the same one byte for byte."""
    attempt: bytes
    """Names the call that issued it: a call that repeats itself after a lost reply of the store is no replay."""
    secret: bytes = field(repr=False)

    @property
    def idle_end_ms(self) -> int:
        """When it ends if nobody uses it; NO_END_MS if it never idles out."""
        return self.seen_ms + self.policy.idle_ms if self.policy.idle_ms else NO_END_MS

    @property
    def due_ms(self) -> int:
        """When it ends by itself."""
        return min(self.ends_ms, self.idle_end_ms)


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a session. Everything random comes with the command."""

    issuer: str | None
    subject: str
    client_id: str
    device: Device
    policy: Policy
    life_s: int
    kid: str
    attempt: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Refresh:
    """Exchange the refresh token of `generation`, whose MACs were right. `kid` signs a new successor.

    `issuer` and `client_id`: who asks; None: it does not say.
    """

    generation: int
    kid: str
    attempt: bytes
    device: Device = Device()
    issuer: str | None = None
    client_id: str | None = None


@dataclass(frozen=True, slots=True)
class Touch:
    """Say that the session is in use."""


@dataclass(frozen=True, slots=True)
class Look:
    """Ask whether it lives."""


@dataclass(frozen=True, slots=True)
class Keep:
    """All other sessions of the subject end by a cutoff with this version, and this one stays, with new tokens."""

    version: int
    kid: str
    attempt: bytes


Command = Open | Refresh | Touch | Look | Keep


class Write(Enum):
    """What the store has to do."""

    PUT = "put"  # replace the record
    COUNT = "count"  # count one more answer of this generation, and change nothing
    END = "end"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Commit:
    """What becomes of the session, if it is committed before `until_ms` by the store's clock."""

    write: Write
    session: Session
    until_ms: int
    event: str
    """For the audit record; empty where nothing is worth one."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The session is over."""

    end: End


def decide(session: Session | None, command: Command, now_ms: int, cutoffs: Versions) -> Commit | Refusal:
    """What `command` makes of `session` at `now_ms`; see the module."""
    if isinstance(command, Open):
        return _open(command, now_ms, cutoffs)
    end = ended(session, now_ms, cutoffs)
    if session is None or end is not None:
        return Refusal(end or End.UNKNOWN)
    match command:
        case Refresh():
            return _refresh(session, command, now_ms)
        case Touch():
            return _touch(session, now_ms)
        case Keep():
            _, client, realm = session.versions
            kept = _rotated(session, Refresh(session.generation, command.kid, command.attempt), now_ms)
            kept = replace(kept, versions=(command.version, client, realm))
            return Commit(Write.PUT, kept, session.due_ms, "others_ended")
        case Look():
            return Commit(Write.NOTHING, session, session.due_ms, "")


def may_refresh(session: Session, command: Refresh) -> bool:
    """Whether who asks is the issuer and client of the session, as far as it says who it is (RFC 6749 section 6)."""
    return command.issuer in (None, session.issuer) and command.client_id in (None, session.client_id)


def ended(session: Session | None, now_ms: int, cutoffs: Versions) -> End | None:
    """Why the session is over, or None while it lives."""
    if session is None:
        return End.UNKNOWN
    for own, cutoff, end in zip(session.versions, cutoffs, _BY_CUTOFF, strict=True):
        if own < cutoff:
            return end
    if now_ms >= session.ends_ms:
        return End.ABSOLUTE
    if now_ms >= session.idle_end_ms:
        return End.IDLE
    return None


def _open(command: Open, now_ms: int, cutoffs: Versions) -> Commit:
    session = Session(
        issuer=command.issuer,
        subject=command.subject,
        client_id=command.client_id,
        device=command.device,
        policy=command.policy,
        opened_ms=now_ms,
        ends_ms=now_ms + command.policy.absolute_ms,
        seen_ms=now_ms,
        life_s=command.life_s,
        versions=cutoffs,
        generation=1,
        issued_ms=now_ms,
        kid=command.kid,
        attempt=command.attempt,
        secret=command.secret,
    )
    return Commit(Write.PUT, session, session.due_ms, "session_opened")


def _refresh(session: Session, command: Refresh, now_ms: int) -> Commit:
    if command.generation >= session.generation:
        event = "session_refreshed" if command.generation == session.generation else "store_rolled_back"
        return Commit(Write.PUT, _rotated(session, command, now_ms), session.due_ms, event)
    if command.generation == session.generation - 1:
        if command.attempt == session.attempt:
            return Commit(Write.COUNT, session, session.due_ms, "")
        window_ends = session.issued_ms + session.policy.grace_ms
        if now_ms < window_ends:
            return Commit(Write.COUNT, session, min(window_ends, session.due_ms), "refresh_repeated")
    return Commit(Write.END, session, NO_END_MS, "refresh_reused")


def _rotated(session: Session, command: Refresh, now_ms: int) -> Session:
    return replace(
        session,
        generation=command.generation + 1,
        issued_ms=now_ms,
        seen_ms=max(session.seen_ms, now_ms),
        kid=command.kid,
        attempt=command.attempt,
        device=_newer(session.device, command.device),
    )


def _newer(old: Device, new: Device) -> Device:
    """What is known now; what a caller does not say stays."""
    return Device(new.label or old.label, new.address or old.address, new.user_agent or old.user_agent)


def _touch(session: Session, now_ms: int) -> Commit:
    rest_ms = min(TOUCH_MS, session.policy.idle_ms // 10 or TOUCH_MS)
    if now_ms - session.seen_ms < rest_ms:
        return Commit(Write.NOTHING, session, session.due_ms, "")
    return Commit(Write.PUT, replace(session, seen_ms=now_ms), session.due_ms, "")


def capped(session: Session, absolute_ms: int) -> Session:
    """The session under a lowered limit of its realm, beyond which nobody remembers a cutoff. Its tokens live on."""
    return replace(session, ends_ms=min(session.ends_ms, session.opened_ms + absolute_ms))


def token_expiry_s(session: Session, now_ms: int, life_s: int) -> int:
    """`exp` of an access token minted at `now_ms`: no token outlives its session, whatever ends that by itself."""
    return min(now_ms + min(life_s, session.life_s) * 1000, session.due_ms) // 1000


def last_token_s(session: Session, now_ms: int) -> int:
    """When the last access token that was ever minted for the session has expired, whatever a lost record said.

    Not bounded by the session's end: a realm that has lowered it did not shorten the tokens minted before.
    """
    return now_ms // 1000 + session.life_s + 1
