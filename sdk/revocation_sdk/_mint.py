"""Makes access tokens (RFC 9068) that this system can take back. No network, and no clock but the store's.

`iat` and `exp` are the store's time, never our own: a token minted by a machine whose clock is wrong, or that was
suspended in between, is short rather than too long. The versions of a token with a session are the session's, whatever
we have heard since: a cutoff that came after the grant has ended the session, and its tokens must not survive. Those of
a token without one come from a fresh view.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from revocation_sdk._client import BaseClient
from revocation_sdk._compact import MAX_TOKEN_BYTES, Parts, encode_part, read_claims
from revocation_sdk._core import check_staleness
from revocation_sdk._judge import Versions, versions_for
from revocation_sdk._keys import HMAC_BYTES, load_signing
from revocation_sdk.errors import ConfigError, InvalidRequest, TokenInvalid
from revocation_sdk.types import Grant, Login

TYPE = "at+jwt"
_RESERVED = frozenset(("iss", "sub", "aud", "iat", "exp", "jti", "client_id", "azp", "sid"))


class Mint:
    """What both kinds of issuer share."""

    def __init__(
        self,
        client: BaseClient,
        *,
        key: object,
        algorithm: str,
        issuer: str,
        audience: str | Iterable[str],
        lifetime: int,
        key_id: str | None,
        version_claim: str,
        max_staleness: float,
    ) -> None:
        self._client = client
        self._key = load_signing(key, algorithm)
        self.issuer = _text("issuer", issuer)
        self._audience = audience if isinstance(audience, str) else [_text("audience", one) for one in audience]
        if not self._audience:
            raise ConfigError("audience: name at least one", reason="audience")
        self._lifetime = lifetime
        if type(lifetime) is not int or lifetime <= 0:
            raise ConfigError("lifetime: whole seconds, more than none", reason="lifetime")
        check_staleness(max_staleness, client.ping_interval)
        self._max_staleness = max_staleness
        self._version_claim = version_claim
        self._reserved = _RESERVED | {version_claim}
        self._header = _header(algorithm, key_id, self._key.thumbprint)

    @property
    def lifetime(self) -> int:
        """Seconds that a token lives. Raises ConfigError if that is longer than the realm allows."""
        follower = self._client.follower
        if follower.keys and self._lifetime > follower.settings.max_token_life_s:
            limit = follower.settings.max_token_life_s
            raise ConfigError(f"lifetime: above the realm's max_token_life of {limit} s", reason="lifetime")
        return self._lifetime

    @contextmanager
    def granting(self) -> Iterator[int]:
        """The lifetime to ask the service for, which knows the realm's limit before our view does."""
        try:
            yield self.lifetime
        except InvalidRequest as error:
            if error.field != "access_token_life_s":
                raise
            raise ConfigError("lifetime: above the realm's max_token_life", reason="lifetime") from error

    def own_claims(self, claims: Mapping[str, Any] | None) -> dict[str, Any]:
        """The application's claims, checked before anything is done on their behalf."""
        if not isinstance(claims, Mapping | None):
            raise InvalidRequest("claims: not a mapping", field="claims")
        own = dict(claims or {})
        taken = sorted(self._reserved & own.keys())
        if taken:
            raise InvalidRequest(f"claims: {', '.join(taken)} cannot be set, the issuer mints them", field="claims")
        _encoded(own)
        return own

    def issue(self, sub: str, client_id: str | None, claims: Mapping[str, Any] | None) -> str:
        """A token without a session. Raises StatusUnknown if the view is too old to know the versions."""
        own = self.own_claims(claims)
        self._client.start()
        clock, lease = self._client.clock, self._client.follower.lease
        if lease is None:
            raise self._client.unknown(None)
        lifetime = self.lifetime  # whoever has a lease knows the realm's limit
        # The lease, then the view, then the clock (model D11). `iat` is the time before the view was read.
        issued_at = math.floor(lease.store_time_at_least(clock.mono()))
        versions = self._versions(sub, client_id)
        age = lease.age(clock.mono(), clock.wall())
        if age > self._max_staleness or not clock.mono_counts_suspend:
            raise self._client.unknown(age)
        times = {"iat": issued_at, "exp": issued_at + lifetime}
        return self._signed(sub, client_id, versions, times, own)

    def from_grant(self, grant: Grant, own: Mapping[str, Any]) -> Login:
        """What a session's owner gets: exactly what the service granted."""
        subject, client, realm, *_ = (*grant.version, 0, 0, 0)
        times = {"sid": grant.session_id, "iat": grant.issued_at, "exp": grant.expires_at}
        token = self._signed(grant.subject, grant.client_id, (subject, client, realm), times, own)
        return Login(token, grant.refresh_token, grant.session_id, grant.expires_at, grant.client_id)

    def _versions(self, sub: str, client_id: str | None) -> Versions:
        follower, clock = self._client.follower, self._client.clock
        lease, now = follower.lease, clock.wall()
        if lease is not None:
            now = min(now, lease.store_time_at_least(clock.mono()))
        return versions_for(follower.view, follower.keys, self.issuer, sub, client_id or None, now)

    def _signed(
        self, sub: str, client_id: str | None, versions: Versions, more: Mapping[str, Any], own: Mapping[str, Any]
    ) -> str:
        claims: dict[str, Any] = {"iss": self.issuer, "sub": sub, "aud": self._audience, **more}
        claims["jti"] = secrets.token_urlsafe(16)
        if client_id:
            claims["client_id"] = client_id
        if any(versions):
            claims[self._version_claim] = _without_zeros(versions)
        payload = _encoded({**claims, **own})
        self._check(sub, payload)
        signing_input = f"{self._header}.{encode_part(payload)}".encode()
        token = f"{signing_input.decode()}.{encode_part(self._key.sign(signing_input))}"
        if len(token) > MAX_TOKEN_BYTES:
            raise InvalidRequest(f"claims: the token would be longer than {MAX_TOKEN_BYTES} bytes", field="claims")
        return token

    def _check(self, sub: object, payload: bytes) -> None:
        """Mints nothing that a verifier would find malformed, or that could not be revoked."""
        if not isinstance(sub, str) or not sub:
            raise InvalidRequest("sub: must not be empty", field="sub")
        try:
            read_claims(Parts({}, payload, b"", b""), self._version_claim, "client_id", 0)
        except TokenInvalid as error:
            raise InvalidRequest(str(error), field="claims") from None


def _header(algorithm: str, key_id: str | None, thumbprint: str) -> str:
    header = {"alg": algorithm, "typ": TYPE}
    if key_id or algorithm not in HMAC_BYTES:  # the thumbprint of a secret would help to guess it (RFC 7638 section 7)
        header["kid"] = key_id or thumbprint
    return encode_part(_encoded(header))


def _encoded(claims: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(claims, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidRequest("claims: not what JSON can express", field="claims") from None


def _without_zeros(versions: Versions) -> list[int]:
    shown = list(versions)
    while shown and not shown[-1]:
        shown.pop()
    return shown


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{name}: text that is not empty", reason=name)
    return value
