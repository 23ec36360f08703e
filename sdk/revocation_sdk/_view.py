"""The view: every live entry of a realm, packed in memory, exact.

Pure: no I/O, no clock; `now` comes in as an argument, in seconds. One writer at a time, any number of readers without
a lock: each table publishes one reference to a (base, delta) pair. A published base never changes, a published delta
only gains entries, and compaction publishes a new pair, so a reader sees either all of the old or all of the new.
Merging is the lattice join of the contract: what a view has learned it loses only by expiry.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from revocation_sdk._lattice import (
    CUTOFF,
    DENIAL,
    FIRST_CUTOFF_KIND,
    Cutoff,
    Group,
    Kind,
    join_groups,
    parse_groups,
)
from revocation_sdk._packed import EMPTY, Packed

_CHUNK_BYTES = 128 * 1024
_DELTA_FLOOR = 2048


class _Pair(NamedTuple):
    base: Packed
    delta: dict[int, Cutoff]


class _Table:
    """The entries of one kind under one key. A denial is a cutoff whose version and time are zero."""

    __slots__ = ("_cutoffs", "pair")

    def __init__(self, cutoffs: bool) -> None:
        self._cutoffs = cutoffs
        self.pair = _Pair(EMPTY, {})

    def find(self, fp: int) -> Cutoff | None:
        base, delta = self.pair
        return delta.get(fp) or base.find(fp)

    def merge(self, rows: bytes) -> None:
        base, delta = self.pair
        size = len(rows) // (CUTOFF.size if self._cutoffs else DENIAL.size)
        if size > max(_DELTA_FLOOR, len(base) // 8):
            self.pair = _Pair(base.joined(rows, delta, self._cutoffs), {})
            return
        for fp, entry in _entries(rows, self._cutoffs):
            known = delta.get(fp) or base.find(fp)
            if known is None:
                delta[fp] = entry
            elif (better := _join(known, entry)) != known:
                delta[fp] = better
        if len(delta) > max(_DELTA_FLOOR, len(base) // 8):
            self.pair = _Pair(base.joined(b"", delta, self._cutoffs), {})

    def drop_expired(self, now: int) -> None:
        base, delta = self.pair
        self.pair = _Pair(base.joined(b"", delta, self._cutoffs, expired_by=now), {})

    def chunks(self) -> Iterator[bytes]:
        if self.pair.delta:
            base, delta = self.pair
            self.pair = _Pair(base.joined(b"", delta, self._cutoffs), {})
        return self.pair.base.chunks(_CHUNK_BYTES, self._cutoffs)

    def __len__(self) -> int:
        base, delta = self.pair
        return len(base) + sum(1 for fp in tuple(delta) if base.find(fp) is None)


class View:
    """Every live entry of one realm."""

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], _Table] = {}

    def denied(self, kind: Kind, key_tag: int, fp: int, now: float) -> bool:
        """Whether a token, session or signing key is revoked at `now`."""
        table = self._tables.get((kind, key_tag))
        if table is None:
            return False
        entry = table.find(fp)
        return entry is not None and entry.expires_at > now

    def cutoff(self, kind: Kind, key_tag: int, fp: int, now: float) -> Cutoff | None:
        """The cutoff of a subject, client or realm that is in force at `now`."""
        table = self._tables.get((kind, key_tag))
        if table is None:
            return None
        entry = table.find(fp)
        return entry if entry is not None and entry.expires_at > now else None

    def tables(self) -> Mapping[tuple[int, int], _Table]:
        """The tables by (kind, key tag), as published now; a merge publishes a new mapping. For verdicts."""
        return self._tables

    def merge(self, rows: bytes) -> None:
        """Joins rows into the view. Raises MalformedRows, and then nothing was changed."""
        for kind, key_tag, packed in tuple(parse_groups(rows)):
            if packed:
                self._table(kind, key_tag).merge(packed)

    def drop_expired(self, now: float) -> None:
        """Forgets what expired at or before `now`, which must be the *smaller* of the clocks one knows."""
        for table in tuple(self._tables.values()):
            table.drop_expired(int(now))

    def chunks(self) -> Iterator[bytes]:
        """All entries as rows, in chunks of about 128 KiB, each parseable by itself. For the writer."""
        for (kind, key_tag), table in sorted(self._tables.items()):
            for rows in table.chunks():
                yield join_groups([Group(kind, key_tag, rows)])

    def counts(self) -> dict[int, int]:
        """Number of entries by kind."""
        counts: dict[int, int] = {}
        for (kind, _), table in tuple(self._tables.items()):
            counts[kind] = counts.get(kind, 0) + len(table)
        return counts

    def __len__(self) -> int:
        return sum(self.counts().values())

    def _table(self, kind: int, key_tag: int) -> _Table:
        table = self._tables.get((kind, key_tag))
        if table is None:
            table = _Table(cutoffs=kind >= FIRST_CUTOFF_KIND)
            # A copy, so that a reader that iterates never meets a dict that changes its size.
            self._tables = {**self._tables, (kind, key_tag): table}
        return table


def rows_missing(view: View, rows: bytes) -> bytes:
    """The part of `rows` that would change `view`: what somebody with this view has not yet heard of."""
    missing: list[Group] = []
    for kind, key_tag, packed in parse_groups(rows):
        cutoffs = kind >= FIRST_CUTOFF_KIND
        size = CUTOFF.size if cutoffs else DENIAL.size
        table = view._table(kind, key_tag)
        kept = bytearray()
        for index, (fp, entry) in enumerate(_entries(packed, cutoffs)):
            known = table.find(fp)
            if known is None or _join(known, entry) != known:
                kept += packed[index * size : (index + 1) * size]
        missing.append(Group(kind, key_tag, bytes(kept)))
    return join_groups(missing)


def _entries(rows: bytes, cutoffs: bool) -> Iterable[tuple[int, Cutoff]]:
    if cutoffs:
        return ((fp, Cutoff(exp, version, at)) for fp, exp, version, at in CUTOFF.iter_unpack(rows))
    return ((fp, Cutoff(exp, 0, 0)) for fp, exp in DENIAL.iter_unpack(rows))


def _join(a: Cutoff, b: Cutoff) -> Cutoff:
    return Cutoff(max(a.expires_at, b.expires_at), max(a.version, b.version), max(a.at_ms, b.at_ms))
