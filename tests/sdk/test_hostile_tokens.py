"""Tokens in the shapes that have brought down parsers, each really signed: refused by name, or judged as usual."""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from revocation_sdk import RevocationError, TokenInvalid
from revocation_sdk.testing import FakeRevocations
from tests.sdk.forge import ISSUER, START, b64, claims, fake, reason, sign, verifier_of


@pytest.fixture
def client() -> FakeRevocations:
    return fake()


def named(name: str, value: Any) -> dict[str, Any]:
    return {name: value}


def header(**more: Any) -> dict[str, Any]:
    return {"alg": "ES256", "typ": "at+jwt", **more}


# Bombs


def test_a_compressed_payload_is_never_inflated(client: FakeRevocations) -> None:
    """`zip` belongs to JWE. 100 MB of zeros in 100 kB of token: too large; in a small one: no JSON."""
    verifier = verifier_of(client)
    bomb = zlib.compress(b" " * 100_000_000, 9)
    assert reason(verifier, sign(bomb, header=header(zip="DEF"))) == "too_large"
    assert reason(verifier, sign(zlib.compress(b" " * 1_000_000, 9), header=header(zip="DEF"))) == "malformed"
    # The header alone changes nothing: what is signed is what is read.
    assert reason(verifier, sign(claims(), header=header(zip="DEF"))) == ""


@pytest.mark.parametrize("parts", [5, 4, 2, 1])
def test_jwe_and_other_numbers_of_parts(client: FakeRevocations, parts: int) -> None:
    head = b64(json.dumps({"alg": "dir", "enc": "A256GCM", "zip": "DEF"}))
    assert reason(verifier_of(client), ".".join([head, *["AAAA"] * (parts - 1)])) == "malformed"


@pytest.mark.parametrize("where", ["header", "payload", "signature", "dots"])
def test_a_megabyte_is_refused_before_anything_is_decoded(client: FakeRevocations, where: str) -> None:
    head, payload, signature = sign(claims()).split(".")
    huge = "A" * 1_000_000
    token = {
        "header": f"{huge}.{payload}.{signature}", "payload": f"{head}.{huge}.{signature}",
        "signature": f"{head}.{payload}.{huge}", "dots": "." * 1_000_000,
    }[where]  # fmt: skip
    began = time.thread_time()
    assert reason(verifier_of(client), token) == "too_large"
    assert reason(verifier_of(client), token.encode()) == "too_large"
    assert time.thread_time() - began < 1, "a thousand times what it takes"


