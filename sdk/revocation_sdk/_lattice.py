"""The entries of a view, their binary rows, and the keyed fingerprints that name them.

Pure: no I/O, no clock. The format is specified in `proto/revocation_api/v1/revocation.proto` (ROWS, FINGERPRINTS);
this module is its one implementation, used by the SDK and by the service.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple

NEVER = 0xFFFFFFFF
"""`expires_at` of an entry that only an operator removes (signing keys)."""

GROUP = struct.Struct("<BHI")
DENIAL = struct.Struct("<QI")
CUTOFF = struct.Struct("<QIQQ")
_ABSENT_ISSUER = b"\xff\xff\xff\xff"


class Kind(IntEnum):
    """What an entry revokes. The number is the kind byte of rows and fingerprints."""

    TOKEN = 1
    SESSION = 2
    KEY = 3
    SUBJECT = 64
    CLIENT = 65
    REALM = 66


FIRST_CUTOFF_KIND = 64


class MalformedRows(ValueError):
    """Rows that do not parse; they came from a broken or hostile peer."""


class Group(NamedTuple):
    """Rows of one kind under one realm key. `kind` may be one that this version does not know."""

    kind: int
    key_tag: int
    rows: bytes

    @property
    def length(self) -> int:
        """How many rows the group has."""
        return len(self.rows) // row_size(self.kind)


class Cutoff(NamedTuple):
    """Tokens with a version below `version` are refused; foreign ones issued before `at_ms`."""

    expires_at: int
    version: int
    at_ms: int


def row_size(kind: int) -> int:
    """Bytes of one row of this kind; kinds unknown today follow the ranges of the contract."""
    if 0 < kind < FIRST_CUTOFF_KIND:
        return DENIAL.size
    if FIRST_CUTOFF_KIND <= kind < 128:
        return CUTOFF.size
    raise MalformedRows(f"kind {kind} is outside the ranges of the contract")


def parse_groups(rows: bytes) -> Iterator[Group]:
    """Splits `rows` into groups. Raises MalformedRows on anything truncated or trailing."""
    offset = 0
    while offset < len(rows):
        if len(rows) - offset < GROUP.size:
            raise MalformedRows("truncated group header")
        kind, key_tag, count = GROUP.unpack_from(rows, offset)
        offset += GROUP.size
        end = offset + count * row_size(kind)
        if end > len(rows):
            raise MalformedRows("truncated rows")
        yield Group(kind, key_tag, rows[offset:end])
        offset = end


def join_groups(groups: Iterable[Group]) -> bytes:
    """The inverse of parse_groups; empty groups are left out."""
    return b"".join(GROUP.pack(kind, tag, len(rows) // row_size(kind)) + rows for kind, tag, rows in groups if rows)


def count_rows(rows: bytes) -> int:
    """How many rows `rows` holds, of all kinds."""
    return sum(group.length for group in parse_groups(rows))


@dataclass(frozen=True, slots=True)
class RealmKey:
    """The key under which a realm's fingerprints are made. Secret; never in `repr`."""

    tag: int
    key: bytes = field(repr=False)

    def fingerprint(self, kind: Kind, issuer: str | None, value: str) -> int:
        """64-bit keyed fingerprint of a target; `issuer=None` means whichever issuer."""
        digest = hashlib.blake2b(fingerprint_input(kind, issuer, value), digest_size=8, key=self.key).digest()
        return int.from_bytes(digest, "little")

    def fingerprints(self, kind: Kind, issuer: str | None, values: Iterable[str]) -> list[bytes]:
        """As `fingerprint`, for many values of one issuer; as the 8 bytes that rows begin with."""
        begun = hashlib.blake2b(_before_value(kind, issuer), digest_size=8, key=self.key)
        found = []
        copy, sizes = begun.copy, dict[int, bytes]()
        for value in values:
            text = value.encode("utf-8", "surrogatepass")
            size = len(text)
            prefix = sizes.get(size)
            if prefix is None:
                prefix = sizes[size] = size.to_bytes(4, "little")
            each = copy()
            each.update(prefix + text)
            found.append(each.digest())
        return found


def fingerprint_input(kind: Kind, issuer: str | None, value: str) -> bytes:
    """What is hashed: kind, then issuer and value with their lengths, so that no two targets look alike.

    A lone surrogate, which JSON can smuggle into a claim, is encoded as it is: it must not raise, and it must not
    collide with another value.
    """
    text = value.encode("utf-8", "surrogatepass")
    return b"%b%b%b" % (_before_value(kind, issuer), len(text).to_bytes(4, "little"), text)


def _before_value(kind: Kind, issuer: str | None) -> bytes:
    if issuer is None:
        return b"%c%b" % (kind, _ABSENT_ISSUER)
    name = issuer.encode("utf-8", "surrogatepass")
    return b"%c%b%b" % (kind, len(name).to_bytes(4, "little"), name)
