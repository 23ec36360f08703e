"""The compact form of a JWS, read strictly, and the claims of a JWT, typed strictly. Pure.

One token has one form: base64url without padding and with no stray bits, JSON objects without duplicate names. So
whoever is asked about a token, and whoever revokes it, mean the same one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, NoReturn

from revocation_sdk._judge import NO_VERSIONS, Facts, Versions, versions_of
from revocation_sdk.errors import ConfigError, TokenInvalid

MAX_TOKEN_BYTES = 16 * 1024  # what common servers take as a header; more is no token of anybody
MAX_NAME_BYTES = 256  # a longer identifier could never be revoked: the contract's limit
MAX_ISSUER_BYTES = 512
MAX_DEPTH = 32  # of objects and lists in each other; whoever copies or walks through claims relies on it
MAX_TIME = 253_402_300_799  # the end of year 9999
NEVER_ACCESS_TOKENS = frozenset(("logout+jwt", "secevent+jwt"))

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)


class Parts(NamedTuple):
    """A token taken apart; nothing of it is verified."""

    header: dict[str, Any]
    payload: bytes
    signing_input: bytes
    signature: bytes


class Identity(NamedTuple):
    """By what a token is taken back."""

    token_id: str
    issuer: str | None
    expires_at: float


@dataclass(frozen=True, slots=True)
class Claims:
    """Claims whose types are right. Of their truth this says nothing."""

    values: dict[str, Any] = field(repr=False)
    facts: Facts = field(repr=False)
    expires_at: float
    issued_at: float | None
    not_before: float | None

    @property
    def identity(self) -> Identity:
        """By what this token is taken back."""
        return Identity(self.facts.token_id or "", self.facts.issuer, self.expires_at)


def take_apart(token: str | bytes) -> Parts:
    """Splits a token. Raises TokenInvalid for whatever is not the canonical form."""
    text = _text(token)
    match = _COMPACT.fullmatch(text)
    if match is None:
        raise TokenInvalid("not three parts of base64url", reason="malformed")
    header, payload, signature = (_decode(part) for part in match.groups())
    return Parts(read_object(header), payload, text[: match.start(3) - 1].encode(), signature)


def signing_input_id(signing_input: bytes) -> str:
    """What names a token that has no `jti`. Not a hash of the whole token: a signature can be rewritten."""
    digest = hashlib.sha256(signing_input).digest()
    return "sha256:" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def read_object(data: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8; names that occur twice and numbers that JSON does not know are refused."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenInvalid("not a JSON object in UTF-8 with unique names", reason="malformed") from None
    if not isinstance(value, dict) or not _shallow(value, MAX_DEPTH):
        raise TokenInvalid("not a JSON object, or too deep", reason="malformed")
    return value


def check_header(header: Mapping[str, Any], algorithms: frozenset[str], types: frozenset[str | None]) -> None:
    """Refuses a header that this verifier is not set up for (RFC 8725 sections 3.1 and 3.11, RFC 7515 4.1.11)."""
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise TokenInvalid("`alg` is not one of the algorithms set up", reason="algorithm")
    if "crit" in header or "b64" in header:
        raise TokenInvalid("`crit` and `b64` are not supported", reason="critical")
    typ = header.get("typ")
    if not (typ is None or isinstance(typ, str)) or media_type(typ) not in types:
        raise TokenInvalid("`typ` is not one of the types set up", reason="type")
    if not isinstance(header.get("kid", ""), str):
        raise TokenInvalid("`kid` is not text", reason="malformed")


def media_type(typ: str | None) -> str | None:
    """A `typ` as it is compared: without case and without "application/" (RFC 7515 section 4.1.9)."""
    return None if typ is None else typ.lower().removeprefix("application/")


def accepted_types(types: Iterable[str | None]) -> frozenset[str | None]:
    """The `typ` values that a verifier is set up with; tokens that state a fact are never access tokens."""
    chosen = frozenset(media_type(typ) for typ in types)
    if not chosen or chosen & NEVER_ACCESS_TOKENS:
        raise ConfigError("types: name at least one, and none of a logout or event token", reason="types")
    return chosen


def read_claims(parts: Parts, version_claim: str | None, client_claim: str, issuer_skew_s: float) -> Claims:
    """The claims, each of the type that it must have. Raises TokenInvalid."""
    values = read_object(parts.payload)
    token_id, issuer, expires_at = _identity(values, parts)
    facts = Facts(
        issuer=issuer,
        token_id=token_id,
        sid=_name(values, "sid"),
        subject=_name(values, "sub"),
        client_id=_name(values, client_claim) or _name(values, "azp"),
        versions=_versions(values, version_claim),
        issued_at=_time(values, "iat"),
        issuer_skew_s=issuer_skew_s,
    )
    return Claims(values, facts, expires_at, facts.issued_at, _time(values, "nbf"))


def read_identity(parts: Parts) -> Identity:
    """What names a token for good, whatever its other claims are. Raises TokenInvalid."""
    return _identity(read_object(parts.payload), parts)


def seconds(name: str, value: float) -> float:
    """A setting that is a span of time. Raises ConfigError."""
    if not 0 <= value < math.inf:
        raise ConfigError(f"{name}: seconds, not negative", reason=name)
    return value


def audiences(values: Mapping[str, Any]) -> list[str]:
    """The audiences of a token; empty if it names none."""
    aud = values.get("aud", [])
    found = [aud] if isinstance(aud, str) else aud
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise TokenInvalid("`aud` is neither text nor a list of it", reason="claims")
    return found


def encode_part(data: bytes) -> str:
    """One part of the compact form."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _text(token: str | bytes) -> str:
    if not isinstance(token, str | bytes):
        raise TokenInvalid("not text", reason="malformed")
    if len(token) > MAX_TOKEN_BYTES:
        raise TokenInvalid(f"longer than {MAX_TOKEN_BYTES} bytes", reason="too_large")
    try:
        return token if isinstance(token, str) else token.decode("ascii")
    except UnicodeDecodeError:
        raise TokenInvalid("not ASCII", reason="malformed") from None


