"""Packed tables built by numpy, which takes its long steps in C and without the interpreter's lock.

Segments are large: each step lets a busy reader keep the lock for a whole switch interval, so few steps are best.
What is published are memoryviews: Python indexes these several times faster than numpy's arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from revocation_sdk._lattice import NEVER
from revocation_sdk._packed import CHUNK_BYTES, CODES, Packed, directory_width

Numbers = npt.NDArray[np.unsignedinteger[Any]]

_LARGE = 1 << 16
_FIELDS = list(zip(("fp", "expires_at", "version", "at_ms"), CODES, strict=True))
_ROW = [(name, np.dtype(code).newbyteorder("<")) for name, code in _FIELDS]
_DENIAL, _CUTOFF = np.dtype(_ROW[:2]), np.dtype(_ROW)


class NumpyBuilder:
    """See Builder, whose methods these are."""

    bulk = 128

    def __init__(self, capacity: int = 1 << 16, delta: int = 1024) -> None:
        self.capacity, self.delta = capacity, delta

    def split(self, parts: list[bytes], cutoffs: bool, bits: int) -> Iterable[tuple[int, list[Numbers]]]:
        """See Builder. The entries come sorted."""
        columns = _sorted(parts, cutoffs)
        edges = [0, *np.searchsorted(columns[0], _starts(0, 0, bits)).tolist(), len(columns[0])]
        for slot, (start, stop) in enumerate(pairwise(edges)):
            if start < stop:
                yield slot, [column[start:stop] for column in columns]

    def join(self, base: Packed, new: list[Numbers], bits: int) -> Packed:
        """See Builder."""
        if 0 < len(new[0]) * 4 <= len(base) and (new[0][1:] != new[0][:-1]).all():
            return _packed(_put_into(_numbers(base), new), bits)
        both = [np.concatenate(pair) for pair in zip(_numbers(base), new, strict=True)]
        order = np.argsort(both[0], kind="stable")  # of two sorted runs, so that it only merges
        fps, *values = (column[order] for column in both)
        first = np.flatnonzero(np.concatenate(([True], fps[1:] != fps[:-1])))
        return _packed([fps[first], *(np.maximum.reduceat(column, first) for column in values)], bits)

    def live(self, base: Packed, now: int, bits: int) -> Packed:
        """See Builder."""
        columns = _numbers(base)
        keep = columns[1] > now
        return _packed([column[keep] for column in columns], bits)

    def halves(self, base: Packed, middle: int, bits: int) -> tuple[Packed, Packed]:
        """See Builder."""
        columns = _numbers(base)
        cut = np.searchsorted(columns[0], np.uint64(middle))
        low, high = ([column[part] for column in columns] for part in (slice(cut), slice(cut, None)))
        return _packed(low, bits), _packed(high, bits)

    def sieve(self, base: Packed, bits: int) -> bytearray:
        """See Builder."""
        flags = np.zeros(1 << bits, np.bool_)
        flags[_numbers(base)[0] & np.uint64((1 << bits) - 1)] = True
        return bytearray(np.packbits(flags, bitorder="little"))

    def rows(self, base: Packed) -> Iterator[bytes]:
        """See Builder."""
        columns = _numbers(base)
        row = _DENIAL if len(columns) == 2 else _CUTOFF
        step = CHUNK_BYTES // row.itemsize
        for start in range(0, len(base), step):
            rows = np.empty(min(step, len(base) - start), row)
            for (name, _), column in zip(_FIELDS, columns, strict=False):
                rows[name] = column[start : start + step]
            yield rows.tobytes()


def _put_into(columns: list[Numbers], new: list[Numbers]) -> list[Numbers]:
    """A few sorted entries, each once, put among many: half the work of sorting them all."""
    fps, *values = columns
    places = np.searchsorted(fps, new[0])
    known = fps[np.minimum(places, len(fps) - 1)] == new[0]
    if known.any():
        at = places[known]
        values = [column.copy() for column in values]
        for column, later in zip(values, new[1:], strict=True):
            column[at] = np.maximum(column[at], later[known])
        new, places = [column[~known] for column in new], places[~known]
    where = places + np.arange(len(places))
    old = np.ones(len(fps) + len(places), np.bool_)
    old[where] = False
    joined: list[Numbers] = []
    for column, added in zip((fps, *values), new, strict=True):
        both = np.empty(len(old), column.dtype)
        both[where], both[old] = added, column
        joined.append(both)
    return joined


def _sorted(parts: list[bytes], cutoffs: bool) -> list[Numbers]:
    rows = np.concatenate([np.frombuffer(part, _CUTOFF if cutoffs else _DENIAL) for part in parts])
    columns = [rows[name].astype(code) for name, code in (_FIELDS if cutoffs else _FIELDS[:2])]
    del rows
    order = np.argsort(columns[0])
    return [column[order] for column in columns]


def _numbers(base: Packed) -> list[Numbers]:
    return [np.frombuffer(column, code) for column, code in zip(base.columns, CODES, strict=False)]


def _column(numbers: Numbers, code: str) -> memoryview[int]:
    """A copy, in pages of its own if it is large: in the heap, columns that come and go leave holes as large again."""
    size = len(numbers) * np.dtype(code).itemsize
    if size < _LARGE:
        return numbers.astype(code).data
    column: Numbers = np.frombuffer(mmap(-1, size, flags=MAP_PRIVATE | MAP_ANONYMOUS), code)
    column[:] = numbers  # by numpy, which lets readers go on meanwhile
    return column.data


def _starts(first: int, bits: int, width: int) -> Numbers:
    """Where the slots of a segment begin, except the first, if the next `width` bits number them."""
    slots = np.arange(1, 1 << width, dtype=np.uint64)
    return (slots << np.uint64(64 - bits - width)) + np.uint64(first)


def _packed(columns: list[Numbers], bits: int) -> Packed:
    fps, expires = columns[:2]
    width = directory_width(len(fps), bits)
    first = int(fps[0]) & -(1 << (64 - bits)) if len(fps) else 0
    directory = np.concatenate(([0], np.searchsorted(fps, _starts(first, bits, width)), [len(fps)]))
    published = [_column(column, code) for column, code in zip(columns, CODES, strict=False)]
    return Packed(published, bits, _column(directory, "I"), int(expires.min(initial=NEVER)))
