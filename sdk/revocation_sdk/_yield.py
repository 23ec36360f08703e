"""Long work in the background lets others have the interpreter's lock."""

from __future__ import annotations

import time

_PAUSE_S = 50e-6


def give_way() -> None:
    """For between two steps: who waits for the lock gets it now, and not only after a whole switch interval (5 ms).

    Long enough for a thread to wake up; with a duration of zero the lock is taken back before it has.
    """
    time.sleep(_PAUSE_S)
