"""Refresh tokens: only a token that we made, whole and for this realm, is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revocation.session.refresh import (
    HIGHEST_GENERATION,
    LONGEST,
    Claim,
    RefreshInvalid,
    belongs,
    make_sid,
    make_token,
    parse,
    partition_of,
)

KEYS = {"k1": b"1" * 32, "k2": b"2" * 32}
SECRET = b"s" * 32
SID = make_sid(3, bytes(range(16)))


def token(generation: int = 7, *, kid: str = "k1", realm: str = "r", sid: str = SID, secret: bytes = SECRET) -> str:
    return make_token(sid, generation, kid, realm, KEYS[kid], secret)


def key_of(kid: str) -> bytes:
    return KEYS[kid]


def refused(text: str, realm: str = "r") -> bool:
    try:
        parse(text, realm, key_of)
    except RefreshInvalid:
        return True
    return False


@given(
    st.integers(0, 255),
    st.binary(min_size=16, max_size=16),
    st.integers(1, HIGHEST_GENERATION),
    st.sampled_from([*KEYS]),
)
def test_a_token_of_ours_is_read_back(partition: int, random: bytes, generation: int, kid: str) -> None:
    sid = make_sid(partition, random)
    made = token(generation, kid=kid, sid=sid)
    claim = parse(made, "r", key_of)
    assert (claim.kid, claim.sid, claim.generation, partition_of(sid)) == (kid, sid, generation, partition)
    assert belongs(claim, SECRET)
    assert not belongs(claim, b"t" * 32)
    assert len(made) <= LONGEST


def test_a_generation_has_one_token_only() -> None:
    assert token(7) == token(7)
    assert len({token(n) for n in range(1, 100)}) == 99


def test_every_change_of_a_character_is_refused() -> None:
    made = token()
    for place, old in enumerate(made):
        for new in {"A", "a", "0", "-", ".", "=", " ", "\n", "\x00", "é"} - {old}:
            assert refused(made[:place] + new + made[place + 1 :]), (place, new)


def test_every_truncation_and_addition_is_refused() -> None:
    made = token()
    for size in range(len(made)):
        assert refused(made[:size])
    for extra in ("A", ".", "=", "==", " ", "\n", "." + "A" * 43):
        assert refused(made + extra)
        assert refused(extra + made)


def test_the_last_bits_of_an_encoding_do_not_make_another_token() -> None:
    """43 characters of base64url have two bits to spare, which lenient decoders ignore."""
    made = token()
    parts = made.split(".")
    for part in (2, 4, 5):
        for character in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            text = ".".join([*parts[:part], parts[part][:-1] + character, *parts[part + 1 :]])
            assert text == made or refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "....",
        ".....",
        "A" * 10_000_000,
        "." * 1_000_000,
        token() * 1000,
        token().upper(),
        "\ud800" + token(),
        f"k1.{SID}.0." + ".".join(token().split(".")[-2:]),
        f"k1.{SID}.-1." + ".".join(token().split(".")[-2:]),
        f"k1.{SID}.07." + ".".join(token().split(".")[-2:]),
        f"k1.{SID}.\u0667." + ".".join(token().split(".")[-2:]),
        f"k1.{SID}.{10**30}." + ".".join(token().split(".")[-2:]),
    ],
    ids=lambda text: text[:12].encode("ascii", "backslashreplace").decode(),
)
def test_what_is_no_token_is_refused(text: str) -> None:
    assert refused(text)


def test_another_key_realm_session_or_generation_is_refused() -> None:
    made = token()
    assert refused(made, realm="other")
    assert refused(made.replace("k1.", "k2.", 1))
    assert refused(made.replace("k1.", "k9.", 1))
    assert refused(made.replace(".7.", ".8.", 1))
    assert refused(made.replace(SID, make_sid(3, bytes(16)), 1))
    t1, t2 = made.split(".")[-2:]
    assert refused(made.replace(f"{t1}.{t2}", f"{t2}.{t1}"))


@given(st.text(max_size=300))
def test_no_text_raises_anything_else(text: str) -> None:
    assert refused(text)


def test_the_repr_gives_no_secret_away() -> None:
    claim: Claim = parse(token(), "r", key_of)
    assert claim.t2 not in repr(claim)


@pytest.mark.parametrize("sid", ["", "s1", "sess-1", "s10g." + "A" * 22, "s100." + "A" * 21, "s200." + "A" * 22])
def test_a_foreign_sid_names_no_partition(sid: str) -> None:
    assert partition_of(sid) is None
