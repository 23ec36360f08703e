"""Hypothesis strategies for entries, and the dictionary that the view must behave like."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st

from revocation_sdk._lattice import CUTOFF, DENIAL, FIRST_CUTOFF_KIND, NEVER, Cutoff, Group, join_groups, parse_groups
from revocation_sdk._packed import Builder, PureBuilder
from revocation_sdk._packed_fast import NumpyBuilder
from revocation_sdk._view import View

Place = tuple[int, int]
Model = dict[Place, dict[int, Cutoff]]
Entry = tuple[int, Cutoff]

BUILDERS: dict[str, Builder] = {
    "pure": PureBuilder(),
    "numpy": NumpyBuilder(),
    "pure, tiny segments": PureBuilder(4, 2),
    "numpy, tiny segments": NumpyBuilder(4, 2),
}
"""Tiny segments show with a few entries what full ones show with millions."""

unhurried = settings(deadline=None, max_examples=40)  # a busy machine is no failure

MOST = 2**64 - 1
fingerprints = st.one_of(
    st.integers(0, MOST),
    st.integers(0, 7).map(lambda slot: slot << 61),  # the edges of segments
    st.integers(0, 7).map(lambda slot: (slot << 61) - 1 & MOST),
    st.integers(0, 20),
)
expiries = st.one_of(st.integers(0, 40), st.integers(0, NEVER), st.sampled_from((NEVER - 1, NEVER)))
denials = st.tuples(fingerprints, st.builds(Cutoff, expiries, st.just(0), st.just(0)))
cutoffs = st.tuples(fingerprints, st.builds(Cutoff, expiries, st.integers(0, MOST), st.integers(0, MOST)))
places = st.tuples(st.sampled_from((1, 2, 3, 7, 64, 65, 66, 127)), st.sampled_from((0, 1, 0xFFFF)))


def pack(kind: int, entries: Iterable[Entry]) -> bytes:
    """Rows without a header."""
    if kind >= FIRST_CUTOFF_KIND:
        return b"".join(CUTOFF.pack(fp, *entry) for fp, entry in entries)
    return b"".join(DENIAL.pack(fp, entry.expires_at) for fp, entry in entries)


def entries_of(kind: int, most: int = 12) -> st.SearchStrategy[list[Entry]]:
    return st.lists(cutoffs if kind >= FIRST_CUTOFF_KIND else denials, max_size=most)


groups = places.flatmap(lambda place: entries_of(place[0]).map(lambda entries: Group(*place, pack(place[0], entries))))
rows = st.lists(groups, max_size=5).map(join_groups)
malformed_tails = st.sampled_from((b"\x01", b"\x01\x00\x00\x01\x00\x00\x00half", b"\x00" * 7, b"\x80" + b"\x00" * 6))


def unpack(kind: int, packed: bytes) -> list[Entry]:
    if kind >= FIRST_CUTOFF_KIND:
        return [(fp, Cutoff(*entry)) for fp, *entry in CUTOFF.iter_unpack(packed)]
    return [(fp, Cutoff(expires_at, 0, 0)) for fp, expires_at in DENIAL.iter_unpack(packed)]


def join_into(model: Model, blob: bytes) -> None:
    """The lattice join, spelt out."""
    for kind, tag, packed in parse_groups(blob):
        for fp, entry in unpack(kind, packed):
            table = model.setdefault((kind, tag), {})
            known = table.get(fp, entry)
            table[fp] = Cutoff(*(max(pair) for pair in zip(known, entry, strict=True)))


def content(view: View) -> Model:
    """What a view holds, told by its chunks. Fails if it tells something twice."""
    found: Model = {}
    for chunk in view.chunks():
        for kind, tag, packed in parse_groups(chunk):
            for fp, entry in unpack(kind, packed):
                table = found.setdefault((kind, tag), {})
                assert fp not in table
                table[fp] = entry
    return found


def without_empty(model: Model) -> Model:
    return {place: table for place, table in model.items() if table}
