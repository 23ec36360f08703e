"""A service that knows its callers: its certificates, its roles file, and clients with an identity of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from revocation_sdk import RevocationClient
from tests.e2e.installation import Installation, Replica

ISSUER, SUBJECT = "https://cluster.example", "system:serviceaccount:prod:login"

Bind = tuple[str, str, Sequence[str]]
"""An identity, its role, and its realms."""


class Secured:
    """Certificates, roles and one replica with an embedded store, or others that are added."""

    def __init__(
        self, installation: Installation, binds: Sequence[Bind], *, realms: dict[str, Any], **flags: Any
    ) -> None:
        self.installation = installation
        self.folder = installation.folder
        self.ca = trustme.CA()
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.ca.cert_pem.write_to_path(str(self.folder / "ca.pem"))
        self.write_server_certificate()
        self.write_roles(binds)
        (self.folder / "realms.json").write_text(json.dumps(realms))
        self.flags: dict[str, Any] = {
            "tls_cert": self.folder / "server.pem", "tls_key": self.folder / "server.key",
            "client_ca": self.folder / "ca.pem", "roles": self.folder / "roles.json",
            "realms": self.folder / "realms.json", **flags,
        }  # fmt: skip

    def embedded(self) -> Replica:
        """A replica with an embedded store."""
        self.replica = self.installation.add_embedded(**self.flags)
        return self.replica

    def on(self, url: str, count: int = 1) -> list[Replica]:
        """Replicas on a store."""
        secret = self.folder / "secret"
        secret.write_text("k1:" + "QUFB" * 11 + "QUE=\n")
        made = self.installation.add_replicas(count, url, secret_file=secret, **self.flags)
        self.replica = made[0]
        return made

    def write_server_certificate(self) -> None:
        made = self.ca.issue_cert("localhost", "127.0.0.1")
        made.private_key_pem.write_to_path(str(self.folder / "server.key"))
        made.cert_chain_pems[0].write_to_path(str(self.folder / "server.pem"))

    def write_roles(self, binds: Sequence[Bind], **bearer: Any) -> None:
        jwk = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
        (self.folder / "jwks.json").write_text(json.dumps({"keys": [{**jwk, "kid": "k"}]}))
        given = bearer or {"jwks_file": str(self.folder / "jwks.json")}
        roles = {
            "bearer": [{"issuer": ISSUER, "audience": "revocation", **given}],
            "bind": [{"identity": who, "roles": [role], "realms": list(realms)} for who, role, realms in binds],
        }
        (self.folder / "roles.json").write_text(json.dumps(roles))

    def files(self, identity: str, lasts_s: float = 3_600) -> tuple[Path, Path, Path]:
        """CA, certificate and key of a client with a SPIFFE id, which trustme does not make; made when first asked."""
        name = identity.rpartition("/")[2]
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        if not cert.exists():
            private = ec.generate_private_key(ec.SECP256R1())
            key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
            cert.write_bytes(self._sign(identity, private.public_key(), lasts_s).public_bytes(Encoding.PEM))
        return self.folder / "ca.pem", cert, key

    def _sign(self, identity: str, public: ec.EllipticCurvePublicKey, lasts_s: float) -> x509.Certificate:
        authority = x509.load_pem_x509_certificate(self.ca.cert_pem.bytes())
        ca_key = load_pem_private_key(self.ca.private_key_pem.bytes(), None)
        assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
        now = datetime.now(UTC)
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(authority.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(seconds=lasts_s))
            .add_extension(names, critical=True)
            .sign(ca_key, SHA256())
        )

    def channel(self, identity: str) -> grpc.Channel:
        root, cert, key = (path.read_bytes() for path in self.files(identity))
        return grpc.secure_channel(self.replica.address, grpc.ssl_channel_credentials(root, key, cert))

    def client(self, identity: str, **options: Any) -> RevocationClient:
        ca, cert, key = map(str, self.files(identity))
        given = {"ca": ca, "cert": cert, "key": key, **options}
        return RevocationClient(self.replica.address, **given)

    def bearer(self, **claims: Any) -> str:
        given = {"iss": ISSUER, "sub": SUBJECT, "aud": "revocation", "exp": int(time.time()) + 600, **claims}
        return jwt.encode(given, self.key, "ES256", headers={"kid": "k"})
