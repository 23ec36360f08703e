"""Rows to segments and back. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from revocation.store import segment_of
from revocation_sdk._lattice import CUTOFF, DENIAL, FIRST_CUTOFF_KIND, Group, parse_groups


def split(kind: int, key_tag: int, rows: bytes) -> Iterator[tuple[str, str, bytes]]:
    """The rows of one group by segment: (name, due, rows)."""
    row = DENIAL if kind < FIRST_CUTOFF_KIND else CUTOFF
    by_segment: dict[tuple[str, str], bytearray] = {}
    for offset in range(0, len(rows), row.size):
        expires_at = row.unpack_from(rows, offset)[1]
        by_segment.setdefault(segment_of(kind, key_tag, expires_at), bytearray()).extend(
            rows[offset : offset + row.size]
        )
    for (name, due), packed in by_segment.items():
        yield name, due, bytes(packed)


def split_all(rows: bytes) -> Iterator[tuple[int, int, str, str, bytes]]:
    """All groups of `rows` by segment: (kind, key tag, name, due, rows)."""
    for kind, key_tag, packed in parse_groups(rows):
        for name, due, part in split(kind, key_tag, packed):
            yield kind, key_tag, name, due, part


def group_of(name: str, rows: bytes) -> Group:
    """The group that a segment's rows are."""
    kind, key_tag, _ = name.split("-")
    return Group(int(kind), int(key_tag), rows)
