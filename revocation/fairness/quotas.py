"""Fair limits: how much of the service one realm, and one identity in it, may use (I6). Pure; `mono` comes in.

A token bucket for calls of the realm, one for each identity in it, one for rows, one for what late verifiers catch up
with, and bounds on calls at once, streams and snapshots. What is refused is refused before any work is done for it,
and told when to come back. Each replica counts for itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from revocation.realms import RealmLimits

MOST_IDENTITIES = 10_000
"""Identities of a realm that are told apart; beyond, who was quiet longest begins anew with a full bucket."""

FULL_RETRY_MS = 100
"""When to come back to a realm with too many calls at once: about as long as calls take under load."""

HOLD_S = 1.0
"""A refusal is held back for about so long: a caller that ignores hints and has n calls under way gets n/HOLD_S
refusals a second, and costs little more than one that heeds them."""

MOST_HELD = 1_000
"""Refusals of a realm that are held back at the same time; further ones are answered at once."""

BETWEEN_REALMS = RealmLimits(
    calls_per_s=2_000, rows_per_s=100_000, max_in_flight=1_000, max_snapshots=32, catch_up_bytes_per_s=64 * 1024 * 1024
)
"""What holds where the realm's settings are silent and the service has several realms."""


class Bucket:
    """A token bucket: `rate` a second, up to `burst` saved up. A rate of 0 is no limit.

    What costs more than `burst` is let through when the bucket is full, and is paid off afterwards.
    """

    __slots__ = ("_at", "_level", "burst", "rate")

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.burst = max(burst, 1.0)
        self._level = self.burst
        self._at: float | None = None

    def wait_s(self, amount: float, mono: float) -> float:
        """How long until `amount` is there; 0: it is now. Takes nothing."""
        if not self.rate:
            return 0.0
        if self._at is None:
            self._at = mono
        if mono > self._at:
            self._level = min(self.burst, self._level + (mono - self._at) * self.rate)
            self._at = mono
        return max(0.0, (min(amount, self.burst) - self._level) / self.rate)

    def take(self, amount: float) -> None:
        """Takes what `wait_s` said is there."""
        self._level -= amount


@dataclass(frozen=True, slots=True)
class Refused:
    """Not now: which limit of the realm, and when there is room again as far as anybody can tell."""

    limit: str
    retry_after_ms: int


@dataclass(slots=True)
class _Realm:
    limits: RealmLimits
    calls: Bucket
    rows: Bucket
    catch_up: Bucket
    identities: OrderedDict[str, Bucket] = field(default_factory=OrderedDict)
    in_flight: int = 0
    held: int = 0
    snapshots: int = 0


class Quotas:
    """The limits of all realms of one replica. `count` is told (realm, limit) of every refusal."""

    def __init__(self, limits: Mapping[str, RealmLimits], count: Callable[[str, str], None]) -> None:
        self._shared = shared = len(limits) > 1
        self._realms = {name: _realm(own.filled(BETWEEN_REALMS) if shared else own) for name, own in limits.items()}
        self._count = count

    def exempt(self, realm: str) -> None:
        """Adds a realm of the service's own, which no limit holds and which the others need not share with."""
        self._realms[realm] = _realm(RealmLimits())

    def admit(self, realm: str, identity: str, rows: int, mono: float) -> Refused | None:
        """Lets one call of `rows` rows in, which must then `leave`; or says why not, and it must not."""
        own = self._realms.get(realm)
        if own is None:
            return None
        if own.limits.max_in_flight and own.in_flight >= own.limits.max_in_flight:
            return self._refuse(realm, "in_flight", FULL_RETRY_MS / 1000)
        buckets = (("identity_calls", _bucket_of(own, identity), 1), ("calls", own.calls, 1), ("rows", own.rows, rows))
        for limit, bucket, amount in buckets:
            wait_s = bucket.wait_s(amount, mono) if amount else 0.0
            if wait_s > 0:
                return self._refuse(realm, limit, wait_s)
        for _, bucket, amount in buckets:
            bucket.take(amount)
        own.in_flight += 1
        return None

    def leave(self, realm: str) -> None:
        """A call that was admitted has ended, or has become a stream, which is counted elsewhere."""
        own = self._realms.get(realm)
        if own is not None:
            own.in_flight -= 1

    def hold(self, realm: str) -> bool:
        """Whether one more refusal may be held back; if so, `let_go` must follow."""
        own = self._realms[realm]
        if own.held >= MOST_HELD:
            return False
        own.held += 1
        return True

    def let_go(self, realm: str) -> None:
        """A refusal that was held back is answered."""
        self._realms[realm].held -= 1

    def admit_stream(self, realm: str, open_streams: int, places: int) -> Refused | None:
        """May this realm have one more stream, of the replica's `places`? Half of them, unless its settings say."""
        own = self._realms[realm]
        most = own.limits.max_subscribers or (places // 2 if self._shared else places)
        return self._refuse(realm, "subscribers", 5.0) if open_streams >= most else None

    def admit_late(self, realm: str, mono: float) -> Refused | None:
        """May this realm bring one more verifier up to date? What that takes is paid by `catching_up`."""
        wait_s = self._realms[realm].catch_up.wait_s(1, mono)
        return self._refuse(realm, "catch_up", wait_s) if wait_s > 0 else None

    def may_snapshot(self, realm: str) -> bool:
        """Whether the realm may have one more snapshot sent now; a refusal is counted."""
        own = self._realms[realm]
        may = not own.limits.max_snapshots or own.snapshots < own.limits.max_snapshots
        if not may:
            self._count(realm, "snapshots")
        return may

    def catching_up(self, realm: str, sent_bytes: int, snapshot: bool) -> None:
        """So much will be sent to one verifier; `caught_up` must follow."""
        own = self._realms[realm]
        own.snapshots += snapshot
        own.catch_up.take(sent_bytes)

    def caught_up(self, realm: str, snapshot: bool) -> None:
        """It has been sent, or never will be."""
        self._realms[realm].snapshots -= snapshot

    def _refuse(self, realm: str, limit: str, wait_s: float) -> Refused:
        self._count(realm, limit)
        return Refused(limit, max(1, int(wait_s * 1000)))


def _realm(limits: RealmLimits) -> _Realm:
    return _Realm(
        limits,
        Bucket(limits.calls_per_s or 0, limits.calls_burst or 2 * (limits.calls_per_s or 0)),
        Bucket(limits.rows_per_s or 0, 2 * (limits.rows_per_s or 0)),
        # Sixteen seconds' worth: a whole fleet may come back at once.
        Bucket(limits.catch_up_bytes_per_s or 0, 16 * (limits.catch_up_bytes_per_s or 0)),
    )


def _bucket_of(realm: _Realm, identity: str) -> Bucket:
    bucket = realm.identities.get(identity)
    if bucket is None:
        rate = realm.limits.identity_calls_per_s or 0
        bucket = realm.identities[identity] = Bucket(rate, realm.limits.identity_calls_burst or 2 * rate)
        if len(realm.identities) > MOST_IDENTITIES:
            realm.identities.popitem(last=False)
    else:
        realm.identities.move_to_end(identity)
    return bucket
