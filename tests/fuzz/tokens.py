"""Tokens, claims and key sets, as a hostile client or issuer sends them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from random import Random
from typing import Any

from revocation_sdk._compact import MAX_TIME
from revocation_sdk._jwks import BadKeySet, parse_key_set
from revocation_sdk._keys import ALGORITHMS, HMAC_BYTES
from revocation_sdk.errors import RevocationError, StatusUnknown, TokenExpired, TokenInvalid, TokenRejected
from tests.fuzz.mutation import NASTY, mutate
from tests.fuzz.target import Finding, Target, check_text
from tests.sdk.forge import EC, EC384, EC521, ED, RSA, SECRET, b64, claims, fake, sign, verifier_of

HEADERS = (
    '{"alg":"HS256","typ":"at+jwt"}',
    '{"alg":"HS256","kid":"k"}',
    '{"alg":"HS256","typ":"JWT","kid":"../../x"}',
    '{"alg":"HS256","crit":["b64"],"b64":false}',
    '{"alg":"HS256","zip":"DEF"}',
    '{"alg":"none"}',
    '{"alg":"HS256","jwk":{"kty":"oct","k":"AA"}}',
    '{"alg":"HS256","jku":"https://evil.example","x5c":["AA"]}',
)
PAYLOADS = tuple(
    json.dumps(payload).encode()
    for payload in (
        claims(),
        claims(tver=[1, 2, 3]),
        claims(jti=...),
        claims(aud=["a", "api"]),
        claims(exp=1e400),
        claims(nbf=-1),
        claims(azp="x", client_id=...),
        claims(sub="\ud800"),
        claims(iat=1.5),
        claims(tver=[2**64]),
        claims(deep=[[[{}]]]),
    )
)


class RawTokens(Target):
    """Whole tokens through `Verifier.verify`: only TokenRejected comes out, or the claims of one that is signed."""

    name = "token"

    def __init__(self) -> None:
        self.client = fake()
        self.verifier = verifier_of(self.client, key=SECRET, algorithms=["HS256"])

    def seeds(self) -> Sequence[bytes]:
        good = [sign(payload, SECRET, "HS256", header).encode() for header in HEADERS[:4] for payload in PAYLOADS[:4]]
        return [*good, b"..", b"a.b.c.d.e", b"e30.e30.", sign(claims(), EC).encode()]

    def one(self, data: bytes) -> str:
        text = data.decode("utf-8", "surrogateescape")
        words = {_verdict(self.verifier, given, data) for given in (data, text)}
        if len(words) != 1 and data.isascii():
            raise Finding(f"bytes and text of one token are judged differently: {words}")
        return words.pop()


class SignedTokens(Target):
    """Any header and payload, really signed: what lies behind the signature."""

    name = "signed-token"

    def __init__(self) -> None:
        self.client = fake()
        self.verifier = verifier_of(self.client, key=SECRET, algorithms=["HS256"])

    def seeds(self) -> Sequence[bytes]:
        return [header.encode() + b"\n" + payload for header in HEADERS for payload in PAYLOADS]

    def one(self, data: bytes) -> str:
        header, _, payload = data.partition(b"\n")
        token = sign(payload or b"{}", SECRET, "HS256", header or b"{}")
        word = _verdict(self.verifier, token, data)
        try:
            named = self.client._core.requests.revoke_token(token, None, None, None, None, "")
        except RevocationError as error:
            check_text(str(error), data)
        else:
            if word == "accepted" and not named.request.token.jti:
                raise Finding("a token is accepted that could not be revoked")
        return word


def _verdict(verifier: Any, token: str | bytes, data: bytes) -> str:
    try:
        accepted = verifier.verify(token)
    except TokenRejected as error:
        check_text(str(error), data)
        return f"{type(error).__name__}:{error.reason}"
    except StatusUnknown as error:
        return f"StatusUnknown:{error.reason}"
    if not 0 <= accepted.claims["exp"] <= MAX_TIME or accepted.claims["iss"] != "https://id.example":
        raise Finding("accepted with absurd claims")
    if not accepted.freshness.fresh:
        raise Finding("accepted by a view that is not fresh")
    return "accepted"


class CheckedClaims(Target):
    """Claims that an application decoded by itself, of any shape, through `client.check`."""

    name = "claims"

    def __init__(self) -> None:
        self.client = fake()

    def seeds(self) -> Sequence[bytes]:
        return PAYLOADS

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        if rng.random() < 0.5:
            return mutate(rng, rng.choice(seeds), seeds, NASTY)
        given = json.loads(rng.choice(PAYLOADS))
        for _ in range(rng.randint(1, 3)):
            given[rng.choice(["exp", "iat", "nbf", "jti", "sid", "sub", "tver", "azp", "client_id", "iss"])] = _value(
                rng
            )
        return json.dumps(given).encode()

    def one(self, data: bytes) -> str:
        try:
            given = json.loads(data)
        except (ValueError, RecursionError):
            return "no json"
        if not isinstance(given, dict):
            return "no object"
        try:
            self.client.check(given, key_id=given.get("kid") if isinstance(given.get("kid"), str) else None)
        except (TokenInvalid, TokenExpired) as error:
            check_text(str(error), data)
            return f"{type(error).__name__}:{error.reason}"
        return "passed"


def _value(rng: Random) -> Any:
    simple: tuple[Any, ...] = (
        None,
        True,
        False,
        0,
        -1,
        1,
        1.5,
        2**63,
        2**64,
        10**400,
        -(10**30),
        math.inf,
        -math.inf,
        math.nan,
        "",
        "x",
        "\ud800",
        "\0",
        "x" * 300,
        [],
        {},
        [0],
        [1, 2, 3, 4],
        [True],
        [-1],
        [2**64],
        [1.0],
        ["1"],
        {"a": [{}]},
        1_700_000_600,
        1_700_000_600.5,
        253_402_300_799,
        253_402_300_800,
    )
    return rng.choice(simple)


class KeySets(Target):
    """JWKS documents: a set comes out, or BadKeySet; never a key that is too weak, and never a published secret."""

    name = "jwks"

    def seeds(self) -> Sequence[bytes]:
        from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

        made = [json.loads(ECAlgorithm.to_jwk(key.public_key())) for key in (EC, EC384, EC521)]
        made += [json.loads(RSAAlgorithm.to_jwk(RSA.public_key())), json.loads(OKPAlgorithm.to_jwk(ED.public_key()))]
        made += [{"kty": "oct", "k": b64(SECRET)}, {"kty": "RSA", "n": b64(b"\xff" * 3000), "e": "AQAB"}]
        sets = [{"keys": [{**key, "kid": f"k{number}", "use": "sig"}]} for number, key in enumerate(made)]
        return [json.dumps(one).encode() for one in (*sets, {"keys": made})]

    def one(self, data: bytes) -> str:
        try:
            keys = parse_key_set(data, ALGORITHMS)
        except BadKeySet as error:
            check_text(str(error), data)
            return "BadKeySet"
        for key in keys.keys:
            if key.algorithms & HMAC_BYTES.keys() or not key.algorithms <= ALGORITHMS:
                raise Finding("a secret, or a key without an algorithm of ours")
            if any(key.verifies(algorithm, b"a", b"b" * 64) for algorithm in key.algorithms):
                raise Finding("a signature of nobody fits")
        return f"{len(keys.keys)} keys"
