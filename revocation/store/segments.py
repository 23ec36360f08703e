"""Rows to segments and back. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from revocation.store import SLOT_S, segment_of
from revocation_sdk._lattice import CUTOFF, DENIAL, FIRST_CUTOFF_KIND, NEVER, Group, parse_groups

_FEW = 16


def split(kind: int, key_tag: int, rows: bytes) -> Iterator[tuple[str, str, bytes]]:
    """The rows of one group by segment: (name, due, rows)."""
    row = DENIAL if kind < FIRST_CUTOFF_KIND else CUTOFF
    if len(rows) > _FEW * row.size:
        yield from _split_many(kind, key_tag, rows, row.size)
        return
    by_segment: dict[tuple[str, str], bytearray] = {}
    for offset in range(0, len(rows), row.size):
        expires_at = row.unpack_from(rows, offset)[1]
        by_segment.setdefault(segment_of(kind, key_tag, expires_at), bytearray()).extend(
            rows[offset : offset + row.size]
        )
    for (name, due), packed in by_segment.items():
        yield name, due, bytes(packed)


def _split_many(kind: int, key_tag: int, rows: bytes, size: int) -> Iterator[tuple[str, str, bytes]]:
    table = np.frombuffer(
        rows, np.dtype({"names": ["expires_at"], "formats": ["<u4"], "offsets": [8], "itemsize": size})
    )
    expires_at = table["expires_at"]
    # Rows that never expire have a segment of their own.
    numbers = np.where(expires_at == NEVER, NEVER, expires_at // SLOT_S)
    for number in np.unique(numbers):
        chosen = np.flatnonzero(numbers == number)
        name, due = segment_of(kind, key_tag, int(expires_at[chosen[0]]))
        yield name, due, rows if len(chosen) == len(table) else np.frombuffer(rows, f"V{size}")[chosen].tobytes()


def split_all(rows: bytes) -> Iterator[tuple[int, int, str, str, bytes]]:
    """All groups of `rows` by segment: (kind, key tag, name, due, rows)."""
    for kind, key_tag, packed in parse_groups(rows):
        for name, due, part in split(kind, key_tag, packed):
            yield kind, key_tag, name, due, part


def group_of(name: str, rows: bytes) -> Group:
    """The group that a segment's rows are."""
    kind, key_tag, _ = name.split("-")
    return Group(int(kind), int(key_tag), rows)
