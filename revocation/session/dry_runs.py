"""Whose dry run is counted next. One at a time goes through a whole store: it costs as much as all else together."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from revocation.errors import Overloaded
from revocation.limits import COUNT_S


class DryRuns:
    """One dry run at a time; of each realm one more may wait."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(1)
        self._waiting: set[str] = set()

    @contextlib.asynccontextmanager
    async def turn(self, realm: str) -> AsyncIterator[None]:
        """Waits for the others. Raises Overloaded if one of the realm waits already."""
        if realm in self._waiting:
            text = "a dry run of this realm is waiting already"
            raise Overloaded(text, retry_after_ms=int(COUNT_S * 1000), limit="dry_runs")
        self._waiting.add(realm)
        try:
            await self._free.acquire()
        finally:
            self._waiting.discard(realm)
        try:
            yield
        finally:
            self._free.release()
