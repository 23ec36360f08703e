"""`revocation inspect`: reading tokens, on this machine."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm

from revocation.cli.output import Exit
from tests.cli.conftest import ISSUER, Cli, Issuer
from tests.cli.running import Service, execute

KEYS: dict[str, Any] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "RS256": rsa.generate_private_key(65_537, 2048),
    "PS256": rsa.generate_private_key(65_537, 2048),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "HS256": b"a secret of at least 32 bytes, as it should be",
}


def key_file(key: Any, path: Path) -> str:
    """What to verify with, in a file as people have it: PEM, or the secret and a line end."""
    if isinstance(key, bytes):
        path.write_bytes(key + b"\n")
    else:
        path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return str(path)


def key_set(key: ec.EllipticCurvePrivateKey, path: Path, **more: str) -> str:
    """A key set with one key."""
    jwk = json.loads(ECAlgorithm.to_jwk(key.public_key()))
    path.write_text(json.dumps({"keys": [jwk | more]}))
    return str(path)


def raw(header: object, claims: object, signature: str = "c2ln") -> str:
    """A token of whatever content, unsigned."""
    parts = (base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims))
    return f"{'.'.join(parts)}.{signature}"


def test_shows_header_claims_and_times(cli: Cli, issuer: Issuer) -> None:
    """Values as they are, times in words too, and what has not been checked."""
    result = cli("inspect", issuer.token(sub="bob", lifetime=3605, roles=["a", "b"]))
    assert result.code == Exit.OK
    lines = result.out.splitlines()
    assert "header alg: ES256" in lines
    assert "claim sub: bob" in lines
    assert 'claim roles: ["a", "b"]' in lines
    assert any(line.startswith("claim exp: ") and "  in 1 hour (" in line for line in lines)
    assert "signature: unchecked (give --key or --jwks)" in lines


def test_json_has_everything(cli: Cli, issuer: Issuer) -> None:
    """One object: header, claims, signature, revocation, notes."""
    token = issuer.token(sub="bob")
    shown = cli("inspect", token, "--json").json
    assert shown["header"] == jwt.get_unverified_header(token)
    assert shown["claims"] == jwt.decode(token, options={"verify_signature": False})
    assert (shown["signature"], shown["revocation"], shown["notes"]) == ("unchecked", None, [])
    assert shown["thumbprint"] is None


@pytest.mark.parametrize("algorithm", KEYS)
def test_signature_verdict(cli: Cli, tmp_path: Path, algorithm: str) -> None:
    """With the right key valid, with another one of the same kind invalid: exit 1."""
    key = KEYS[algorithm]
    token = jwt.encode({"sub": "a", "exp": int(time.time()) + 60}, key, algorithm=algorithm)
    right = cli("inspect", token, "--key", key_file(key, tmp_path / "key"), "--json")
    assert (right.code, right.json["signature"]) == (Exit.OK, "valid")
    head, claims, _ = token.split(".")
    forged = jwt.encode({"sub": "b"}, key, algorithm=algorithm).rsplit(".", 1)[1]
    wrong = cli("inspect", f"{head}.{claims}.{forged}", "--key", str(tmp_path / "key"), "--json")
    assert (wrong.code, wrong.json["signature"]) == (Exit.REVOKED, "invalid")


def test_key_sets_pick_by_kid_or_try_all(cli: Cli, tmp_path: Path, issuer: Issuer) -> None:
    """A key set with the right kid, with no kid, and with somebody else's key."""
    token = issuer.token()
    for more, verdict in (({"kid": "k1"}, "valid"), ({}, "valid"), ({"kid": "k2"}, "invalid")):
        jwks = key_set(issuer.key, tmp_path / "jwks.json", **more)
        assert cli("inspect", token, "--jwks", jwks, "--json").json["signature"] == verdict
    other = key_set(Issuer().key, tmp_path / "other.json", kid="k1")
    assert cli("inspect", token, "--jwks", other, "--json").json["signature"] == "invalid"


def test_the_key_that_verified_is_named_as_it_is_revoked(cli: Cli, tmp_path: Path, issuer: Issuer) -> None:
    """Its RFC 7638 thumbprint, from a PEM file and from a key set; of a key that did not verify nothing is said."""
    jwk = json.loads(ECAlgorithm.to_jwk(issuer.key.public_key()))
    members = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(members.encode()).digest()).decode().rstrip("=")
    pem, jwks = str(issuer.public_pem(tmp_path / "key.pem")), key_set(issuer.key, tmp_path / "jwks.json")
    for option, path in (("--key", pem), ("--jwks", jwks)):
        assert f"thumbprint: {thumbprint}" in cli("inspect", issuer.token(), option, path).out.splitlines()
        assert cli("inspect", issuer.token(), option, path, "--json").json["thumbprint"] == thumbprint
        assert cli("inspect", Issuer().token(), option, path, "--json").json["thumbprint"] is None


def test_public_key_is_no_secret(cli: Cli, tmp_path: Path, issuer: Issuer) -> None:
    """The classic confusion: a token signed with HMAC and the public key as secret."""
    pem = issuer.public_pem(tmp_path / "key.pem")
    claims = base64.urlsafe_b64encode(b'{"sub":"admin","exp":99999999999}').decode().rstrip("=")
    header = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")
    result = cli("inspect", f"{header}.{claims}.c2ln", "--key", str(pem))
    assert result.code == Exit.USAGE
    assert "no HMAC secret" in result.err