@pytest.mark.parametrize("depth", [29, 33, 500, 3000])
@pytest.mark.parametrize("make", [
    lambda n: "[" * n + "]" * n, lambda n: '{"a":' * n + "1" + "}" * n, lambda n: "[" * n,
    lambda n: '{"a":[' * (n // 2),
])  # fmt: skip
def test_deep_nesting_anywhere(client: FakeRevocations, make: Callable[[int], str], depth: int) -> None:
    verifier = verifier_of(client)
    payload = json.dumps(claims())[:-1] + f',"deep":{make(depth)}}}'
    head = json.dumps(header())[:-1] + f',"deep":{make(depth)}}}'
    whole = make(depth).endswith(("]", "}"))
    expected = "" if depth < 32 and whole else "malformed"
    for token in (sign(payload), sign(claims(), header=head)):
        if len(token) <= 16 * 1024:
            assert reason(verifier, token) == expected


@pytest.mark.parametrize(
    "number", ["9" * 4301, "-" + "9" * 4301, "9" * 9000, "1" * 4299 + ".5", "1" + "0" * 4300 + "e1"]
)
@pytest.mark.parametrize("name", ["exp", "iat", "nbf", "x"])
def test_numbers_longer_than_python_reads(client: FakeRevocations, number: str, name: str) -> None:
    """Python refuses integers of more than 4,300 digits, with a ValueError of its own."""
    payload = json.dumps(claims(**{name: 1234567})).replace("1234567", number)
    assert reason(verifier_of(client), sign(payload)) in {"malformed", "claims", ""}
    if name != "x":
        assert reason(verifier_of(client), sign(payload)) != ""


# Times

TIMES = [
    "1e400",
    "-1e400",
    "-1",
    "-0.001",
    "1e300",
    "253402300800",
    "true",
    "null",
    '"5"',
    "[5]",
    "{}",
    '"2030-01-01"',
    '"NaN"',
]


@pytest.mark.parametrize("time_text", TIMES)
@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_times_that_are_none(client: FakeRevocations, name: str, time_text: str) -> None:
    payload = json.dumps(claims(**{name: 1234567})).replace("1234567", time_text)
    assert reason(verifier_of(client), sign(payload)) == "claims"


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize(
    "word", ["NaN", "Infinity", "-Infinity", "nan", "0x10", "1_0", "+1", "01", ".5", "1.", "\uff11"]
)
def test_numbers_that_json_does_not_know(client: FakeRevocations, name: str, word: str) -> None:
    payload = json.dumps(claims(**{name: 1234567})).replace("1234567", word)
    assert reason(verifier_of(client), sign(payload)) == "malformed"


def test_far_future_times_are_refused_and_fractions_are_times(client: FakeRevocations) -> None:
    verifier = verifier_of(client)
    assert reason(verifier, sign(claims(exp=253_402_300_799))) == "lifetime"
    assert reason(verifier, sign(claims(iat=253_402_300_799))) == "not_yet_valid"
    assert reason(verifier, sign(claims(nbf=253_402_300_799))) == "not_yet_valid"
    assert reason(verifier, sign(claims(exp=START + 1.5, iat=START + 0.0))) == ""
    assert reason(verifier, sign(claims(exp=0))) == "expired"
    assert reason(verifier, sign(claims(exp=-0.0))) == "expired"


# Text

NAMES = ["jti", "sid", "sub", "client_id", "iss"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", ["x"], {"x": 1}, 7, 1.5, True, "x" * 600])
def test_names_that_could_not_be_revoked(client: FakeRevocations, name: str, value: Any) -> None:
    """A claim that no call to the service could name would make a token that cannot be taken back."""
    why = reason(verifier_of(client), sign(claims(**{name: value})))
    assert why == "claims"


@pytest.mark.parametrize("name", ["jti", "sid", "sub", "client_id"])
@pytest.mark.parametrize(
    "value", ["a\0b", "\0", "a\r\nb", "\x1b[2J", "\u202e", "a.b", "*", "' OR 1=1 --", "e\u0301", "\u00e9"]
)
def test_odd_text_names_exactly_itself(client: FakeRevocations, name: str, value: str) -> None:
    """Nothing is trimmed, cut at a NUL, folded or normalised: a revocation hits its own name and no neighbour."""
    verifier = verifier_of(client)
    neighbours = {value[:1], value.strip("\0"), value.replace("\0", ""), value.upper(), "\u00e9", "e\u0301", "a"} - {
        value,
        "",
    }
    tokens = {other: sign(claims(**named(name, other))) for other in (value, *neighbours)}
    assert {reason(verifier, token) for token in tokens.values()} == {""}
    match name:
        case "jti":
            client.revoke_token(jti=value, issuer=ISSUER, expires_at=START + 600)
        case "sid":
            client.revoke_session(value, issuer=ISSUER)
        case "sub":
            client.revoke_subject(value, issuer=ISSUER)
        case _:
            client.revoke_client(value, issuer=ISSUER)
    assert {other for other, token in tokens.items() if reason(verifier, token)} == {value}


@pytest.mark.parametrize("issuer", [
    "https://id.example/", "HTTPS://id.example", "https://ID.example", " https://id.example", "https://id.example\0",
    "https://id.ex\u0430mple", "https://id.example\u200b", "https://\uff49d.example", "https://id.example.", ["https://id.example"],
])  # fmt: skip
def test_issuers_that_only_look_alike(client: FakeRevocations, issuer: Any) -> None:
    """Issuers are compared as they are: no normalisation, no folding, no trailing slash (RFC 8725 section 3.8)."""
    assert reason(verifier_of(client), sign(claims(iss=issuer))) in ("issuer", "claims")


def test_composed_and_decomposed_issuers_are_two(client: FakeRevocations) -> None:
    composed, decomposed = "https://caf\u00e9.example", "https://cafe\u0301.example"
    verifier = verifier_of(client, issuer=composed)
    assert reason(verifier, sign(claims(iss=composed))) == ""
    assert reason(verifier, sign(claims(iss=decomposed))) == "issuer"


@pytest.mark.parametrize("aud", [None, 7, {}, {"api": 1}, [["api"]], ["api", 7], True, "API", "api ", "ap", [], [""]])
def test_audiences_of_odd_types(client: FakeRevocations, aud: Any) -> None:
    assert reason(verifier_of(client), sign(claims(aud=aud))) in ("audience", "claims")


@pytest.mark.parametrize(
    "tver", [7, "1", {}, [1, 2, 3, 4], [-1], [1.0], [True], ["1"], [None], [2**64], [10**400], [[1]], None]
)
def test_versions_of_odd_types(client: FakeRevocations, tver: Any) -> None:
    assert reason(verifier_of(client), sign(claims(tver=tver))) == "claims"


@pytest.mark.parametrize(
    "payload", ["null", "true", "7", '"x"', "[]", "", " ", "\0", "{", "{}{}", "{},", "// {}", "\x0c{}"]
)
def test_payloads_and_headers_that_are_no_object(client: FakeRevocations, payload: str) -> None:
    verifier = verifier_of(client)
    assert reason(verifier, sign(payload or " ")) == "malformed"
    assert reason(verifier, sign(claims(), header=payload or " ")) == "malformed"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "utf-7", "latin-1"])
