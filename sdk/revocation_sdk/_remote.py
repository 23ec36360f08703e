"""`on_stale="check"`: the service is asked about a token while the view is stale.

Bounded (I8): so many questions at once and no more, each with a deadline. An answer is a lease on this one token,
counted from the moment the question was sent, and is remembered for as long as it is worth something.
"""

from __future__ import annotations

import os
import threading
from typing import NamedTuple

from revocation_sdk._core import CHECK_TIMEOUT_S, Core
from revocation_sdk._judge import Facts
from revocation_sdk._recent import Recent
from revocation_sdk.errors import ServiceError, StatusUnknown, TokenRevoked
from revocation_sdk.types import Freshness

AT_ONCE = 32
_REMEMBERED = 10_000


class _Answer(NamedTuple):
    """What the service said, and when it was asked, by both clocks."""

    mono: float
    wall: float
    position: str
    target: str | None = None
    since: float | None = None


class RemoteChecks:
    """The questions of one verifier."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._clock = core.clock
        self._free = _Places()
        self._answers: Recent[Facts, _Answer] = Recent(_REMEMBERED)

    def ask(self, facts: Facts, max_staleness: float) -> Freshness:
        """Not revoked, by an answer at most so old. Raises TokenRevoked, or StatusUnknown if there is none."""
        known = self._recall(facts, max_staleness)
        if known is not None:
            return known
        self._free.take()
        try:
            begun = self._begin()
            try:
                for variant in _variants(facts):
                    begun = begun._replace(position=self._core.ask(variant, CHECK_TIMEOUT_S).position)
            except (TokenRevoked, ServiceError) as error:
                raise self._failed(facts, begun, error) from None
        finally:
            self._free.give()
        return self._answered(facts, begun, max_staleness)

    async def ask_async(self, facts: Facts, max_staleness: float) -> Freshness:
        """As `ask`, without blocking the event loop."""
        known = self._recall(facts, max_staleness)
        if known is not None:
            return known
        self._free.take()
        try:
            begun = self._begin()
            try:
                for variant in _variants(facts):
                    answer = await self._core.ask_async(variant, CHECK_TIMEOUT_S)
                    begun = begun._replace(position=answer.position)
            except (TokenRevoked, ServiceError) as error:
                raise self._failed(facts, begun, error) from None
        finally:
            self._free.give()
        return self._answered(facts, begun, max_staleness)

    def _begin(self) -> _Answer:
        return _Answer(self._clock.mono(), self._clock.wall(), "")

    def _failed(self, facts: Facts, begun: _Answer, error: TokenRevoked | ServiceError) -> Exception:
        if isinstance(error, TokenRevoked):
            self._answers.put(facts, begun._replace(target=error.target, since=error.since))
            return error
        return StatusUnknown("the view is stale, and the service gave no answer", reason=error.reason)

    def _answered(self, facts: Facts, answer: _Answer, max_staleness: float) -> Freshness:
        self._answers.put(facts, answer)
        known = self._recall(facts, max_staleness)
        if known is None:  # stopped or suspended while it was under way
            raise StatusUnknown("the service's answer came too late")
        return known

    def _recall(self, facts: Facts, max_staleness: float) -> Freshness | None:
        answer = self._answers.get(facts)
        if answer is None:
            return None
        if answer.target is not None:  # a revocation does not grow old: `exp` is judged before
            raise TokenRevoked(target=answer.target, since=answer.since)
        age = max(self._clock.mono() - answer.mono, self._clock.wall() - answer.wall)
        if age > max_staleness or not self._clock.mono_counts_suspend:
            return None
        return Freshness(True, age, answer.position)


class _Places:
    """So many at once. Whoever finds none free is refused rather than made to wait."""

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._semaphore = threading.BoundedSemaphore(AT_ONCE)

    def take(self) -> None:
        if self._pid != os.getpid():  # a child: those who would give back are not here
            self.__init__()  # type: ignore[misc]
        if not self._semaphore.acquire(blocking=False):
            raise StatusUnknown("the view is stale, and too many checks are under way", reason="overloaded")

    def give(self) -> None:
        self._semaphore.release()


def _variants(facts: Facts) -> list[Facts]:
    """One question for each name of the signing key, of which the contract takes one."""
    return [facts._replace(kid=kid, more_kids=()) for kid in (facts.kid, *facts.more_kids)]
