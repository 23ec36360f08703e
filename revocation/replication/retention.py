"""Up to where a log may be trimmed: by age, and by count long before its hard cap. Pure.

The store itself keeps back what another member has not read yet.
"""

from __future__ import annotations

from collections import deque

_CHECKPOINT_MS = 1_000


class Retention:
    """What one replica asks the store to drop of a partition's log."""

    def __init__(self, retention_s: float, longest_log: int) -> None:
        self._retention_ms = int(retention_s * 1000)
        self._longest = longest_log
        self._points: deque[tuple[int, int]] = deque()
        """(time of the store in ms, number), about one a second."""

    def note(self, at_ms: int, seq: int) -> None:
        """The record of this number and time was applied."""
        if not self._points or at_ms - self._points[-1][0] >= _CHECKPOINT_MS:
            self._points.append((at_ms, seq))

    def back_to(self, seq: int) -> None:
        """The log goes on from there in another history."""
        self._points = deque(point for point in self._points if point[1] <= seq)

    def trim_below(self, now_ms: int, seq: int) -> int:
        """The number below which records may go, when the log has been read up to `seq`."""
        below = 0
        while self._points and self._points[0][0] < now_ms - self._retention_ms:
            below = self._points.popleft()[1]
        return max(below, seq - self._longest // 2)
