"""What an issuer mints: RFC 9068 tokens, by the store's time, that can be taken back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revocation_sdk import (
    ConfigError,
    InvalidRequest,
    StatusUnknown,
)
from revocation_sdk._keys import make_key
from revocation_sdk._messages import RealmSettings
from revocation_sdk.issuer import AsyncTokenIssuer, TokenIssuer
from revocation_sdk.testing import FakeRevocations
from revocation_sdk.types import Receipt
from tests.sdk.forge import (
    AUDIENCE,
    EC,
    ED,
    ISSUER,
    RSA,
    SECRET,
    START,
    Times,
    fake,
    issuer_of,
    private_pem,
    read,
    reason,
    sign,
    times,
    verifier_of,
)


@pytest.fixture
def client() -> FakeRevocations:
    made = fake()
    made.start()
    return made


# Form


def test_mints_what_rfc_9068_asks_for(client: FakeRevocations) -> None:
    header, claims = read(issuer_of(client).issue("alice", "app", {"scope": "read"}))
    assert header == {"alg": "ES256", "typ": "at+jwt", "kid": make_key(EC.public_key()).thumbprint}
    assert len(claims.pop("jti")) >= 22
    assert claims == {
        "iss": ISSUER,
        "sub": "alice",
        "aud": AUDIENCE,
        "iat": START,
        "exp": START + 600,
        "client_id": "app",
        "scope": "read",
    }


@pytest.mark.parametrize(
    ("key", "algorithm"), [(EC, "ES256"), (RSA, "RS256"), (RSA, "PS512"), (ED, "EdDSA"), (SECRET, "HS256")]
)
def test_others_can_verify_it(client: FakeRevocations, key: Any, algorithm: str) -> None:
    """PyJWT, which knows nothing of us, and our own verifier."""
    public = key if isinstance(key, bytes) else key.public_key()
    token = issuer_of(client, key=key, algorithm=algorithm, lifetime=600).issue("alice")
    options: Any = {"verify_exp": False, "verify_iat": False}
    assert jwt.decode(token, public, [algorithm], audience=AUDIENCE, issuer=ISSUER, options=options)["sub"] == "alice"
    assert reason(verifier_of(client, key=public, algorithms=[algorithm]), token) == ""


def test_pem_and_key_id(client: FakeRevocations) -> None:
    header, _ = read(issuer_of(client, key=private_pem(EC), key_id="k1").issue("alice"))
    assert header["kid"] == "k1"


def test_the_thumbprint_of_a_secret_is_not_told(client: FakeRevocations) -> None:
    """RFC 7638 section 7: it would help to guess a weak one."""
    header, _ = read(issuer_of(client, key=SECRET, algorithm="HS256").issue("alice"))
    assert "kid" not in header


def test_every_token_has_an_id_of_its_own(client: FakeRevocations) -> None:
    issuer = issuer_of(client)
    assert len({read(issuer.issue("alice"))[1]["jti"] for _ in range(100)}) == 100


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "iat", "exp", "jti", "client_id", "azp", "sid", "tver"])
def test_claims_that_nobody_overrides(client: FakeRevocations, name: str) -> None:
    issuer = issuer_of(client)
    for call in (issuer.issue, issuer.login):
        with pytest.raises(InvalidRequest, match=name):
            call("alice", claims={name: 1})
    assert issuer.sessions("alice") == []


@pytest.mark.parametrize(
    "claims",
    [
        {"a": {1, 2}},
        {"a": float("nan")},
        {"a": b"bytes"},
        {"a": "\ud800"},
        {"pad": "x" * 20_000},
        {"nbf": "tomorrow"},
        {"nbf": True},
        ["a"],
    ],
)
def test_claims_that_no_verifier_would_take(client: FakeRevocations, claims: Any) -> None:
    with pytest.raises(InvalidRequest):
        issuer_of(client).issue("alice", claims=claims)


@pytest.mark.parametrize(("sub", "client_id"), [("", None), ("x" * 257, None), ("alice", "x" * 257), (None, None)])
def test_names_that_could_not_be_revoked(client: FakeRevocations, sub: Any, client_id: Any) -> None:
    with pytest.raises(InvalidRequest):
        issuer_of(client).issue(sub, client_id)


@settings(deadline=None)
@given(st.text(min_size=1, max_size=60), st.none() | st.text(max_size=60), st.dictionaries(st.text(), st.integers()))
def test_what_is_minted_is_accepted(sub: str, client_id: str | None, own: dict[str, int]) -> None:
    """Or refused by the issuer already."""
    shared = fake()
    shared.start()
    try:
        token = issuer_of(shared).issue(sub, client_id, own)
    except InvalidRequest:
        return
    found = verifier_of(shared).verify(token).claims
    assert found["sub"] == sub
    assert found.get("client_id") == (client_id or None)
    assert all(found[name] == value for name, value in own.items())


# Time and freshness


def test_time_is_the_stores() -> None:
    """A machine whose clock is days off mints tokens that are right."""
    for ours in (-200_000, 200_000):
        clocks = Times(wall=START + ours, store_ahead=-ours)
        client = fake(clocks)
        client.start()
        claims = read(issuer_of(client).issue("alice"))[1]
        assert (claims["iat"], claims["exp"]) == (START, START + 600)


def test_without_a_fresh_view_nothing_is_issued(client: FakeRevocations) -> None:
    """It might not know a cutoff, and mint a version that is refused; or one that should be."""
    issuer = issuer_of(client)
    client.go_stale()
    with pytest.raises(StatusUnknown):
        issuer.issue("alice")
    client.go_fresh()
    assert issuer.issue("alice")
    unknown = fake()
    unknown.go_stale()
    with pytest.raises(StatusUnknown):
        issuer_of(unknown).issue("alice")


def test_a_lifetime_above_the_realms_is_a_mistake() -> None:
    client = fake(settings=RealmSettings(max_token_life_s=600))
    for late in (False, True):  # before and after the limit is known here
        assert bool(client.follower.keys) is late
        with pytest.raises(ConfigError) as caught:
            issuer_of(client, lifetime=601).login("alice")
        assert caught.value.reason == "lifetime"
        with pytest.raises(ConfigError):
            issuer_of(client, lifetime=601).issue("alice")
    assert issuer_of(client).sessions("alice") == []
    assert issuer_of(client, lifetime=600).issue("alice")
    for call in (issuer_of(client, lifetime=601).issue, issuer_of(client, lifetime=601).login):
        with pytest.raises(ConfigError):
            call("alice")


# Versions


def test_zeros_are_left_out(client: FakeRevocations) -> None:
    issuer = issuer_of(client)
    assert "tver" not in read(issuer.issue("alice", "app"))[1]
    client.revoke_subject("alice")
    (subject,) = read(issuer.issue("alice", "app"))[1]["tver"]
    assert subject == START * 1000
    client.revoke_client("app")
    assert len(read(issuer.issue("alice", "app"))[1]["tver"]) == 2
    assert read(issuer.issue("bob", "app"))[1]["tver"][0] == 0
    client.revoke_realm()
    versions = read(issuer.issue("bob", "other"))[1]["tver"]
    assert versions[:2] == [0, 0]
    assert versions[2] > subject


def test_a_new_token_is_valid_at_once_after_everything_was_revoked(client: FakeRevocations) -> None:
    """The password-change case: the old token is dead, the new one lives, in the same millisecond."""
    issuer, verifier = issuer_of(client), verifier_of(client)
    old = issuer.issue("alice", "app")
    revocations: list[Callable[[], Receipt]] = [
        lambda: issuer.logout_everywhere("alice"),
        lambda: client.revoke_client("app", issuer=ISSUER),
        lambda: client.revoke_realm(),
    ]
    for revoke in revocations:
        assert revoke().stored
        assert reason(verifier, old) == "revoked"
        old = issuer.issue("alice", "app")
        assert reason(verifier, old) == ""


def test_a_minted_version_outlives_the_cutoff(client: FakeRevocations) -> None:
    """I1, and no false refusal: to the end of a cutoff's life, what is minted is accepted."""
    issuer, verifier = issuer_of(client), verifier_of(client)
    client.revoke_subject("alice")
    for seconds in (86_400, 59, 1, 59, 1, 1):
        times(client).pass_by(seconds)
        assert reason(verifier, issuer.issue("alice")) == ""


