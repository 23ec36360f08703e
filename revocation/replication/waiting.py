"""Who waits until a replica's own view has come up to some record."""

from __future__ import annotations

import asyncio
from collections import deque


class Waiters:
    """Those who wait in one partition, each for the number of a record."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def wait(self, seq: int) -> None:
        """Until `reached` is told of `seq`. Raises what `fail` is given."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((seq, future))
        await future

    def reached(self, seq: int) -> None:
        """The view holds the log up to `seq`."""
        still = deque(waiter for waiter in self._waiting if waiter[0] > seq)
        for wanted, future in self._waiting:
            if wanted <= seq and not future.done():
                future.set_result(None)
        self._waiting = still

    def fail(self, error: Exception) -> None:
        """Nobody can wait any longer."""
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
