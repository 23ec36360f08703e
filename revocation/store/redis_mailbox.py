"""Boxes and notes in Redis and Valkey: streams and hashes of the first partition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis

from revocation.store.mailbox import BEGINNING, NOTES_KEPT_MS, Post

_LONGEST_BLOCK_MS = 1_500  # well below a socket's time-out


class RedisMailbox(ABC):
    """The part of RedisStore that is about boxes and notes."""

    @abstractmethod
    def _key(self, partition: int, name: str) -> str: ...

    @abstractmethod
    async def _serving(self, key: str) -> Redis: ...

    @abstractmethod
    async def _call(self, awaitable: Any) -> Any: ...

    async def post(self, box: str, content: bytes, most: int, keep_ms: int) -> None:
        key = self._box(box)
        pipeline = (await self._serving(key)).pipeline(transaction=False)
        pipeline.xadd(key, {"c": content}, maxlen=most, approximate=True)
        pipeline.pexpire(key, keep_ms)
        await self._call(pipeline.execute())

    async def last_places(self, boxes: Sequence[str]) -> dict[str, str]:
        places = {}
        for box in boxes:
            key = self._box(box)
            last = await self._call((await self._serving(key)).xrevrange(key, count=1))
            places[box] = last[0][0].decode() if last else BEGINNING
        return places

    async def read_boxes(self, after: Mapping[str, str], count: int, block_ms: int) -> list[Post]:
        names = {self._box(box): box for box in after}
        client = await self._serving(next(iter(names)))
        wanted: dict[Any, Any] = {key: after[box] for key, box in names.items()}
        reply = await self._call(client.xread(wanted, count, min(block_ms, _LONGEST_BLOCK_MS) or None))
        return [
            Post(names[key.decode()], place.decode(), fields.get(b"c", b""))
            for key, posts in reply or ()
            for place, fields in posts
        ]

    async def put_note(self, name: str, field: str, value: bytes | None) -> None:
        key = self._key(0, f"notes:{name}")
        pipeline = (await self._serving(key)).pipeline(transaction=False)
        if value is None:
            pipeline.hdel(key, field)
        else:
            pipeline.hset(key, field, value)
            pipeline.pexpire(key, NOTES_KEPT_MS)
        await self._call(pipeline.execute())

    async def notes(self, name: str) -> dict[str, bytes]:
        key = self._key(0, f"notes:{name}")
        found = await self._call((await self._serving(key)).hgetall(key))
        return {field.decode(): value for field, value in found.items()}

    def _box(self, box: str) -> str:
        return self._key(0, f"box:{box}")
