"""Whether Redis or Valkey may drop revocations when its memory is full: refused at the start, told in operation."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import structlog
from redis.asyncio import Redis

from revocation.store import StoreRefused, StoreUnavailable
from revocation.store.hints import HINTS

log = structlog.get_logger("revocation.store")

LOOK_S = 60.0
_SAFE_POLICIES = ("noeviction",)


class RedisEviction(ABC):
    """The part of RedisStore that is about the policy of its servers."""

    _allow_eviction: bool

    @abstractmethod
    async def _everyone(self) -> Sequence[Redis]: ...

    @abstractmethod
    async def _call(self, awaitable: Any) -> Any: ...

    @abstractmethod
    def _count(self, kind: str) -> None: ...

    async def watch_eviction(self) -> None:
        """Looks now and then whether a server may drop revocations by now: somebody has set it so, or it took over."""
        while True:
            await asyncio.sleep(LOOK_S)
            with contextlib.suppress(StoreUnavailable):
                for client in await self._everyone():
                    await self._tell_eviction(client)

    async def _refuse_eviction(self, client: Redis) -> None:
        if policy := await self._evicting(client):
            raise StoreRefused(
                f"the store's maxmemory-policy is {policy}: under memory pressure it would drop revocations, and "
                "revoked tokens would pass again. Set `maxmemory-policy noeviction`, or start with --allow-eviction "
                "if you accept that"
            )

    async def _tell_eviction(self, client: Redis) -> None:
        """It goes on: what memory holds is what can be put back, and to stop would forget that, too."""
        if policy := await self._evicting(client):
            self._count("eviction")
            log.error("store_may_evict", kind="eviction", policy=policy, hint=HINTS["eviction"])

    async def _evicting(self, client: Redis) -> str:
        """The policy by which this server may drop revocations; "" if it may not, or if that was accepted."""
        if self._allow_eviction:
            return ""
        policy: str = (await self._call(client.info("memory"))).get("maxmemory_policy", "noeviction")
        return "" if policy in _SAFE_POLICIES else policy
