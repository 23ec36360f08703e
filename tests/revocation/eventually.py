"""Waiting for another process: polls with a deadline, so that a slow machine makes a test slow and not red."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 60.0


def eventually(holds: Callable[[], object], what: str) -> None:
    """Returns as soon as `holds()` is true; fails with `what` after LIMIT_S."""
    deadline = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < deadline, f"not within {LIMIT_S} s: {what}"
        time.sleep(0.01)
