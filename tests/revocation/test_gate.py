"""Steps of sessions: what is told to the caller when one was taken in a history that has ended."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from revocation.errors import OutcomeUnknown, Overloaded, ServiceError, Unavailable
from revocation.replication.replica import Fenced
from revocation.session.gate import Call, SessionGate, Turnstile, in_doubt, until
from revocation.store import Closed, Durability, Standing
from revocation.store.sessions import Count, Step, Stepped, Turned

STEP = Step("default", 0, b"", "record", b"", Count(), b"", ())
DONE = Stepped(0, 1)


class World:
    """A store with answers prepared, and a replica that is fenced after every step."""

    index, state = 0, "usable"
    clock = SimpleNamespace(wall_ms=lambda: 0)

    def __init__(self, *answers: Stepped | Closed, line_is_full_then: bool = False) -> None:
        self.answers = list(answers)
        self.line_is_full_then = line_is_full_then
        auditor = SimpleNamespace(note=lambda *_: None)
        levels = Durability(), Durability()
        self.gate = SessionGate(cast(Any, self), cast(Any, self), Turnstile(), *levels, cast(Any, auditor))

    def standing(self) -> Standing:
        return Standing("aa", "me", 1)

    def doubt(self) -> None: ...

    async def usable(self, timeout_s: float) -> None: ...

    async def applied(self, log_id: str, seq: int) -> None:
        raise Fenced

    async def step_session(self, *_: Any) -> Stepped | Closed:
        if self.line_is_full_then:
            self.gate._turnstile = Turnstile(most_waiting=0)
        return self.answers.pop(0)

    async def outcome(self) -> ServiceError:
        """How the call ends."""
        with pytest.raises(ServiceError) as ended:
            await self._again_and_again()
        return ended.value

    async def _again_and_again(self) -> None:
        call = Call()
        async with until(asyncio.get_running_loop().time() + 60, call):
            while await self.gate.step(call, "aa", STEP) is Turned.CHANGED:
                pass


@pytest.mark.parametrize("closed", [Closed.FULL, Closed.MEMORY])
async def test_what_a_step_before_may_have_done_is_not_told_to_be_undone_for_want_of_room(closed: Closed) -> None:
    assert isinstance(await World(DONE, closed).outcome(), OutcomeUnknown)
    assert isinstance(await World(closed).outcome(), Overloaded)


async def test_nor_because_the_line_was_full_at_the_next_try() -> None:
    assert isinstance(await World(DONE, line_is_full_then=True).outcome(), OutcomeUnknown)


@pytest.mark.parametrize("error", [Unavailable("not now"), Overloaded("full", retry_after_ms=1, limit="log")])
def test_that_nothing_was_done_is_said_only_if_no_attempt_may_have_done_it(error: ServiceError) -> None:
    with pytest.raises(type(error)), in_doubt(Call()):
        raise error
    with pytest.raises(OutcomeUnknown), in_doubt(Call(tried=True)):
        raise error


@pytest.mark.parametrize("told", [{"reason": "SESSION_LIMIT"}, {"limit": "clients"}])
def test_an_answer_that_is_definite_stays_one(told: dict[str, Any]) -> None:
    with pytest.raises(Overloaded), in_doubt(Call(tried=True)):
        raise Overloaded("as many as there may be", retry_after_ms=0, **told)
