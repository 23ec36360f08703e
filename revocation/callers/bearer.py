"""Bearer tokens of callers: verified with the keys of their issuer, from a file or fetched as the issuer renews them.

Keys are fetched as a verifier of the SDK fetches them: behind the back of whoever asks, one fetch at a time, a new
`kid` at most once in some seconds; a failed fetch leaves the last good set in use, for a day at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import jwt

from revocation.callers.roles import Bearer, RolesInvalid
from revocation.errors import Unavailable
from revocation_sdk._jwks import FETCH_TIMEOUT_S, BadKeySet, JwksUrl, KeySource, StaticKeys, parse_key_set
from revocation_sdk._keys import HMAC_BYTES, Key, KeySet, check_algorithms
from revocation_sdk.errors import ConfigError

_KEY_SET_BYTES = 512 * 1024


class BearerIssuer:
    """Verifies the tokens of one issuer. Blocks while it waits for keys: call it on a thread."""

    def __init__(self, bearer: Bearer, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads what is in files; fetches nothing yet. Raises RolesInvalid."""
        self.bearer = bearer
        try:
            self._keys = _source(bearer, clock)
        except ConfigError as error:
            raise RolesInvalid(f"bearer {bearer.issuer}: {error}") from None
        except (OSError, BadKeySet) as error:
            raise RolesInvalid(f"{bearer.jwks_file}: no key set ({type(error).__name__})") from None

    def verify(self, token: str) -> tuple[Mapping[str, Any], Key]:
        """The claims, and the key that signed them. Raises jwt.PyJWTError, or Unavailable without any keys."""
        header = jwt.get_unverified_header(token)
        algorithm, kid = str(header.get("alg")), header.get("kid")
        found = self._candidates(algorithm, kid if isinstance(kid, str) else None)
        for key in found:
            try:
                return self._decode(token, key), key
            except jwt.InvalidSignatureError:
                continue
        raise jwt.InvalidKeyError("no key of the issuer fits")

    def trusts(self, key: Key) -> bool:
        """Whether a key that has signed something is still one of the issuer's. Never blocks."""
        keys = self._keys.current()
        return keys is not None and key in keys

    def _candidates(self, algorithm: str, kid: str | None) -> list[Key]:
        keys = self._keys.wait(FETCH_TIMEOUT_S)
        if keys is None:
            raise Unavailable("the keys of the token's issuer cannot be fetched at the moment")
        found = keys.candidates(algorithm, kid)
        if not found:
            keys = self._keys.wait_for_new(FETCH_TIMEOUT_S) or KeySet(())
            found = keys.candidates(algorithm, kid)
        return found

    def _decode(self, token: str, key: Key) -> Mapping[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.material,
            algorithms=sorted(key.algorithms),
            issuer=self.bearer.issuer,
            audience=self.bearer.audience,
            options={"require": ["exp", "sub", "iss", "aud"]},
        )
        return claims


def _source(bearer: Bearer, clock: Callable[[], float]) -> KeySource:
    algorithms = check_algorithms(bearer.algorithms)
    if algorithms & HMAC_BYTES.keys():
        raise ConfigError("algorithms: a secret that is published is none; use a public-key algorithm", reason="key")
    if bearer.jwks_url is not None:
        return JwksUrl(bearer.jwks_url, algorithms, clock=clock, ca=bearer.jwks_ca, token_file=bearer.jwks_token_file)
    assert bearer.jwks_file is not None  # as `Bearer` makes sure
    with bearer.jwks_file.open("rb") as file:
        return StaticKeys(parse_key_set(file.read(_KEY_SET_BYTES + 1)[:_KEY_SET_BYTES], algorithms))
