"""Verifies tokens from memory: signature, claims, and whether they were taken back, with a verdict that says how
fresh it is.

`Verifier.verify` names its steps (1) to (7); the code keeps that order and those numbers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, Literal, get_args

from revocation_sdk._clock import Clock
from revocation_sdk._follower import Follower, Lease
from revocation_sdk._judge import Facts, Prints
from revocation_sdk._jwks import FETCH_TIMEOUT_S, JwksUrl, KeySource, StaticKeys, static_jwks
from revocation_sdk._keys import Key, KeySet, check_algorithms, static_key
from revocation_sdk._lattice import Kind
from revocation_sdk._messages import RealmSettings
from revocation_sdk._position import encode_positions
from revocation_sdk._recent import Recent
from revocation_sdk._remote import RemoteChecks
from revocation_sdk._sight import Sight, look
from revocation_sdk._token import (
    NEVER_ACCESS_TOKENS,
    Claims,
    Parts,
    audiences,
    check_header,
    media_type,
    read_claims,
    take_apart,
)
from revocation_sdk.errors import ConfigError, StatusUnknown, TokenExpired, TokenInvalid, TokenRevoked
from revocation_sdk.types import Freshness, Receipt, Verified

OnStale = Literal["deny", "check", "allow"]

CACHED_TOKENS = 10_000
MAX_CACHED_BYTES = 4096  # a longer token is verified each time: the cache stays within tens of megabytes
LOG_EVERY_S = 1.0

_log = logging.getLogger("revocation_sdk")


class _Seen:
    """A token whose signature and claims were found right: what need not be done again."""

    __slots__ = ("algorithm", "claims", "copy", "facts", "key", "keys", "prints")

    def __init__(self, claims: Claims, algorithm: str, key: Key, keys: KeySet) -> None:
        self.claims = claims
        self.algorithm = algorithm
        self.key = key
        self.keys = keys
        kid, *more = key.kids or (None,)
        self.facts = claims.facts._replace(kid=kid, thumbprint=key.thumbprint, more_kids=tuple(filter(None, more)))
        self.prints = Prints((), self.facts)
        flat = not any(isinstance(value, dict | list) for value in claims.values.values())
        self.copy = dict if flat else _deep_copy

    def signed_by(self, keys: KeySet) -> bool:
        """Whether the key that verified is still trusted, under the same names (it may have been removed)."""
        if keys is not self.keys:
            if not any(key == self.key and self.algorithm in key.algorithms for key in keys.keys):
                return False
            self.keys = keys
        return True
