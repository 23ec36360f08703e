"""The follower: the client's side of Watch, and the lease that says how fresh the view is.

Pure: no socket, thread or clock. The shell (client.py) feeds it messages and tells it the time by `mono`, a clock
that counts suspend, and `wall`, the process's idea of the time of day, both in seconds. The rules are the
model's (docs/model, D1-D11); each is cited where it is kept.

    follower.hello()                     what to say first on a new stream
    follower.ping(mono, wall)            what to say now and then
    follower.receive(message, mono)      raises Resync: end the stream, connect again
    follower.disconnected()
    follower.lease                       read this, then the view, then the clock (D11)
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import assert_never

from revocation_sdk._lattice import MalformedRows, RealmKey, count_rows, parse_groups
from revocation_sdk._messages import (
    Changes,
    Goodbye,
    Hello,
    Intent,
    Mark,
    Message,
    PartitionIntent,
    Ping,
    Poll,
    Progress,
    RealmSettings,
    SnapshotChunk,
    SnapshotEnd,
    TraceNote,
    Welcome,
)
from revocation_sdk._position import NOWHERE, Position
from revocation_sdk._view import View

MAX_PINGS_IN_FLIGHT = 64
PLACES_REMEMBERED = 256


class Resync(Exception):
    """The stream cannot be continued; `reason` is stable. The view stays, freshness ends, a new stream heals it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Lease:
    """Proof that the view was complete when its ping was sent (D1), and what the clocks said then.

    `store_ms` was read by the store between `mono` (the ping left) and `mono_heard` (the answer came).
    """

    mono: float
    wall: float
    mono_heard: float
    store_ms: int
    positions: tuple[Position, ...]

    def age(self, mono: float, wall: float) -> float:
        """Seconds since the view was known to be complete.

        The larger of both clocks' answers: a suspended machine whose monotonic clock stood still shows in the
        wall clock; a wall clock that jumps ahead costs freshness until the next ping, never safety.
        """
        return max(mono - self.mono, wall - self.wall)

    def store_time_at_least(self, mono: float) -> float:
        """The store's time, in seconds, if the answer took no time to arrive: for dropping entries."""
        return self.store_ms / 1000 + (mono - self.mono_heard)

    def store_time_at_most(self, mono: float) -> float:
        """The store's time, in seconds, if the ping took no time to arrive: for judging `exp`."""
        return self.store_ms / 1000 + (mono - self.mono)


