"""Group commit: what is told to the caller when the history changes under an operation."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from revocation.commit import Committer
from revocation.errors import OutcomeUnknown, Unavailable
from revocation.replica import Fenced, NotReady
from revocation.store import Closed, Committed, Denials, Durability, Op, OpResult, OpState, Standing

OP = Op("default", "0" * 32, "0" * 32, (Denials(1, 1, bytes(12)),))


class World:
    """A store with answers prepared, and a replica that is fenced once."""

    def __init__(self, *answers: Committed | Closed, state: str = "healing") -> None:
        self.answers = list(answers)
        self.state = state
        self.clock = SimpleNamespace(wall_ms=lambda: 0)
        self.index = 0
        self.committer = Committer(cast(Any, self), cast(Any, self), Durability())

    def standing(self) -> Standing:
        return Standing("aa", "me", 1)

    def doubt(self) -> None: ...

    async def commit(self, *_: Any) -> Committed | Closed:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def applied(self, log_id: str, seq: int) -> None:
        raise Fenced

    async def usable(self, timeout_s: float) -> None:
        await asyncio.sleep(0.01)
        raise NotReady(self.state)

    async def outcome(self) -> BaseException:
        with pytest.raises((OutcomeUnknown, Unavailable)) as ended:
            await self.committer.commit(OP, asyncio.get_running_loop().time() + 0.2)
        return ended.value


async def test_a_commit_of_a_history_that_ended_stays_in_doubt_whatever_the_next_try_says() -> None:
    """The script of the first try did it; that the second one did nothing does not undo that."""
    done = Committed(0, 1, (OpResult(OpState.DONE),), 0)
    assert isinstance(await World(done, Closed.WAIT).outcome(), OutcomeUnknown)


async def test_a_commit_that_no_script_did_is_certain_not_to_have_happened() -> None:
    error = await World(Closed.WAIT).outcome()
    assert isinstance(error, Unavailable)
    assert error.reason == "NOT_READY"


async def test_without_a_store_it_says_so() -> None:
    error = await World(Closed.WAIT, state="unreachable").outcome()
    assert isinstance(error, Unavailable)
    assert error.reason == "STORE_UNAVAILABLE"
