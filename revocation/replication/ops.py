"""The op records that a replica has read, for as long as their operations may be repeated. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from revocation.limits import OPS_BYTES

_OVERHEAD = 150


class OpRecords:
    """Op records as the log brought them, whatever became of its history since: what was lost, a retry still asks for.

    Bounded by age, and by bytes: beyond, the oldest go, and a retry of theirs after a loss of the store runs again.
    """

    def __init__(self, most_bytes: int = OPS_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._since_ms = 0
        self._records: deque[tuple[int, str, str]] = deque()
        """Time of the record in the log, realm, op records. The same texts as in the log, so they cost little more."""

    def add(self, at_ms: int, realm: str, ops: str) -> None:
        """Those of one record of the log."""
        if ops:
            self._records.append((at_ms, realm, ops))
            self._bytes += len(ops) + _OVERHEAD
        while self._bytes > self._most:
            self._drop()

    def forget(self, before_ms: int) -> None:
        """Those of operations from before that time, which nobody may repeat any more."""
        self._since_ms = before_ms
        while self._records and self._records[0][0] < before_ms:
            self._drop()

    def batches(self, most: int) -> Iterator[tuple[str, list[str]]]:
        """Realms with up to `most` op records each time. One that was put back meanwhile may come twice."""
        by_realm: dict[str, list[str]] = {}
        for _, realm, ops in self._records:
            by_realm.setdefault(realm, []).append(ops)
        for realm, several in by_realm.items():
            batch: list[str] = []
            for ops in several:
                # One that was put back is younger in the log than its operation.
                batch += [op for op in ops.split() if _made_ms(op) >= self._since_ms]
                while len(batch) >= most:
                    yield realm, batch[:most]
                    del batch[:most]
            if batch:
                yield realm, batch

    def _drop(self) -> None:
        _, _, ops = self._records.popleft()
        self._bytes -= len(ops) + _OVERHEAD


def _made_ms(op: str) -> int:
    """When the operation was committed first, by the store's clock; see `entry.ops` in lua/commit.lua."""
    return int(op.rpartition(":")[2])
