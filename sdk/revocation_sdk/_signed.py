"""Signed streams: is this message from the service, and meant for this stream? Pure: bytes in, a verdict out.

A relay between service and verifier can then still delay, drop and cut, which makes views stale, and nothing more.
What it replays is found out in one of three ways: the signature is over this stream's challenge (welcome, progress,
goodbye); or a step does not follow from the view's position (changes, marks); or the progress names other positions
than the view has come to (an old snapshot, a step that was left out).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from revocation_sdk.errors import ConfigError

CHALLENGE_BYTES = 16
LARGEST_STEP = 1 << 40
"""Of a nonce: so many guesses a relay would need to ask before the client does."""

MAX_KEYS = 16
_KEY_BYTES = 32
_DOMAIN = b"revocation watch v1\0"
_BOUND = frozenset(("welcome", "progress", "goodbye"))


class Unsigned(Exception):
    """A message that a client with signing keys does not take. `reason` is stable."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def signed_text(realm: str, challenge: bytes, body: bytes) -> bytes:
    """What is signed. Shared messages have an empty challenge."""
    name = realm.encode()
    return b"".join((_DOMAIN, bytes((len(name),)), name, bytes((len(challenge),)), challenge, body))


def is_bound(kind: str) -> bool:
    """Whether a message of this kind is signed for one stream only."""
    return kind in _BOUND


def key_id(public_key: bytes) -> bytes:
    """The name of a public key (32 bytes)."""
    return hashlib.sha256(public_key).digest()[:8]


class SigningKeys:
    """The public keys that a client trusts; several during a rotation."""

    def __init__(self, keys: Iterable[str | bytes]) -> None:
        """Takes PEM, base64 or 32 raw bytes each. Raises ConfigError."""
        given = list(keys)
        if not 0 < len(given) <= MAX_KEYS:
            raise ConfigError(f"signing_keys= holds {len(given)} keys, not 1 to {MAX_KEYS}", reason="signing_keys")
        raw = [_raw(key) for key in given]
        try:
            self._keys = {key_id(key): Ed25519PublicKey.from_public_bytes(key) for key in raw}
        except (ValueError, UnsupportedAlgorithm):
            raise _no_key() from None

    def verify(self, name: bytes, signature: bytes, text: bytes) -> None:
        """Returns if one of the keys, called `name`, has signed the text. Raises Unsigned."""
        key = self._keys.get(name)
        if key is None:
            raise Unsigned("unknown_signing_key")
        try:
            key.verify(signature, text)
        except InvalidSignature:
            raise Unsigned("bad_signature") from None


class Seal:
    """What the messages of one stream must bear."""

    def __init__(self, keys: SigningKeys, realm: str, challenge: bytes) -> None:
        self.challenge = challenge
        self._keys = keys
        self._realm = realm

    def check(self, kind: str, body: bytes, signature: bytes, name: bytes) -> None:
        """Returns if the service has signed this body, of that kind, for this stream. Raises Unsigned."""
        challenge = self.challenge if is_bound(kind) else b""
        self._keys.verify(name, signature, signed_text(self._realm, challenge, body))


def _raw(key: str | bytes) -> bytes:
    data = key.encode() if isinstance(key, str) else key
    if isinstance(key, bytes) and len(key) == _KEY_BYTES:
        return key
    try:
        if b"-----BEGIN" in data:
            loaded = load_pem_public_key(data)
            if not isinstance(loaded, Ed25519PublicKey):
                raise _no_key()
            return loaded.public_bytes(Encoding.Raw, PublicFormat.Raw)
        text = data.strip().replace(b"-", b"+").replace(b"_", b"/").rstrip(b"=")
        raw = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        raise _no_key() from None
    if len(raw) != _KEY_BYTES:
        raise _no_key()
    return raw


def _no_key() -> ConfigError:
    text = "signing_keys= holds something that is no Ed25519 public key (PEM, or 32 bytes in base64)"
    return ConfigError(text, reason="signing_keys")
