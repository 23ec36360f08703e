"""What a verifier refuses without looking at the claims: algorithms, keys, forms."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revocation_sdk import ConfigError, TokenInvalid
from revocation_sdk.testing import FakeRevocations
from tests.sdk.forge import (
    EC384,
    OTHER_EC,
    RSA,
    b64,
    claims,
    fake,
    public_pem,
    reason,
    sign,
    unb64,
    verifier_of,
)


@pytest.fixture
def client() -> FakeRevocations:
    return fake()


# Algorithms and keys


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "es256", "RS256", None, 7, ["ES256"]])
def test_algorithms_not_set_up(client: FakeRevocations, algorithm: object) -> None:
    token = sign(claims(), header={"alg": algorithm})
    assert reason(verifier_of(client), token) == "algorithm"


@pytest.mark.parametrize("signature", ["", "AA"])
def test_unsigned_tokens(client: FakeRevocations, signature: str) -> None:
    token = f"{b64(json.dumps({'alg': 'none'}))}.{b64(json.dumps(claims()))}.{signature}"
    assert reason(verifier_of(client), token) in ("malformed", "algorithm")


def test_a_public_key_is_no_hmac_secret(client: FakeRevocations) -> None:
    """The classic confusion: a token HMACed with the public key, which everybody has."""
    import hashlib
    import hmac

    signing_input = f"{b64(json.dumps({'alg': 'HS256'}))}.{b64(json.dumps(claims()))}"
    mac = hmac.digest(public_pem(RSA), signing_input.encode(), hashlib.sha256)
    token = f"{signing_input}.{b64(mac)}"
    verifier = verifier_of(client, key=public_pem(RSA), algorithms=["RS256", "PS256"])
    assert reason(verifier, token) == "algorithm"
    with pytest.raises(ConfigError):
        verifier_of(client, key=public_pem(RSA), algorithms=["RS256", "HS256"])
    with pytest.raises(ConfigError):
        verifier_of(client, key=public_pem(RSA), algorithms=["HS256"])


def test_the_curve_must_fit(client: FakeRevocations) -> None:
    with pytest.raises(ConfigError):
        verifier_of(client, key=EC384.public_key())
    token = sign(claims(), key=EC384, algorithm="ES384")
    both = verifier_of(client, key=EC384.public_key(), algorithms=["ES256", "ES384"])
    assert reason(both, token) == ""
    swapped = ".".join([b64(json.dumps({"alg": "ES256"})), *token.split(".")[1:]])
    assert reason(both, swapped) == "unknown_key"


@pytest.mark.parametrize("header", [{}, {"kid": "other"}, {"jwk": {"kty": "oct"}}, {"x5c": []}])
def test_another_key_is_refused_whatever_the_header_says(client: FakeRevocations, header: dict[str, Any]) -> None:
    token = sign(claims(), key=OTHER_EC, header={"alg": "ES256", **header})
    assert reason(verifier_of(client), token) == "signature"


# Form


@pytest.mark.parametrize("hurt", [
    lambda h, p, s: f"{h}.{p}.{s}=",
    lambda h, p, s: f"{h}.{p}.{s}==",
    lambda h, p, s: f"{h}=.{p}.{s}",
    lambda h, p, s: f"{h}.{p}.{s}\n",
    lambda h, p, s: f" {h}.{p}.{s}",
    lambda h, p, s: f"{h}.{p}.{s}.",
    lambda h, p, s: f"{h}.{p}.{s}.{s}",
    lambda h, p, s: f"{h}.{p}",
    lambda h, p, s: f"{h}..{s}",
    lambda h, p, s: f".{p}.{s}",
    lambda h, p, s: f"{h}.{p}.",
    lambda h, p, s: f"{h}.{p}.{s[:40]}+{s[41:]}",
    lambda h, p, s: f"{h}.{p}.{s[:-1]}",
    lambda h, p, s: f"{h}.{p}.{s}A",
    lambda h, p, s: f"{h}.{p[:4]}\n{p[4:]}.{s}",
    lambda h, p, s: f"{h}.{p}.{s[:-1]}é",
    lambda h, p, s: "",
    lambda h, p, s: "..",
])  # fmt: skip
def test_forms_that_are_not_canonical(client: FakeRevocations, hurt: Callable[[str, str, str], str]) -> None:
    assert reason(verifier_of(client), hurt(*sign(claims()).split("."))) in ("malformed", "signature")


def test_stray_bits_at_the_end_of_a_part(client: FakeRevocations) -> None:
    """Four spellings decode to the same signature; one of them is canonical."""
    verifier, token = verifier_of(client), sign(claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(token[-1])
    twins = [token[:-1] + alphabet[(last & ~0xF) | stray] for stray in range(16)]
    assert {unb64(twin.split(".")[2]) for twin in twins} == {unb64(token.split(".")[2])}
    assert [twin for twin in twins if not reason(verifier, twin)] == [token]


@pytest.mark.parametrize("token", [None, 7, [], {}, object(), ("a", "b"), bytearray(b"a.b.c"), b"\xff.a.b"])
def test_things_that_are_no_text(client: FakeRevocations, token: object) -> None:
    assert reason(verifier_of(client), token) == "malformed"


def test_size_limit(client: FakeRevocations) -> None:
    verifier = verifier_of(client)
    assert reason(verifier, sign(claims(pad="x" * 11_000))) == ""
    assert reason(verifier, sign(claims(pad="x" * 16_384))) == "too_large"


@pytest.mark.parametrize("payload", [
    '{"exp":1,"exp":2}',
    '{"a":{"b":1,"b":1},"exp":9999999999}',
    '["exp"]',
    '"exp"',
    "{}x",
    "{'exp':1}",
    '{"exp":NaN}',
    '{"exp":Infinity}',
    '{"exp":-Infinity}',
    '{"exp":' + "9" * 5000 + "}",
    "[" * 5000,
    b"\xff\xfe{\x00}\x00",
    b'{"sub":"\xff"}',
    b"\xef\xbb\xbf{}",
])  # fmt: skip
def test_payloads_that_are_not_one_plain_object(client: FakeRevocations, payload: str | bytes) -> None:
    assert reason(verifier_of(client), sign(payload)) == "malformed"


@pytest.mark.parametrize(
    ("header", "why"),
    [
        ('{"alg":"ES256","alg":"ES256"}', "malformed"),
        ("[]", "malformed"),
        ({"alg": "ES256", "crit": ["exp"]}, "critical"),
        ({"alg": "ES256", "crit": []}, "critical"),
        ({"alg": "ES256", "b64": False}, "critical"),
        ({"alg": "ES256", "b64": True}, "critical"),
        ({"alg": "ES256", "typ": "logout+jwt"}, "type"),
        ({"alg": "ES256", "typ": "application/secevent+jwt"}, "type"),
        ({"alg": "ES256", "typ": "dpop+jwt"}, "type"),
        ({"alg": "ES256", "typ": ""}, "type"),
        ({"alg": "ES256", "typ": ["JWT"]}, "type"),
        ({"alg": "ES256", "kid": 7}, "malformed"),
        ({"typ": "JWT"}, "algorithm"),
    ],
)
def test_headers(client: FakeRevocations, header: Any, why: str) -> None:
    assert reason(verifier_of(client), sign(claims(), header=header)) == why


@settings(deadline=None)
@given(st.one_of(st.text(max_size=300), st.binary(max_size=300)))
def test_only_our_errors_leave(noise: str | bytes) -> None:
    """Whatever comes in, nothing but TokenRejected comes out; the error can be pickled and holds no token."""
    with pytest.raises(TokenInvalid) as caught:
        SHARED.verify(noise)
    assert pickle.loads(pickle.dumps(caught.value)).reason == caught.value.reason


@settings(deadline=None)
@given(st.data())
def test_no_other_spelling_of_a_token_is_accepted(data: st.DataObject) -> None:
    """One token, one form: change, insert or remove any character and it is refused."""
    place = data.draw(st.integers(0, len(SHARED_TOKEN) - 1))
    insert = data.draw(st.text("AZaz09-_=.+/ \n", max_size=2))
    cut = data.draw(st.integers(0, 2))
    twin = SHARED_TOKEN[:place] + insert + SHARED_TOKEN[place + cut :]
    assert (reason(SHARED, twin) == "") == (twin == SHARED_TOKEN)


SHARED = verifier_of(fake())
SHARED_TOKEN = sign(claims())
