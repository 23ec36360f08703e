"""What the SDK hands out: small frozen values, free of protobuf. None of them shows a token in its `repr`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

AckLevel = Literal["memory", "replicated", "fsynced"]
"""How many copies a change has before it is acknowledged; docs/guarantees.md says what each is worth."""


OnStale = Literal["deny", "check", "allow"]
"""What a verifier does about a token when its view is too old to tell: refuse, ask the service, let it pass."""


class State(Enum):
    """What a client is doing, as `client.state` says at the moment it is read."""

    IDLE = "idle"
    """Not started: nothing was asked of it yet, or it was forked."""
    CONNECTING = "connecting"
    """Started, and not fresh yet; or freshness was taken back, by `invalidate` or a stream that made no sense."""
    FRESH = "fresh"
    """Known to have been complete at most `max_staleness` ago."""
    STALE = "stale"
    """It was fresh longer than `max_staleness` ago; what it knows may be outdated by now."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Freshness:
    """How much a verdict is worth."""

    fresh: bool
    age_s: float | None
    """How long ago the view was known to be complete; None: not known."""
    position: str
    """How far the view had come, as opaque text; empty: nowhere."""


@dataclass(frozen=True, slots=True)
class Verified:
    """A token that was accepted."""

    claims: Mapping[str, Any] = field(repr=False)
    freshness: Freshness


@dataclass(frozen=True, slots=True)
class Cutoff:
    """Tokens of the target with a version below `version` are refused; foreign ones, if issued before `at_ms`."""

    version: int
    at_ms: int


WaitFor = Literal["all"] | int
"""Until how many verifiers have applied a revocation: all that live, or so many."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A verifier that follows the realm, as the replica sees it that it follows."""

    instance: str
    """Names one follower in one process; of an older SDK one stream."""
    name: str
    identity: str
    """As whom it was authenticated."""
    sdk_version: str
    replica: str
    position: str
    """How far it has said to have come, as opaque text; empty: not yet."""
    lag: int
    """Records that its replica has and it has not reported; -1: in another history, or not known yet."""
    answered_s_ago: float | None
    """Its last answered ping; None: none yet."""
    max_staleness_s: float
    fresh: bool
    """Whether it can be fresh, by its own max_staleness."""
    connected_s_ago: float
    connected: bool
    """False: its stream has ended, and it may still be fresh by what it was told."""


@dataclass(frozen=True, slots=True)
class Landed:
    """How far a revocation had come into the verifiers when the waiting ended. It is committed whatever this says."""

    complete: bool
    """Whether as many verifiers as were asked for have applied it; for "all": no laggard, no silent replica.

    Of what a verifier with `on_stale="check"` was answered while it was stale this says nothing: such an answer may be
    gone by for up to one more `max_staleness`."""
    applied: int = 0
    live: int = 0
    laggards: tuple[Subscriber, ...] = ()
    more_laggards: int = 0
    """Laggards beyond those that are named."""
    silent_replicas: tuple[str, ...] = ()
    """Replicas that did not answer, or are gone for too short a time: what their verifiers know is not known."""
    failure: str = ""
    """Why the waiting itself failed, as a stable word; empty: it did not."""


@dataclass(frozen=True, slots=True)
class Subscribers:
    """The verifiers that follow the realm."""

    subscribers: tuple[Subscriber, ...]
    total: int
    silent_replicas: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Receipt:
    """Proof of a committed revocation."""

    position: str
    """Where it stands, as opaque text: give it to `check_remote(not_older_than=...)`."""
    op_id: str
    stored: bool
    """False: everything asked for had expired already, so there was nothing to store."""
    cutoff: Cutoff | None = None
    """For subject, client and realm."""
    landed: Landed | None = None
    """What came of `wait_for`; None: nobody waited."""


@dataclass(frozen=True, slots=True)
class Impact:
    """What a revocation would end. Tokens that were minted without a session of the service are not counted."""

    sessions: int
    subjects: int
    exact: bool
    """False: counting would have taken too long, and there are at least so many."""
    at_most: bool = False
    """For a key: at most so many, since which key signed for whom is not recorded."""


@dataclass(frozen=True, slots=True)
class Versions:
    """What an issuer mints into a token, and by which clock."""

    version: tuple[int, ...]
    """[subject, client, realm]."""
    now_ms: int
    """The store's time."""
    position: str


@dataclass(frozen=True, slots=True)
class Login:
    """What a user got by logging in or refreshing."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    session_id: str = field(repr=False)
    expires_at: int
    """When the access token ends, in seconds since 1970."""
    client_id: str = field(default="", repr=False)
    """Whose session it is; name it when you refresh, so that nobody else's client can."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What an issuer needs to mint an access token for a session, and the session's next refresh token."""

    session_id: str = field(repr=False)
    refresh_token: str = field(repr=False)
    subject: str = field(repr=False)
    client_id: str = field(repr=False)
    version: tuple[int, ...]
    """[subject, client, realm]: mint as the version claim."""
    issued_at: int
    """Mint as `iat`: seconds since 1970 by the store's clock."""
    expires_at: int
    """Mint as `exp`: never beyond the absolute end of the session."""
    session_expires_at: int
    generation: int
    issuer: str | None = None
    """Of the session; None also from services of 0.1, which do not say."""


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """A session as its owner sees it in "your devices". Times are seconds since 1970 by the store's clock."""

    handle: str
    """Names the session without giving its id away; ending takes either."""
    client_id: str
    device: str
    address: str
    user_agent: str
    created_at: int
    last_seen_at: int
    idle_expires_at: int
    expires_at: int
    current: bool
    issuer: str | None = None
    """None also from services of 0.1, which do not say."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How the sessions of one client live; holds for those opened from then on."""

    absolute_timeout_s: int
    idle_timeout_s: int = 0
    """0: none."""
    grace_ms: int = 10_000
    """A retry of a refresh gets the same successor for so long; 0: never."""
    max_sessions_per_subject: int = 0
    """0: no limit."""
    max_sessions_per_subject_and_client: int = 0
    evict_oldest: bool = False
    """At the limit: end the oldest session instead of refusing the new one."""


@dataclass(frozen=True, slots=True)
class PartitionStatus:
    """One partition of the store, as the replica that answers sees it."""

    position: str
    state: str
    """"usable", "loading", "healing", "joining", "unreachable" or "secret_missing"."""
    waiting_for: tuple[str, ...]
    """The members that its history waits for."""


@dataclass(frozen=True, slots=True)
class Canary:
    """What a replica measured last: from revoking a throw-away token until a verifier of its own refused it."""

    seconds: float
    s_ago: float
    failure: str
    """Empty: all was well. Else "not_fresh", "refused_before", "not_revoked" or "not_refused"."""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Health and state of the replica that answers."""

    replica: str
    version: str
    partitions: tuple[PartitionStatus, ...]
    entries: int
    subscribers: int
    store_ms: int
    clock_skew_ms: int
    """The replica's clock minus the store's."""
    store: str
    ack: str
    canary: Canary | None = None
    """None: it is off, or has not measured yet."""
    missing_secrets: tuple[str, ...] = ()
    """Key ids of master secrets that were in use at the store and that the replica lacks; only while that matters."""
    keys_not_refused: int = 0
    """Signing keys of the realm that were revoked under such a secret: not refused any more."""


@dataclass(frozen=True, slots=True)
class Member:
    """A service replica that the store's registry lists."""

    id: str
    partition: int
    active: bool
    confirmed: bool
    last_seen_ms: int
