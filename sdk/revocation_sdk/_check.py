"""Verdicts on claims that somebody else has verified: `client.check` and `client.check_remote`."""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

from revocation_sdk._clock import Clock
from revocation_sdk._compact import Claims, Parts, read_claims, seconds, take_apart
from revocation_sdk._follower import Follower
from revocation_sdk._judge import Prints
from revocation_sdk._recent import Recent
from revocation_sdk._sight import Sight, look
from revocation_sdk.errors import ConfigError, TokenExpired, TokenInvalid, TokenRevoked

log = logging.getLogger("revocation_sdk")

Unasked = Literal["deny", "allow"]
"""What of OnStale needs no network."""

_REMEMBERED = 20_000
_MAX_REMEMBERED = 4096  # characters: longer claims are read each time, so that memory stays within tens of megabytes
_LOG_EVERY_S = 1.0
_STRINGS = ("iss", "jti", "sid", "sub", "azp")
_OTHERS = ("exp", "iat", "nbf")


Reading = tuple[str | None, str | None, str | None, str, float]
"""key_id, thumbprint, version_claim, client_claim, issuer_skew. A plain tuple, as one is made for every verdict."""


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

    def look(self, claims: Mapping[str, Any], token: str | None, reading: Reading) -> Sight:
        """What the view says. Raises TokenInvalid, TokenExpired or TokenRevoked."""
        known = self._recall(claims, token, reading)
        sight = look(self._follower, self._clock, known.claims.facts, known.prints)
        self.check_times(known.claims, sight.now)
        if sight.revoked is not None:
            target, since_ms = sight.revoked
            raise TokenRevoked(target=target.name.lower(), since=since_ms / 1000 if since_ms else None)
        return sight

    def claims(self, claims: Mapping[str, Any], token: str | None, reading: Reading) -> Claims:
        """The claims, typed. Raises TokenInvalid if they are not those of a token that can be judged."""
        return self._recall(claims, token, reading).claims

    def allowed(self) -> None:
        """Notes that a token passed although nobody knows."""
        now = self._clock.mono()
        if now >= self._next_log:
            self._next_log = now + _LOG_EVERY_S
            log.warning("the view is stale: tokens are allowed unchecked")

    def _recall(self, claims: Mapping[str, Any], token: str | None, reading: Reading) -> _Known:
        get = claims.get
        _, _, version_claim, client_claim, _ = reading
        versions = None if version_claim is None else get(version_claim)
        name = (
            *map(get, _STRINGS),
            *map(get, _OTHERS),
            get(client_claim),
            tuple(versions) if type(versions) is list else versions,
            reading,
            None if get("jti") else token,
        )
        keys = self._follower.keys
        try:
            known = self._known.get(name)
        except TypeError:  # a value that is none of a claim; reading says which
            return _Known(found := _read(claims, token, reading), Prints(keys, found.facts))
        if known is None:
            found = _read(claims, token, reading)
            known = _Known(found, Prints(keys, found.facts))
            if sum(len(part) for part in name if isinstance(part, str)) <= _MAX_REMEMBERED:
                self._known.put(name, known)
        elif known.prints.keys is not keys:
            known = known._replace(prints=Prints(keys, known.claims.facts))
            self._known.put(name, known)
        return known

    def check_times(self, claims: Claims, now: float) -> None:
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


def _read(claims: Mapping[str, Any], token: str | None, reading: Reading) -> Claims:
    """As strictly as a verifier reads them: by way of JSON, which nothing survives that could not be in a token."""
    key_id, thumbprint, version_claim, client_claim, issuer_skew = reading
    signing_input = take_apart(token).signing_input if token is not None else b""
    names = (*_STRINGS, *_OTHERS, client_claim, version_claim)
    used = {name: claims[name] for name in names if name is not None and name in claims}
    if token is None and not used.get("jti"):
        raise TokenInvalid("without a `jti`, the token itself is needed to look it up", reason="claims")
    try:
        payload = json.dumps(used).encode()
    except (TypeError, ValueError):
        raise TokenInvalid("these are not the claims of a token", reason="claims") from None
    skew = seconds("issuer_skew", issuer_skew)
    read = read_claims(Parts({}, payload, signing_input, b""), version_claim, client_claim, skew)
    return replace(read, facts=read.facts._replace(kid=key_id, thumbprint=thumbprint))
