"""Fixtures of the command line's tests: a service, a way to run commands, and tokens."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from revocation.cli import main
from tests.cli.running import Result, Service, serving

Cli = Callable[..., Result]
ISSUER = "https://id.example"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("REVOCATION_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the tests of a module."""
    with serving(tmp_path_factory.mktemp("data")) as running:
        yield running


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command line in this process: `cli("status", "--json")`."""

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        code = main(arguments)
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return run


@pytest.fixture
def ask(cli: Cli, service: Service) -> Cli:
    """Runs a client command against the service of the module."""
    return lambda *arguments: cli(*arguments, "--address", service.address)


@dataclass(frozen=True, slots=True)
class Issuer:
    """Signs tokens of ISSUER."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def token(self, *, lifetime: int = 600, **claims: Any) -> str:
        """A token with a `jti` of its own; a claim given as None is left out."""
        now = int(time.time())
        values = {"iss": ISSUER, "sub": "alice", "jti": str(uuid.uuid4()), "iat": now, "exp": now + lifetime} | claims
        present = {name: value for name, value in values.items() if value is not None}
        return jwt.encode(present, self.key, algorithm="ES256", headers={"kid": "k1"})

    def public_pem(self, path: Path) -> Path:
        """Writes the public key."""
        path.write_bytes(self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return path


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()
