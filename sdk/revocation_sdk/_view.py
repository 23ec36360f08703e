"""The view: every live entry of a realm, packed in memory, exact.

Pure: no I/O, no clock; `now` comes in as an argument, in seconds. One writer at a time, any number of readers without
a lock. A table is cut into segments by the first bits of the fingerprint; each segment publishes one reference to a
(base, delta) pair. A published base never changes, a published delta only gains entries, and compaction publishes a
new pair, so a reader sees either all of the old or all of the new, and nothing ever stops it. Merging is the lattice
join of the contract: what a view has learned it loses only by expiry.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import compress
from operator import itemgetter
from struct import Struct
from typing import NamedTuple

from revocation_sdk._lattice import (
    CUTOFF,
    DENIAL,
    FIRST_CUTOFF_KIND,
    NEVER,
    Cutoff,
    Group,
    Kind,
    join_groups,
    parse_groups,
)
from revocation_sdk._memory import give_back
from revocation_sdk._packed import Builder, Packed, best_builder, empty
from revocation_sdk._yield import give_way

_cutoff = tuple.__new__  # what Cutoff() does, three times as fast
_EXPIRES_AT = itemgetter(0)  # of a Cutoff
ANY_TAG = range(1 << 16)
_LARGE = 1 << 20  # bytes of rows
_BULKY = 1 << 16


class _Segment(NamedTuple):
    mask: int
    sieve: bytearray
    """A bit for every fingerprint of base and delta. Nearly all look-ups are for something that nobody revoked,
    and end here: a bit that is not set means that."""
    base: Packed
    delta: dict[int, Cutoff]
    """What came since the base was built, already joined with it."""
    room: int
    """How many entries the delta may have."""


class _Table:
    """The entries of one kind under one key. A denial is a cutoff whose version and time are zero."""

    __slots__ = ("_added", "_builder", "_cutoffs", "_earliest", "state")

    def __init__(self, builder: Builder, cutoffs: bool) -> None:
        self._builder, self._cutoffs = builder, cutoffs
        self.state = (64, [self._segment(empty(cutoffs))])
        """By how much to shift a fingerprint to get the number of its segment, and the segments."""
        self._added = [0]
        """By segment, how many entries of its delta are not in its base."""
        self._earliest = NEVER
        """Nothing expires before this."""

    def find(self, fp: int) -> Cutoff | None:
        shift, segments = self.state
        mask, sieve, base, delta, _ = segments[fp >> shift]
        if not sieve[(fp >> 3) & mask] >> (fp & 7) & 1:
            return None
        return delta.get(fp) or base.find(fp)

    def find_all(self, fps: Iterable[int]) -> list[Cutoff]:
        """What there is of these, in one call: nearly always nothing. `find`, unrolled for the hot path."""
        found: list[Cutoff] = []
        shift, segments = self.state
        for fp in fps:
            mask, sieve, base, delta, _ = segments[fp >> shift]
            if sieve[(fp >> 3) & mask] >> (fp & 7) & 1:
                entry = delta.get(fp) or base.find(fp)
                if entry is not None:
                    found.append(entry)
        return found

    def would_change(self, item: tuple[int, Cutoff]) -> bool:
        fp, entry = item
        known = self.find(fp)
        return known is None or _join(known, entry) != known

    def merge(self, parts: list[bytes]) -> None:
        """Joins rows without headers: few into the deltas, many into the bases."""
        count = sum(map(len, parts)) // _row(self._cutoffs).size
        if count > self._builder.delta + len(self) // self._builder.bulk:
            self._grow(len(self) + count)
            self._merge_bulk(parts)
        else:
            for rows in parts:
                if self._cutoffs:
                    for fp, entry in _entries(rows, True):
                        self._merge_one(fp, entry)
                else:
                    self._merge_denials(rows)

    def _merge_bulk(self, parts: list[bytes]) -> None:
        shift, segments = self.state
        for slot, new in self._builder.split(parts, self._cutoffs, 64 - shift):
            base = self._joined(segments[slot], 64 - shift)
            self._publish(slot, self._builder.join(base, new, 64 - shift))
            give_way()

    def _merge_denials(self, rows: bytes) -> None:
        """`_merge_one` for each, unrolled: nearly every denial is new, and mostly the sieve says so."""
        shift, segments = self.state
        entry = Cutoff(0, 0, 0)
        for fp, expires_at in DENIAL.iter_unpack(rows):
            if expires_at != entry[0]:  # tokens that expire in the same second share an entry
                entry = _cutoff(Cutoff, (expires_at, 0, 0))
            slot = fp >> shift
            mask, sieve, base, delta, room = segments[slot]
            place, bit = (fp >> 3) & mask, 1 << (fp & 7)
            if len(delta) >= room or (sieve[place] & bit and (fp in delta or base.find(fp) is not None)):
                self._merge_one(fp, entry)
                shift, segments = self.state
                continue
            sieve[place] |= bit  # before the entry, so that no reader misses it
            delta[fp] = entry
            self._added[slot] += 1
            if expires_at < self._earliest:
                self._earliest = expires_at

    def _merge_one(self, fp: int, entry: Cutoff) -> None:
        shift, segments = self.state
        slot = fp >> shift
        mask, sieve, _, delta, room = segments[slot]
        known = self.find(fp)
        if known is None:
            self._added[slot] += 1
        elif (entry := _join(known, entry)) == known:
            return
        sieve[(fp >> 3) & mask] |= 1 << (fp & 7)  # before the entry, so that no reader misses it
        delta[fp] = entry
        self._earliest = min(self._earliest, entry.expires_at)
        if len(delta) > room:
            self._publish(slot, self._joined(segments[slot], 64 - shift))
            self._grow(len(self))

    def drop_expired(self, now: int) -> None:
        if now < self._earliest:
            return
        shift, segments = self.state
        for slot, segment in enumerate(segments):
            if _earliest(segment) <= now:
                base = self._joined(segment, 64 - shift)
                self._publish(slot, self._builder.live(base, now, 64 - shift))
                give_way()
        self._earliest = min(map(_earliest, segments))

    def chunks(self) -> Iterator[bytes]:
        shift, segments = self.state
        for segment in segments:
            yield from self._builder.rows(self._joined(segment, 64 - shift))
            give_way()

    def __len__(self) -> int:
        return sum(len(segment.base) for segment in self.state[1]) + sum(self._added)

    def _segment(self, base: Packed) -> _Segment:
        bits = (len(base) + 64).bit_length() + 3  # 8 to 16 for each entry
        sieve = self._builder.sieve(base, bits) if base.columns[0] else bytearray(1 << (bits - 3))
        return _Segment(len(sieve) - 1, sieve, base, {}, min(self._builder.delta, 256 + len(base) // 16))

    def _joined(self, segment: _Segment, bits: int) -> Packed:
        """The base and the delta as one. Copies the delta first, to be of use beside the writer as well."""
        base = segment.base
        if delta := segment.delta.copy():
            for _, new in self._builder.split([_rows(delta, self._cutoffs)], self._cutoffs, 0):
                base = self._builder.join(base, new, bits)
        return base

    def _publish(self, slot: int, base: Packed) -> None:
        """The one place where a reader's world changes: one reference, from the old segment to the new."""
        self.state[1][slot] = self._segment(base)
        self._added[slot] = 0
        self._earliest = min(self._earliest, base.earliest)

    def _grow(self, length: int) -> None:
        """Halves all segments until they have room for `length` entries."""
        while length > self._builder.capacity * len(self.state[1]):
            shift, segments = self.state
            halves: list[_Segment] = []
            for slot, segment in enumerate(segments):
                base, middle = self._joined(segment, 64 - shift), (2 * slot + 1) << (shift - 1)
                halves += map(self._segment, self._builder.halves(base, middle, 65 - shift))
                give_way()
            self._added = [0] * len(halves)
            self.state = (shift - 1, halves)


