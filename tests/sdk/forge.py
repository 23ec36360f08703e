"""Tokens made by hand, good and bad, and a fake service whose clocks a test sets."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from revocation_sdk._clock import Clock
from revocation_sdk._fake_service import FakeService
from revocation_sdk._keys import load_signing
from revocation_sdk._messages import RealmSettings
from revocation_sdk.errors import TokenRejected
from revocation_sdk.issuer import TokenIssuer
from revocation_sdk.testing import FakeRevocations
from revocation_sdk.verifier import Verifier

ISSUER, AUDIENCE = "https://id.example", "api"
START = 1_700_000_000
"""When the clocks of these tests begin: a whole second."""

EC = ec.generate_private_key(ec.SECP256R1())
OTHER_EC = ec.generate_private_key(ec.SECP256R1())
EC384 = ec.generate_private_key(ec.SECP384R1())
EC521 = ec.generate_private_key(ec.SECP521R1())
KOBLITZ = ec.generate_private_key(ec.SECP256K1())
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
SECRET = b"s" * 64


def private_pem(key: Any) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def public_pem(key: Any) -> bytes:
    return bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def b64(data: bytes | str) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def claims(now: float = START, **more: Any) -> dict[str, Any]:
    """Good claims; a value of `...` leaves one out."""
    all_of_them = {
        "iss": ISSUER,
        "sub": "alice",
        "aud": AUDIENCE,
        "iat": int(now),
        "exp": int(now) + 600,
        "jti": "token-1",
        "sid": "session-1",
        "client_id": "app",
        **more,
    }
    return {name: value for name, value in all_of_them.items() if value is not ...}


def sign(payload: Any, key: Any = EC, algorithm: str = "ES256", header: Any = None) -> str:
    """A token of exactly this header and payload: text and bytes are taken as they are."""
    head = {"alg": algorithm, "typ": "at+jwt"} if header is None else header
    parts = [part if isinstance(part, str | bytes) else json.dumps(part) for part in (head, payload)]
    signing_input = ".".join(map(b64, parts))
    return f"{signing_input}.{b64(load_signing(key, algorithm).sign(signing_input.encode()))}"


@dataclass
class Times:
    """The clocks: ours, and by how much the store's is ahead."""

    mono: float = 1000.0
    wall: float = float(START)
    store_ahead: float = 0.0

    def pass_by(self, seconds: float) -> None:
        self.mono += seconds
        self.wall += seconds


class TimedService(FakeService):
    """A fake service that lives by these clocks."""

    def __init__(self, times: Times, settings: RealmSettings | None = None) -> None:
        super().__init__(settings or RealmSettings())
        self.times = times
        self.clock = Clock(lambda: times.mono, lambda: times.wall)

    @property
    def now_ms(self) -> int:
        return round((self.times.wall + self.times.store_ahead) * 1000)


def fake(times: Times | None = None, settings: RealmSettings | None = None, **more: Any) -> FakeRevocations:
    """A client of such a service; `client.service.times` are its clocks."""
    return FakeRevocations(TimedService(times or Times(), settings), **more)


def times(client: FakeRevocations) -> Times:
    """The clocks that this client lives by."""
    assert isinstance(client.service, TimedService)
    return client.service.times


def verifier_of(client: FakeRevocations, **more: Any) -> Verifier:
    options = {"key": EC.public_key(), "algorithms": ["ES256"], "issuer": ISSUER, "audience": AUDIENCE, **more}
    return Verifier(client, **options)


def reason(verifier: Verifier, token: Any) -> str:
    """Why a token is refused; "" if it is not."""
    try:
        verifier.verify(token)
    except TokenRejected as error:
        return error.reason
    return ""


def issuer_of(client: FakeRevocations, **more: Any) -> TokenIssuer:
    options = {"key": EC, "algorithm": "ES256", "issuer": ISSUER, "audience": AUDIENCE, **more}
    return TokenIssuer(client, **options)


def read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = token.split(".")
    return json.loads(unb64(header)), json.loads(unb64(payload))
