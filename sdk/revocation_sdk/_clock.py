"""Two clocks: a monotonic one that counts suspend, which freshness hangs on, and the time of day.

`time.monotonic()` stands still on Linux while the machine sleeps, so a view would wake up believing itself fresh.
Where no clock that counts suspend is known, `mono_counts_suspend` is false and a client never calls itself fresh.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial


@dataclass(frozen=True, slots=True)
class Clock:
    """What a client tells the time by; tests make their own."""

    mono: Callable[[], float]
    """Seconds since some point, never going back."""
    wall: Callable[[], float]
    """Seconds since 1970, as this process believes."""
    mono_counts_suspend: bool = True


def system_clock() -> Clock:
    """The clocks of this machine."""
    mono = suspend_aware(sys.platform)
    return Clock(mono or time.monotonic, time.time, mono is not None)


def suspend_aware(platform: str) -> Callable[[], float] | None:
    """A monotonic clock that counts suspend; None where none is known."""
    if platform.startswith(("linux", "android")):
        return _usable("CLOCK_BOOTTIME")
    if platform == "darwin":  # there CLOCK_MONOTONIC counts sleep, and CLOCK_UPTIME_RAW does not
        return _usable("CLOCK_MONOTONIC")
    if platform == "win32":
        return _interrupt_time()
    return None


def _usable(name: str) -> Callable[[], float] | None:
    number = getattr(time, name, None)
    if number is None:
        return None
    try:
        time.clock_gettime(number)
    except OSError:
        return None
    return partial(time.clock_gettime, number)


def _interrupt_time() -> Callable[[], float] | None:
    """Windows: the interrupt time, biased, that is with the time spent asleep; in units of 100 ns."""
    import ctypes

    try:
        query = ctypes.WinDLL("api-ms-win-core-realtime-l1-1-1").QueryInterruptTime  # type: ignore[attr-defined,unused-ignore]
    except (AttributeError, OSError):
        return None

    def read() -> float:
        ticks = ctypes.c_ulonglong()
        query(ctypes.byref(ticks))
        return ticks.value / 10_000_000

    return read
