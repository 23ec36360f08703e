"""Verifies tokens from memory: signature, claims, and whether they were taken back.

A verdict says how fresh it is. `Verifier.verify` names its steps (1) to (7); the code keeps their order and numbers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, get_args

from revocation_sdk._client import BaseClient
from revocation_sdk._compact import (
    Claims,
    Parts,
    accepted_types,
    audiences,
    check_header,
    read_claims,
    seconds,
    take_apart,
)
from revocation_sdk._core import CALL_TIMEOUT_S, check_staleness
from revocation_sdk._judge import Prints
from revocation_sdk._jwks import FETCH_TIMEOUT_S, key_source
from revocation_sdk._keys import Key, KeySet, check_algorithms
from revocation_sdk._operation import Operation
from revocation_sdk._recent import Recent
from revocation_sdk._remote import RemoteChecks, Vouched
from revocation_sdk._seen import Seen
from revocation_sdk._sight import Sight, look
from revocation_sdk.errors import ConfigError, RevocationError, StatusUnknown, TokenExpired, TokenInvalid, TokenRevoked
from revocation_sdk.types import Freshness, OnStale, Receipt, Verified

CACHED_TOKENS = 10_000
MAX_CACHED_BYTES = 4096  # a longer token is verified each time: the cache stays within tens of megabytes
LOG_EVERY_S = 1.0

_log = logging.getLogger("revocation_sdk")


class Verifier:
    """Verifies the tokens of one issuer for one audience. Cheap to call, safe to share between threads."""

    def __init__(
        self,
        client: BaseClient,
        *,
        algorithms: Iterable[str],
        key: object = None,
        jwks: object = None,
        jwks_url: str | None = None,
        key_id: str | None = None,
        issuer: str | None = None,
        audience: str | Iterable[str] | None = None,
        max_staleness: float = 15.0,
        on_stale: OnStale = "deny",
        leeway: float = 0,
        issuer_skew: float = 0,
        version_claim: str | None = "tver",
        client_claim: str = "client_id",
        types: Iterable[str | None] = ("at+jwt", "JWT", None),
    ) -> None:
        """Sets up a verifier; does no I/O.

        Args:
            client: Follows the revocations; the first `verify` starts it.
            algorithms: What the keys may be used with, e.g. ["ES256"].
            key: The one key: PEM, a public key of the `cryptography` package, or an HMAC secret.
            jwks: The keys, as a JWK set.
            jwks_url: Where the issuer publishes them: https, or http on this host.
            key_id: The `kid` of `key`, by which it can be revoked.
            issuer: The `iss` that tokens must have; None: any.
            audience: One of these must be in `aud`; None: only tokens without `aud` are accepted.
            max_staleness: How old the view may be, in seconds; at least two ping intervals.
            on_stale: What to do when it is older: "deny", "check" with the service, "allow".
            leeway: Seconds that clocks may differ when `exp` and `nbf` are judged; at most the realm's max_leeway.
            issuer_skew: Seconds that a foreign issuer's clock may be ahead, when `iat` is compared with a cutoff.
            version_claim: The claim with the versions; None: a foreign issuer that mints none.
            client_claim: The claim with the client; `azp` stands in for it.
            types: The `typ` headers that are accepted.

        Raises:
            ConfigError: Something does not fit together.
        """
        self._client = client
        self._core = client._core
        self._counts = client._core.following.counts
        self._clock = client.clock
        self._algorithms = check_algorithms(algorithms)
        self._keys = key_source(key, jwks, jwks_url, key_id, self._algorithms, client.clock.mono)
        self._issuer = issuer
        self._audience = None if audience is None else frozenset((audience,) if isinstance(audience, str) else audience)
        self._leeway = seconds("leeway", leeway)
        self._issuer_skew = seconds("issuer_skew", issuer_skew)
        self._version_claim = version_claim
        self._client_claim = client_claim
        self._types = accepted_types(types)
        self._default = self._ask(max_staleness, on_stale)
        self._seen: Recent[str | bytes, Seen] = Recent(CACHED_TOKENS)
        self._remote = RemoteChecks(client._core)
        self._allowances = count(1)
        self._next_log = 0.0
        self.allowed_stale = 0
        """How many tokens `on_stale="allow"` let pass without knowing."""

    def verify(
        self, token: str | bytes, *, max_staleness: float | None = None, on_stale: OnStale | None = None
    ) -> Verified:
        """Accepts a token that is valid now and not taken back, or raises.

        Needs no network, except with `on_stale="check"` while stale, and for the first keys of `jwks_url`.

          (1) At most 16 KiB; three parts of canonical base64url; a header that is strict JSON, whose `alg` and
              `typ` are set up, without `crit` and `b64`.
          (2) The signature, by a key of ours that fits the algorithm.
          (3) The claims, typed strictly: `iss`, `aud`; `exp` is required.
          (4) Whether the token, its session, key, subject, client or realm was revoked: the lease is read, then
              the view, then the clock (I1).
          (5) `exp`, `nbf` and the realm's limits, by the larger of our clock and the store's, as the lease or the
              service's answer tells it.
          (6) Known revoked is reported, however old the view.
          (7) A view older than `max_staleness` vouches for nothing: `on_stale` says what then.

        A token seen before starts at (4), if the key that signed it is still one of ours.

        Raises:
            TokenInvalid: Steps 1, 2, 3 and 5.
            TokenExpired: Step 5.
            TokenRevoked: Step 6, or the service's answer to "check".
            StatusUnknown: Step 7, or there are no keys to verify with.
            ConfigError: The settings do not fit those of the realm.
        """
        limit, policy = self._asked(max_staleness, on_stale)
        self._client.start()
        keys = self._keys.current() or self._keys.wait(FETCH_TIMEOUT_S)
        try:
            seen, freshness, age_s = self._judged(token, keys, limit, policy)
            if freshness is None:
                freshness = self._vouched(seen, self._remote.ask(seen.facts, limit, age_s))
        except RevocationError as error:
            self._counts.verdict(error)
            raise
        return self._accepted(seen, freshness)

    async def verify_async(
        self, token: str | bytes, *, max_staleness: float | None = None, on_stale: OnStale | None = None
    ) -> Verified:
        """As `verify`; whatever needs the network is awaited and never blocks the event loop."""
        limit, policy = self._asked(max_staleness, on_stale)
        self._client.start()
        keys = self._keys.current() or await asyncio.to_thread(self._keys.wait, FETCH_TIMEOUT_S)
        try:
            seen, freshness, age_s = self._judged(token, keys, limit, policy)
            if freshness is None:
                freshness = self._vouched(seen, await self._remote.ask_async(seen.facts, limit, age_s))
        except RevocationError as error:
            self._counts.verdict(error)
            raise
        return self._accepted(seen, freshness)

    def revoke(
        self, token: str | bytes, *, op_id: str | None = None, timeout: float = CALL_TIMEOUT_S, reason: str = ""
    ) -> Receipt:
        """Takes a token back that passes steps (1) to (3), whether or not it has expired or was revoked before.

        Raises:
            TokenInvalid: It is none of ours, so nothing was revoked.
            StatusUnknown: There are no keys to verify with.
            ServiceError: As `client.revoke_token`.
        """
        seen = self._known(token, self._keys.current() or self._keys.wait(FETCH_TIMEOUT_S))
        return self._core.run(self._revocation(seen.claims, op_id, reason), timeout)

    async def revoke_async(
        self, token: str | bytes, *, op_id: str | None = None, timeout: float = CALL_TIMEOUT_S, reason: str = ""
    ) -> Receipt:
        """As `revoke`, without blocking the event loop."""
        keys = self._keys.current() or await asyncio.to_thread(self._keys.wait, FETCH_TIMEOUT_S)
        seen = self._known(token, keys)
        return await self._core.run_async(self._revocation(seen.claims, op_id, reason), timeout)

    def _judged(
        self, token: str | bytes, keys: KeySet | None, limit: float, policy: OnStale
    ) -> tuple[Seen, Freshness | None, float | None]:
        """Steps (1) to (7), with the age of the view; without a Freshness where the service is to be asked."""
        seen = self._known(token, keys)
        follower = self._client.follower
        if seen.prints.keys is not follower.keys:
            seen.prints = Prints(follower.keys, seen.facts)

        # (4) The lease, the view, the clock.
        sight = look(follower, self._clock, seen.facts, seen.prints)

        # (5) Times.
        self._check_times(seen.claims, sight.now, policy)

        # (6) Known revoked.
        if sight.revoked is not None:
            target, since_ms = sight.revoked
            raise TokenRevoked(target=target.name.lower(), since=since_ms / 1000 if since_ms else None)

        # (7) Freshness.
        if sight.age_s is not None and sight.age_s <= limit:
            return seen, Freshness(True, sight.age_s, self._core.following.position_text(sight.lease)), sight.age_s
        if policy == "deny":
            raise self._client.unknown(sight.age_s)
        return seen, self._allow(sight) if policy == "allow" else None, sight.age_s

    def _vouched(self, seen: Seen, said: Vouched) -> Freshness:
        """Step (5) once more, by the clock of the service that answered: without a lease only our own was known."""
        self._check_times(seen.claims, max(self._clock.wall(), said.store_s), "check")
        return said.freshness

    def _accepted(self, seen: Seen, freshness: Freshness) -> Verified:
        if freshness.fresh:
            self._counts.accepted += 1
        else:
            self._counts.accepted_stale += 1
        return Verified(seen.values(), freshness)

    def _known(self, token: str | bytes, keys: KeySet | None) -> Seen:
        """Steps (1) to (3), from memory for a token seen before."""
        if keys is None:
            raise StatusUnknown("no keys to verify with: jwks_url has not been reached", reason="no_keys")
        if not isinstance(token, str | bytes):
            raise TokenInvalid("not text", reason="malformed")
        seen = self._seen.get(token)
        if seen is not None and seen.signed_by(keys):
            self._counts.hits += 1
            return seen

        # (1) Form and header.
        parts = take_apart(token)
        check_header(parts.header, self._algorithms, self._types)

        # (2) Signature.
        key = self._signer(parts, keys)

        # (3) Claims.
        claims = read_claims(parts, self._version_claim, self._client_claim, self._issuer_skew)
        self._check_identity(claims.values)

        self._counts.misses += 1
        seen = Seen(claims, key, keys)
        if len(token) <= MAX_CACHED_BYTES:
            self._seen.put(token, seen)
        return seen

    def _signer(self, parts: Parts, keys: KeySet) -> Key:
        """The key that signed. The header's `kid` narrows the search; only the signature decides."""
        algorithm, kid = parts.header["alg"], parts.header.get("kid")
        candidates = keys.candidates(algorithm, kid)
        for key in candidates:
            if key.verifies(algorithm, parts.signing_input, parts.signature):
                return key
        self._keys.unknown_key()
        if not candidates:
            raise TokenInvalid("signed by a key that is not known here", reason="unknown_key")
        raise TokenInvalid("the signature does not fit", reason="signature")

    def _check_identity(self, values: Mapping[str, Any]) -> None:
        if self._issuer is not None and values.get("iss") != self._issuer:
            raise TokenInvalid("`iss` is another issuer", reason="issuer")
        named = audiences(values)
        if self._audience is None:
            if named:
                raise TokenInvalid("meant for an audience, and this verifier has none", reason="audience")
        elif self._audience.isdisjoint(named):
            raise TokenInvalid("meant for another audience", reason="audience")

    def _check_times(self, claims: Claims, now: float, policy: OnStale) -> None:
        """`exp` is judged by the larger clock, so that one that lags revives no token (I1)."""
        settings, known = self._client.follower.settings, bool(self._client.follower.keys)
        if known and self._leeway > settings.max_leeway_s:
            raise ConfigError(f"leeway: above the realm's max_leeway of {settings.max_leeway_s} s", reason="leeway")
        latest = now + self._leeway
        if now >= claims.expires_at + self._leeway:
            raise TokenExpired("expired")
        if claims.not_before is not None and claims.not_before > latest:
            raise TokenInvalid("`nbf` lies ahead", reason="not_yet_valid")
        issued = claims.issued_at
        if issued is not None and issued > latest + max(settings.margin_s, self._issuer_skew):
            raise TokenInvalid("`iat` lies ahead", reason="not_yet_valid")
        begin = latest if issued is None else min(issued, latest)
        if claims.expires_at - begin <= settings.max_token_life_s:
            return
        # It outlives what views remember.
        if known:
            raise TokenInvalid("lives longer than the realm's max_token_life", reason="lifetime")
        if policy != "allow":
            raise StatusUnknown("the realm's max_token_life is not known yet")

    def _allow(self, sight: Sight) -> Freshness:
        self.allowed_stale = next(self._allowances)
        mono = self._clock.mono()
        if mono >= self._next_log:
            self._next_log = mono + LOG_EVERY_S
            _log.warning("the view is stale: %d tokens so far were allowed unchecked", self.allowed_stale)
        return Freshness(False, sight.age_s, self._core.following.position_text(sight.lease))

    def _revocation(self, claims: Claims, op_id: str | None, reason: str) -> Operation[Receipt]:
        """Of what was verified: read in any other way, a token might be another one, or none."""
        return self._core.requests.revoke_identity(claims.identity, op_id, reason)

    def _asked(self, max_staleness: float | None, on_stale: OnStale | None) -> tuple[float, OnStale]:
        if max_staleness is None and on_stale is None:
            return self._default
        limit, policy = self._default
        return self._ask(limit if max_staleness is None else max_staleness, on_stale or policy)

    def _ask(self, max_staleness: float, on_stale: OnStale) -> tuple[float, OnStale]:
        check_staleness(max_staleness, self._client.ping_interval)
        if on_stale not in get_args(OnStale):
            raise ConfigError('on_stale: "deny", "check" or "allow"', reason="on_stale")
        if on_stale == "check" and self._core.following.signing is not None:
            text = 'on_stale="check" cannot be used with signing_keys: the service does not sign what it answers'
            raise ConfigError(text, reason="on_stale")
        self._core.following.judged_by(max_staleness)
        return max_staleness, on_stale
