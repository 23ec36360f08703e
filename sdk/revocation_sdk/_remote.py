"""`on_stale="check"`: the service is asked about a token while the view is stale.

Bounded (I8): so many questions at once and no more, each with a deadline. An answer is a lease on this one token,
counted from the moment the question was sent, and is remembered for as long as it is worth something.
"""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

from revocation_sdk._core import CHECK_TIMEOUT_S, Answer, Core
from revocation_sdk._judge import Facts
from revocation_sdk._recent import Recent
from revocation_sdk.errors import ConfigError, ServiceError, StatusUnknown, TokenRevoked
from revocation_sdk.types import Freshness

AT_ONCE = 32
_REMEMBERED = 10_000


class _Asked(NamedTuple):
    """A question, when it was asked by both clocks, and what the service said."""

    mono: float
    wall: float
    epoch: object
    """Of the follower: what was asked before an `invalidate` vouches for nothing after it."""
    answer: Answer | None = None
    revoked: tuple[str, float | None] | None = None
    """Target and since when. Not the error: that would keep everything alive which its traceback shows."""


class Vouched(NamedTuple):
    """Not revoked, says the service."""

    freshness: Freshness
    store_s: float
    """The store's time at most, in seconds, for judging `exp`; next to nothing if an older service does not tell."""


class RemoteChecks:
    """The questions of one verifier."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._clock = core.clock
        self._free = _Places()
        self._known: Recent[Facts, _Asked] = Recent(_REMEMBERED)

    def ask(self, facts: Facts, max_staleness: float, age_s: float | None) -> Vouched:
        """Not revoked, by an answer at most so old. Raises TokenRevoked, or StatusUnknown if there is none.

        `age_s` is the view's, for those who get no answer.
        """
        known = self._recall(facts, max_staleness)
        if known is not None:
            return known
        place = self._free.take(age_s)
        try:
            asked = self._begin()
            try:
                for variant in _variants(facts):
                    asked = asked._replace(answer=self._core.ask(variant, self._left(asked)))
            except (TokenRevoked, ServiceError, ConfigError) as error:
                raise self._failed(facts, asked, error, age_s) from None
        finally:
            place.release()
        return self._answered(facts, asked, max_staleness, age_s)

    async def ask_async(self, facts: Facts, max_staleness: float, age_s: float | None) -> Vouched:
        """As `ask`, without blocking the event loop."""
        known = self._recall(facts, max_staleness)
        if known is not None:
            return known
        place = self._free.take(age_s)
        try:
            asked = self._begin()
            try:
                for variant in _variants(facts):
                    asked = asked._replace(answer=await self._core.ask_async(variant, self._left(asked)))
            except (TokenRevoked, ServiceError, ConfigError) as error:
                raise self._failed(facts, asked, error, age_s) from None
        finally:
            place.release()
        return self._answered(facts, asked, max_staleness, age_s)

    def _begin(self) -> _Asked:
        return _Asked(self._clock.mono(), self._clock.wall(), self._core.following.epoch)

    def _left(self, asked: _Asked) -> float:
        """What is left of the time, which all names of a key share."""
        return max(0.0, asked.mono + CHECK_TIMEOUT_S - self._clock.mono())

    def _failed(
        self, facts: Facts, asked: _Asked, error: TokenRevoked | ServiceError | ConfigError, age_s: float | None
    ) -> Exception:
        if isinstance(error, TokenRevoked):
            self._known.put(facts, asked._replace(revoked=(error.target, error.since)))
            return error
        # A ConfigError here is a credential that cannot be read, perhaps only while it is being replaced.
        return StatusUnknown("the view is stale, and the service gave no answer", age_s=age_s, reason=error.reason)

    def _answered(self, facts: Facts, asked: _Asked, max_staleness: float, age_s: float | None) -> Vouched:
        self._known.put(facts, asked)
        known = self._recall(facts, max_staleness)
        if known is None:  # stopped, suspended or invalidated while it was under way
            raise StatusUnknown("the service's answer came too late", age_s=age_s)
        return known

    def _recall(self, facts: Facts, max_staleness: float) -> Vouched | None:
        asked = self._known.get(facts)
        if asked is None:
            return None
        if asked.revoked is not None:  # a revocation does not grow old: `exp` is judged before
            target, since = asked.revoked
            raise TokenRevoked(target=target, since=since)
        mono = self._clock.mono()
        age = max(mono - asked.mono, self._clock.wall() - asked.wall)
        if asked.answer is None or asked.epoch is not self._core.following.epoch:
            return None
        if age > max_staleness or not self._clock.mono_counts_suspend:
            return None
        return Vouched(Freshness(True, age, asked.answer.position), asked.answer.store_time_at_most(mono))


class _Places:
    """So many at once. Whoever finds none free is refused rather than made to wait."""

    def __init__(self) -> None:
        self._semaphore = threading.BoundedSemaphore(AT_ONCE)
        self._pid = os.getpid()  # last: in a child, another thread must not take the parent's for the child's

    def take(self, age_s: float | None) -> threading.BoundedSemaphore:
        """A place; whoever took it releases it, there and nowhere else: meanwhile, another thread may begin anew."""
        if self._pid != os.getpid():  # a child: those who would give back are not here
            self.__init__()  # type: ignore[misc]
        semaphore = self._semaphore
        if not semaphore.acquire(blocking=False):
            text = "the view is stale, and too many checks are under way"
            raise StatusUnknown(text, age_s=age_s, reason="overloaded")
        return semaphore


def _variants(facts: Facts) -> list[Facts]:
    """One question for each name of the signing key, of which the contract takes one."""
    return [facts._replace(kid=kid, more_kids=()) for kid in (facts.kid, *facts.more_kids)]
