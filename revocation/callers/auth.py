"""Who calls: client certificates and bearer tokens become identities, which `roles.py` judges.

A local listener without roles, or one deliberately opened with `--allow-anonymous`, treats every caller as the
anonymous admin of realm `default` alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jwt
import structlog

from revocation.callers.bearer import BearerIssuer
from revocation.callers.roles import ACROSS_REALMS, TABLE, Caller, Role, Roles, RolesInvalid, acting_role, read_roles
from revocation.errors import Denied, Overloaded
from revocation_sdk._keys import Key

log = structlog.get_logger("revocation.auth")

ANONYMOUS_REALM = "default"
_TOKEN_BYTES = 8 * 1024
_CACHED = 4096
_VERIFY_AT_ONCE = 256
"""Tokens that are being verified for the first time; more would only wait for a thread."""
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


@dataclass(frozen=True, slots=True)
class _Seen:
    """A bearer token that was verified."""

    identities: tuple[str, ...]
    until: float
    issuer: BearerIssuer
    key: Key


class RoleAuthorizer:
    """Callers are known by certificate or bearer token, and may do what the roles file says.

    The file is read anew when it changes; one that cannot be used is reported and leaves the last good one in force.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads the file. Raises RolesInvalid."""
        self._path = path
        self._clock = clock
        self._issuers: dict[str, BearerIssuer] = {}
        self._use(read_roles(path))
        self._stamp = self._stamps()
        self._next_look = 0.0
        self._verifying = 0

    def _use(self, roles: Roles) -> None:
        # Keys that were fetched stay: a change of the roles must not depend on an issuer that is down just then.
        kept = {name: issuer for name, issuer in self._issuers.items() if issuer.bearer.jwks_url is not None}
        self._issuers = {
            bearer.issuer: kept[bearer.issuer]
            if bearer.issuer in kept and kept[bearer.issuer].bearer == bearer
            else BearerIssuer(bearer, self._clock)
            for bearer in roles.bearer
        }
        self._roles = roles
        self._seen: dict[str, _Seen] = {}

    def _stamps(self) -> list[tuple[int, int]]:
        """Of the roles file and of the key sets that it names."""
        files = [issuer.bearer.jwks_file for issuer in self._issuers.values()]
        return [_stamp(path) for path in (self._path, *files) if path is not None]

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
        # A token seen before is worth no more than the key that signed it.
        if known is None or known.until <= time.time() or not known.issuer.trusts(known.key):
            known = await self._verified(token)
        return known.identities, known.until

    async def _verified(self, token: str) -> _Seen:
        if self._verifying >= _VERIFY_AT_ONCE:
            raise Overloaded("too many new bearer tokens at once", retry_after_ms=500)
        self._verifying += 1
        try:
            issuer, claims, key = await asyncio.to_thread(self._verify, token)
        finally:
            self._verifying -= 1
        identity, until = f"{claims['iss']}#{claims['sub']}", float(min(claims["exp"], _LATEST))
        if len(self._seen) >= _CACHED:
            self._seen.clear()
        seen = self._seen[token] = _Seen((identity,), until, issuer, key)
        return seen

    def _verify(self, token: str) -> tuple[BearerIssuer, Mapping[str, Any], Key]:
        try:
            if len(token) > _TOKEN_BYTES:
                raise jwt.InvalidTokenError("too long")
            unverified = jwt.decode(token, options={"verify_signature": False})
            issuer = self._issuers.get(str(unverified.get("iss")))
            if issuer is None:
                raise jwt.InvalidIssuerError("unknown issuer")
            return issuer, *issuer.verify(token)
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, OSError, RecursionError) as error:
            log.info("bearer_token_refused", why=type(error).__name__)
            raise Denied("the bearer token is not valid here", reason="UNAUTHENTICATED") from None

    def _reload(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_S
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._use(read_roles(self._path))
            self._stamp = self._stamps()
            log.info("roles_reloaded", bindings=len(self._roles.bind))
        except RolesInvalid as error:
            log.error("roles_not_reloaded", why=str(error), hint="the last good roles stay in force")


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
