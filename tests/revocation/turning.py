"""Waiting for a replica in the same event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

LIMIT_S = 60.0


async def eventually(holds: Callable[[], object], what: str) -> None:
    """Returns as soon as `holds()` is true; fails with `what` after LIMIT_S."""
    loop = asyncio.get_running_loop()
    end = loop.time() + LIMIT_S
    while loop.time() < end:
        if holds():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"not within {LIMIT_S:g} s: {what}")
