"""Known bugs, planted: the simulator must catch each of them within a bounded number of schedules.

A checker that finds nothing proves nothing until it has been seen to find something.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import compress

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from revocation_sdk import _view
from revocation_sdk._follower import Follower, Lease, Resync
from revocation_sdk._lattice import Cutoff, MalformedRows
from revocation_sdk._messages import Changes, Intent, Mark, Message, PartitionIntent, Progress, SnapshotEnd
from revocation_sdk._packed import Packed, PureBuilder
from revocation_sdk._position import Position
from revocation_sdk._view import View, _Segment, _Table
from tests.core.service_model import LEEWAY, MARGIN, Stream
from tests.core.simulation import Client, Violation, search
from tests.core.view_machine import machine

MOST = 20_000


class ArrivalTime(Follower):
    """D1: freshness counts from when the answer arrived."""

    def _progress(self, progress: Progress, mono: float) -> None:
        before = self.lease
        super()._progress(progress, mono)
        if self.lease is not None and self.lease is not before:
            self.lease = replace(self.lease, mono=mono, wall=self.lease.wall + mono - self.lease.mono)


class LatestPing(Follower):
    """D1: the answer credits the latest ping instead of the one that it names."""

    def _progress(self, progress: Progress, mono: float) -> None:
        if progress.nonce in self._pings:
            self._pings[progress.nonce] = next(reversed(self._pings.values()))
        super()._progress(progress, mono)


class CursorFirst(Follower):
    """D5: the cursor moves although the apply failed."""

    def _changes(self, changes: Changes) -> None:
        try:
            super()._changes(changes)
        except MalformedRows:
            self._move(changes.partition, [changes.position])
            raise


class SwallowedError(Follower):
    """D5: a failed apply is logged and forgotten."""

    def _changes(self, changes: Changes) -> None:
        try:
            super()._changes(changes)
        except MalformedRows:
            self._move(changes.partition, [changes.position])


class CursorReset(Follower):
    """On a new stream the cursor goes wherever the server begins, without a snapshot."""

    def _begin(self, index: int, partition: PartitionIntent) -> None:
        if partition.intent is not Intent.SNAPSHOT:
            self._places[index].append(partition.position)
        super()._begin(index, partition)


class ByNumber(Follower):
    """D10: a place in the same history whose number is not beyond the own is taken for the own past."""

    def _begin(self, index: int, partition: PartitionIntent) -> None:
        own, offered = self._positions[index], partition.position
        if offered.log_id == own.log_id and offered.seq <= own.seq:
            self._places[index].append(offered)
        super()._begin(index, partition)


class ProgressUnchecked(Follower):
    """D4: progress is believed whatever position it names."""

    def _progress(self, progress: Progress, mono: float) -> None:
        super()._progress(replace(progress, positions=self._positions), mono)


class SnapshotReplaces(Follower):
    """D6: a snapshot replaces the view, and the lease goes on."""

    def _snapshot_end(self, end: SnapshotEnd) -> None:
        old, self.view = self.view, View()
        try:
            super()._snapshot_end(end)
        except Resync:
            self.view = old
            raise


class HistoryReplaces(Follower):
    """D6: a new history replaces the view by what it brings."""

    def _dispatch(self, message: Message, mono: float) -> None:
        if isinstance(message, Mark) and message.previous in self._positions:
            self.view = View()
        super()._dispatch(message, mono)


class GapIgnored(Follower):
    """D9: what was not the next record is applied all the same."""

    def _expect(self, partition: int, previous: Position) -> None:
        if partition not in self._snapshots:
            self._move(partition, [previous])


class SnapshotUnverified(Follower):
    """The count and the digest of a snapshot are not compared."""

    def _snapshot_end(self, end: SnapshotEnd) -> None:
        snapshot = self._snapshot(end.partition)
        super()._snapshot_end(replace(end, count=snapshot.count, digest=snapshot.hash.digest()))


class MonotonicOnly(Follower):
    """Suspend is not noticed where the monotonic clock stands still."""

    def _progress(self, progress: Progress, mono: float) -> None:
        super()._progress(progress, mono)
        if self.lease is not None:
            self.lease = replace(self.lease, wall=float("inf"))


FOLLOWERS = [
    ArrivalTime,
    LatestPing,
    CursorFirst,
    SwallowedError,
    CursorReset,
    ByNumber,
    ProgressUnchecked,
    SnapshotReplaces,
    HistoryReplaces,
    GapIgnored,
    SnapshotUnverified,
    MonotonicOnly,
]


class LeaseLast(Client):
    """D11: the lease is read after the view."""

    reads = ("view", "lease", "clock")


class ClockFirst(Client):
    """D11: the clock is read before the view."""

    reads = ("lease", "clock", "view")


class NoLeeway(Client):
    """Entries go when the token expires, and verifiers are lenient."""

    def drop_expired(self) -> None:
        lease = self.follower.lease
        if lease is not None:
            self.follower.view.drop_expired(self.keep_until(lease) + LEEWAY + MARGIN)


class LargerClock(Client):
    """Entries are dropped by whichever clock is ahead."""

    def drop_expired(self) -> None:
        lease = self.follower.lease
        if lease is not None:
            self.follower.view.drop_expired(self.judge_by(lease))


class OwnClock(Client):
    """Tokens are judged by one's own clock alone."""

    def judge_by(self, lease: Lease) -> float:
        return self.world.wall


