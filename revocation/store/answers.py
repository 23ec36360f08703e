"""What one server answers: in time, and what follows if it does not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as NoAnswer

from revocation.store.trouble import kind_of

T = TypeVar("T")

PROMPT_S = 1.5
"""How long a heartbeat or a barrier may take, without waiting for copies: half the silence after which a member is
suspected by default, so that a member that lost one connection beats by another one before it is struck off."""

SILENT = frozenset({"unreachable", "timeout"})
"""Kinds of trouble in which nobody has answered."""


async def answer(client: Redis, ask: Callable[[], Awaitable[T]], within_s: float | None) -> T:
    """What a server answers. Raises redis-py's TimeoutError after `within_s`, in which connecting does not count.

    If nothing came back, the connections that wait in the pool are closed, too. A firewall that forgot the one has
    forgotten the others; and the pool gives out what was given back last without noticing, so that call after call
    would wait in vain for as long as there are such.
    """
    try:
        if within_s is not None:
            await _connect(client.connection_pool)
        try:
            async with asyncio.timeout(within_s):
                return await ask()
        except TimeoutError:
            raise NoAnswer("no answer in time") from None
    except Exception as error:
        if kind_of(error) in SILENT:
            await _close_idle(client)
        raise


async def _connect(pool: Any) -> None:
    """Sees that the pool has a connection to give: to make one has time-outs of its own, Sentinels and TLS too."""
    await pool.release(await pool.get_connection())


async def _close_idle(client: Redis) -> None:
    pool = client.connection_pool
    # Out of the pool first: one that is being closed must not be given out.
    idle, pool._available_connections = pool._available_connections, []
    await asyncio.gather(*(connection.disconnect(nowait=True) for connection in idle), return_exceptions=True)


async def one(client: Any, call: tuple[Any, ...]) -> list[Any]:
    """One command, without the cost of a pipeline; a server's refusal is a value, as in a pipeline."""
    try:
        return [await client.execute_command(*call)]
    except ResponseError as error:
        return [error]


async def both(client: Redis, call: tuple[Any, ...], wait: tuple[Any, ...]) -> list[Any]:
    """Two commands, one after the other on one connection."""
    pipeline = client.pipeline(transaction=False)
    pipeline.execute_command(*call)
    pipeline.execute_command(*wait)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies
