"""Who has applied a revocation: which verifiers count, when one is done, what the replicas' answers add up to. Pure.

A verifier is *done* with a position when it has said that it applied it. It is *owed* one while it has a stream, and
after that for as long as it can still be fresh by what it was told on that stream: its own max_staleness, from its
last answered ping on. Later it is neither: whatever it does not know, it refuses to vouch for.

Positions of different histories are never compared. Whoever asks begins with a barrier and asks for a position of the
history that is in force, in which healing has brought along all that was acknowledged before.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from revocation_sdk._position import NOWHERE, Position

DEFAULT_STALENESS_S = 15.0
"""The max_staleness of a verifier that does not tell: the SDK's default."""

LONGEST_STALENESS_S = 86_400.0
MOST_LEFT = 20_000
"""Ended streams that are remembered in a realm; beyond, the replica cannot say who is owed what, and says so."""

MOST_NAMED = 1_000
"""Verifiers that one report names."""


def reached(applied: Sequence[Position], wanted: Sequence[Position]) -> bool:
    """Whether who is at `applied` holds all that is up to `wanted`, in every partition that makes a demand."""
    demands = [(index, position) for index, position in enumerate(wanted) if position != NOWHERE]
    return all(index < len(applied) and _reached(applied[index], position) for index, position in demands)


def _reached(applied: Position, wanted: Position) -> bool:
    if applied.log_id != wanted.log_id:
        return False
    return applied.seq > wanted.seq or (applied.seq, applied.digest) == (wanted.seq, wanted.digest)


def renewed(wanted: Sequence[Position], current: Sequence[Position]) -> tuple[Position, ...] | None:
    """`wanted` in terms of the history in force, after a barrier in it; None if it lies ahead of the log.

    A position of an older history becomes the current one: what was acknowledged there is before it (H3).
    """
    found = []
    for position, now in zip(wanted, current, strict=False):
        if position == NOWHERE:
            found.append(NOWHERE)
        elif position.log_id != now.log_id:
            found.append(now)
        elif _reached(now, position):
            found.append(position)
        else:
            return None
    return tuple(found)


def lag(applied: Sequence[Position], current: Sequence[Position]) -> int:
    """Records that `current` is ahead of `applied`; -1 if that cannot be said."""
    if len(applied) != len(current) or any(a.log_id != c.log_id for a, c in zip(applied, current, strict=True)):
        return -1
    return sum(max(0, c.seq - a.seq) for a, c in zip(applied, current, strict=True))


@dataclass(slots=True, eq=False)
class Verifier:
    """One stream of a verifier, as its replica sees it. Times are of the replica's monotonic clock, in seconds."""

    instance: bytes
    name: str
    identity: str
    sdk_version: str
    since: float
    polled: bool = True
    """Whether it understands a poll."""
    staleness_s: float = DEFAULT_STALENESS_S
    applied: tuple[Position, ...] = ()
    answered: float = -math.inf
    connected: bool = True
    key: bytes = field(init=False)
    """The same on all its streams. With the identity, so that nobody speaks for another one."""

    def __post_init__(self) -> None:
        self.key = hashlib.blake2b(self.identity.encode(), key=self.instance[:64], digest_size=16).digest()

    def judged_by(self, max_staleness_ms: int) -> None:
        """Its verifiers' largest max_staleness; 0 says nothing."""
        if max_staleness_ms > 0:
            self.staleness_s = min(max_staleness_ms / 1000, LONGEST_STALENESS_S)

    @property
    def fresh_until(self) -> float:
        """Later it cannot be fresh by this stream."""
        return self.answered + self.staleness_s


class Roster:
    """The verifiers of one realm at one replica: those with a stream, and those that are owed something without."""

    def __init__(self) -> None:
        self.open: set[Verifier] = set()
        self.left: dict[bytes, Verifier] = {}
        self.crowded_until = -math.inf
        """Until when verifiers that are not remembered could be fresh."""

    def begin(self, verifier: Verifier) -> None:
        """A stream has begun."""
        self.open.add(verifier)

    def end(self, verifier: Verifier, now: float) -> None:
        """A stream has ended."""
        self.open.discard(verifier)
        verifier.connected = False
        before = self.left.get(verifier.key)
        if verifier.fresh_until <= now or (before is not None and before.fresh_until >= verifier.fresh_until):
            return
        self.left[verifier.key] = verifier
        if len(self.left) > MOST_LEFT:
            self.forget(now)
        if len(self.left) > MOST_LEFT:
            del self.left[verifier.key]
            self.crowded_until = max(self.crowded_until, verifier.fresh_until)

    def forget(self, now: float) -> None:
        """Drops who is owed nothing any more."""
        self.left = {key: verifier for key, verifier in self.left.items() if verifier.fresh_until > now}

    def all(self, now: float) -> list[Verifier]:
        """Everybody who counts now."""
        return [*self.open, *(verifier for verifier in self.left.values() if verifier.fresh_until > now)]

    def longest_s(self, now: float) -> float:
        """The largest max_staleness of those who count; 0 if nobody does."""
        return max((verifier.staleness_s for verifier in self.all(now)), default=0.0)


@dataclass(frozen=True, slots=True)
class Owed:
    """A verifier that has not said that it applied the position. `shown` describes it, `left_s` is how long it counts.

    A stream that is open counts for as long as it is.
    """

    key: bytes
    left_s: float
    shown: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Report:
    """What one replica says: who is done since its last report, and who is owed; `more` are not named."""

    done: frozenset[bytes]
    owed: tuple[Owed, ...]
    more: int = 0
    crowded: bool = False


@dataclass(frozen=True, slots=True)
class Landing:
    """How far a position has come."""

    applied: int
    live: int
    laggards: tuple[Owed, ...]
    more: int
    silent: tuple[str, ...]
    complete: bool


class Tally:
    """Adds up what the replicas report about one position."""

    def __init__(self, members: Iterable[str], wanted: int) -> None:
        """`wanted`: how many verifiers, 0 for all."""
        self._members = set(members)
        self._wanted = wanted
        self._done: set[bytes] = set()
        self._reports: dict[str, tuple[Report, float]] = {}

    def add(self, replica: str, report: Report, now: float) -> None:
        """Takes a report; a later one of the same replica replaces what it said about who is owed."""
        self._done |= report.done
        self._reports[replica] = (report, now)

    def landing(self, now: float, present: Iterable[str], gone: Iterable[str] = ()) -> Landing:
        """Where it stands. `present`: the registry now; `gone`: replicas whose verifiers may still be fresh."""
        owed: dict[bytes, Owed] = {}
        more = 0
        for report, at in self._reports.values():
            more += report.more
            for one in report.owed:
                if one.key not in self._done and at + one.left_s > now:
                    known = owed.get(one.key)
                    if known is None or known.left_s < one.left_s:
                        owed[one.key] = one
        crowded = {replica for replica, (report, _) in self._reports.items() if report.crowded}
        unheard = (self._members & {*present, *gone} | set(gone)) - set(self._reports)
        silent = tuple(sorted(unheard | crowded))
        everybody = not (owed or more or silent)
        complete = len(self._done) >= self._wanted if self._wanted else everybody
        laggards = tuple(sorted(owed.values(), key=lambda one: one.key))
        return Landing(len(self._done), len(self._done) + len(owed) + more, laggards, more, silent, complete)
