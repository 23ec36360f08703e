"""The service's signing key, with which it vouches for its stream: Ed25519, derived from the master secret."""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from revocation.keys.keyring import Keyring
from revocation_sdk._signed import key_id, signed_text


class SigningKey:
    """One key pair. The private part never leaves it."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.id = key_id(self.public)

    def sign(self, realm: str, challenge: bytes, body: bytes) -> bytes:
        """The signature of a message; `challenge` is empty for what all streams share."""
        return self._key.sign(signed_text(realm, challenge, body))

    @property
    def text(self) -> str:
        """The public key as `signing_keys=` takes it."""
        return base64.b64encode(self.public).decode()

    @property
    def pem(self) -> str:
        """The same as PEM."""
        return self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def signing_keys(keyring: Keyring) -> list[tuple[str, SigningKey]]:
    """The key under each master secret, by its id; the first is the one that signs."""
    return [(kid, SigningKey(keyring.signing_seed(kid))) for kid in keyring.kids]
