"""Refresh tokens: `kid.sid.generation.t1.t2`. Pure.

    t2 = MAC(secret of the session, generation)
    t1 = MAC(server key kid, realm, sid, generation, t2)

t1 is checked first and without the store: garbage, whoever sends it, costs one MAC. t2 is checked against the record.
So nobody can make a token from what the store holds, which has no server key, nor from the server key, which knows no
session's secret; and nothing that is stored can be replayed. HMAC-SHA256 throughout (RFC 2104).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field

LONGEST = 200
"""Characters of a token; the longest that we make has 148."""

HIGHEST_GENERATION = 10**15 - 1
"""Below 2^53."""

_FORM = re.compile(
    r"([A-Za-z0-9_-]{1,16})\.(s1[0-9a-f]{2}\.[A-Za-z0-9_-]{22})\.([1-9][0-9]{0,14})"
    r"\.([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{43})"
)
_SID = re.compile(r"s1([0-9a-f]{2})\.[A-Za-z0-9_-]{22}")


class RefreshInvalid(Exception):
    """Not a refresh token of this realm. One refusal for every reason: whoever forges learns nothing from it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a token says that some server key of ours has signed; its `t2` is still to be compared."""

    kid: str
    sid: str
    generation: int
    t2: str = field(repr=False)


def make_sid(partition: int, random: bytes) -> str:
    """A session id that names its partition: `s1`, two hex digits, a dot and 128 random bits."""
    return f"s1{partition:02x}.{_text(random)}"


def partition_of(sid: str) -> int | None:
    """The partition that a sid of ours names; None for a foreign sid."""
    match = _SID.fullmatch(sid)
    return int(match[1], 16) if match else None


def make_token(sid: str, generation: int, kid: str, realm: str, server_key: bytes, secret: bytes) -> str:
    """The refresh token of a generation; the same each time."""
    t2 = _t2(secret, generation)
    return f"{kid}.{sid}.{generation}.{_t1(server_key, realm, sid, generation, t2)}.{t2}"


def parse(token: str, realm: str, key_of: Callable[[str], bytes]) -> Claim:
    """Takes a token apart and checks t1. `key_of` gives the server key of a kid, or raises KeyError.

    Raises RefreshInvalid for what is malformed, not canonical, or signed by another key or for another realm.
    """
    match = _FORM.fullmatch(token) if len(token) <= LONGEST else None
    if match is None:
        raise RefreshInvalid
    kid, sid, digits, t1, t2 = match.groups()
    try:
        key = key_of(kid)
    except KeyError:
        raise RefreshInvalid from None
    # As text, so that there is one spelling only.
    if not hmac.compare_digest(_t1(key, realm, sid, int(digits), t2), t1):
        raise RefreshInvalid
    return Claim(kid, sid, int(digits), t2)


def belongs(claim: Claim, secret: bytes) -> bool:
    """Whether the session with this secret has issued the token."""
    return hmac.compare_digest(_t2(secret, claim.generation), claim.t2)


def _t2(secret: bytes, generation: int) -> str:
    return _mac(secret, b"revocation refresh t2", generation.to_bytes(8, "big"))


def _t1(key: bytes, realm: str, sid: str, generation: int, t2: str) -> str:
    number = generation.to_bytes(8, "big")
    return _mac(key, b"revocation refresh t1", realm.encode(), sid.encode(), number, t2.encode())


def _mac(key: bytes, *parts: bytes) -> str:
    # Every part with its length, so that no two messages look alike.
    message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return _text(hmac.digest(key, message, hashlib.sha256))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
