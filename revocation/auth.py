"""Who calls: client certificates and bearer tokens become identities, which `roles.py` judges.

A local listener without roles, or one deliberately opened with `--allow-anonymous`, treats every caller as the
anonymous admin of realm `default` alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jwt
import structlog

from revocation.errors import Denied
from revocation.roles import ACROSS_REALMS, TABLE, Bearer, Caller, Role, Roles, RolesInvalid, acting_role, read_roles

log = structlog.get_logger("revocation.auth")

ANONYMOUS_REALM = "default"
_TOKEN_BYTES = 8 * 1024
_CACHED = 4096
_LOOK_S = 2.0
_LATEST = 253_402_300_799
"""The end of year 9999: an identity that lasts longer lasts until then."""
_SAN = "x509_subject_alternative_name"


class Authorizer(Protocol):
    """Decides about every call before its body runs."""

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        """Who calls. Raises Denied."""


class AnonymousAdmin:
    """Everybody may do everything in realm `default`, and nothing elsewhere."""

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        """Anonymous. Raises Denied for another realm, and for a method without a row in the table."""
        if method not in TABLE or (realm != ANONYMOUS_REALM and method not in ACROSS_REALMS):
            raise Denied("without identities configured, callers may use realm `default` only")
        return Caller("anonymous", None, ("anonymous",), Role.ADMIN.value)


class RoleAuthorizer:
    """Callers are known by certificate or bearer token, and may do what the roles file says.

    The file is read anew when it changes; one that cannot be used is reported and leaves the last good one in force.
    """

    def __init__(self, path: Path) -> None:
        """Reads the file. Raises RolesInvalid."""
        self._path = path
        self._stamp = _stamp(path)
        self._use(read_roles(path))
        self._next_look = 0.0

    def _use(self, roles: Roles) -> None:
        issuers = {bearer.issuer: _Issuer(bearer) for bearer in roles.bearer}
        self._roles, self._issuers = roles, issuers
        self._seen: dict[str, tuple[tuple[str, ...], float]] = {}

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        """Who calls. Raises Denied: UNAUTHENTICATED if nobody knows, PERMISSION_DENIED if it is not theirs to do."""
        self._reload()
        identities, until = _certificate_identities(context), None
        token = _bearer_token(context)
        if token is not None:
            named, until = await self._identities_of(token)
            identities = (*identities, *named)
        if not identities:
            raise Denied("a client certificate or a bearer token is needed", reason="UNAUTHENTICATED")
        role = acting_role(self._roles, identities, method, realm)
        if role is None:
            # One text for a realm that is not there, one that is another's, and a method that is not allowed.
            raise Denied("this identity may not do that in this realm")
        return Caller(identities[-1], until, identities, role.value)

    async def _identities_of(self, token: str) -> tuple[tuple[str, ...], float]:
        known = self._seen.get(token)
        now = time.time()
        if known is not None and known[1] > now:
            return known
        claims = await asyncio.to_thread(self._verify, token)
        found = ((f"{claims['iss']}#{claims['sub']}",), float(min(claims["exp"], _LATEST)))
        if len(self._seen) >= _CACHED:
            self._seen.clear()
        self._seen[token] = found
        return found

    def _verify(self, token: str) -> Mapping[str, Any]:
        try:
            if len(token) > _TOKEN_BYTES:
                raise jwt.InvalidTokenError("too long")
            unverified = jwt.decode(token, options={"verify_signature": False})
            issuer = self._issuers.get(str(unverified.get("iss")))
            if issuer is None:
                raise jwt.InvalidIssuerError("unknown issuer")
            return issuer.verify(token)
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, OSError, RecursionError) as error:
            log.info("bearer_token_refused", why=type(error).__name__)
            raise Denied("the bearer token is not valid here", reason="UNAUTHENTICATED") from None

    def _reload(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_S
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._use(read_roles(self._path))
            log.info("roles_reloaded", bindings=len(self._roles.bind))
        except RolesInvalid as error:
            log.error("roles_not_reloaded", why=str(error), hint="the last good roles stay in force")


class _Issuer:
    """Verifies the bearer tokens of one issuer."""

    def __init__(self, bearer: Bearer) -> None:
        self._bearer = bearer
        self._remote = jwt.PyJWKClient(bearer.jwks_url, timeout=5) if bearer.jwks_url else None
        self._local: jwt.PyJWKSet | None = None
        if bearer.jwks_file is not None:
            try:
                self._local = jwt.PyJWKSet.from_dict(json.loads(bearer.jwks_file.read_bytes()))
            except (OSError, ValueError, TypeError, RecursionError, jwt.PyJWTError) as error:
                raise RolesInvalid(f"{bearer.jwks_file}: no key set ({type(error).__name__})") from None

    def verify(self, token: str) -> Mapping[str, Any]:
        """The claims. Raises jwt.PyJWTError."""
        claims: dict[str, Any] = jwt.decode(
            token,
            self._key(token),
            algorithms=list(self._bearer.algorithms),
            issuer=self._bearer.issuer,
            audience=self._bearer.audience,
            options={"require": ["exp", "sub", "iss", "aud"]},
        )
        return claims

    def _key(self, token: str) -> jwt.PyJWK:
        if self._remote is not None:
            return self._remote.get_signing_key_from_jwt(token)
        kid = jwt.get_unverified_header(token).get("kid")
        keys = self._local.keys if self._local is not None else []
        fitting = [key for key in keys if key.key_id == kid or (kid is None and len(keys) == 1)]
        if not fitting:
            raise jwt.InvalidKeyError("unknown key")
        return fitting[0]


def _certificate_identities(context: Any) -> tuple[str, ...]:
    """URI (SPIFFE) and DNS names of the verified client certificate."""
    names: list[bytes] = context.auth_context().get(_SAN, [])
    return tuple(name.decode("utf-8", "replace") for name in names)


def _bearer_token(context: Any) -> str | None:
    metadata = dict(context.invocation_metadata() or ())
    value = metadata.get("authorization")
    if not isinstance(value, str) or value[:7].lower() != "bearer ":
        return None
    return value[7:].strip()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
