"""The clocks of a service process. They come in by constructors, so that a simulation can hand in its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

# Counts suspend, where the platform has it: a service that slept must not think that no time has passed.
_MONO = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


@dataclass(frozen=True, slots=True)
class Clock:
    """What a process tells the time by."""

    wall_ms: Callable[[], int]
    """Milliseconds since 1970, as this process believes."""
    mono: Callable[[], float]
    """Seconds since some point, never going back, suspend included."""


def system_clock() -> Clock:
    """The clocks of this machine."""
    return Clock(lambda: time.time_ns() // 1_000_000, lambda: time.clock_gettime(_MONO))
