"""Positions: points in the history of each partition, as one realm sees it. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass

ZERO_DIGEST = bytes(20)
_TEXT = struct.Struct("<16sQ20s")


@dataclass(frozen=True, slots=True)
class Position:
    """A point in one history. Equal positions mean equal pasts: history, number *and* digest (model D10)."""

    log_id: bytes
    seq: int
    digest: bytes

    def advance(self, rows: bytes) -> Position:
        """The position after the next record. The digest chains over exactly the bytes received."""
        return Position(self.log_id, self.seq + 1, chain(self.digest, rows))


NOWHERE = Position(b"", 0, ZERO_DIGEST)
"""No demand on this partition, or nothing known of it yet."""


def chain(digest: bytes, rows: bytes) -> bytes:
    """The next chain digest. Over the hex form, which is what a Redis script can compute without a detour."""
    return hashlib.sha1(digest.hex().encode() + rows, usedforsecurity=False).digest()


def encode_positions(positions: tuple[Position, ...]) -> str:
    """Opaque text of a list of positions, as receipts show it."""
    packed = b"".join(_TEXT.pack(p.log_id.ljust(16, b"\0"), p.seq, p.digest) for p in positions)
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def decode_positions(text: str) -> tuple[Position, ...]:
    """The inverse of encode_positions. Raises ValueError for anything else."""
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError("not a position: not base64url") from error
    if len(packed) % _TEXT.size or not packed:
        raise ValueError("not a position: wrong length")
    parts = (_TEXT.unpack_from(packed, offset) for offset in range(0, len(packed), _TEXT.size))
    positions = tuple(Position(b"" if log_id == bytes(16) else log_id, seq, digest) for log_id, seq, digest in parts)
    if encode_positions(positions) != text:
        raise ValueError("not a position: not canonical base64url")
    return positions
