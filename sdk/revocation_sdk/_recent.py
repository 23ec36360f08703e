"""A bounded memory of what was used lately, without a lock.

Two generations of a dict: what is found in the older one moves up, and when the younger is half the limit it becomes
the older one and the oldest half is forgotten. Every step is one operation on a dict, so threads need no lock; the
worst that a race costs is one entry that has to be worked out again.
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Keeps at least the last `limit / 2` different keys used, and never more than `limit`."""

    __slots__ = ("_half", "_old", "_young")

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._young: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """What is remembered under this key."""
        value = self._young.get(key)
        if value is None and (value := self._old.get(key)) is not None:
            self.put(key, value)
        return value

    def put(self, key: K, value: V) -> None:
        """Remembers, at the price of what was not used for longest."""
        young = self._young
        if len(young) >= self._half and key not in young:
            self._old, self._young = young, {}
            young = self._young
        young[key] = value

    def drop(self, key: K) -> None:
        """Forgets one key."""
        self._young.pop(key, None)
        self._old.pop(key, None)

    def clear(self) -> None:
        """Forgets everything."""
        self._young, self._old = {}, {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
