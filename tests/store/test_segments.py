"""Rows by segment: the quick way for many and the plain way for few say the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from revocation.store import segment_of
from revocation.store.segments import split
from revocation_sdk._lattice import CUTOFF, DENIAL, NEVER, Kind

expiries = st.lists(st.integers(1, 2_000) | st.sampled_from([255, 256, 257, NEVER - 1, NEVER]), min_size=0, max_size=60)


@given(expiries)
def test_denials_keep_their_order_in_the_right_segments(found: list[int]) -> None:
    rows = [DENIAL.pack(number, expires_at) for number, expires_at in enumerate(found)]
    wanted: dict[tuple[str, str], bytes] = {}
    for row, expires_at in zip(rows, found, strict=True):
        place = segment_of(Kind.TOKEN, 3, expires_at)
        wanted[place] = wanted.get(place, b"") + row
    parts = list(split(Kind.TOKEN, 3, b"".join(rows)))
    assert {(name, due): packed for name, due, packed in parts} == wanted
    assert len(parts) == len(wanted)


@given(expiries)
def test_cutoffs_too(found: list[int]) -> None:
    rows = [CUTOFF.pack(number, expires_at, number, 1) for number, expires_at in enumerate(found)]
    parts = {name: packed for name, _, packed in split(Kind.SUBJECT, 3, b"".join(rows))}
    assert sorted(b"".join(parts.values())) == sorted(b"".join(rows))
    for name, packed in parts.items():
        for _, expires_at, _, _ in CUTOFF.iter_unpack(packed):
            assert segment_of(Kind.SUBJECT, 3, expires_at)[0] == name
