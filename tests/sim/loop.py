"""An event loop whose time is virtual, and processes in it that can be paused and killed.

Nothing ever waits: when nobody is ready, time jumps to the next timer. A task belongs to the process in whose context
it was made. A paused process gets no turn (SIGSTOP); a killed one never again, whatever its tasks were waiting for.

It is a loop of asyncio in what the product uses of one, and lean in the rest, since a schedule is a thousand turns.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from heapq import heappop, heappush
from typing import Any, cast

_STUCK = 50_000
"""Turns at one instant after which something runs in circles."""

_current: ContextVar[Process | None] = ContextVar("process", default=None)


class Livelock(Exception):
    """Something runs in circles without letting time pass."""


class Turn:
    """A call that is due: what asyncio knows as a Handle and a TimerHandle."""

    __slots__ = ("arguments", "call", "context", "due")

    def __init__(self, due: float, call: Callable[..., object], arguments: tuple[Any, ...], context: Context) -> None:
        self.due = due
        self.call: Callable[..., object] | None = call
        self.arguments = arguments
        self.context = context

    def cancel(self) -> None:
        """Takes it back."""
        self.call, self.arguments = None, ()

    def cancelled(self) -> bool:
        """Whether it was taken back."""
        return self.call is None

    def when(self) -> float:
        """The time for which it was meant."""
        return self.due


class Process:
    """One process of the simulated world."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.paused = False
        self.alive = True
        self._backlog: list[Turn] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self.context: Context = copy_context()
        self.context.run(_current.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `work` in this process."""
        task = self.loop.create_task(work, context=self.context)
        return task

    def soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Calls in this process, when it next has a turn."""
        self.loop.call_soon(call, *arguments, context=self.context)

    def at(self, when: float, call: Callable[..., object], *arguments: Any) -> Turn:
        """Calls in this process at a time."""
        return self.loop.call_at(when, call, *arguments, context=self.context)

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True
        self.loop.some_paused = True

    def resume(self) -> None:
        """SIGCONT: what should have happened meanwhile happens now."""
        self.paused = False
        backlog, self._backlog = self._backlog, []
        self.loop.take(backlog)

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = False
        self.resume()
        for task in self._tasks:
            task.cancel()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Counts a task among those that die with the process."""
        self._tasks.append(task)
        if len(self._tasks) > 50:
            self._tasks = [task for task in self._tasks if not task.done()]

    def keep(self, turn: Turn) -> None:
        """A turn for later."""
        self._backlog.append(turn)


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._turns = 0
        self._count = 0
        self._ready: deque[Turn] = deque()
        self._timers: list[tuple[float, int, Turn]] = []
        self.some_paused = False
        """Whether a process may be paused: else nobody looks."""
        self.set_task_factory(cast(Any, _own))
        self.errors: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Virtual seconds since the beginning of the world."""
        return self._now

    def take(self, turns: list[Turn]) -> None:
        """Puts turns back into the queue."""
        self._ready.extend(turns)

    # -- what asyncio asks of a loop ----------------------------------------------------------------------------

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Turn:
        turn = Turn(self._now, callback, args, copy_context() if context is None else context)
        self._ready.append(turn)
        return turn

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Turn:
        turn = Turn(when, callback, args, copy_context() if context is None else context)
        self._count += 1
        heappush(self._timers, (when, self._count, turn))
        return turn

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Turn:
        return self.call_at(self._now + delay, callback, *args, context=context)

    get_debug = bool
    """False: the cheapest callable that says so, and each new future and task asks."""

    def sleep(self, delay: float) -> Awaitable[None]:
        """What asyncio.sleep does, without its ceremony."""
        future: asyncio.Future[None] = asyncio.Future(loop=self)
        self.call_at(self._now + delay, _wake, future)
        return future

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody is to be woken."""

    # -- turns --------------------------------------------------------------------------------------------------

    def _run_once(self) -> None:
        """Rounds, until the loop is to stop: whoever is ready has its turn, and if nobody is, time jumps."""
        while True:
            self._collect_due()
            self._round()
            if self._stopping:  # type: ignore[attr-defined]
                return

    def _round(self) -> None:
        ready = self._ready
        self._turns += len(ready)
        if self._turns > _STUCK:
            raise Livelock(f"circles at {self._now:.3f}: {ready[0].call!r}")
        for _ in range(len(ready)):
            turn = ready.popleft()
            call = turn.call
            if call is None or (self.some_paused and self._put_off(turn)):
                continue
            try:
                turn.context.run(call, *turn.arguments)
            except Exception as error:
                self.errors.append(f"{call!r}: {error!r}")

    def _collect_due(self) -> None:
        timers, ready = self._timers, self._ready
        while timers and timers[0][2].call is None:
            heappop(timers)
        if not ready:
            if not timers:
                raise Livelock("nothing is left to happen")
            self._now, self._turns = max(self._now, timers[0][0]), 0
        while timers and timers[0][0] <= self._now:
            ready.append(heappop(timers)[2])

    def _put_off(self, turn: Turn) -> bool:
        process = turn.context.get(_current)
        if process is None or not process.paused:
            return False
        process.keep(turn)
        return True

    def end(self) -> None:
        """Cancels what is left and closes."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self._turns = 0
        asyncio._set_running_loop(self)
        try:
            for _ in range(50):
                self._round()
        finally:
            asyncio._set_running_loop(None)
        self._ready.clear()
        self._timers.clear()
        self.close()


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _own(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None, **more: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **more)
    process = cast("Process | None", _current.get() if context is None else context.get(_current))
    if process is not None:
        process.adopt(task)
        if not process.alive:
            task.cancel()
    return task