def test_other_encodings_than_utf_8(client: FakeRevocations, encoding: str) -> None:
    """Python's reader would guess; RFC 7519 says UTF-8."""
    data = json.dumps(claims(sub="\u00e9"), ensure_ascii=False).encode(encoding)
    if encoding == "utf-7":
        assert reason(verifier_of(client), sign(data)) == ""  # it is ASCII, and taken as it stands
    else:
        assert reason(verifier_of(client), sign(data)) == "malformed"


@pytest.mark.parametrize("inside", [
    '"exp":{exp},"exp":{exp}', '"exp":1,"exp":{exp}', '"exp":{exp},"\\u0065xp":1', '"sub":"a","sub":"b","exp":{exp}',
    '"exp":{exp},"x":{{"a":1,"a":2}}', '"exp":{exp},"x":[{{"":1,"":2}}]',
])  # fmt: skip
def test_members_that_occur_twice_in_any_spelling(client: FakeRevocations, inside: str) -> None:
    rest = json.dumps(claims(exp=..., sub=...))[1:-1]
    payload = "{" + rest + "," + inside.format(exp=START + 600) + "}"
    assert reason(verifier_of(client), sign(payload)) == "malformed"
    assert reason(verifier_of(client), sign(claims(), header='{"alg":"ES256","\\u0061lg":"none"}')) == "malformed"


def test_white_space_between_members_is_json_and_nothing_else(client: FakeRevocations) -> None:
    payload = json.dumps(claims(), indent=3).replace("\n", "\r\n\t")
    assert reason(verifier_of(client), sign(payload)) == ""
    for space in ("\u00a0", "\u2028", "\x0b", "\x0c"):
        assert reason(verifier_of(client), sign(payload + space)) == "malformed"


def test_no_refusal_repeats_the_token(client: FakeRevocations) -> None:
    """Messages go to logs and to callers; a token must not (I7)."""
    planted = "plantedplantedplanted"
    verifier = verifier_of(client)
    for token in (
        sign(claims(sub=planted, exp=1)), sign(claims(sub=[planted])), sign(f'{{"{planted}":1,"{planted}":2}}'),
        sign(claims(iss=planted)), sign(claims(), header=header(typ=planted)),
        sign(claims(), header=header(alg=planted)),
        planted, f"{planted}.{planted}.{planted}", sign(claims(aud=planted)),
    ):  # fmt: skip
        with pytest.raises(RevocationError) as refused:
            verifier.verify(token)
        text = f"{refused.value}{refused.value!r}{refused.value.reason}{refused.value.__cause__!r}"
        assert planted not in text
        assert base64.urlsafe_b64encode(planted.encode()).decode()[:12] not in text
        assert isinstance(refused.value, TokenInvalid) or "expired" in text