def _decode(part: str) -> bytes:
    """base64url as RFC 7515 section 2 has it. Stray bits at the end, which decoders ignore, are refused."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        raise TokenInvalid("not base64url", reason="malformed") from None
    if encode_part(data) != part:
        raise TokenInvalid("not canonical base64url", reason="malformed")
    return data


def _shallow(value: Any, depth: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_shallow(one, depth - 1) for one in inner)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _identity(values: Mapping[str, Any], parts: Parts) -> Identity:
    expires_at = _time(values, "exp")
    if expires_at is None:
        raise TokenInvalid("`exp` is missing: what never expires can not be taken back for good", reason="claims")
    issuer = _name(values, "iss", MAX_ISSUER_BYTES)
    return Identity(_name(values, "jti") or signing_input_id(parts.signing_input), issuer, expires_at)


def _time(values: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate. `true`, `null`, 1e400 and the year 100,000 are none."""
    if name not in values:
        return None
    value = values[name]
    if type(value) not in (int, float) or not 0 <= value <= MAX_TIME:  # NaN is not either
        raise TokenInvalid(f"`{name}` is not a time", reason="claims")
    return float(value)


def _name(values: Mapping[str, Any], name: str, limit: int = MAX_NAME_BYTES) -> str | None:
    """A claim that names something. Empty counts as absent, since nothing can be revoked by an empty name."""
    value = values.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise TokenInvalid(f"`{name}` is not text", reason="claims")
    if _size(value) > limit:
        raise TokenInvalid(f"`{name}` could not be revoked: not UTF-8, or over {limit} bytes", reason="claims")
    return value or None


def _size(text: str) -> float:
    """Bytes in UTF-8; a lone surrogate, which JSON can smuggle in and no call to the service can name, has none."""
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        return float("inf")


def _versions(values: Mapping[str, Any], claim: str | None) -> Versions | None:
    if claim is None:
        return None
    if claim not in values:
        return NO_VERSIONS
    versions = versions_of(values[claim])
    if versions is None:
        raise TokenInvalid(f"`{claim}` is not a list of up to three numbers", reason="claims")
    return versions
