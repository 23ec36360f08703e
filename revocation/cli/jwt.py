"""A JWT taken apart for reading: leniently, with a note of everything that a strict reader would refuse.

Nothing here decides anything. A verdict comes from `Verifier`, or from the service.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

TIMES = ("iat", "nbf", "exp", "auth_time", "updated_at")
_LONGEST_LIFE_S = 86_400
_LATE_S = 60
_LARGEST = 1e15


@dataclass(frozen=True, slots=True)
class Decoded:
    """What a token says of itself."""

    token: str = field(repr=False)
    header: dict[str, Any]
    claims: dict[str, Any]
    problems: tuple[str, ...]
    """Why a strict reader refuses the form; empty for a well-formed token."""

    def time(self, claim: str) -> float | None:
        """A claim that is a time, if it is one."""
        return _number(self.claims.get(claim))


def decode(token: str) -> Decoded:
    """Reads header and claims. Raises BadParameter if there is nothing to read."""
    parts = token.split(".")
    if len(parts) == 5:
        raise typer.BadParameter("is encrypted (JWE): only the holder of the key can read it", param_hint="TOKEN")
    if len(parts) != 3:
        raise typer.BadParameter(
            f"is no JWT: it has {len(parts)} parts, not header.claims.signature", param_hint="TOKEN"
        )
    header, claims = _object(parts[0], "header"), _object(parts[1], "claims")
    return Decoded(token, header, claims, tuple(_form(token)))


def remarks(decoded: Decoded, now: float) -> Iterator[str]:
    """What is unusual about a token, in sentences. None of it is a verdict."""
    yield from decoded.problems
    if str(decoded.header.get("alg", "")).lower() == "none":
        yield "alg is none: it is not signed, no verifier may accept it"
    expires_at, issued_at, begins_at = decoded.time("exp"), decoded.time("iat"), decoded.time("nbf")
    if expires_at is None:
        yield "no exp: it never ends, so it can not be taken back for good; verifiers refuse it"
    elif expires_at - (now if issued_at is None else issued_at) > _LONGEST_LIFE_S:
        yield "it lives longer than a day, which is what realms allow by default"
    if issued_at is not None and issued_at > now + _LATE_S:
        yield "iat lies in the future: a clock is wrong, here or at the issuer"
    if begins_at is not None and begins_at > now:
        yield "nbf lies in the future: it is not valid yet"
    if not decoded.claims.get("jti"):
        yield "no jti: it is named by the hash of its signed part, so revoking it needs the token itself"


def signature_verdict(decoded: Decoded, key_file: Path | None, jwks_file: Path | None) -> tuple[str, dict[str, str]]:
    """`valid`, `invalid` or `unchecked`, and with `valid` the names of the key: what `check` wants to know.

    Raises BadParameter if a file cannot be read or holds no key.
    """
    from revocation_sdk._compact import take_apart
    from revocation_sdk._jwks import BadKeySet, parse_key_set
    from revocation_sdk._keys import ALGORITHMS, KeySet, static_key
    from revocation_sdk.errors import ConfigError, TokenInvalid

    if key_file is None and jwks_file is None:
        return "unchecked", {}
    algorithm, kid = decoded.header.get("alg"), decoded.header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        return "invalid", {}
    try:
        keys = KeySet([])
        if key_file is not None:
            keys = static_key(_read(key_file, "--key"), frozenset({algorithm}), None)
        elif jwks_file is not None:
            keys = parse_key_set(_read(jwks_file, "--jwks"), ALGORITHMS, allow_secrets=True)
        parts = take_apart(decoded.token)
    except (ConfigError, BadKeySet) as error:
        raise typer.BadParameter(str(error), param_hint="--jwks" if key_file is None else "--key") from None
    except TokenInvalid:
        return "invalid", {}
    for key in keys.candidates(algorithm, kid if isinstance(kid, str) else None):
        if key.verifies(algorithm, parts.signing_input, parts.signature):
            names = {"key_id": key.kids[0]} if key.kids else {}
            return "valid", names | {"thumbprint": key.thumbprint}
    return "invalid", {}


def _object(part: str, what: str) -> dict[str, Any]:
    try:
        data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_")
        value = json.loads(data)
    except (binascii.Error, ValueError, RecursionError):
        raise typer.BadParameter(f"is no JWT: its {what} is not JSON in base64url", param_hint="TOKEN") from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f"is no JWT: its {what} is not a JSON object", param_hint="TOKEN")
    return value


def _form(token: str) -> Iterator[str]:
    from revocation_sdk._compact import read_claims, take_apart
    from revocation_sdk.errors import TokenInvalid

    try:
        read_claims(take_apart(token), "tver", "client_id", 0)
    except TokenInvalid as error:
        yield f"verifiers refuse its form: {error}"


def _read(path: Path, option: str) -> bytes:
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint=option) from None
    # Editors end a file with a line end, which is no part of a secret; for PEM and JSON it does not matter.
    return data.rstrip(b"\r\n")


def named_times(claims: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The claims that are times, in their usual order."""
    for name in TIMES:
        value = _number(claims.get(name))
        if value is not None:
            yield name, value


def _number(value: object) -> float | None:
    """A number that one can reckon with; JSON also has integers beyond every float, Python's reader even NaN."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if abs(value) <= _LARGEST else None
