"""Boxes and notes in memory."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from revocation.store.mailbox import BEGINNING, Post

if TYPE_CHECKING:
    from revocation.store.memory_data import Data


@dataclass(slots=True)
class _Box:
    posts: list[tuple[int, bytes]] = field(default_factory=list)
    until_ms: int = 0


@dataclass(slots=True)
class MailData:
    """What a server holds of boxes and notes."""

    boxes: dict[str, _Box] = field(default_factory=dict)
    notes: dict[str, dict[str, bytes]] = field(default_factory=dict)
    last: int = 0


class MemoryMailbox(ABC):
    """The part of MemoryStore that is about boxes and notes."""

    _posted: asyncio.Event

    @abstractmethod
    def _enter(self, partition: int) -> tuple[Data, int]: ...

    async def post(self, box: str, content: bytes, most: int, keep_ms: int) -> None:
        data, now = self._enter(0)
        mail = data.mail
        mail.last = max(mail.last + 1, now)
        kept = mail.boxes.setdefault(box, _Box())
        kept.posts = [*kept.posts, (mail.last, content)][-most:]
        kept.until_ms = now + keep_ms
        self._posted.set()
        self._posted = asyncio.Event()

    async def last_places(self, boxes: Sequence[str]) -> dict[str, str]:
        posts = {box: self._posts(box) for box in boxes}
        return {box: f"{posts[box][-1][0]}-0" if posts[box] else BEGINNING for box in boxes}

    async def read_boxes(self, after: Mapping[str, str], count: int, block_ms: int) -> list[Post]:
        try:
            async with asyncio.timeout(block_ms / 1000):
                while True:
                    found = [
                        Post(box, f"{place}-0", content)
                        for box, start in after.items()
                        for place, content in self._behind(box, start)[:count]
                    ]
                    if found or not block_ms:
                        return found
                    await self._posted.wait()
        except TimeoutError:
            return []

    def _posts(self, box: str) -> list[tuple[int, bytes]]:
        data, now = self._enter(0)
        data.mail.boxes = {name: kept for name, kept in data.mail.boxes.items() if kept.until_ms > now}
        kept = data.mail.boxes.get(box)
        return kept.posts if kept else []

    def _behind(self, box: str, place: str) -> list[tuple[int, bytes]]:
        return [post for post in self._posts(box) if post[0] > int(place.partition("-")[0])]

    async def put_note(self, name: str, field: str, value: bytes | None) -> None:
        notes = self._enter(0)[0].mail.notes.setdefault(name, {})
        if value is None:
            notes.pop(field, None)
        else:
            notes[field] = value

    async def notes(self, name: str) -> dict[str, bytes]:
        return dict(self._enter(0)[0].mail.notes.get(name, {}))
