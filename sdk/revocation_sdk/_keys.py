"""The keys that a verifier trusts and an issuer signs with. Pure: no network; `_jwks.py` fetches.

A key decides by its own type which algorithms it may be used with, never the token: so an RSA public key is never
taken for an HMAC secret, and an elliptic curve only signs with the hash that belongs to it (RFC 8725 sections 3.1
and 3.2). Each key knows its RFC 7638 thumbprint and the names under which *our own* key set lists it.

PyJWT is called here and nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from jwt.algorithms import get_default_algorithms
from jwt.exceptions import PyJWTError

from revocation_sdk.errors import ConfigError

RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
HMAC_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
CURVES: dict[str, tuple[str, str]] = {
    "secp256r1": ("P-256", "ES256"),
    "secp384r1": ("P-384", "ES384"),
    "secp521r1": ("P-521", "ES512"),
}
ALGORITHMS = frozenset((*RSA_ALGORITHMS, *HMAC_BYTES, *(name for _, name in CURVES.values()), "EdDSA"))

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # one verification with a longer one takes milliseconds: a lever for whoever serves the keys
MAX_EXPONENT_BITS = 64
"""Of an RSA key: a larger exponent makes each verification as slow as a signature. All that are used have 17."""
MAX_KEYS = 100  # in one key set
MAX_TRIES = 16  # keys that one token is tried against, each a signature's worth of work

PublicKey: TypeAlias = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)
_PUBLIC = (rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey, ed448.Ed448PublicKey)
_PRIVATE = (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey)
_P25519, _P448 = 2**255 - 19, 2**448 - 2**224 - 1
_Y8 = 0x5FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = {
    "Ed25519": (_P25519, {0, 1, _P25519 - 1, _Y8, _P25519 - _Y8}),
    "Ed448": (_P448, {0, 1, _P448 - 1}),
}
"""By curve, its field and the y coordinates of the points whose order divides the cofactor."""
_JOSE = get_default_algorithms()


class BadKey(ValueError):
    """A key that cannot be used; the message says why, and holds nothing of the key."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key to verify with."""

    material: PublicKey | bytes = field(repr=False, compare=False)  # the thumbprint says as much
    algorithms: frozenset[str]
    thumbprint: str
    """RFC 7638, SHA-256."""
    kids: tuple[str, ...] = ()
    """The names under which our own key set lists it."""

    def verifies(self, algorithm: str, signing_input: bytes, signature: bytes) -> bool:
        """Whether this is its signature."""
        if algorithm not in self.algorithms:
            return False
        return bool(_JOSE[algorithm].verify(signing_input, self.material, signature))


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key to sign with, and the algorithm it signs by."""

    material: PrivateKey | bytes = field(repr=False)
    algorithm: str
    thumbprint: str

    def sign(self, signing_input: bytes) -> bytes:
        """The JWS signature."""
        return bytes(_JOSE[self.algorithm].sign(signing_input, self.material))


class KeySet:
    """The keys that may have signed a token, and which of them to try."""

    def __init__(self, keys: Iterable[Key], *, any_kid: bool = False) -> None:
        """A set of keys; with `any_kid` the header's `kid` does not matter: there is one key, and it decides."""
        self.keys = _merged(keys)
        self._any_kid = any_kid

    def candidates(self, algorithm: str, kid: str | None) -> list[Key]:
        """The keys to try, at most MAX_TRIES: those that the `kid` names, else those without a name.

        A `kid` only picks; what is trusted is the key that verified (DESIGN 3: a thief writes any `kid`).
        """
        fitting = [key for key in self.keys if algorithm in key.algorithms]
        if kid is None or self._any_kid:
            return fitting[:MAX_TRIES]
        named = [key for key in fitting if kid in key.kids or kid == key.thumbprint]
        return (named or [key for key in fitting if not key.kids])[:MAX_TRIES]

    def __contains__(self, key: Key) -> bool:
        """Whether this very key is listed, under the same names and for the same algorithms."""
        return key in self.keys


def check_algorithms(algorithms: Iterable[str]) -> frozenset[str]:
    """The algorithms that a verifier is set up with. Raises ConfigError for unknown ones and for a mixture."""
    chosen = frozenset((algorithms,) if isinstance(algorithms, str) else algorithms)
    if unknown := sorted(map(str, chosen - ALGORITHMS)):
        raise ConfigError(f"algorithms: {', '.join(unknown)} is not supported", reason="algorithm")
    if not chosen:
        raise ConfigError("algorithms: name at least one", reason="algorithm")
    symmetric = chosen & HMAC_BYTES.keys()
    if symmetric and symmetric != chosen:
        raise ConfigError("algorithms: do not mix HMAC with public-key algorithms", reason="algorithm")
    return chosen


def static_key(key: object, algorithms: frozenset[str], key_id: str | None) -> KeySet:
    """The one key of a verifier: PEM, a cryptography public key or, for HMAC, the secret. Raises ConfigError."""
    try:
        made = make_key(load_public(key, algorithms))
    except BadKey as error:
        raise ConfigError(f"key: {error}", reason="key") from error
    usable = replace(made, algorithms=made.algorithms & algorithms, kids=(key_id,) if key_id else ())
    if not usable.algorithms:
        raise ConfigError(f"key: does not fit the algorithms {sorted(algorithms)}", reason="key")
    return KeySet([usable], any_kid=True)


def load_public(key: object, algorithms: frozenset[str]) -> PublicKey | bytes:
    """What `key=` of a verifier stands for."""
    if isinstance(key, _PUBLIC):
        return key
    if isinstance(key, _PRIVATE):
        raise BadKey("that is a private key; a verifier needs only the public one")
    if not isinstance(key, str | bytes):
        raise BadKey("neither PEM text nor a public key of the `cryptography` package")
    data = key.encode() if isinstance(key, str) else key
    if algorithms <= HMAC_BYTES.keys():
        return _secret(data)
    return _public_pem(data)


