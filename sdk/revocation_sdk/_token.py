"""What a token calls itself, read without verifying it. Pure. For naming what to revoke, never for deciding."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
from dataclasses import dataclass

from revocation_sdk.errors import TokenInvalid

MAX_TOKEN_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class TokenName:
    """By what a token is revoked."""

    token_id: str
    issuer: str | None
    expires_at: float


def name_of(token: str) -> TokenName:
    """Reads issuer, `jti` and `exp`. Raises TokenInvalid if there is nothing to revoke it by."""
    signing_input, payload = _split(token)
    try:
        claims = json.loads(_decode(payload))
    except (ValueError, RecursionError):
        raise TokenInvalid("the token's payload is not JSON", reason="malformed") from None
    if not isinstance(claims, dict):
        raise TokenInvalid("the token's payload is not an object", reason="malformed")
    issuer, jti, expires_at = claims.get("iss"), claims.get("jti"), claims.get("exp")
    if type(expires_at) not in (int, float) or not math.isfinite(expires_at):
        raise TokenInvalid("the token has no exp", reason="exp")
    if not isinstance(issuer, str | None):
        raise TokenInvalid("the token's iss is not a string", reason="malformed")
    if not isinstance(jti, str | None):
        raise TokenInvalid("the token's jti is not a string", reason="malformed")
    return TokenName(jti or digest_name(signing_input), issuer, expires_at)


def digest_name(signing_input: str) -> str:
    """The name of a token without a `jti`. Of the signing input, since a signature can be rewritten and still fit."""
    digest = hashlib.sha256(signing_input.encode("ascii")).digest()
    return "sha256:" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _split(token: str) -> tuple[str, str]:
    if not isinstance(token, str) or len(token) > MAX_TOKEN_BYTES or not token.isascii():
        raise TokenInvalid("not a JWT", reason="malformed")
    parts = token.split(".")
    if len(parts) != 3 or not all(parts):
        raise TokenInvalid("not a signed JWT in compact form", reason="malformed")
    return token.rpartition(".")[0], parts[1]


def _decode(part: str) -> bytes:
    """Canonical, unpadded base64url only: a verifier accepts no other spelling of the same token."""
    try:
        raw = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    except binascii.Error:
        raise TokenInvalid("the token is not base64url", reason="malformed") from None
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != part:
        raise TokenInvalid("the token is not canonical base64url", reason="malformed")
    return raw
