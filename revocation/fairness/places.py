"""Places that all realms share, and that no realm can take from the others (I6). Pure."""

from __future__ import annotations

from collections import Counter


class Places:
    """`total` places. A realm gets one more as long as it has fewer than are free.

    So one realm alone gets half of them, and however greedy it is, the next gets a quarter, and the next an eighth.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._taken: Counter[str] = Counter()

    def take(self, realm: str) -> bool:
        """Takes a place, which must be given back by `leave`; False if the realm has its share."""
        if self._taken[realm] >= self._free:
            return False
        self._free -= 1
        self._taken[realm] += 1
        return True

    def leave(self, realm: str) -> None:
        """Gives a place back."""
        self._free += 1
        self._taken[realm] -= 1
        if not self._taken[realm]:
            del self._taken[realm]
