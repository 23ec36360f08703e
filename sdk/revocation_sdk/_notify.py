"""Tells callbacks about a client's state, on a thread of their own: a slow or broken one harms nobody else.

What happened in between is left out: a callback hears of the state that there is when its turn comes.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from revocation_sdk.types import State

log = logging.getLogger("revocation_sdk")

_LOOK_EVERY_S = 0.5
"""No event says that a view has become too old; somebody has to look."""


class Notifier:
    """Calls back when the state is another one."""

    def __init__(self, state: Callable[[], State]) -> None:
        self._wake = threading.Event()
        self._state = state
        self._callbacks: tuple[Callable[[State], object], ...] = ()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._told = state()

    def add(self, callback: Callable[[State], object]) -> None:
        """Calls `callback` at every change from now on."""
        if not self._callbacks:
            self._told = self._state()
        self._callbacks += (callback,)
        self._start()

    def stir(self) -> None:
        """The state may be another one: looks at once, on the thread, and gets one if there was none to be had."""
        self._start()
        self._wake.set()

    def after_fork(self) -> None:
        """In a child: the callbacks stay, the thread is gone."""
        self._wake, self._starting = threading.Event(), threading.Lock()
        self._thread = None
        self._told = self._state()
        self._start()

    def _start(self) -> None:
        if self._thread is not None or not self._callbacks:
            return
        with self._starting:
            if self._thread is not None or self._state() is State.CLOSED:
                return
            thread = threading.Thread(target=self._run, name="revocation-notifier", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads for now, or the interpreter is going down
                log.warning("callbacks of on_state_change have to wait: %s", error)
                return
            self._thread = thread

    def _run(self) -> None:
        while self._told is not State.CLOSED:
            self._wake.wait(_LOOK_EVERY_S)
            self._wake.clear()
            state = self._state()
            if state is not self._told:
                self._told = state
                self._tell(state)

    def _tell(self, state: State) -> None:
        for callback in self._callbacks:
            try:
                callback(state)
            except Exception:
                log.exception("a callback of on_state_change failed")
