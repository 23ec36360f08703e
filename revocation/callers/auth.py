"""Who calls: client certificates and bearer tokens become identities, which `roles.py` judges.

A local listener without roles, or one deliberately opened with `--allow-anonymous`, treats every caller as the
anonymous admin of realm `default` alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import jwt
import structlog
from cryptography.x509 import load_pem_x509_certificate

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
_PEM = "x509_pem_cert"


class Authorizer(Protocol):
    """Decides about every call before its body runs."""

    @property
    def generation(self) -> int:
        """Another one as soon as the same caller may be judged otherwise; `Caller.judged_by` has the one of then."""

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        """Who calls. Raises Denied."""


class AnonymousAdmin:
    """Everybody may do everything in realm `default`, and nothing elsewhere."""

    generation = 0

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
        self._generation = 0
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
        self._generation += 1
        self._seen: dict[str, _Seen] = {}

    @property
    def generation(self) -> int:
        """That of the roles in force."""
        self._reload()
        return self._generation

    def _stamps(self) -> list[tuple[int, int]]:
        """Of the roles file and of the key sets that it names."""
        files = [issuer.bearer.jwks_file for issuer in self._issuers.values()]
        return [_stamp(path) for path in (self._path, *files) if path is not None]

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        """Who calls. Raises Denied: UNAUTHENTICATED if nobody knows, PERMISSION_DENIED if it is not theirs to do."""
        self._reload()
        identities, until = _certificate_identities(context), _certificate_expiry(context)
        token = _bearer_token(context)
        if token is not None:
            seen = await self._known(token)
            identities, until = (*identities, *seen.identities), min(until or _LATEST, seen.until)
        if not identities:
            raise Denied("a client certificate or a bearer token is needed", reason="UNAUTHENTICATED")
        role = acting_role(self._roles, identities, method, realm)
        if role is None:
            # One text for a realm that is not there, one that is another's, and a method that is not allowed.
            raise Denied("this identity may not do that in this realm")
        return Caller(identities[-1], until, identities, role.value, self._generation)

    async def _known(self, token: str) -> _Seen:
        """The token, verified by the roles in force when this returns."""
        known = self._seen.get(token)
        # A token seen before is worth no more than the key that signed it.
        if known is None or known.until <= time.time() or not known.issuer.trusts(known.key):
            generation = self._generation
            known = await self._verified(token)
            if generation != self._generation:  # what the roles of before said, those of now need not say
                return await self._known(token)
        return known

    async def _verified(self, token: str) -> _Seen:
        if self._verifying >= _VERIFY_AT_ONCE:
            raise Overloaded("too many new bearer tokens at once", retry_after_ms=500)
        self._verifying += 1
        seen = self._seen  # that of the roles by which it is verified; those that come meanwhile begin with another
        try:
            issuer, claims, key = await asyncio.to_thread(self._verify, token)
        finally:
            self._verifying -= 1
        identity, until = f"{claims['iss']}#{claims['sub']}", float(min(claims["exp"], _LATEST))
        if len(seen) >= _CACHED:
            seen.clear()
        found = seen[token] = _Seen((identity,), until, issuer, key)
        return found

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


def _certificate_expiry(context: Any) -> float | None:
    """When the client certificate expires, in seconds since 1970; None without one, or if it cannot be read."""
    return next(map(_expiry, context.auth_context().get(_PEM, ())), None)


@lru_cache(_CACHED)
def _expiry(pem: bytes) -> float | None:
    try:
        return load_pem_x509_certificate(pem).not_valid_after_utc.timestamp()
    except ValueError:
        return None


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