class _Snapshot:
    """A snapshot of one partition while it comes in."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.count = 0
        self.hash = hashlib.sha256()

    def add(self, rows: bytes) -> None:
        self.count += count_rows(rows)
        self.hash.update(rows)
        self.chunks.append(rows)


class Follower:
    """Follows one realm and keeps `view` and `lease` true."""

    def __init__(self, realm: str, view: View) -> None:
        self.realm = realm
        self.view = view
        self.lease: Lease | None = None
        self.keys: tuple[RealmKey, ...] = ()
        self.settings = RealmSettings()
        self.replica = ""
        self.goodbye: Goodbye | None = None
        self._told: Lease | None = None
        """The last lease there was, though it be taken back: the store's time, which it tells, goes on."""
        self._positions: tuple[Position, ...] = ()
        self._places: tuple[deque[Position], ...] = ()
        """By partition, the last positions that the view went through: it holds all that is before any of them."""
        self._snapshots: dict[int, _Snapshot] = {}
        self._pings: OrderedDict[int, tuple[float, float]] = OrderedDict()
        self._nonce = 0
        self._welcomed = False

    @property
    def positions(self) -> tuple[Position, ...]:
        """How far the view has come, by partition."""
        return self._positions

    @property
    def live(self) -> bool:
        """Whether the stream has delivered all that it announced and now brings changes."""
        return self._welcomed and not self._snapshots

    def hello(self) -> Hello:
        """Begins a stream. Pings of an older one no longer count."""
        self._end_stream()
        if self.worn:
            self._nonce = 0
        return Hello(self.realm, self._positions)

    @property
    def worn(self) -> bool:
        """Whether the numbers of pings run out: then it is time for a new stream, which begins anew."""
        return self._nonce >> 63 > 0

    def ping(self, mono: float, wall: float, step: int = 1) -> Ping:
        """Begins a lease that counts from now, if it is ever answered.

        A random `step` of the nonce keeps a relay from asking before we do, and holding the answer back until then.
        """
        self._nonce += step
        self._pings[self._nonce] = (mono, wall)
        while len(self._pings) > MAX_PINGS_IN_FLIGHT:
            self._pings.popitem(last=False)
        return Ping(self._nonce, self._positions)

    def disconnected(self) -> None:
        """The stream ended. The lease runs on by itself: nothing said since then is missing from it."""
        self._end_stream()

    def invalidate(self) -> None:
        """Forgets that the view is fresh, and every ping under way: only a ping sent from now on counts.

        For a virtual machine restored from a snapshot, where no clock can tell.
        """
        self.lease = None
        self._pings.clear()

    def drop_expired(self, mono: float, wall: float) -> None:
        """Forgets what expired by the smaller of the clocks, so that one that runs ahead drops nothing early.

        By `wall` alone only before the first welcome: what a wrong one drops, the snapshot that must come then brings
        back. Whoever resumes would never hear of it again, and waits to be told the store's time.
        """
        if self._told is not None:
            self.view.drop_expired(min(wall, self._told.store_time_at_least(mono)))
        elif not self._positions:
            self.view.drop_expired(wall)

    def receive(self, message: Message, mono: float) -> None:
        """Takes one message. Raises Resync if the stream cannot go on; the view is never made worse."""
        if isinstance(message, Welcome) == self._welcomed:
            raise self._broken("protocol")
        try:
            self._dispatch(message, mono)
        except MalformedRows as error:  # D5: a failed apply ends the stream and moves no cursor
            raise self._broken("malformed_rows") from error

    def _dispatch(self, message: Message, mono: float) -> None:
        match message:
            case Welcome():
                self._welcome(message)
            case SnapshotChunk(partition, rows):
                self._snapshot(partition).add(self._readable(rows))
            case SnapshotEnd():
                self._snapshot_end(message)
            case Changes():
                self._changes(message)
            case Mark(partition, previous, position, rows):
                self._expect(partition, previous)
                self.view.merge(self._readable(rows))
                self._move(partition, [position])
            case Progress():
                self._progress(message, mono)
            case Goodbye():
                self.goodbye = message
            case Poll() | TraceNote():
                pass  # the shell's: neither says anything about the view
            case _:
                assert_never(message)

    def _welcome(self, message: Welcome) -> None:
        count = len(message.partitions)
        if count == 0:
            raise self._broken("protocol")  # or progress about nothing would look like freshness
        if len(self._positions) != count:
            # The first time, or a store laid out anew. What the view holds stays: entries expire by themselves.
            # The places first: a child that is forked in between begins anew.
            self._places = tuple(deque(maxlen=PLACES_REMEMBERED) for _ in range(count))
            self._positions = (NOWHERE,) * count
        for index, partition in enumerate(message.partitions):
            self._begin(index, partition)
        self.keys, self.settings, self.replica = message.keys, message.settings, message.replica
        self._welcomed = True

    def _begin(self, index: int, partition: PartitionIntent) -> None:
        if partition.intent is Intent.SNAPSHOT:
            self._snapshots[index] = _Snapshot()
            return
        # H13: the server may go back to a place that it knows; but D10: only to one that this view went through. A
        # number alone, or a place that only looks older, could belong to another past.
        if partition.position not in self._places[index]:
            raise self._broken("wrong_resume")
        self._move(index, [partition.position])

    def _snapshot(self, partition: int) -> _Snapshot:
        snapshot = self._snapshots.get(partition)
        if snapshot is None:
            raise self._broken("protocol")
        return snapshot

    def _snapshot_end(self, end: SnapshotEnd) -> None:
        snapshot = self._snapshot(end.partition)
        if snapshot.count != end.count or snapshot.hash.digest() != end.digest:
            raise self._broken("snapshot_digest")
        self.view.merge(*snapshot.chunks)  # D6: merged, never replaced
        del self._snapshots[end.partition]
        self._move(end.partition, [end.position])

    def _changes(self, changes: Changes) -> None:
        self._expect(changes.partition, changes.previous)
        places = [changes.previous]
        for rows in changes.records:
            places.append(places[-1].advance(rows))
        if places[-1] != changes.position:
            raise self._broken("chain")
        self.view.merge(*map(self._readable, changes.records))
        self._move(changes.partition, places[1:] or places)  # D5: only now

    def _progress(self, progress: Progress, mono: float) -> None:
        sent = self._pings.pop(progress.nonce, None)
        if sent is None:
            return  # a ping given up or from before `invalidate`
        # D4: the server sends progress behind the changes; that it names our own position makes sure of it.
        if progress.positions != self._positions or self._snapshots:
            raise self._broken("progress_ahead")
        for nonce in [nonce for nonce in self._pings if nonce < progress.nonce]:
            del self._pings[nonce]
        if self.lease is None or sent[0] >= self.lease.mono:
            self.lease = self._told = Lease(*sent, mono, progress.store_ms, self._positions)

    def _expect(self, partition: int, previous: Position) -> None:
        if partition in self._snapshots or partition >= len(self._positions):
            raise self._broken("protocol")
        if self._positions[partition] != previous:  # D9, D10: a gap, or another past
            raise self._broken("gap")

    def _move(self, partition: int, places: list[Position]) -> None:
        positions = list(self._positions)
        positions[partition] = places[-1]
        self._positions = tuple(positions)
        self._places[partition].extend(places)

    def _readable(self, rows: bytes) -> bytes:
        """Refuses entries under a realm key that this stream has not named: no look-up would ever find them."""
        known = [key.tag for key in self.keys]
        if any(group.key_tag not in known for group in parse_groups(rows)):
            raise self._broken("unknown_key")
        return rows

    def _broken(self, reason: str) -> Resync:
        """Not fresh at once: something is wrong between what was promised and what came."""
        self.lease = None
        if reason in ("chain", "wrong_resume", "snapshot_digest", "gap"):
            # The past cannot be trusted to be the server's; ask for all of it. The view stays, to be merged.
            self._positions = ()
        self._end_stream()
        return Resync(reason)

    def _end_stream(self) -> None:
        self._snapshots.clear()
        self._pings.clear()
        self._welcomed = False
        self.goodbye = None
