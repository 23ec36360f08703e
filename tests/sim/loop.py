"""An event loop whose time is virtual, and processes in it that can be paused and killed.

Nothing ever waits: when nobody is ready, time jumps to the next timer. A task belongs to the process in whose context
it was made. A paused process gets no turn (SIGSTOP); a killed one never again, whatever its tasks were waiting for.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import Handle
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, cast

_STUCK = 50_000
"""Turns at one instant after which something runs in circles."""

_current: ContextVar[Process | None] = ContextVar("process", default=None)


class Livelock(Exception):
    """Something runs in circles without letting time pass."""


class Process:
    """One process of the simulated world."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.paused = False
        self.alive = True
        self._backlog: list[Handle] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self.context: Context = copy_context()
        self.context.run(_current.set, self)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `work` in this process."""
        task = self.loop.create_task(work, context=self.context)
        return task

    def soon(self, call: Callable[..., object], *arguments: Any) -> None:
        """Calls in this process, when it next has a turn."""
        self.loop.call_soon(call, *arguments, context=self.context)

    def at(self, when: float, call: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        """Calls in this process at a time."""
        return self.loop.call_at(when, call, *arguments, context=self.context)

    def pause(self) -> None:
        """SIGSTOP."""
        self.paused = True

    def resume(self) -> None:
        """SIGCONT: what should have happened meanwhile happens now."""
        self.paused = False
        backlog, self._backlog = self._backlog, []
        self.loop.take(backlog)

    def kill(self) -> None:
        """SIGKILL."""
        self.alive = False
        self.resume()
        for task in list(self._tasks):
            task.cancel()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Counts a task among those that die with the process."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard, context=self.context)

    def keep(self, handle: Handle) -> None:
        """A turn for later."""
        self._backlog.append(handle)


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._turns = 0
        self._ready: deque[Handle] = deque()
        self._scheduled: list[asyncio.TimerHandle] = []
        self.set_task_factory(cast(Any, _own))
        self.errors: list[str] = []
        self.set_exception_handler(self._note)

    def time(self) -> float:
        """Virtual seconds since the beginning of the world."""
        return self._now

    def take(self, handles: list[Handle]) -> None:
        """Puts turns back into the queue."""
        self._ready.extend(handles)

    def _note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.errors.append(f"{context.get('message')}: {error!r}")

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)
        if not ready:
            if not scheduled:
                raise Livelock("nothing is left to happen")
            self._now, self._turns = scheduled[0].when(), 0
        while scheduled and scheduled[0].when() <= self._now:
            ready.append(heapq.heappop(scheduled))
        self._turns += len(ready)
        if self._turns > _STUCK:
            raise Livelock(f"circles at {self._now:.3f}: {ready[0]!r}")
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(_current)  # type: ignore[attr-defined]
            if process is not None and process.paused:
                process.keep(handle)
            else:
                handle._run()

    def _write_to_self(self) -> None:
        """Nobody sleeps, so nobody is to be woken."""

    def end(self) -> None:
        """Cancels what is left and closes."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        self._turns = 0
        for _ in range(50):
            if not self._ready:
                break
            self._run_once_more()
        self._ready.clear()
        self._scheduled.clear()
        self.close()

    def _run_once_more(self) -> None:
        asyncio._set_running_loop(self)
        try:
            self._run_once()
        finally:
            asyncio._set_running_loop(None)


def _own(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None, **more: Any
) -> asyncio.Task[Any]:
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context, **more)
    process = cast("Process | None", (context or copy_context()).get(_current))
    if process is not None:
        process.adopt(task)
        if not process.alive:
            task.cancel()
    return task
