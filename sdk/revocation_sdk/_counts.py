"""What a client counts for `client.metrics`. Cheap enough to be always on; exact to a lost count between threads."""

from __future__ import annotations

from bisect import bisect_left

from revocation_sdk.errors import RevocationError, StatusUnknown, TokenExpired, TokenRejected, TokenRevoked

APPLY_BUCKETS_S = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
OUTCOMES = ("accepted", "accepted_stale", "revoked", "expired", "invalid", "unknown", "failed")
_BY_ERROR = (
    (TokenRevoked, "revoked"),
    (TokenExpired, "expired"),
    (TokenRejected, "invalid"),
    (StatusUnknown, "unknown"),
)
_MOST_REASONS = 64


class Counts:
    """Counters of one client, over all its verifiers and forks."""

    __slots__ = ("accepted", "accepted_stale", "applied", "apply_s", "hits", "misses", "refused", "streams_ended")

    def __init__(self) -> None:
        self.accepted = self.accepted_stale = self.hits = self.misses = 0
        self.refused: dict[str, int] = {}
        """Verdicts by outcome, but for the accepting ones."""
        self.streams_ended: dict[str, int] = {}
        self.applied = [0] * (len(APPLY_BUCKETS_S) + 1)
        """Messages applied, by how long that took."""
        self.apply_s = 0.0

    def verdict(self, error: RevocationError) -> None:
        """A token was not accepted."""
        outcome = next((name for kind, name in _BY_ERROR if isinstance(error, kind)), "failed")
        self.refused[outcome] = self.refused.get(outcome, 0) + 1

    def stream_ended(self, reason: str) -> None:
        """A stream ended, and another one follows."""
        if reason in self.streams_ended or len(self.streams_ended) < _MOST_REASONS:
            self.streams_ended[reason] = self.streams_ended.get(reason, 0) + 1

    def message_applied(self, seconds: float) -> None:
        """A message of the stream was taken in."""
        self.applied[bisect_left(APPLY_BUCKETS_S, seconds)] += 1
        self.apply_s += seconds

    def verdicts(self) -> dict[str, int]:
        """All verdicts by outcome."""
        found = dict.fromkeys(OUTCOMES, 0) | self.refused
        return found | {"accepted": self.accepted, "accepted_stale": self.accepted_stale}
