"""Waiting for another process: polls with a deadline, so that a slow machine makes a test slow and not red."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

LIMIT_S = 60.0


def eventually(holds: Callable[[], object], what: str) -> None:
    """Returns as soon as `holds()` is true; fails with `what` after LIMIT_S."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {LIMIT_S} s: {what}"
        time.sleep(0.01)


async def soon(holds: Callable[[], object]) -> None:
    """The same on an event loop, of what happens on it."""
    deadline = time.monotonic() + LIMIT_S
    for _ in iter(lambda: bool(holds()), True):
        assert time.monotonic() < deadline, f"not within {LIMIT_S} s"
        await asyncio.sleep(0.002)
