"""Sorted, packed, immutable columns of entries: 12 bytes a denial and 28 a cutoff, plus half a byte of directory.

Fingerprints are uniformly random, so a directory over their top bits leads to a run of about eight entries, which
bisection searches in C. numpy, where it is installed, only builds the columns faster; look-ups are the same code.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import count

from revocation_sdk._lattice import CUTOFF, DENIAL, Cutoff

_serials = count()
_RUN = 8  # entries a directory slot leads to, on average


class Packed:
    """An immutable table from fingerprint to entry."""

    __slots__ = ("_ats", "_directory", "_expires", "_fps", "_shift", "_versions", "serial")

    def __init__(self, fps: array[int], expires: array[int], versions: array[int], ats: array[int]) -> None:
        self.serial = next(_serials)  # names this table for good, where an id() could be used again
        self._fps, self._expires, self._versions, self._ats = fps, expires, versions, ats
        bits = max(0, (len(fps) // _RUN).bit_length())
        self._shift = 64 - bits
        starts = ((slot << self._shift) for slot in range(1 << bits))
        self._directory = array("I", (bisect_left(fps, start) for start in starts))
        self._directory.append(len(fps))

    def find(self, fp: int) -> Cutoff | None:
        """The entry of a fingerprint."""
        slot = fp >> self._shift
        directory = self._directory
        stop = directory[slot + 1]
        index = bisect_left(self._fps, fp, directory[slot], stop)
        if index == stop or self._fps[index] != fp:
            return None
        if not self._versions:
            return Cutoff(self._expires[index], 0, 0)
        return Cutoff(self._expires[index], self._versions[index], self._ats[index])

    def joined(self, rows: bytes, delta: Mapping[int, Cutoff], cutoffs: bool, expired_by: int = -1) -> Packed:
        """A table of this one, the delta and the rows: the lattice join, without what expired by then."""
        merged = dict(self._items())
        merged.update(delta)
        for fp, *values in (CUTOFF if cutoffs else DENIAL).iter_unpack(rows):
            known = merged.get(fp)
            new = Cutoff(*values) if cutoffs else Cutoff(values[0], 0, 0)
            merged[fp] = new if known is None else Cutoff(*map(max, known, new))
        order = sorted(fp for fp, entry in merged.items() if entry.expires_at > expired_by)
        return Packed(
            array("Q", order),
            array("I", (merged[fp].expires_at for fp in order)),
            array("Q", (merged[fp].version for fp in order) if cutoffs else ()),
            array("Q", (merged[fp].at_ms for fp in order) if cutoffs else ()),
        )

    def chunks(self, size: int, cutoffs: bool) -> Iterator[bytes]:
        """The table as rows, in pieces of about `size` bytes."""
        row = CUTOFF if cutoffs else DENIAL
        step = size // row.size
        columns = (self._fps, self._expires) + ((self._versions, self._ats) if cutoffs else ())
        for start in range(0, len(self._fps), step):
            parts = zip(*(column[start : start + step] for column in columns), strict=True)
            yield b"".join(row.pack(*values) for values in parts)

    def _items(self) -> Iterator[tuple[int, Cutoff]]:
        if self._versions:
            columns = zip(self._fps, self._expires, self._versions, self._ats, strict=True)
            return ((fp, Cutoff(exp, version, at)) for fp, exp, version, at in columns)
        return ((fp, Cutoff(exp, 0, 0)) for fp, exp in zip(self._fps, self._expires, strict=True))

    def __len__(self) -> int:
        return len(self._fps)

    def __sizeof__(self) -> int:
        columns = (self._fps, self._expires, self._versions, self._ats, self._directory)
        return sum(map(sys.getsizeof, columns))


EMPTY = Packed(array("Q"), array("I"), array("Q"), array("Q"))
