"""Both builders make the same tables, and these are what a dictionary would be."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revocation_sdk import _packed
from revocation_sdk._lattice import NEVER, Cutoff, Group, join_groups
from revocation_sdk._packed import Builder, Packed, PureBuilder, best_builder, empty
from revocation_sdk._packed_fast import NumpyBuilder
from tests.core.strategies import MOST, Entry, Model, entries_of, fingerprints, join_into, pack, unhurried, unpack

KINDS = {False: 1, True: 64}
both = pytest.mark.parametrize("builder", [PureBuilder(), NumpyBuilder()], ids=["pure", "numpy"])
kinds = pytest.mark.parametrize("cutoffs", [False, True], ids=["denials", "cutoffs"])


def expected(cutoffs: bool, *parts: Iterable[Entry]) -> dict[int, Cutoff]:
    model: Model = {}
    for entries in parts:
        join_into(model, join_groups([Group(KINDS[cutoffs], 0, pack(KINDS[cutoffs], entries))]))
    return model.get((KINDS[cutoffs], 0), {})


def build(builder: Builder, cutoffs: bool, *parts: Iterable[Entry]) -> Packed:
    """One part after the other, into one segment."""
    base = empty(cutoffs)
    for entries in parts:
        for slot, new in builder.split([pack(KINDS[cutoffs], entries)], cutoffs, 0):
            assert slot == 0
            base = builder.join(base, new, 0)
    return base


def columns(packed: Packed) -> list[list[int]]:
    return [list(column) for column in packed.columns]


@both
@kinds
@unhurried
@given(data=st.data())
def test_a_table_is_the_join_of_what_went_in(builder: Builder, cutoffs: bool, data: st.DataObject) -> None:
    parts = data.draw(st.lists(entries_of(KINDS[cutoffs], 40), max_size=3))
    wanted, packed = expected(cutoffs, *parts), build(builder, cutoffs, *parts)
    assert len(packed) == len(wanted)
    assert packed.earliest == min((entry.expires_at for entry in wanted.values()), default=NEVER)
    for fp, entry in wanted.items():
        assert packed.find(fp) == entry
    for fp in data.draw(st.lists(fingerprints)):
        assert packed.find(fp) == wanted.get(fp)
    told = b"".join(builder.rows(packed))
    assert unpack(KINDS[cutoffs], told) == sorted(wanted.items())


@kinds
@unhurried
@given(data=st.data())
def test_builders_make_the_same_of_the_same(cutoffs: bool, data: st.DataObject) -> None:
    parts = data.draw(st.lists(entries_of(KINDS[cutoffs], 40), max_size=2))
    pure, fast = (build(builder, cutoffs, *parts) for builder in (PureBuilder(), NumpyBuilder()))
    assert columns(pure) == columns(fast)
    assert pure._directory == fast._directory
    bits = data.draw(st.integers(3, 12))
    assert PureBuilder().sieve(pure, bits) == NumpyBuilder().sieve(pure, bits)
    # And one goes on where the other ended.
    more = data.draw(entries_of(KINDS[cutoffs]))
    pairs: list[tuple[Builder, Packed]] = [(PureBuilder(), fast), (NumpyBuilder(), pure)]
    for one, other in pairs:
        for _, new in one.split([pack(KINDS[cutoffs], more)], cutoffs, 0):
            assert dict(unpack(KINDS[cutoffs], b"".join(one.rows(one.join(other, new, 0))))) == expected(
                cutoffs, *parts, more
            )


@both
@kinds
@unhurried
@given(data=st.data())
def test_what_has_expired_goes_and_nothing_else(builder: Builder, cutoffs: bool, data: st.DataObject) -> None:
    entries = data.draw(entries_of(KINDS[cutoffs], 40))
    now = data.draw(st.integers(0, 50) | st.integers(0, NEVER - 1))
    live = builder.live(build(builder, cutoffs, entries), now, 0)
    wanted = {fp: entry for fp, entry in expected(cutoffs, entries).items() if entry.expires_at > now}
    assert unpack(KINDS[cutoffs], b"".join(builder.rows(live))) == sorted(wanted.items())
    assert live.earliest == min((entry.expires_at for entry in wanted.values()), default=NEVER) > now


@both
@kinds
@unhurried
@given(data=st.data(), bits=st.integers(0, 8))
def test_segments_hold_what_begins_with_their_number(
    builder: Builder, cutoffs: bool, data: st.DataObject, bits: int
) -> None:
    parts = data.draw(st.lists(entries_of(KINDS[cutoffs], 20), min_size=1, max_size=3))
    wanted = expected(cutoffs, *parts)
    found: dict[int, Cutoff] = {}
    for slot, new in builder.split([pack(KINDS[cutoffs], entries) for entries in parts], cutoffs, bits):
        segment = builder.join(empty(cutoffs), new, bits)
        middle = (2 * slot + 1) << (63 - bits)
        for number, half in enumerate(builder.halves(segment, middle, bits + 1)):
            for fp, entry in unpack(KINDS[cutoffs], b"".join(builder.rows(half))):
                assert fp >> (63 - bits) == 2 * slot + number
                assert segment.find(fp) == half.find(fp) == entry
                found[fp] = entry
    assert found == wanted


@both
@unhurried
@given(data=st.data(), bits=st.integers(3, 10))
def test_the_sieve_lets_every_entry_through(builder: Builder, data: st.DataObject, bits: int) -> None:
    packed = build(builder, False, data.draw(entries_of(1, 40)))
    sieve = builder.sieve(packed, bits)
    assert len(sieve) * 8 == 1 << bits
    wanted = {fp % (1 << bits) for fp in packed.columns[0]}
    assert {bit for bit in range(1 << bits) if sieve[bit >> 3] >> (bit & 7) & 1} == wanted


@both
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000, 30_000])
def test_the_directory_leads_to_every_entry(builder: Builder, count: int) -> None:
    fps = {fp * 0x9E37_79B9_7F4A_7C15 % 2**64 for fp in range(count)}  # spread like fingerprints
    packed = build(builder, False, [(fp, Cutoff(fp % 1000, 0, 0)) for fp in fps])
    assert all(packed.find(fp) == (fp % 1000, 0, 0) for fp in fps)
    assert all(packed.find(fp ^ 1) is None for fp in fps if fp ^ 1 not in fps)
    assert packed.find(0 if 0 not in fps else 1) is None
    assert packed.find(MOST) is None


@both
@pytest.mark.parametrize("bits", [0, 8])
def test_fingerprints_that_all_begin_alike_are_found(builder: Builder, bits: int) -> None:
    """Nobody who lacks the key can make such; still they are no error."""
    entries = [(fp, Cutoff(5, 0, 0)) for fp in range(200)]
    ((slot, new),) = builder.split([pack(1, entries)], False, bits)
    packed = builder.join(empty(False), new, bits)
    assert (slot, len(packed)) == (0, 200)
    assert all(packed.find(fp) for fp in range(200))
    assert packed.find(200) is None


@both
@kinds
def test_columns_take_the_bytes_that_they_should(builder: Builder, cutoffs: bool) -> None:
    count = 5000
    entries = [(fp * 0x9E37_79B9_7F4A_7C15 % 2**64, Cutoff(1, 0, 0)) for fp in range(count)]
    packed = build(builder, cutoffs, entries)
    assert packed.__sizeof__() < count * (30 if cutoffs else 14)


@both
@kinds
def test_rows_come_in_pieces(builder: Builder, cutoffs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packed, "CHUNK_BYTES", 100)
    monkeypatch.setattr("revocation_sdk._packed_fast.CHUNK_BYTES", 100)
    entries = [(fp << 50, Cutoff(9, 0, 0)) for fp in range(100)]
    pieces = list(builder.rows(build(builder, cutoffs, entries)))
    assert all(len(piece) <= 100 for piece in pieces)
    assert unpack(KINDS[cutoffs], b"".join(pieces)) == entries


def test_numpy_is_taken_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(best_builder(), NumpyBuilder)
    monkeypatch.setitem(__import__("sys").modules, "revocation_sdk._packed_fast", None)
    assert isinstance(best_builder(), PureBuilder)