def load_signing(key: object, algorithm: str) -> SigningKey:
    """What `key=` and `algorithm=` of an issuer stand for. Raises ConfigError."""
    check_algorithms((algorithm,))
    try:
        material = _load_private(key, algorithm)
        made = make_key(material if isinstance(material, bytes) else material.public_key())
    except BadKey as error:
        raise ConfigError(f"key: {error}", reason="key") from error
    if algorithm not in made.algorithms:
        raise ConfigError(f"key: does not fit {algorithm}, or is too short for it", reason="key")
    return SigningKey(material, algorithm, made.thumbprint)


def make_key(material: PublicKey | bytes) -> Key:
    """A key with all the algorithms that it may be used with. Raises BadKey if there are none."""
    members, algorithms = _describe(material)
    if not algorithms:
        raise BadKey("too short, too long or on a curve that is not supported")
    return Key(material, frozenset(algorithms), _thumbprint(members))


def public_from_jwk(jwk: Mapping[str, Any]) -> PublicKey | bytes:
    """The key of a JWK; private members are not looked at. Raises BadKey."""
    kinds = {"RSA": ("RS256", "n e"), "EC": ("ES256", "crv x y"), "OKP": ("EdDSA", "crv x"), "oct": ("HS256", "k")}
    kind = jwk.get("kty")
    if not isinstance(kind, str) or kind not in kinds:
        raise BadKey("`kty` is not supported")
    algorithm, names = kinds[kind]
    members = {name: jwk.get(name) for name in names.split()}
    if not all(isinstance(value, str) for value in members.values()):
        raise BadKey("members are missing")
    try:
        material = type(_JOSE[algorithm]).from_jwk(json.dumps({"kty": kind, **members}))
    except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey("malformed") from error
    if not isinstance(material, (*_PUBLIC, bytes)):
        raise BadKey("not a public key")
    return material


def _merged(keys: Iterable[Key]) -> tuple[Key, ...]:
    """One entry a key: a set that lists a key twice lists it under both names, and either name revokes it."""
    merged: dict[str, Key] = {}
    for key in keys:
        known = merged.get(key.thumbprint)
        if known is None:
            merged[key.thumbprint] = key
        else:
            kids = tuple(dict.fromkeys(known.kids + key.kids))
            merged[key.thumbprint] = replace(known, kids=kids, algorithms=known.algorithms | key.algorithms)
    return tuple(merged.values())


def _describe(material: PublicKey | bytes) -> tuple[dict[str, str], Iterable[str]]:
    """The members that RFC 7638 section 3.2 hashes, and the algorithms that fit."""
    if isinstance(material, bytes):
        fitting = [name for name, least in HMAC_BYTES.items() if len(material) >= least]
        return {"k": _text(material), "kty": "oct"}, fitting
    if isinstance(material, rsa.RSAPublicKey):
        numbers = material.public_numbers()
        strong = MIN_RSA_BITS <= material.key_size <= MAX_RSA_BITS and numbers.e.bit_length() <= MAX_EXPONENT_BITS
        return {"e": _uint(numbers.e), "kty": "RSA", "n": _uint(numbers.n)}, RSA_ALGORITHMS if strong else ()
    if isinstance(material, ec.EllipticCurvePublicKey):
        point, size = material.public_numbers(), (material.key_size + 7) // 8
        curve, algorithm = CURVES.get(material.curve.name, ("", ""))
        x, y = _text(point.x.to_bytes(size, "big")), _text(point.y.to_bytes(size, "big"))
        return {"crv": curve, "kty": "EC", "x": x, "y": y}, [algorithm] if algorithm else ()
    curve = "Ed25519" if isinstance(material, ed25519.Ed25519PublicKey) else "Ed448"
    raw = material.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"crv": curve, "kty": "OKP", "x": _text(raw)}, () if _of_small_order(curve, raw) else ["EdDSA"]


def _of_small_order(curve: str, raw: bytes) -> bool:
    """Whether this point is one of the few for which everybody can sign: such a key is broken or planted."""
    field, known = _SMALL_ORDER[curve]
    return (int.from_bytes(raw, "little") & ~(1 << (8 * len(raw) - 1))) % field in known


def _thumbprint(members: Mapping[str, str]) -> str:
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":")).encode()
    return _text(hashlib.sha256(canonical).digest())


def _load_private(key: object, algorithm: str) -> PrivateKey | bytes:
    if isinstance(key, _PRIVATE):
        return key
    if not isinstance(key, str | bytes):
        raise BadKey("neither PEM text nor a private key of the `cryptography` package")
    data = key.encode() if isinstance(key, str) else key
    if algorithm in HMAC_BYTES:
        return _secret(data)
    try:
        loaded = load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadKey("not a private key in PEM without a password") from error
    if not isinstance(loaded, _PRIVATE):
        raise BadKey("of a type that JWTs are not signed with")
    return loaded


def _secret(data: bytes) -> bytes:
    """An HMAC secret; a public key in its place would let anybody sign."""
    if data.lstrip().startswith((b"-----BEGIN", b"ssh-", b"ecdsa-")):
        raise BadKey("a PEM or SSH key is no HMAC secret")
    return data


def _public_pem(data: bytes) -> PublicKey:
    try:
        if b"-----BEGIN CERTIFICATE" in data:
            loaded: object = x509.load_pem_x509_certificate(data).public_key()
        else:
            loaded = load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadKey("not a public key in PEM") from error
    if not isinstance(loaded, _PUBLIC):
        raise BadKey("of a type that JWTs are not signed with")
    return loaded


def _uint(number: int) -> str:
    return _text(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
