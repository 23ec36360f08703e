"""Group commit: what is told to the caller when the history changes under an operation."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from revocation.commit import Committer
from revocation.errors import OutcomeUnknown, Overloaded, Unavailable
from revocation.replication.replica import Fenced, NotReady
from revocation.session.gate import Turnstile
from revocation.store import Closed, Committed, Denials, Durability, Op, OpResult, OpState, Standing
from tests.revocation.turning import eventually

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
            await self.committer.commit(OP, asyncio.get_running_loop().time() + 1.0)
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


async def test_a_full_queue_refuses_and_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits already is not pushed out."""
    monkeypatch.setattr("revocation.commit.MAX_WAITING", 3)
    world = World(Closed.WAIT)
    deadline = asyncio.get_running_loop().time() + 1.0
    waiting = [asyncio.create_task(world.committer.commit(OP, deadline)) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await world.committer.commit(OP, deadline)
    assert (refused.value.limit, refused.value.retry_after_ms > 0) == ("commit_queue", True)
    for task in waiting:
        with pytest.raises(Unavailable):
            await task


@pytest.mark.parametrize(("closed", "limit"), [(Closed.FULL, "log"), (Closed.MEMORY, "store_memory")])
async def test_a_store_without_room_is_a_limit_with_a_name(closed: Closed, limit: str) -> None:
    world = World(closed)
    with pytest.raises(Overloaded) as refused:
        await world.committer.commit(OP, asyncio.get_running_loop().time() + 1)
    assert refused.value.limit == limit


async def test_a_result_names_the_history_in_which_it_was_acknowledged() -> None:
    """Committed in one, and acknowledged by the retry that found it in the next."""
    histories = iter(("aa", "bb"))

    class Moving(World):
        def standing(self) -> Standing:
            return Standing(next(histories), "me", 1)

        async def applied(self, log_id: str, seq: int) -> None:
            if log_id == "aa":
                raise Fenced

    done = Committed(0, 1, (OpResult(OpState.DONE),), 0), Committed(0, 1, (OpResult(OpState.AGAIN),), 0)
    result = await Moving(*done).committer.commit(OP, asyncio.get_running_loop().time() + 60)
    assert (result.state, result.log_id) == (OpState.AGAIN, "bb")


@pytest.mark.parametrize("closed", [Closed.FULL, Closed.MEMORY])
async def test_what_a_script_before_may_have_done_is_not_told_to_be_undone_for_want_of_room(closed: Closed) -> None:
    """A caller takes "overloaded" for "nothing was done", and the revocation stands (committed, and then fenced)."""
    done = Committed(0, 1, (OpResult(OpState.DONE),), 0)
    world = World(done, closed)
    retried = asyncio.create_task(world.outcome())
    await eventually(lambda: len(world.answers) == 1, "the first script has run")
    with pytest.raises(Overloaded):  # of what comes now that is certain, whether or not it shares a script
        await world.committer.commit(replace(OP, key="1" * 32), asyncio.get_running_loop().time() + 1)
    assert isinstance(await retried, OutcomeUnknown)


async def test_a_full_line_for_sessions_refuses() -> None:
    turnstile = Turnstile(at_once=1, most_waiting=1)
    async with turnstile:
        waiting = asyncio.create_task(turnstile.__aenter__())
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await turnstile.__aenter__()
        assert refused.value.limit == "session_queue"
    await waiting
