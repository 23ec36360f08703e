"""Verdicts on claims that somebody else has verified: `client.check` and `client.check_remote`."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from revocation_sdk._clock import Clock
from revocation_sdk._compact import Claims, Parts, read_claims, take_apart
from revocation_sdk._follower import Follower
from revocation_sdk._judge import Prints
from revocation_sdk._recent import Recent
from revocation_sdk._sight import Sight, look
from revocation_sdk.errors import ConfigError, TokenExpired, TokenInvalid, TokenRevoked

log = logging.getLogger("revocation_sdk")

OnStale = Literal["deny", "allow"]

_REMEMBERED = 20_000
_LOG_EVERY_S = 1.0
_STRINGS = ("iss", "jti", "sid", "sub", "client_id", "azp")
_OTHERS = ("exp", "iat", "nbf")
_VERSIONS = "tver"


class _Known(NamedTuple):
    claims: Claims
    prints: Prints


class Checker:
    """Judges claims against one follower's view. Claims seen before cost little."""

    def __init__(self, follower: Follower, clock: Clock) -> None:
        self._follower = follower
        self._clock = clock
        self._known: Recent[Hashable, _Known] = Recent(_REMEMBERED)
        self._next_log = 0.0

    def look(self, claims: Mapping[str, Any], token: str | None, key_id: str | None, thumbprint: str | None) -> Sight:
        """What the view says. Raises TokenInvalid, TokenExpired or TokenRevoked."""
        known = self._recall(claims, token, key_id, thumbprint)
        sight = look(self._follower, self._clock, known.claims.facts, known.prints)
        self._check_times(known.claims, sight.now)
        if sight.revoked is not None:
            target, since_ms = sight.revoked
            raise TokenRevoked(target=target.name.lower(), since=since_ms / 1000 if since_ms else None)
        return sight

    def claims(
        self, claims: Mapping[str, Any], token: str | None, key_id: str | None, thumbprint: str | None
    ) -> Claims:
        """The claims, typed. Raises TokenInvalid if they are not those of a token that can be judged."""
        return self._recall(claims, token, key_id, thumbprint).claims

    def allowed(self) -> None:
        """Notes that a token passed although nobody knows."""
        now = self._clock.mono()
        if now >= self._next_log:
            self._next_log = now + _LOG_EVERY_S
            log.warning("the view is stale: tokens are allowed unchecked")

    def _recall(
        self, claims: Mapping[str, Any], token: str | None, key_id: str | None, thumbprint: str | None
    ) -> _Known:
        get = claims.get
        versions = get(_VERSIONS)
        name = (
            *map(get, _STRINGS),
            *map(get, _OTHERS),
            tuple(versions) if type(versions) is list else versions,
            key_id,
            thumbprint,
            None if get("jti") else token,
        )
        keys = self._follower.keys
        try:
            known = self._known.get(name)
        except TypeError:  # a value that is none of a claim; reading says which
            return _Known(found := _read(claims, token, key_id, thumbprint), Prints(keys, found.facts))
        if known is None:
            found = _read(claims, token, key_id, thumbprint)
            known = _Known(found, Prints(keys, found.facts))
            self._known.put(name, known)
        elif known.prints.keys is not keys:
            known = known._replace(prints=Prints(keys, known.claims.facts))
            self._known.put(name, known)
        return known

    def _check_times(self, claims: Claims, now: float) -> None:
        """Whoever verified the token judged `exp`, with a leeway of its own. Views forget some time after it."""
        settings = self._follower.settings
        latest = now + settings.max_leeway_s
        if now >= claims.expires_at + settings.max_leeway_s:
            raise TokenExpired("expired")
        begin = latest if claims.issued_at is None else min(claims.issued_at, latest)
        if self._follower.keys and claims.expires_at - begin > settings.max_token_life_s:
            raise TokenInvalid("lives longer than the realm's max_token_life", reason="lifetime")


def check_policy(on_stale: str) -> None:
    """Raises ConfigError for a policy that `check` does not have."""
    if on_stale not in ("deny", "allow"):
        raise ConfigError('on_stale: "deny" or "allow"; to ask the service, use check_remote', reason="on_stale")


def _read(claims: Mapping[str, Any], token: str | None, key_id: str | None, thumbprint: str | None) -> Claims:
    """As strictly as a verifier reads them: by way of JSON, which nothing survives that could not be in a token."""
    signing_input = take_apart(token).signing_input if token is not None else b""
    used = {name: claims[name] for name in (*_STRINGS, *_OTHERS, _VERSIONS) if name in claims}
    if token is None and not used.get("jti"):
        raise TokenInvalid("without a `jti`, the token itself is needed to look it up", reason="claims")
    try:
        payload = json.dumps(used).encode()
    except (TypeError, ValueError):
        raise TokenInvalid("these are not the claims of a token", reason="claims") from None
    read = read_claims(Parts({}, payload, signing_input, b""), _VERSIONS, "client_id", 0)
    return replace(read, facts=read.facts._replace(kid=key_id, thumbprint=thumbprint))
