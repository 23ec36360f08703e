"""What is revoked, and what the answer says. Pure values; parsing is in `rpc/wire.py`."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from revocation_sdk._audit import AuditPoint
from revocation_sdk._lattice import Cutoff, Kind
from revocation_sdk._position import Position


class Target(NamedTuple):
    """One thing to revoke. `issuer=None` means whichever issuer; `expires_at` (seconds) is for tokens only."""

    kind: Kind
    issuer: str | None
    value: str
    expires_at: int = 0


class Tokens(NamedTuple):
    """Many tokens of one issuer to revoke: names, and beside them when each expires (seconds)."""

    issuer: str | None
    values: Sequence[str]
    expires_at: Sequence[int]


@dataclass(frozen=True, slots=True)
class Operation:
    """Who asks for what under which op id. `caller` separates the op ids of different identities."""

    realm: str
    caller: str
    op_id: uuid.UUID
    digest: str
    """Digest of the request's content: the same op id with another one is an error."""
    role: str = ""
    """The role that allowed it, for the audit."""
    reason: str = ""
    """What the caller said, for the audit."""

    shared: str = ""
    """Name of the op record if it is shared by callers: whoever commits it first, it is committed once."""

    def key(self, chunk: int = 0) -> str:
        """Name of the op record in the store: 32 hex characters, which say nothing about the caller."""
        if self.shared:
            return hashlib.blake2b(self.shared.encode(), digest_size=16, person=b"revocation share").hexdigest()
        text = b"\0".join((self.realm.encode(), self.caller.encode(), self.op_id.bytes, str(chunk).encode()))
        return hashlib.blake2b(text, digest_size=16, person=b"revocation op id").hexdigest()


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was committed, and where it stands."""

    positions: tuple[Position, ...]
    stored: bool
    cutoff: Cutoff | None
    rows: bytes
    audit: tuple[tuple[int, AuditPoint], ...] = ()
    """Where the audit tells of it, by partition; nothing for a retry."""


def request_digest(content: bytes) -> str:
    """32 hex characters for the content of a request."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def op_id_ms(op_id: uuid.UUID) -> int:
    """The time in a UUID version 7, milliseconds since 1970 (RFC 9562 section 5.7)."""
    return op_id.int >> 80