# Setting up


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "ES384"},
        {"algorithm": "none"},
        {"key": EC.public_key()},
        {"key": "no key"},
        {"key": SECRET[:31], "algorithm": "HS256"},
        {"lifetime": 0},
        {"lifetime": -1},
        {"lifetime": 1.5},
        {"lifetime": True},
        {"issuer": ""},
        {"audience": []},
        {"audience": [""]},
        {"max_staleness": 3.9},
        {"max_staleness": float("inf")},
        {"max_staleness": float("nan")},
    ],
)
def test_mistakes_are_found_at_once(client: FakeRevocations, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        issuer_of(client, **wrong)


def test_both_issuers_have_the_same_names() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(TokenIssuer) == public(AsyncTokenIssuer)
    for name in public(TokenIssuer):
        one, other = (inspect.signature(getattr(kind, name)).parameters for kind in (TokenIssuer, AsyncTokenIssuer))
        assert [(it.name, it.kind, it.default) for it in one.values()] == [
            (it.name, it.kind, it.default) for it in other.values()
        ]


@pytest.mark.parametrize("name", ["login", "logout", "logout_everywhere", "logout_others"])
def test_every_mutation_can_be_repeated_and_takes_its_time(name: str) -> None:
    for kind in (TokenIssuer, AsyncTokenIssuer):
        assert {"op_id", "timeout"} <= inspect.signature(getattr(kind, name)).parameters.keys()


def test_what_is_given_to_an_issuer_reaches_its_client(
    client: FakeRevocations, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer, given = issuer_of(client), list[tuple[str, float, Any]]()
    run = client._core.run

    def noted(operation: Any, timeout: float) -> Any:
        given.append((operation.op_id, timeout, operation.request))
        return run(operation, timeout)

    monkeypatch.setattr(client._core, "run", noted)
    ids = [client._core.new_op_id() for _ in range(4)]
    login = issuer.login("alice", op_id=ids[0], timeout=1)
    issuer.refresh(login.refresh_token, timeout=2)
    issuer.logout_others("alice", keep=login.session_id, op_id=ids[1], timeout=3)
    issuer.logout(login.session_id, op_id=ids[2], timeout=4, reason="lost")
    issuer.logout_everywhere("alice", op_id=ids[3], timeout=5, reason="stolen", confirm=7)
    assert [(op_id, timeout) for op_id, timeout, _ in given] == [
        (ids[0], 1), ("", 2), (ids[1], 3), (ids[2], 4), (ids[3], 5),
    ]  # fmt: skip
    assert given[3][2].reason == "lost"
    assert (given[4][2].reason, given[4][2].confirm) == ("stolen", 7)


def test_the_verifier_of_the_form_above_takes_hand_made_tokens_too(client: FakeRevocations) -> None:
    """The forge of these tests and the issuer agree on what a token is."""
    _, claims = read(issuer_of(client).issue("alice"))
    assert reason(verifier_of(client), sign(claims)) == ""
