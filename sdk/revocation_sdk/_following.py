"""One follower as clients and verifiers see it: is it fresh, since when, why not, and wait until it is.

Verifiers read `follower` and `clock` directly (`_sight.py`); everything else of the machinery stays in `_worker.py`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress

from revocation_sdk._channel import Endpoints, Security
from revocation_sdk._clock import Clock
from revocation_sdk._counts import Counts
from revocation_sdk._follower import Follower, Lease
from revocation_sdk._lattice import MalformedRows
from revocation_sdk._position import encode_positions
from revocation_sdk._signed import SigningKeys
from revocation_sdk._worker import Worker
from revocation_sdk.errors import NotFresh
from revocation_sdk.types import State

log = logging.getLogger("revocation_sdk")

_LOOK_EVERY_S = 1.0
_HOPELESS = frozenset(("closed", "no_clock", "no_thread", "forked_twice"))


class Following:
    """Keeps one follower going, across forks."""

    def __init__(
        self,
        follower: Follower,
        endpoints: Endpoints,
        how: Security,
        clock: Clock,
        ping_interval: float,
        *,
        signing: SigningKeys | None = None,
    ) -> None:
        self.follower = follower
        self.signing = signing
        self.clock = clock
        self.ping_interval = ping_interval
        self.name = ""
        self.staleness_s = 0.0
        """The largest max_staleness by which anybody here judges."""
        self.counts = Counts()
        self.epoch = object()
        """Another one after each `invalidate` and in each child: what was answered before vouches for nothing."""
        self._endpoints = endpoints
        self._how = how
        self._worker = self._new_worker()
        self._listeners: dict[Callable[[], None], None] = {}
        self._closed = False
        self._text: tuple[Lease | None, str] = (None, "")

    def start(self) -> None:
        """Begins to follow, once; waits for nothing. Cheap when begun: verdicts call it each time."""
        if self._worker.started_at is None and not self._closed:
            if self._worker.pid != os.getpid():  # forked in C, which runs no handlers: uWSGI
                self.after_fork()
            _warn_about_environment()
            self._worker.start(self.name)

    def revive(self) -> None:
        """As `start`, and also after a fork that ran no handlers, which C code can do."""
        if self._worker.pid != os.getpid():
            self.after_fork()
        self.start()

    def judged_by(self, max_staleness: float) -> None:
        """Somebody judges by this max_staleness from now on; the service is told the largest."""
        if max_staleness > self.staleness_s:
            self.staleness_s = self._worker.staleness_s = max_staleness

    def close(self, wait: float = 2.0) -> None:
        """Ends following, for good."""
        self._closed = True
        self.follower.lease = None
        if self._worker.pid == os.getpid():
            self._worker.stop(wait)
        self.follower.lease = None
        self._changed()

    def after_fork(self) -> None:
        """In a child: not fresh, nothing running, and nothing of the parent's touched, not even by its collection."""
        _parents.append(self._worker)
        self._worker = self._new_worker()
        self._listeners = {}
        self.epoch = object()
        self.follower.disconnected()  # the parent's stream is not ours: whoever only revokes drops what expired (I8)
        self.follower.invalidate()

    def age(self) -> float | None:
        """Seconds since the view was known to be complete; None: not known."""
        lease = self.follower.lease
        if lease is None or not self.clock.mono_counts_suspend:
            return None
        return lease.age(self.clock.mono(), self.clock.wall())

    def fresh(self, max_staleness: float) -> bool:
        """Whether the view is known to have been complete at most so long ago."""
        age = self.age()
        return age is not None and age <= max_staleness

    def state(self, max_staleness: float) -> State:
        """What is going on right now."""
        if self._closed:
            return State.CLOSED
        if self._worker.started_at is None:
            return State.IDLE
        if self.fresh(max_staleness):
            return State.FRESH
        return State.CONNECTING if self.follower.lease is None else State.STALE

    def why_stale(self) -> tuple[str, str]:
        """Why the view is not fresh: a stable word, and a sentence for people."""
        if self._closed:
            return "closed", "the client is closed"
        if not self.clock.mono_counts_suspend:
            return "no_clock", "this platform has no clock that is known to count suspend"
        if self._worker.starved():
            return "no_thread", (
                "the follower's thread does not run: uWSGI needs --enable-threads, "
                "gevent needs grpc.experimental.gevent.init_gevent() at the start"
            )
        trouble = self._worker.trouble or "stale"
        return trouble, f"the view is not fresh: {trouble.replace('_', ' ')}"

    def position_text(self, lease: Lease | None) -> str:
        """How far the view had come, as opaque text; worked out once for each lease."""
        if lease is None:
            return ""
        known, text = self._text
        if known is not lease:
            text = encode_positions(lease.positions)
            self._text = (lease, text)
        return text

    def wait_until_fresh(self, timeout: float, max_staleness: float) -> None:
        """Returns once the view is fresh. Raises NotFresh if it is not in time."""
        changed = threading.Event()
        self.listen(changed.set)
        end = self.clock.mono() + timeout
        try:
            self.revive()
            while not self.fresh(max_staleness):
                changed.wait(min(self.left(end, timeout), _LOOK_EVERY_S))
                changed.clear()
        finally:
            self.unlisten(changed.set)

    async def wait_until_fresh_async(self, timeout: float, max_staleness: float) -> None:
        """As `wait_until_fresh`, without blocking the event loop."""
        changed = asyncio.Event()
        wake = loop_waker(changed)
        self.listen(wake)
        end = self.clock.mono() + timeout
        try:
            self.revive()
            while not self.fresh(max_staleness):
                left = self.left(end, timeout)
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), min(left, _LOOK_EVERY_S))
                changed.clear()
        finally:
            self.unlisten(wake)

    def left(self, end: float, timeout: float) -> float:
        """Seconds left to wait; raises NotFresh if there are none, or if waiting cannot help."""
        left = end - self.clock.mono()
        reason, message = self.why_stale()
        if left <= 0 or reason in _HOPELESS:
            raise NotFresh(f"{message} (waited up to {timeout:g} s)", age_s=self.age(), reason=reason)
        return left

    def listen(self, listener: Callable[[], None]) -> None:
        """Calls `listener`, on a thread of ours, whenever freshness may have changed. It must return at once."""
        self._listeners[listener] = None

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Ends `listen`."""
        self._listeners.pop(listener, None)

    def invalidate(self) -> None:
        """Not fresh from now on, until a ping sent from now on is answered."""
        self.epoch = object()
        self._worker.invalidate()
        self._changed()

    def merge(self, rows: bytes) -> None:
        """Takes in what a call of our own committed."""
        try:
            self._worker.merge(rows)
        except MalformedRows:
            log.warning("the rows of a receipt are malformed; the stream will bring them")

    async def merge_async(self, rows: bytes) -> None:
        """As `merge`, without blocking the event loop while a snapshot is taken in."""
        if self._worker.busy():
            await asyncio.to_thread(self.merge, rows)
        else:
            self.merge(rows)

    def _new_worker(self) -> Worker:
        worker = Worker(
            self.follower, self._endpoints, self._how, self.clock, self.ping_interval, self._changed,
            signing=self.signing,
        )  # fmt: skip
        worker.staleness_s, worker.counts = self.staleness_s, self.counts
        return worker

    def _changed(self) -> None:
        for listener in tuple(self._listeners):
            try:
                listener()
            except Exception:
                log.exception("a listener failed")


def loop_waker(event: asyncio.Event) -> Callable[[], None]:
    """Sets an event of the running loop, from any thread."""
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(event.set)

    return wake


_parents: list[Worker] = []
_warned: set[str] = set()


def _warn_about_environment() -> None:
    if os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in ("0", "false", "no"):
        _warn(
            "GRPC_ENABLE_FORK_SUPPORT is off: gRPC hangs in every child that this process forks. "
            "Unset it, or create the client in the child"
        )
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        _warn(
            "gevent has patched threading: call grpc.experimental.gevent.init_gevent() before anything uses "
            "gRPC, else the first stream blocks the whole process"
        )


def _warn(message: str) -> None:
    if message not in _warned:
        _warned.add(message)
        warnings.warn(message, RuntimeWarning, stacklevel=4)
