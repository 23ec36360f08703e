"""Signatures and keys to the list of weaknesses that JWS implementations have had. The vectors are made at test time.

The list is that of Project Wycheproof's JSON Web Signature tests and of RFC 8725; none of their vectors is copied.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from revocation_sdk import ConfigError
from revocation_sdk._jwks import parse_key_set
from revocation_sdk._keys import ALGORITHMS, load_signing
from revocation_sdk.testing import FakeRevocations
from tests.sdk.forge import (
    EC,
    EC384,
    EC521,
    ED,
    KOBLITZ,
    OTHER_EC,
    RSA,
    SECRET,
    b64,
    claims,
    fake,
    public_pem,
    reason,
    sign,
    unb64,
    verifier_of,
)

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
FIELD = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
ED_ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture
def client() -> FakeRevocations:
    return fake()


def unsigned(algorithm: str, **header: Any) -> str:
    return f"{b64(json.dumps({'alg': algorithm, **header}))}.{b64(json.dumps(claims()))}"


def with_signature(token: str, signature: bytes) -> str:
    return f"{token.rpartition('.')[0]}.{b64(signature)}"


# ECDSA: r and s are two numbers of fixed length, in a range


def raw(r: int, s: int, size: int = 32) -> bytes:
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


ABSURD_PAIRS = [
    (r, s) for r in (0, 1, ORDER - 1, ORDER, ORDER + 1, 2**256 - 1) for s in (0, 1, ORDER - 1, ORDER, 2**256 - 1)
]


@pytest.mark.parametrize(("r", "s"), ABSURD_PAIRS)
def test_ecdsa_numbers_that_sign_everything_in_broken_implementations(client: FakeRevocations, r: int, s: int) -> None:
    token = with_signature(sign(claims()), raw(r, s))
    assert reason(verifier_of(client), token) == "signature"


@pytest.mark.parametrize("shape", [
    lambda r, s: encode_dss_signature(r, s),
    lambda r, s: raw(r, s, 33),
    lambda r, s: raw(r, s, 64),
    lambda r, s: raw(s, r),
    lambda r, s: raw(r, s) + b"\0",
    lambda r, s: b"\0" + raw(r, s),
    lambda r, s: raw(r, s)[:-1],
    lambda r, s: raw(r, s)[:32],
    lambda r, s: b"\0",
    lambda r, s: raw(r, s) * 2,
    lambda r, s: raw(ORDER - r, s),
    lambda r, s: r.to_bytes(32, "little") + s.to_bytes(32, "little"),
])  # fmt: skip
def test_ecdsa_signatures_in_another_shape(client: FakeRevocations, shape: Callable[[int, int], bytes]) -> None:
    token = sign(claims())
    signature = unb64(token.split(".")[2])
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    assert reason(verifier_of(client), with_signature(token, shape(r, s))) in ("signature", "malformed")


def test_the_ecdsa_twin_of_a_token_is_revoked_with_it(client: FakeRevocations) -> None:
    """ECDSA is malleable: s and n - s both verify. So nothing here hangs on the signature (DESIGN 3)."""
    for jti in ("token-1", ...):
        verifier, token = verifier_of(client), sign(claims(jti=jti))
        signature = unb64(token.split(".")[2])
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        twin = with_signature(token, raw(r, ORDER - s))
        assert reason(verifier, twin) == ""
        client.revoke_token(token)
        assert reason(verifier, token) == reason(verifier, twin) == "revoked"


@pytest.mark.parametrize(
    ("key", "made", "claimed"),
    [(EC384, "ES384", "ES256"), (EC, "ES256", "ES384"), (EC521, "ES512", "ES256"), (EC, "ES256", "ES256K")],
)
def test_an_elliptic_curve_signs_with_its_own_hash_only(
    client: FakeRevocations, key: Any, made: str, claimed: str
) -> None:
    both = verifier_of(client, key=key.public_key(), algorithms=["ES256", "ES384", "ES512"])
    token = sign(claims(), key, made, {"alg": claimed})
    assert reason(both, token) in ("unknown_key", "algorithm")


def test_a_curve_that_jose_does_not_know_is_no_key(client: FakeRevocations) -> None:
    with pytest.raises(ConfigError):
        verifier_of(client, key=KOBLITZ.public_key(), algorithms=["ES256"])


POINT = EC.public_key().public_numbers()


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (POINT.x, POINT.y + 1), (POINT.x + 1, POINT.y), (0, 0), (0, 1), (1, 1), (POINT.x, 0), (FIELD, POINT.y),
        (POINT.x + FIELD, POINT.y), (2**256 - 1, 2**256 - 1),
    ],
    ids=map(str, range(9)),  # every run has another point, and its processes must agree on names
)  # fmt: skip
def test_points_that_are_not_on_the_curve_are_no_keys(x: int, y: int) -> None:
    """Invalid-curve keys give a secret away where they are used to agree on one; here they are left out."""
    size = max(32, (max(x, y).bit_length() + 7) // 8)
    key = {"kty": "EC", "crv": "P-256", "x": b64(x.to_bytes(size, "big")), "y": b64(y.to_bytes(size, "big"))}
    assert not parse_key_set({"keys": [key]}, ALGORITHMS).keys


@pytest.mark.parametrize("change", [
    {"crv": "P-384"}, {"crv": "P-521"}, {"crv": "secp256k1"}, {"crv": "Ed25519"}, {"crv": 7}, {"crv": None}, {"x": ""},
    {"x": 7}, {"y": None}, {"kty": "RSA"}, {"kty": "OKP"}, {"kty": "oct"}, {"kty": ["EC"]}, {"kty": None},
    {"use": "enc"},
    {"key_ops": ["sign"]}, {"key_ops": "verify"}, {"alg": "HS256"}, {"alg": "none"}, {"alg": ["ES256"]},
    {"alg": "ES384"},
])  # fmt: skip
def test_key_set_entries_that_contradict_themselves_are_left_out(change: dict[str, Any]) -> None:
    good = {
        "kty": "EC", "crv": "P-256", "x": b64(POINT.x.to_bytes(32, "big")), "y": b64(POINT.y.to_bytes(32, "big")),
    }  # fmt: skip
    assert len(parse_key_set({"keys": [good]}, ALGORITHMS).keys) == 1
    assert not parse_key_set({"keys": [{**good, **change}]}, ALGORITHMS).keys


# RSA


def test_rsa_with_the_padding_or_the_hash_of_another_algorithm(client: FakeRevocations) -> None:
    verifier = verifier_of(client, key=RSA.public_key(), algorithms=["RS256", "PS256"])
    salt = padding.PSS.DIGEST_LENGTH
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    cases: list[tuple[str, Any, Any]] = [
        ("RS256", pss, hashes.SHA256()),
        ("PS256", padding.PKCS1v15(), hashes.SHA256()),
        ("RS256", padding.PKCS1v15(), hashes.SHA1()),
        ("RS256", padding.PKCS1v15(), hashes.SHA512()),
        ("PS256", padding.PSS(padding.MGF1(hashes.SHA1()), salt), hashes.SHA256()),
        ("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), 0), hashes.SHA256()),
        ("PS256", padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH), hashes.SHA256()),
    ]
    for algorithm, how, digest in cases:
        head = unsigned(algorithm)
        assert reason(verifier, f"{head}.{b64(RSA.sign(head.encode(), how, digest))}") == "signature", algorithm
    for algorithm, how in (("RS256", padding.PKCS1v15()), ("PS256", pss)):
        head = unsigned(algorithm)
        assert reason(verifier, f"{head}.{b64(RSA.sign(head.encode(), how, hashes.SHA256()))}") == ""


SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


@pytest.mark.parametrize("block", [
    lambda digest, size: b"\0\1" + b"\xff" * 8 + b"\0" + SHA256_INFO + digest + b"\0" * (size - 62),
    lambda digest, size: b"\0\2" + b"\xff" * (size - 54) + b"\0" + SHA256_INFO + digest,
    lambda digest, size: b"\0\1" + b"\xfe" * (size - 54) + b"\0" + SHA256_INFO + digest,
    lambda digest, size: b"\0\1" + b"\xff" * (size - 35) + b"\0" + digest,
    lambda digest, size: b"\0\1" + b"\xff" * (size - 52) + b"\0" + SHA256_INFO.replace(b"\5\0", b"")[:17] + digest,
    lambda digest, size: b"\0" * (size - 32) + digest,
])  # fmt: skip
def test_pkcs1_blocks_that_sloppy_parsers_accept(client: FakeRevocations, block: Callable[[bytes, int], bytes]) -> None:
    """Garbage behind the digest (Bleichenbacher's forgery), another block type, a digest without its algorithm."""
    head, size = unsigned("RS256"), RSA.key_size // 8
    made = block(hashlib.sha256(head.encode()).digest(), size)[:size].ljust(size, b"\0")
    numbers = RSA.private_numbers()
    forged = pow(int.from_bytes(made, "big"), numbers.d, numbers.public_numbers.n).to_bytes(size, "big")
    assert (
        reason(verifier_of(client, key=RSA.public_key(), algorithms=["RS256"]), f"{head}.{b64(forged)}") == "signature"
    )


@pytest.mark.parametrize("number", [0, 1, -1])
def test_rsa_signatures_that_are_no_number_below_the_modulus(client: FakeRevocations, number: int) -> None:
    modulus, size = RSA.public_key().public_numbers().n, RSA.key_size // 8
    value = modulus - 1 if number < 0 else number
    verifier, head = verifier_of(client, key=RSA.public_key(), algorithms=["RS256"]), unsigned("RS256")
    assert reason(verifier, f"{head}.{b64(value.to_bytes(size, 'big'))}") == "signature"
    good = unb64(sign(claims(), RSA, "RS256", {"alg": "RS256"}).split(".")[2])
    for changed in (b"\0" + good, good + b"\0", good[1:], b"\0"):
        assert reason(verifier, f"{head}.{b64(changed)}") == "signature"


@pytest.mark.parametrize("bits", [1024, 1536])
def test_rsa_keys_that_can_be_broken_are_no_keys(client: FakeRevocations, bits: int) -> None:
    with pytest.raises(ConfigError):
        verifier_of(client, key=rsa.generate_private_key(65537, bits).public_key(), algorithms=["RS256"])


@pytest.mark.parametrize("exponent", [0, 1, 2, 4, (1 << 2047) + 1])
def test_rsa_exponents_that_make_no_key_or_a_slow_one(exponent: int) -> None:
    """1 makes every signature its own message; a huge one makes each verification as dear as signing."""
    modulus = RSA.public_key().public_numbers().n
    size = max(1, (exponent.bit_length() + 7) // 8)
    key = {"kty": "RSA", "n": b64(modulus.to_bytes(256, "big")), "e": b64(exponent.to_bytes(size, "big"))}
    assert not parse_key_set({"keys": [key]}, ALGORITHMS).keys


# EdDSA


def test_eddsa_is_not_malleable(client: FakeRevocations) -> None:
    """s + L verifies in implementations that do not compare s with the order (RFC 8032 section 5.1.7)."""
    verifier = verifier_of(client, key=ED.public_key(), algorithms=["EdDSA"])
    token = sign(claims(), ED, "EdDSA", {"alg": "EdDSA"})
    assert reason(verifier, token) == ""
    signature = unb64(token.split(".")[2])
    s = int.from_bytes(signature[32:], "little") + ED_ORDER
    for changed in (
        signature[:32] + s.to_bytes(32, "little"), signature[:32] + bytes(32), bytes(64), signature[:63],
        signature + b"\0",
        signature[:31] + bytes([signature[31] ^ 0x80]) + signature[32:], b"\1" + bytes(63),
    ):  # fmt: skip
        assert reason(verifier, with_signature(token, changed)) == "signature"


SMALL = [
    bytes(32), bytes(31) + b"\x80", b"\1" + bytes(31), b"\1" + bytes(30) + b"\x80",
    *(first + b"\xff" * 30 + last for first in (b"\xec", b"\xed", b"\xee") for last in (b"\x7f", b"\xff")),
    *(
        bytes.fromhex(text)[:31] + bytes([bytes.fromhex(text)[31] | sign])
        for text in (
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        )
        for sign in (0, 0x80)
    ),
]  # fmt: skip


def test_ed448_signatures_do_not_pass_for_ed25519(client: FakeRevocations) -> None:
    other = ed448.Ed448PrivateKey.generate()
    verifier = verifier_of(client, key=ED.public_key(), algorithms=["EdDSA"])
    assert reason(verifier, sign(claims(), other, "EdDSA", {"alg": "EdDSA"})) == "signature"


@pytest.mark.parametrize("point", SMALL)
def test_points_of_small_order_sign_for_nobody(point: bytes) -> None:
    """With the identity as key, R = identity and s = 0 would sign every message."""
    keys = parse_key_set({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": b64(point)}]}, ALGORITHMS).keys
    head = unsigned("EdDSA").encode()
    forged = [r + bytes(32) for r in (bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f")]
    assert not any(key.verifies("EdDSA", head, signature) for key in keys for signature in forged)
    assert not keys


@pytest.mark.parametrize("y", [0, 1, 2**448 - 2**224 - 2, 2**448 - 2**224 - 1])
def test_points_of_small_order_of_ed448_are_left_out(y: int) -> None:
    x = b64(y.to_bytes(57, "little"))
    assert not parse_key_set({"keys": [{"kty": "OKP", "crv": "Ed448", "x": x}]}, ALGORITHMS).keys


# HMAC, and one kind of key in the place of another


@pytest.mark.parametrize("shape", [
    lambda mac: mac[:16], lambda mac: mac[:31], lambda mac: mac + b"\0", lambda mac: b"\0", lambda mac: mac[::-1],
    lambda mac: bytes(32),
])  # fmt: skip
def test_hmacs_of_another_length(client: FakeRevocations, shape: Callable[[bytes], bytes]) -> None:
    verifier, head = verifier_of(client, key=SECRET, algorithms=["HS256"]), unsigned("HS256")
    mac = hmac.digest(SECRET, head.encode(), "sha256")
    assert reason(verifier, f"{head}.{b64(mac)}") == ""
    assert reason(verifier, f"{head}.{b64(shape(mac))}") == "signature"


@pytest.mark.parametrize("secret", [b"", b"secret", b"x" * 31])
def test_secrets_that_can_be_guessed_are_no_keys(client: FakeRevocations, secret: bytes) -> None:
    with pytest.raises(ConfigError):
        verifier_of(client, key=secret, algorithms=["HS256"])


def _public_forms(key: Any) -> list[bytes]:
    public = key.public_key()
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return [public_pem(key), public_pem(key).strip(), der, public_pem(key) + b"\n", b64(der).encode()]


@pytest.mark.parametrize("key", [RSA, EC, ED])
@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_no_form_of_a_public_key_is_taken_for_a_secret(client: FakeRevocations, key: Any, algorithm: str) -> None:
    """The verifier holds a public key, which everybody knows; the token says HMAC."""
    fitting = {"RSAPrivateKey": "RS256", "ECPrivateKey": "ES256"}.get(type(key).__name__, "EdDSA")
    verifier = verifier_of(client, key=key.public_key(), algorithms=[fitting])
    jwks = verifier_of(client, key=None, jwks={"keys": [_jwk(key)]}, algorithms=[fitting])
    for secret in _public_forms(key):
        head = unsigned(algorithm)
        forged = f"{head}.{b64(hmac.digest(secret, head.encode(), 'sha' + algorithm[2:]))}"
        assert reason(verifier, forged) == reason(jwks, forged) == "algorithm"


def _jwk(key: Any) -> dict[str, Any]:
    from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

    kind: Any = {"RSAPrivateKey": RSAAlgorithm, "ECPrivateKey": ECAlgorithm}.get(type(key).__name__, OKPAlgorithm)
    document: dict[str, Any] = json.loads(kind.to_jwk(key.public_key()))
    return document


def test_a_key_in_the_token_is_never_used(client: FakeRevocations) -> None:
    """`jwk`, `jku`, `x5c`, `x5u`: whoever signs could bring the key along (RFC 8725 section 3.10)."""
    for brought in ({"jwk": _jwk(OTHER_EC)}, {"jku": "http://127.0.0.1:1/"}, {"x5c": ["AA=="]}, {"x5u": "file:///x"}):
        token = sign(claims(), OTHER_EC, "ES256", {"alg": "ES256", "kid": "a", **brought})
        assert reason(verifier_of(client), token) == "signature"
        with_set = verifier_of(client, key=None, jwks={"keys": [{**_jwk(EC), "kid": "a"}]})
        assert reason(with_set, token) == "signature"


KIDS = (
    "../../../dev/null",
    "/proc/self/environ",
    "' OR '1'='1",
    "a\0b",
    "a",
    "A",
    "a ",
    "",
    "*",
    "%00",
    "k" * 5000,
    "\ud800",
)


@pytest.mark.parametrize("kid", KIDS)
def test_a_kid_is_compared_and_nothing_else(client: FakeRevocations, kid: str) -> None:
    """No file, no query, no pattern: a kid that the key set does not list finds no key; the right one finds its own."""
    verifier = verifier_of(client, key=None, jwks={"keys": [{**_jwk(EC), "kid": "a"}]})
    token = sign(claims(), EC, "ES256", {"alg": "ES256", "kid": kid})
    assert reason(verifier, token) == ("" if kid == "a" else "unknown_key")


def test_every_algorithm_of_a_verifier_really_signs_and_verifies(client: FakeRevocations) -> None:
    """The refusals above are worth something only if what is right passes."""
    keys = {
        "ES256": EC,
        "ES384": EC384,
        "ES512": EC521,
        "EdDSA": ED,
        **dict.fromkeys(("HS256", "HS384", "HS512"), SECRET),
    }
    for algorithm in sorted(ALGORITHMS):
        key: Any = keys.get(algorithm, RSA)
        public = key if isinstance(key, bytes) else key.public_key()
        verifier = verifier_of(client, key=public, algorithms=[algorithm])
        assert reason(verifier, sign(claims(), key, algorithm, {"alg": algorithm})) == "", algorithm
        assert load_signing(key, algorithm).algorithm == algorithm