class EagerServer(Stream):
    """D3: progress before what the barrier saw has been sent."""

    def reached(self, tails: list[int]) -> bool:
        return True


class LateBarrier(Stream):
    """D2: one barrier vouches for pings that came after it."""

    def barrier(self) -> None:
        before = getattr(self, "before", None)
        self.before = [log.covers[log.tail] for log in self.replica.logs]
        store_ms = self.world.store_ms()
        self.barriers.extend((nonce, before or self.before, store_ms) for nonce in self.arrived)
        self.arrived.clear()


def with_follower(follower: type[Follower]) -> type[Client]:
    return type(follower.__name__, (Client,), {"follower_type": follower, "__doc__": follower.__doc__})


def with_server(server: type[Stream]) -> type[Client]:
    return type(server.__name__, (Client,), {"stream_type": server, "__doc__": server.__doc__})


MUTANTS: list[type[Client]] = [
    *map(with_follower, FOLLOWERS),
    *map(with_server, (EagerServer, LateBarrier)),
    LeaseLast,
    ClockFirst,
    NoLeeway,
    LargerClock,
    OwnClock,
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
def test_the_simulator_catches(mutant: type[Client]) -> None:
    with pytest.raises(Violation) as caught:
        search(range(MOST), mutant)
    print(caught.value)


# Bugs of the view, and the machine that compares it with a dictionary.


class Blind(_Table):
    """A change does not reach the sieve, so look-ups do not look for it."""

    def _merge_one(self, fp: int, entry: Cutoff) -> None:
        _, segments = self.state
        before = [bytes(segment.sieve) for segment in segments]
        super()._merge_one(fp, entry)
        for segment, sieve in zip(segments, before, strict=True):
            segment.sieve[:] = sieve


class Forgetful(_Table):
    """Compaction drops what came since the last one."""

    def _joined(self, segment: _Segment, bits: int) -> Packed:
        return segment.base


class LastWriterWins(_Table):
    """The later entry counts instead of the larger."""

    def _merge_one(self, fp: int, entry: Cutoff) -> None:
        shift, segments = self.state
        segments[fp >> shift].delta.pop(fp, None)
        super()._merge_one(fp, entry)


class Hasty(_Table):
    """Entries go a second early."""

    def drop_expired(self, now: int) -> None:
        super().drop_expired(now + 1)


class Tardy(_Table):
    """The earliest expiry of what was merged is not remembered."""

    def _merge_one(self, fp: int, entry: Cutoff) -> None:
        earliest = self._earliest
        super()._merge_one(fp, entry)
        self._earliest = earliest


class UnsplitBits(_Table):
    """A table that grows leaves entries in the half where they were not."""

    def _grow(self, length: int) -> None:
        before = len(self.state[1])
        super()._grow(length)
        if len(self.state[1]) > before:
            shift, segments = self.state
            self.state = (shift, segments[::-1])


class Half(PureBuilder):
    """Duplicates inside one batch are not joined."""

    def join(self, base: Packed, new: list[array[int]], bits: int) -> Packed:
        fps = list(new[0])
        keep = [fps.index(fp) == at for at, fp in enumerate(fps)]
        return super().join(base, [array(column.typecode, compress(column, keep)) for column in new], bits)


TABLES = [Blind, Forgetful, LastWriterWins, Hasty, Tardy, UnsplitBits]
ONCE = settings(max_examples=300, stateful_step_count=20, deadline=None, phases=[Phase.generate], derandomize=True)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_the_dictionary_shows(table: type[_Table], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_view, "_Table", table)
    with pytest.raises((AssertionError, LookupError)):
        run_state_machine_as_test(machine(PureBuilder(4, 2)), settings=ONCE)


def test_the_dictionary_shows_duplicates_that_are_not_joined() -> None:
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine(Half(4, 2)), settings=ONCE)