class View:
    """Every live entry of one realm."""

    def __init__(self, builder: Builder | None = None) -> None:
        self._builder = builder or best_builder()
        self._tables: dict[tuple[int, int], _Table] = {}
        self.generation = object()
        """Another one after every change, of no other view, and published behind it: who read it before looking, and
        finds it still there, would find the same again. Whoever renews a lease does so later still."""

    def denied(self, kind: Kind, key_tag: int, fp: int, now: float) -> bool:
        """Whether a token, session or signing key is revoked at `now`."""
        return self.cutoff(kind, key_tag, fp, now) is not None

    def cutoff(self, kind: Kind, key_tag: int, fp: int, now: float) -> Cutoff | None:
        """The cutoff of a subject, client or realm that is in force at `now`."""
        table = self._tables.get((kind, key_tag))
        if table is None:
            return None
        entry = table.find(fp)
        if entry is None or (entry.expires_at <= now and entry.expires_at != NEVER):
            return None
        return entry

    def tables(self) -> Mapping[tuple[int, int], _Table]:
        """The tables by (kind, key tag), as published now; a new table comes with a new mapping. For verdicts."""
        return self._tables

    def merge(self, *parts: bytes) -> None:
        """Joins rows into the view. Raises MalformedRows, and then nothing was changed."""
        found: dict[tuple[int, int], list[bytes]] = {}
        for part in parts:
            for kind, key_tag, rows in parse_groups(part):
                if rows:
                    found.setdefault((kind, key_tag), []).append(rows)
            if len(part) >= _BULKY:
                give_way()
        try:
            while found:
                (kind, key_tag), packed = found.popitem()
                self._table(kind, key_tag).merge(packed)
                packed.clear()
        finally:  # also when memory ran out in the middle
            self.generation = object()
        if sum(map(len, parts)) >= _LARGE:
            give_back()

    def drop_expired(self, now: float) -> None:
        """Forgets what expired at or before `now`, which must be the *smaller* of the clocks one knows.

        Costs nothing if nothing is due, else a pass over the segments in which something is.
        """
        before = len(self)
        for table in tuple(self._tables.values()):
            table.drop_expired(math.floor(min(now, NEVER - 1)))
        self.generation = object()
        if before >= _LARGE // DENIAL.size and len(self) != before:
            give_back()

    def chunks(self, tags: Container[int] = ANY_TAG) -> Iterator[bytes]:
        """All entries, or those under keys with these tags, in chunks of about 128 KiB, each parseable by itself."""
        for (kind, key_tag), table in sorted(self._tables.items()):
            for rows in table.chunks() if key_tag in tags else ():
                yield join_groups([Group(kind, key_tag, rows)])

    def counts(self, except_tags: Container[int] = ()) -> dict[int, int]:
        """Number of entries by kind; without those under keys with these tags."""
        counts: dict[int, int] = {}
        for (kind, key_tag), table in tuple(self._tables.items()):
            if key_tag not in except_tags:
                counts[kind] = counts.get(kind, 0) + len(table)
        return counts

    def __len__(self) -> int:
        return sum(self.counts().values())

    def _table(self, kind: int, key_tag: int) -> _Table:
        table = self._tables.get((kind, key_tag))
        if table is None:
            table = _Table(self._builder, cutoffs=kind >= FIRST_CUTOFF_KIND)
            # A copy, so that a reader that iterates never meets a dict that changes its size.
            self._tables = {**self._tables, (kind, key_tag): table}
        return table


