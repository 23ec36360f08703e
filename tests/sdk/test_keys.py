"""Keys: what they may be used with, how they are named, and which ones are no keys."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from revocation_sdk import ConfigError
from revocation_sdk._keys import (
    ALGORITHMS,
    BadKey,
    KeySet,
    check_algorithms,
    load_signing,
    make_key,
    public_from_jwk,
    static_key,
)
from tests.sdk.forge import EC, EC384, EC521, ED, KOBLITZ, RSA, SECRET, private_pem, public_pem

SIGNERS = {
    "ES256": EC,
    "ES384": EC384,
    "ES512": EC521,
    "RS256": RSA,
    "RS384": RSA,
    "RS512": RSA,
    "PS256": RSA,
    "PS384": RSA,
    "PS512": RSA,
    "EdDSA": ED,
    "HS256": SECRET,
    "HS384": SECRET,
    "HS512": SECRET,
}


def public(key: Any) -> Any:
    return key if isinstance(key, bytes) else key.public_key()


def test_all_algorithms_are_tried_here() -> None:
    assert SIGNERS.keys() == ALGORITHMS


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_signs_and_verifies(algorithm: str) -> None:
    """Each algorithm, from objects and from PEM; and nothing verifies under another algorithm or another text."""
    key = SIGNERS[algorithm]
    stored = key if isinstance(key, bytes) else private_pem(key)
    for source in (key, stored):
        signature = load_signing(source, algorithm).sign(b"text")
        trusted = static_key(public(key), frozenset([algorithm]), None).keys[0]
        assert trusted.verifies(algorithm, b"text", signature)
        assert not trusted.verifies(algorithm, b"test", signature)
        assert not any(trusted.verifies(other, b"text", signature) for other in ALGORITHMS - {algorithm})


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_a_key_fits_only_its_own_kind(algorithm: str) -> None:
    key = make_key(public(SIGNERS[algorithm]))
    kind = algorithm[:2]
    expected = {"RS": {"RS", "PS"}, "PS": {"RS", "PS"}}.get(kind, {kind})
    assert {name[:2] for name in key.algorithms} == expected
    assert kind != "ES" or key.algorithms == {algorithm}


@pytest.mark.parametrize("algorithm", ["ES256", "RS256", "EdDSA"])
def test_garbage_is_no_signature(algorithm: str) -> None:
    key = make_key(public(SIGNERS[algorithm]))
    for garbage in (b"", b"\0", b"\0" * 64, b"\xff" * 64, b"\0" * 256, b"x" * 5000):
        assert not key.verifies(algorithm, b"text", garbage)


def test_thumbprint_of_rfc_7638() -> None:
    """The example of section 3.1."""
    modulus = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
        "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qM"
        "QvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJz"
        "KnqDKgw"
    )
    key = make_key(public_from_jwk({"kty": "RSA", "n": modulus, "e": "AQAB", "kid": "2011-04-29"}))
    assert key.thumbprint == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_thumbprint_of_rfc_8037() -> None:
    """The example of appendix A.3."""
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    assert make_key(public_from_jwk(jwk)).thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.parametrize("key", [EC, EC521, RSA, ED])
def test_the_same_key_has_one_thumbprint(key: Any) -> None:
    """Whether it comes as object, PEM or certificate."""
    algorithms = make_key(key.public_key()).algorithms
    sources: list[object] = [key.public_key(), public_pem(key), public_pem(key).decode()]
    if key is not EC521:
        sources.append(certificate(key))
    assert len({static_key(source, algorithms, None).keys[0].thumbprint for source in sources}) == 1


def certificate(key: Any) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=1))
    return builder.sign(key, None if key is ED else hashes.SHA256()).public_bytes(Encoding.PEM)


def test_ed448_is_known() -> None:
    key = ed448.Ed448PrivateKey.generate()
    trusted = static_key(key.public_key(), frozenset(["EdDSA"]), None).keys[0]
    assert trusted.verifies("EdDSA", b"text", load_signing(key, "EdDSA").sign(b"text"))


LOCKED = EC.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password"))


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (rsa.generate_private_key(65537, 1024), "RS256"),
        (KOBLITZ, "ES256"),
        (ec.generate_private_key(ec.SECP224R1()), "ES256"),
        (EC, "ES384"),
        (EC, "RS256"),
        (RSA, "ES256"),
        (ED, "ES256"),
        (SECRET[:31], "HS256"),
        (SECRET[:63], "HS512"),
        ("", "HS256"),
        (public_pem(RSA), "HS256"),
        (private_pem(RSA), "HS256"),
        (b"ssh-ed25519 " + SECRET, "HS256"),
        (public_pem(EC), "ES256"),
        (EC.public_key(), "ES256"),
        (LOCKED, "ES256"),
        ("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----", "ES256"),
        (None, "ES256"),
        (7, "HS256"),
        (EC, "none"),
        (EC, "ES256K"),
    ],
)
def test_keys_that_nobody_should_sign_with(key: object, algorithm: str) -> None:
    with pytest.raises(ConfigError):
        load_signing(key, algorithm)


def test_a_private_key_verifies_nothing() -> None:
    """A verifier that is given one would spread it; the mistake is worth an error."""
    for key in (EC, private_pem(EC)):
        with pytest.raises(ConfigError):
            static_key(key, frozenset(["ES256"]), None)


@pytest.mark.parametrize(
    "jwk",
    [
        {},
        {"kty": "EC"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},
        {"kty": "EC", "crv": "P-999", "x": "A" * 43, "y": "A" * 43},
        {"kty": "RSA", "n": "AQAB", "e": 65537},
        {"kty": "RSA", "n": "!", "e": "!"},
        {"kty": "RSA", "n": "", "e": ""},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": "AKP", "pub": "AA"},
        {"kty": ["EC"]},
    ],
)
def test_jwks_that_are_broken(jwk: dict[str, Any]) -> None:
    with pytest.raises(BadKey):
        make_key(public_from_jwk(jwk))


def test_algorithms() -> None:
    assert check_algorithms("ES256") == check_algorithms(["ES256", "ES256"]) == {"ES256"}
    for wrong in ([], [None], ["none"], ["ES256", "nonsense"], ["HS256", "RS256"]):
        with pytest.raises(ConfigError):
            check_algorithms(wrong)  # type: ignore[arg-type]


def named(key: Any, *kids: str) -> Any:
    from dataclasses import replace

    return replace(make_key(key.public_key()), kids=kids)


def test_a_kid_narrows_the_search() -> None:
    first, second, nameless = named(EC, "a"), named(EC384, "b"), named(RSA)
    keys = KeySet([first, second, nameless])
    assert keys.candidates("ES256", "a") == [first]
    assert keys.candidates("ES256", first.thumbprint) == [first]
    assert keys.candidates("ES384", None) == [second]
    assert keys.candidates("ES384", "a") == []  # the name fits, the algorithm does not
    assert keys.candidates("RS256", "unheard-of") == [nameless]
    assert keys.candidates("ES256", "unheard-of") == []


def test_a_key_listed_twice_has_both_names() -> None:
    (key,) = KeySet([named(EC, "a"), named(EC, "b"), named(EC, "a")]).keys
    assert key.kids == ("a", "b")


def test_secrets_stay_out_of_repr() -> None:
    assert "sss" not in repr(make_key(SECRET))
    assert "sss" not in repr(load_signing(SECRET, "HS256"))
