"""Tokens as an issuer would sign them, with whatever claims a test wants."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

ISSUER, AUDIENCE = "https://id.example", "api"


class Signer:
    """Signs with one of several keys, by their `kid`."""

    def __init__(self, *kids: str) -> None:
        self.keys = {kid: ec.generate_private_key(ec.SECP256R1()) for kid in kids or ("k1",)}

    def jwks(self) -> dict[str, Any]:
        """The public keys, as an issuer publishes them."""
        published = []
        for kid, key in self.keys.items():
            published.append({**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": kid, "alg": "ES256"})
        return {"keys": published}

    def thumbprint(self, kid: str) -> str:
        """RFC 7638."""
        import base64
        import hashlib

        jwk = next(key for key in self.jwks()["keys"] if key["kid"] == kid)
        text = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
        return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")

    def sign(self, *, kid: str | None = None, life_s: float = 600, **claims: Any) -> str:
        """A token; a claim that is None is left out. `jti` and `sub` are made up unless given."""
        kid = kid or next(iter(self.keys))
        now = time.time()
        payload = {
            "iss": ISSUER, "aud": AUDIENCE, "iat": int(now), "exp": int(now + life_s),
            "jti": secrets.token_hex(8), "sub": f"user-{secrets.token_hex(4)}",
        }  # fmt: skip
        payload = {name: value for name, value in {**payload, **claims}.items() if value is not None}
        return jwt.encode(payload, self.keys[kid], "ES256", {"kid": kid})