def rows_missing(view: View, rows: bytes) -> bytes:
    """The part of `rows` that would change `view`: what somebody with this view has not yet heard of."""
    missing: list[Group] = []
    for kind, key_tag, packed in parse_groups(rows):
        cutoffs = kind >= FIRST_CUTOFF_KIND
        table = view._tables.get((kind, key_tag))
        if table is not None:
            size = _row(cutoffs).size
            changing = map(table.would_change, _entries(packed, cutoffs))
            rows_ = (packed[at : at + size] for at in range(0, len(packed), size))
            packed = b"".join(compress(rows_, changing))
        missing.append(Group(kind, key_tag, packed))
    return join_groups(missing)


def _row(cutoffs: bool) -> Struct:
    return CUTOFF if cutoffs else DENIAL


def _entries(rows: bytes, cutoffs: bool) -> Iterable[tuple[int, Cutoff]]:
    if cutoffs:
        return ((fp, Cutoff(exp, version, at)) for fp, exp, version, at in CUTOFF.iter_unpack(rows))
    return ((fp, Cutoff(exp, 0, 0)) for fp, exp in DENIAL.iter_unpack(rows))


def _rows(entries: dict[int, Cutoff], cutoffs: bool) -> bytes:
    """The inverse of _entries."""
    if not cutoffs:
        return b"".join(map(DENIAL.pack, entries, map(_EXPIRES_AT, entries.values())))
    return b"".join(map(CUTOFF.pack, entries, *zip(*entries.values(), strict=True)))


def _join(a: Cutoff, b: Cutoff) -> Cutoff:
    return Cutoff(max(a.expires_at, b.expires_at), max(a.version, b.version), max(a.at_ms, b.at_ms))


def _earliest(segment: _Segment) -> int:
    return min(segment.base.earliest, min(map(_EXPIRES_AT, segment.delta.values()), default=NEVER))
