"""A token that was verified before: what need not be done again. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from revocation_sdk._compact import Claims
from revocation_sdk._judge import Prints
from revocation_sdk._keys import Key, KeySet


class Seen:
    """A token whose signature and claims were found right, with the fingerprints of what could revoke it.

    Whether it was revoked, or has expired, is judged anew each time.
    """

    __slots__ = ("_copy", "_key", "_keys", "claims", "facts", "prints")

    def __init__(self, claims: Claims, key: Key, keys: KeySet) -> None:
        self.claims = claims
        kid = key.kids[0] if key.kids else None
        self.facts = claims.facts._replace(kid=kid, thumbprint=key.thumbprint, more_kids=key.kids[1:])
        self.prints = Prints((), self.facts)
        self._key = key
        self._keys = keys
        nested = any(isinstance(value, dict | list) for value in claims.values.values())
        self._copy: Callable[[dict[str, Any]], dict[str, Any]] = _deep_copy if nested else dict

    def signed_by(self, keys: KeySet) -> bool:
        """Whether the key that verified is still listed as it was: it may have been removed, or renamed."""
        if keys is not self._keys:
            if self._key not in keys:
                return False
            self._keys = keys
        return True

    def values(self) -> dict[str, Any]:
        """The claims, for the caller to keep: what it changes in them stays its own."""
        return self._copy(self.claims.values)


def _deep_copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _deep_copy(inner) for name, inner in value.items()}
    return [_deep_copy(inner) for inner in value] if isinstance(value, list) else value
