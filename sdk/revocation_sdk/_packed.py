"""Sorted, packed, immutable columns of entries: 12 bytes a denial and 28 a cutoff, plus less than one of directory.

Fingerprints are uniformly random, so a directory over their first bits leads to a run of a few entries, which
bisection searches in C. What builds the columns is exchangeable: plain Python here, numpy in `_packed_fast`; what they
build is the same, and so are look-ups. Pure: no I/O, no clock.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Protocol, Union

from revocation_sdk._lattice import CUTOFF, DENIAL, NEVER, Cutoff
from revocation_sdk._yield import give_way

Column = Union["array[int]", "memoryview[int]"]
Columns = Sequence[Column]
"""Fingerprints, expires_at and, of cutoffs, version and at_ms; parallel, one number an entry."""

CODES = "QIQQ"
CHUNK_BYTES = 128 * 1024
_cutoff = tuple.__new__  # what Cutoff() does, three times as fast
_HEADER = sys.getsizeof(array("Q"))
_STRIDE = 2_000  # rows, after which others may have the interpreter's lock
_RUN = 8  # entries to a slot of the directory, on average: this at most, and half of it at least


class Packed:
    """An immutable table from fingerprint to entry, sorted by fingerprint.

    It is a *segment*: all its fingerprints begin with the same `bits` bits, which the directory leaves out.
    """

    __slots__ = ("_directory", "_expires", "_fps", "_mask", "_others", "_shift", "columns", "earliest")

    def __init__(self, columns: Columns, bits: int, directory: Column, earliest: int) -> None:
        width = directory_width(len(columns[0]), bits)
        self._shift, self._mask = 64 - bits - width, (1 << width) - 1
        self._directory = directory
        self._fps, self._expires, *others = columns
        self._others = others
        self.columns = columns
        self.earliest = earliest

    def find(self, fp: int) -> Cutoff | None:
        """The entry of a fingerprint. A denial is a cutoff whose version and time are zero."""
        directory = self._directory
        slot = (fp >> self._shift) & self._mask
        stop = directory[slot + 1]
        index = bisect_left(self._fps, fp, directory[slot], stop)
        if index == stop or self._fps[index] != fp:
            return None
        if self._others:
            return Cutoff(self._expires[index], *[column[index] for column in self._others])
        return _cutoff(Cutoff, (self._expires[index], 0, 0))

    def __len__(self) -> int:
        return len(self._fps)

    def __sizeof__(self) -> int:
        columns = (*self.columns, self._directory)
        return object.__sizeof__(self) + sum(_HEADER + len(column) * column.itemsize for column in columns)


def directory_width(length: int, bits: int) -> int:
    """How many bits, behind the `bits` of the segment, number the slots of a directory."""
    return min((length // _RUN).bit_length(), 64 - bits)


class Builder(Protocol):
    """Makes packed tables. All builders make the same of the same.

    A segment is halved beyond `capacity` entries and rewritten after at most `delta` changes. A batch of more than a
    `bulk`-th of the table is joined with all segments at once, since that is cheaper than one entry at a time.
    """

    capacity: int
    delta: int
    bulk: int

    def split(self, parts: list[bytes], cutoffs: bool, bits: int) -> Iterable[tuple[int, Any]]:
        """The entries of `parts`, which are rows without headers, by segment, in the form that `join` takes."""

    def join(self, base: Packed, new: Any, bits: int) -> Packed:
        """The lattice join of a segment and what `split` found for it, duplicates included."""

    def live(self, base: Packed, now: int, bits: int) -> Packed:
        """The segment without what expires at `now` or before."""

    def halves(self, base: Packed, middle: int, bits: int) -> tuple[Packed, Packed]:
        """What is below `middle` and what is not, as segments of `bits` bits."""

    def sieve(self, base: Packed, bits: int) -> bytearray:
        """2**bits bits; bit fp mod 2**bits is set for each entry."""

    def rows(self, base: Packed) -> Iterator[bytes]:
        """The segment as rows without headers, in pieces of about CHUNK_BYTES."""


class PureBuilder:
    """Plain Python: exact, slower, and in small segments, so that no step keeps readers waiting for long."""

    bulk = 32

    def __init__(self, capacity: int = 4096, delta: int = 128) -> None:
        self.capacity, self.delta = capacity, delta

    def split(self, parts: list[bytes], cutoffs: bool, bits: int) -> Iterable[tuple[int, list[array[int]]]]:
        """See Builder."""
        found: dict[int, list[array[int]]] = {}
        row, codes = (CUTOFF, CODES) if cutoffs else (DENIAL, CODES[:2])
        for rows in parts:
            for number, entry in enumerate(row.iter_unpack(rows), 1):
                if number % _STRIDE == 0:
                    give_way()
                slot = entry[0] >> (64 - bits)
                if slot not in found:
                    found[slot] = [array(code) for code in codes]
                for column, value in zip(found[slot], entry, strict=True):
                    column.append(value)
        return found.items()

    def join(self, base: Packed, new: list[array[int]], bits: int) -> Packed:
        """See Builder."""
        fps, *values = columns = _copies(base.columns)
        for fp, *entry in zip(*new, strict=True):
            index = bisect_left(fps, fp)
            if index < len(fps) and fps[index] == fp:
                for column, value in zip(values, entry, strict=True):
                    column[index] = max(column[index], value)
            else:
                for column, value in zip(columns, (fp, *entry), strict=True):
                    column.insert(index, value)
        return _packed(columns, bits)

    def live(self, base: Packed, now: int, bits: int) -> Packed:
        """See Builder."""
        keep = [expires_at > now for expires_at in base.columns[1]]
        return _packed([array(column.typecode, compress(column, keep)) for column in _copies(base.columns)], bits)

    def halves(self, base: Packed, middle: int, bits: int) -> tuple[Packed, Packed]:
        """See Builder."""
        cut = bisect_left(base.columns[0], middle)
        columns = _copies(base.columns)
        low, high = ([column[part] for column in columns] for part in (slice(cut), slice(cut, None)))
        return _packed(low, bits), _packed(high, bits)

    def sieve(self, base: Packed, bits: int) -> bytearray:
        """See Builder."""
        sieve, mask = bytearray(1 << (bits - 3)), (1 << (bits - 3)) - 1
        for fp in base.columns[0]:
            sieve[(fp >> 3) & mask] |= 1 << (fp & 7)
        return sieve

    def rows(self, base: Packed) -> Iterator[bytes]:
        """See Builder."""
        row = DENIAL if len(base.columns) == 2 else CUTOFF
        step = CHUNK_BYTES // row.size
        for start in range(0, len(base), step):
            yield b"".join(map(row.pack, *(column[start : start + step] for column in base.columns)))


def _copies(columns: Columns) -> list[array[int]]:
    """Arrays without room to grow, which would be wasted on what is published."""
    return [array(code, column) for code, column in zip(CODES, columns, strict=False)]


def _packed(columns: Columns, bits: int) -> Packed:
    fps, *_ = columns = _copies(columns)
    width = directory_width(len(fps), bits)
    step = 1 << (64 - bits - width)
    first = fps[0] & -(step << width) if fps else 0
    directory = array("I", [0])
    for slot in range(1, 1 << width):
        directory.append(bisect_left(fps, first + slot * step, directory[-1]))
    directory.append(len(fps))
    return Packed(columns, bits, directory[:], min(columns[1], default=NEVER))


_EMPTY_DENIALS = _packed([array(code) for code in CODES[:2]], 0)
_EMPTY_CUTOFFS = _packed([array(code) for code in CODES], 0)


def empty(cutoffs: bool) -> Packed:
    """The segment without entries; it serves for any number of bits."""
    return _EMPTY_CUTOFFS if cutoffs else _EMPTY_DENIALS


def best_builder() -> Builder:
    """The fastest builder that is installed."""
    try:
        from revocation_sdk._packed_fast import NumpyBuilder
    except ImportError:
        return PureBuilder()
    return NumpyBuilder()
