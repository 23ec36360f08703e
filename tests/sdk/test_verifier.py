"""What a verifier accepts: claims, clocks, and how it is set up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from revocation_sdk import ConfigError, TokenExpired, TokenInvalid, TokenRejected, TokenRevoked
from revocation_sdk._messages import RealmSettings
from revocation_sdk.testing import FakeRevocations
from tests.sdk.forge import (
    EC,
    ISSUER,
    SECRET,
    START,
    Times,
    claims,
    fake,
    reason,
    sign,
    times,
    verifier_of,
)


@pytest.fixture
def client() -> FakeRevocations:
    return fake()


# What is accepted


def test_accepts_a_good_token_and_says_how_fresh_it_is(client: FakeRevocations) -> None:
    verified = verifier_of(client).verify(sign(claims()))
    assert verified.claims == claims()
    assert verified.freshness.fresh
    assert verified.freshness.age_s == 0
    assert verified.freshness.position


def test_claims_are_the_callers_own(client: FakeRevocations) -> None:
    """What a caller does to the claims of one verdict does not show in the next."""
    verifier, token = verifier_of(client), sign(claims(roles=["user"], deep={"a": [1]}))
    for _ in range(2):
        found: Any = verifier.verify(token).claims
        assert found["roles"] == ["user"]
        found["roles"].append("admin")
        found["deep"]["a"].append(2)
        found["sub"] = "mallory"
    assert verifier.verify(token).claims == claims(roles=["user"], deep={"a": [1]})


def test_bytes_are_as_good_as_text(client: FakeRevocations) -> None:
    assert verifier_of(client).verify(sign(claims()).encode()).claims["sub"] == "alice"


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "JWT", None])
def test_types_of_access_tokens(client: FakeRevocations, typ: str | None) -> None:
    header = {"alg": "ES256", **({} if typ is None else {"typ": typ})}
    assert reason(verifier_of(client), sign(claims(), header=header)) == ""


# Claims


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
@pytest.mark.parametrize("value", [True, "1700000000", None, [], {}, -1, 1e300, 10**20, 253402300800])
def test_times_that_are_none(client: FakeRevocations, name: str, value: Any) -> None:
    assert reason(verifier_of(client), sign(claims(**{name: value}))) == "claims"


def test_a_float_that_overflows(client: FakeRevocations) -> None:
    payload = json.dumps(claims()).replace(str(START + 600), "1e400")
    assert reason(verifier_of(client), sign(payload)) == "claims"


@pytest.mark.parametrize("name", ["sub", "jti", "sid", "client_id", "azp", "iss"])
@pytest.mark.parametrize("value", [7, True, [], {}, "x" * 513, "é" * 257, "\ud800"])
def test_names_that_could_not_be_revoked(client: FakeRevocations, name: str, value: Any) -> None:
    given = claims(**{name: value}) | ({"client_id": None} if name == "azp" else {})
    assert reason(verifier_of(client, issuer=None), sign(given)) == "claims"


@pytest.mark.parametrize("value", [[1, 2, 3, 4], [True], [-1], [1.5], "1", 7, {"0": 1}, None, [2**64]])
def test_versions_that_are_none(client: FakeRevocations, value: object) -> None:
    assert reason(verifier_of(client), sign(claims(tver=value))) == "claims"


def test_exp_is_required(client: FakeRevocations) -> None:
    assert reason(verifier_of(client), sign(claims(exp=...))) == "claims"


@pytest.mark.parametrize("iss", ["https://other.example", ISSUER + "/", ..., None])
def test_another_issuer(client: FakeRevocations, iss: object) -> None:
    assert reason(verifier_of(client), sign(claims(iss=iss))) == "issuer"


@pytest.mark.parametrize(
    ("aud", "why"),
    [
        ("api", ""),
        (["web", "api"], ""),
        ("web", "audience"),
        ([], "audience"),
        (..., "audience"),
        (["web"], "audience"),
        (7, "claims"),
        (None, "claims"),
        (["api", 7], "claims"),
        ({"api": 1}, "claims"),
    ],
)
def test_audience(client: FakeRevocations, aud: object, why: str) -> None:
    assert reason(verifier_of(client), sign(claims(aud=aud))) == why


def test_without_an_audience_only_tokens_without_one(client: FakeRevocations) -> None:
    verifier = verifier_of(client, audience=None)
    assert reason(verifier, sign(claims(aud=...))) == ""
    assert reason(verifier, sign(claims())) == "audience"


# Clocks


@pytest.mark.parametrize(
    ("wall", "store_ahead", "leeway", "expected"),
    [
        (599.999, 0, 0, ""),
        (600, 0, 0, "expired"),
        (600, 0, 1, ""),
        (600.999, 0, 1, ""),
        (601, 0, 1, "expired"),
        (590, 10, 0, "expired"),  # our clock lags: the store's judges
        (600, -100, 0, "expired"),  # the store's lags: ours judges
        (0, 0, 0, ""),
    ],
)
def test_expiry_is_judged_by_the_larger_clock(wall: float, store_ahead: float, leeway: float, expected: str) -> None:
    clocks = Times(wall=START + wall, store_ahead=store_ahead)
    assert reason(verifier_of(fake(clocks), leeway=leeway), sign(claims())) == expected


@pytest.mark.parametrize(
    ("name", "ahead", "leeway", "expected"),
    [
        ("nbf", 0, 0, ""),
        ("nbf", 1, 0, "not_yet_valid"),
        ("nbf", 5, 5, ""),
        ("nbf", 6, 5, "not_yet_valid"),
        ("iat", 60, 0, ""),  # within the margin by which clocks may differ
        ("iat", 61, 0, "not_yet_valid"),
        ("iat", 66, 5, "not_yet_valid"),
    ],
)
def test_times_that_lie_ahead(client: FakeRevocations, name: str, ahead: int, leeway: float, expected: str) -> None:
    assert reason(verifier_of(client, leeway=leeway), sign(claims(**{name: START + ahead}))) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"exp": START + 1000}, ""),
        ({"exp": START + 1001}, "lifetime"),
        ({"iat": START - 500, "exp": START + 500}, ""),
        ({"iat": START - 500, "exp": START + 501}, "lifetime"),
        ({"iat": ..., "exp": START + 1000}, ""),
        ({"iat": ..., "exp": START + 1001}, "lifetime"),
        ({"iat": START + 30, "exp": START + 1030}, "lifetime"),
    ],
)
def test_no_token_outlives_what_views_remember(given: dict[str, Any], expected: str) -> None:
    client = fake(settings=RealmSettings(max_token_life_s=1000))
    assert reason(verifier_of(client), sign(claims(**given))) == expected


def test_a_leeway_above_the_realms_is_a_mistake() -> None:
    client = fake(settings=RealmSettings(max_leeway_s=10))
    verifier_of(client, leeway=10).verify(sign(claims()))
    with pytest.raises(ConfigError):
        verifier_of(client, leeway=11).verify(sign(claims()))


@pytest.mark.parametrize(("ours", "stores"), [(100_000, 0), (0, 100_000)])
def test_entries_are_dropped_by_the_smaller_clock(client: FakeRevocations, ours: int, stores: int) -> None:
    """Whichever of the two clocks jumps ahead and back, no revocation is lost by it."""
    client.start()
    client.revoke_token(jti="token-1", issuer=ISSUER, expires_at=START + 600)
    verifier, clocks = verifier_of(client), times(client)
    clocks.wall, clocks.store_ahead = START + ours, stores - ours
    assert reason(verifier, sign(claims())) == "expired"
    clocks.wall, clocks.store_ahead = START, 0
    assert reason(verifier, sign(claims())) == "revoked"


# Setting up


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": None},
        {"key": EC},
        {"key": "no key"},
        {"key": 7},
        {"jwks": {"keys": []}},
        {"algorithms": []},
        {"algorithms": ["none"]},
        {"algorithms": ["ES256K"]},
        {"algorithms": "RS256"},
        {"algorithms": ["ES256", "HS256"]},
        {"key": SECRET[:31], "algorithms": ["HS256"]},
        {"max_staleness": 3.9},
        {"on_stale": "maybe"},
        {"leeway": -1},
        {"leeway": float("nan")},
        {"issuer_skew": -1},
        {"types": ["logout+jwt"]},
        {"types": []},
        {"key": None, "jwks": {"keys": []}},
        {"key": None, "jwks_url": "http://id.example/keys"},
        {"key": None, "jwks_url": "ftp://localhost/keys"},
        {"key": None, "jwks_url": "file:///keys"},
    ],
)
def test_mistakes_are_found_at_once(client: FakeRevocations, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        verifier_of(client, **wrong)


@pytest.mark.parametrize("error", [TokenExpired, TokenRevoked, TokenInvalid])
def test_all_refusals_are_one_kind(error: type[Exception]) -> None:
    assert issubclass(error, TokenRejected)
