"""How replicas talk to each other: through the store, which is all that they have in common.

Boxes are short queues that everybody may read from where they left off; notes are small values under a name and a
field. Both lie in the first partition and are no part of any history: they are bounded, go away by themselves, and a
store that loses them loses nothing that was acknowledged. What they carry is sealed by who writes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

BEGINNING = "0-0"
NOTES_KEPT_MS = 2 * 86_400_000


@dataclass(frozen=True, slots=True)
class Post:
    """One message: in which box, which place (to read on from), and what it says."""

    box: str
    place: str
    content: bytes


class MailStore(Protocol):
    """Boxes and notes. Every method may raise StoreUnavailable."""

    async def post(self, box: str, content: bytes, most: int, keep_ms: int) -> None:
        """Adds a message. The box keeps about the last `most`, and goes away `keep_ms` after the last one."""

    async def last_places(self, boxes: Sequence[str]) -> dict[str, str]:
        """Where each box ends now."""

    async def read_boxes(self, after: Mapping[str, str], count: int, block_ms: int) -> list[Post]:
        """Messages behind these places, at most `count` of each box; waits for the first at most `block_ms`."""

    async def put_note(self, name: str, field: str, value: bytes | None) -> None:
        """Writes a value, or takes it away (None)."""

    async def notes(self, name: str) -> dict[str, bytes]:
        """All values under a name."""
