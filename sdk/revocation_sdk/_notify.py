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
        self.wake = threading.Event()
        self._state = state
        self._callbacks: tuple[Callable[[State], object], ...] = ()
        self._thread: threading.Thread | None = None
        self._told = state()

    def add(self, callback: Callable[[State], object]) -> None:
        """Calls `callback` at every change from now on."""
        self._callbacks += (callback,)
        self._start()

    def after_fork(self) -> None:
        """In a child: the callbacks stay, the thread is gone."""
        self.wake = threading.Event()
        self._thread = None
        if self._callbacks:
            self._start()

    def _start(self) -> None:
        if self._thread is None:
            self._told = self._state()
            self._thread = threading.Thread(target=self._run, name="revocation-notifier", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._told is not State.CLOSED:
            self.wake.wait(_LOOK_EVERY_S)
            self.wake.clear()
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