def test_unsigned_tokens_are_invalid(cli: Cli, tmp_path: Path, issuer: Issuer) -> None:
    """`alg: none` has a note, and with a key a verdict."""
    pem = str(issuer.public_pem(tmp_path / "key.pem"))
    token = raw({"alg": "none"}, {"sub": "a", "exp": 2})
    assert any("alg is none" in note for note in cli("inspect", token, "--json").json["notes"])
    result = cli("inspect", token, "--key", pem, "--json")
    assert (result.code, result.json["signature"]) == (Exit.REVOKED, "invalid")


NOW = int(time.time())


@pytest.mark.parametrize(
    ("claims", "note"),
    [
        ({"sub": "a"}, "no exp"),
        ({"exp": NOW + 60, "iat": NOW - 90_000, "jti": "x"}, "longer than a day"),
        ({"exp": NOW + 9e4, "iat": NOW + 8e4, "jti": "x"}, "iat lies in the future"),
        ({"exp": NOW + 9e4, "nbf": NOW + 8e4, "jti": "x"}, "nbf lies in the future"),
        ({"exp": NOW + 60}, "no jti"),
        ({"exp": "soon", "jti": "x"}, "verifiers refuse its form"),
        ({"exp": NOW + 60, "jti": 7}, "verifiers refuse its form"),
        ({"exp": NOW + 60, "jti": "x" * 300}, "verifiers refuse its form"),
    ],
)
def test_notes(cli: Cli, claims: dict[str, Any], note: str) -> None:
    """What is unusual is said in a sentence; none of it alone is a failure."""
    result = cli("inspect", raw({"alg": "ES256"}, claims), "--json")
    assert result.code == Exit.OK
    assert any(note in one for one in result.json["notes"])


def test_non_canonical_spellings_are_noted(cli: Cli, issuer: Issuer) -> None:
    """A token that a lenient reader takes and a strict one does not is readable here, with a note."""
    assert any("refuse its form" in note for note in cli("inspect", issuer.token() + "==", "--json").json["notes"])


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("abc", "it has 1 parts"),
        ("a.b.c", "header is not JSON"),
        ("bm8.e30.c2ln", "header is not JSON"),
        ("e30.W10.c2ln", "claims is not a JSON object"),
        ("a.b.c.d.e", "encrypted"),
        ("", "is empty"),
        ("x" * 70_000, "longer than"),
        ("e30." + base64.urlsafe_b64encode(b"[" * 40_000).decode().rstrip("=") + ".c2ln", "claims is not JSON"),
    ],
)
def test_what_is_no_token(cli: Cli, token: str, says: str) -> None:
    """A sentence, exit 2, no traceback."""
    result = cli("inspect", token)
    assert result.code == Exit.USAGE
    assert says in result.err


def test_standard_input_and_bearer(issuer: Issuer) -> None:
    """`-` reads the token from a pipe; a copied header value works too."""
    token = issuer.token(sub="bob")
    assert "claim sub: bob" in execute("inspect", "-", stdin=f"  Bearer {token}\n").out
    assert "is empty" in execute("inspect", "-", stdin="").err


def test_nothing_leaves_the_machine(monkeypatch: pytest.MonkeyPatch, issuer: Issuer) -> None:
    """Not even with REVOCATION_ADDRESS set: only --address asks somebody."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert execute("inspect", issuer.token(), env={"REVOCATION_ADDRESS": address}).code == 0
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_asks_the_service_when_told_to(cli: Cli, service: Service, tmp_path: Path, issuer: Issuer) -> None:
    """Status by --address; the key that verified is asked about too."""
    token = issuer.token(sub="carol")
    result = cli("inspect", token, "--address", service.address, "--json")
    assert (result.code, result.json["revocation"]["status"]) == (Exit.OK, "active")
    assert cli("revoke", "key", "stolen", "--issuer", ISSUER, "--address", service.address).code == 0
    jwks = key_set(issuer.key, tmp_path / "jwks.json", kid="stolen")
    by_header = jwt.encode({"iss": ISSUER, "jti": "y", "exp": int(time.time()) + 60}, issuer.key, algorithm="ES256")
    result = cli("inspect", by_header, "--address", service.address, "--jwks", jwks, "--json")
    assert result.code == Exit.REVOKED
    assert result.json["signature"] == "valid"
    assert result.json["revocation"]["target"] == "key"


def test_unreadable_keys_are_usage_errors(cli: Cli, tmp_path: Path, issuer: Issuer) -> None:
    """With the option that is at fault."""
    (tmp_path / "junk").write_text("junk")
    for option in ("--key", "--jwks"):
        for path in (tmp_path / "absent", tmp_path / "junk"):
            result = cli("inspect", issuer.token(), option, str(path))
            assert result.code == Exit.USAGE
            assert option in result.err
    both = cli("inspect", issuer.token(), "--key", str(tmp_path / "junk"), "--jwks", str(tmp_path / "junk"))
    assert both.code == Exit.USAGE
