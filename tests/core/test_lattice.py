"""Rows, groups and fingerprints."""

from __future__ import annotations

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revocation_sdk._lattice import (
    CUTOFF,
    DENIAL,
    GROUP,
    Group,
    Kind,
    MalformedRows,
    RealmKey,
    count_rows,
    fingerprint_input,
    join_groups,
    parse_groups,
    row_size,
)
from tests.core.strategies import groups, malformed_tails, rows, unhurried

KEY = RealmKey(1, bytes(range(32)))
any_text = st.text(st.characters(codec=None), max_size=20)  # lone surrogates too
issuers = st.none() | any_text
targets = st.tuples(st.sampled_from(Kind), issuers, any_text)


@unhurried
@given(st.lists(groups, max_size=6))
def test_what_is_joined_parses_to_the_same_groups(wanted: list[Group]) -> None:
    assert list(parse_groups(join_groups(wanted))) == [group for group in wanted if group.rows]


@unhurried
@given(st.lists(groups, max_size=6))
def test_the_format_is_the_one_of_the_contract(wanted: list[Group]) -> None:
    expected = b""
    for kind, tag, packed in wanted:
        if packed:
            expected += struct.pack("<B", kind) + struct.pack("<H", tag)
            expected += struct.pack("<I", len(packed) // (12 if kind < 64 else 28)) + packed
    assert join_groups(wanted) == expected


@unhurried
@given(rows, rows)
def test_rows_put_one_behind_the_other_are_rows(first: bytes, second: bytes) -> None:
    assert list(parse_groups(first + second)) == [*parse_groups(first), *parse_groups(second)]
    assert count_rows(first + second) == count_rows(first) + count_rows(second)


@unhurried
@given(rows)
def test_counting_counts_rows_and_not_groups(blob: bytes) -> None:
    assert count_rows(blob) == sum(len(group.rows) // row_size(group.kind) for group in parse_groups(blob))


@unhurried
@given(st.binary(max_size=200))
def test_noise_parses_to_itself_or_is_malformed(noise: bytes) -> None:
    try:
        found = list(parse_groups(noise))
    except MalformedRows:
        return
    assert sum(GROUP.size + len(group.rows) for group in found) == len(noise)


@unhurried
@given(rows, malformed_tails)
def test_a_malformed_tail_is_noticed(blob: bytes, tail: bytes) -> None:
    with pytest.raises(MalformedRows):
        list(parse_groups(blob + tail))
    with pytest.raises(MalformedRows):
        count_rows(blob + tail)


@unhurried
@given(groups.filter(lambda group: bool(group.rows)), st.data())
def test_a_group_that_is_cut_off_is_malformed(group: Group, data: st.DataObject) -> None:
    blob = join_groups([group])
    with pytest.raises(MalformedRows):
        list(parse_groups(blob[: data.draw(st.integers(1, len(blob) - 1))]))


@pytest.mark.parametrize("count", [1, 2**32 - 1])
def test_a_count_beyond_the_end_costs_no_memory(count: int) -> None:
    with pytest.raises(MalformedRows):
        list(parse_groups(GROUP.pack(1, 0, count)))


@pytest.mark.parametrize(("kind", "size"), [(1, 12), (3, 12), (63, 12), (64, 28), (66, 28), (127, 28)])
def test_kinds_of_later_versions_have_known_sizes(kind: int, size: int) -> None:
    assert row_size(kind) == size


@pytest.mark.parametrize("kind", [0, 128, 255])
def test_kinds_outside_the_ranges_are_malformed(kind: int) -> None:
    with pytest.raises(MalformedRows):
        row_size(kind)


def test_row_sizes() -> None:
    assert (DENIAL.size, CUTOFF.size, GROUP.size) == (12, 28, 7)


def expected_fingerprint(key: bytes, kind: int, issuer: str | None, value: str) -> int:
    """FINGERPRINTS of the contract, written a second time."""
    message = bytes([kind])
    if issuer is None:
        message += b"\xff" * 4
    else:
        message += struct.pack("<I", len(issuer.encode())) + issuer.encode()
    message += struct.pack("<I", len(value.encode())) + value.encode()
    return struct.unpack("<Q", hashlib.blake2b(message, key=key, digest_size=8).digest())[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("kind", "issuer", "value"),
    [
        (Kind.TOKEN, "https://id.example", "0197-jti"),
        (Kind.TOKEN, None, "0197-jti"),
        (Kind.TOKEN, "", "0197-jti"),
        (Kind.SUBJECT, "https://id.example", "Zoë 🔑"),
        (Kind.REALM, None, ""),
        (Kind.KEY, None, "jkt:NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
    ],
)
def test_fingerprints_are_those_of_the_contract(kind: Kind, issuer: str | None, value: str) -> None:
    assert KEY.fingerprint(kind, issuer, value) == expected_fingerprint(KEY.key, kind, issuer, value)


@given(st.sampled_from(Kind), st.none() | st.text(max_size=20), st.lists(st.text(max_size=300), max_size=5))
def test_many_fingerprints_are_those_of_each(kind: Kind, issuer: str | None, values: list[str]) -> None:
    each = [KEY.fingerprint(kind, issuer, value).to_bytes(8, "little") for value in values]
    assert KEY.fingerprints(kind, issuer, values) == each


def test_fingerprints_never_change() -> None:
    """They are in stores and in other processes: these numbers are for ever."""
    assert KEY.fingerprint(Kind.TOKEN, "https://id.example", "0197-jti") == 0xD6F941AEB954305
    assert KEY.fingerprint(Kind.REALM, None, "") == 0xB363D3D5D460B44


def read_back(message: bytes) -> tuple[Kind, str | None, str]:
    """Undoes fingerprint_input; that it can be undone is why no two targets look alike."""
    kind, at = Kind(message[0]), 1
    length = int.from_bytes(message[at : at + 4], "little")
    at += 4
    issuer = None
    if length != 0xFFFFFFFF:
        issuer = message[at : at + length].decode("utf-8", "surrogatepass")
        at += length
    length = int.from_bytes(message[at : at + 4], "little")
    assert at + 4 + length == len(message)
    return kind, issuer, message[at + 4 :].decode("utf-8", "surrogatepass")


@unhurried
@given(targets)
def test_no_two_targets_hash_the_same_input(target: tuple[Kind, str | None, str]) -> None:
    assert read_back(fingerprint_input(*target)) == target


@unhurried
@given(targets)
def test_another_realm_key_gives_another_fingerprint(target: tuple[Kind, str | None, str]) -> None:
    assert KEY.fingerprint(*target) != RealmKey(1, b"\x01" * 32).fingerprint(*target)


def test_a_realm_key_does_not_show_itself() -> None:
    secret = RealmKey(1, b"do not show this in any log ....")
    assert "do not show" not in repr(secret)
