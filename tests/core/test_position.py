"""Positions, their text, and the digest chain."""

from __future__ import annotations

import base64
import hashlib
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from revocation_sdk._position import NOWHERE, ZERO_DIGEST, Position, chain, decode_positions, encode_positions
from tests.core.strategies import unhurried

log_ids = st.just(b"") | st.binary(min_size=16, max_size=16).filter(any)
positions = st.builds(Position, log_ids, st.integers(0, 2**64 - 1), st.binary(min_size=20, max_size=20))
lists = st.lists(positions, min_size=1, max_size=5).map(tuple)


@unhurried
@given(lists)
def test_positions_survive_their_text(wanted: tuple[Position, ...]) -> None:
    text = encode_positions(wanted)
    assert decode_positions(text) == wanted
    assert set(text) <= set(string.ascii_letters + string.digits + "-_")


@unhurried
@given(st.text(max_size=130) | st.text(string.ascii_letters + string.digits + "-_+/=", min_size=55, max_size=65))
@example("A" * 59)
@example("A" * 58 + "B")  # stray bits behind the last byte
@example("A" * 57 + "+A")
@example("A" * 59 + "=")
@example("")
def test_other_text_is_refused_or_means_one_thing(text: str) -> None:
    try:
        found = decode_positions(text)
    except ValueError:
        return
    assert encode_positions(found) == text


@pytest.mark.parametrize("size", [0, 1, 43, 45, 60])
def test_a_wrong_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="not a position"):
        decode_positions(base64.urlsafe_b64encode(bytes(size)).rstrip(b"=").decode())


@unhurried
@given(st.lists(st.binary(max_size=30), max_size=6))
def test_the_digest_chains_over_exactly_what_was_received(records: list[bytes]) -> None:
    place = Position(b"h" * 16, 0, ZERO_DIGEST)
    digest = bytes(20)
    for number, rows in enumerate(records, 1):
        place = place.advance(rows)
        digest = hashlib.sha1(digest.hex().encode() + rows, usedforsecurity=False).digest()
        assert place == Position(b"h" * 16, number, digest)


@unhurried
@given(st.lists(st.binary(max_size=4), min_size=1, max_size=6), st.data())
def test_pasts_that_differ_anywhere_have_different_digests(records: list[bytes], data: st.DataObject) -> None:
    changed = list(records)
    index = data.draw(st.integers(0, len(records) - 1))
    changed[index] += b"!"
    one = two = Position(b"h" * 16, 0, ZERO_DIGEST)
    for ours, theirs in zip(records, changed, strict=True):
        one, two = one.advance(ours), two.advance(theirs)
    assert one.seq == two.seq
    assert one != two


def test_the_chain_never_changes() -> None:
    assert chain(ZERO_DIGEST, b"rows").hex() == "2589185f838327294a1a758cd3d9b7d5e7fc387a"


def test_nowhere_is_no_place_in_a_history() -> None:
    assert Position(b"", 0, bytes(20)) == NOWHERE
    assert decode_positions(encode_positions((NOWHERE,))) == (NOWHERE,)
