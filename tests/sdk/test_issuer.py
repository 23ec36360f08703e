"""What an issuer mints: RFC 9068 tokens, by the store's time, that can be taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revocation_sdk import (
    ConfigError,
    InvalidRequest,
    RefreshReused,
    SessionEnded,
    SessionLimit,
    StatusUnknown,
    TokenRevoked,
    Unavailable,
)
from revocation_sdk._keys import make_key
from revocation_sdk._messages import RealmSettings
from revocation_sdk.issuer import AsyncTokenIssuer, TokenIssuer
from revocation_sdk.testing import AsyncFakeRevocations, FakeRevocations
from revocation_sdk.types import ClientSettings, Login, Receipt
from tests.sdk.forge import (
    AUDIENCE,
    EC,
    ED,
    ISSUER,
    RSA,
    SECRET,
    START,
    TimedService,
    Times,
    fake,
    private_pem,
    reason,
    sign,
    times,
    unb64,
    verifier_of,
)


@pytest.fixture
def client() -> FakeRevocations:
    made = fake()
    made.start()
    return made


def issuer_of(client: FakeRevocations, **more: Any) -> TokenIssuer:
    options = {"key": EC, "algorithm": "ES256", "issuer": ISSUER, "audience": AUDIENCE, **more}
    return TokenIssuer(client, **options)


def read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    header, payload, _ = token.split(".")
    return json.loads(unb64(header)), json.loads(unb64(payload))


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
    ],
)
def test_claims_that_no_verifier_would_take(client: FakeRevocations, claims: dict[str, Any]) -> None:
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
    client.start()
    assert client.follower.lease
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


# Sessions


def test_login_and_refresh(client: FakeRevocations) -> None:
    issuer, verifier = issuer_of(client), verifier_of(client)
    login = issuer.login("alice", "app", "phone", "192.0.2.1", "browser", {"scope": "all"})
    claims = verifier.verify(login.access_token).claims
    assert (claims["sid"], claims["sub"], claims["client_id"], claims["scope"]) == (
        login.session_id,
        "alice",
        "app",
        "all",
    )
    assert claims["exp"] == login.expires_at == START + 600
    times(client).pass_by(300)
    again = issuer.refresh(login.refresh_token)
    assert again.session_id == login.session_id
    assert again.expires_at == START + 900
    (session,) = issuer.sessions("alice", current=login.session_id)
    assert (session.device, session.address, session.user_agent) == ("phone", "192.0.2.1", "browser")
    assert session.current


def test_claims_at_a_refresh_can_be_looked_up(client: FakeRevocations) -> None:
    """The caller does not know whose refresh token it is; the grant says so."""
    issuer = issuer_of(client)
    login = issuer.refresh(issuer.login("alice").refresh_token, claims=lambda grant: {"name": grant.subject.title()})
    assert read(login.access_token)[1]["name"] == "Alice"
    with pytest.raises(InvalidRequest):
        issuer.refresh(login.refresh_token, claims={"sub": "bob"})
    assert issuer.refresh(login.refresh_token)  # nothing was used up


def test_logout_ends_both_kinds_of_token(client: FakeRevocations) -> None:
    issuer, verifier = issuer_of(client), verifier_of(client)
    ways: list[Callable[[Login], object]] = [
        lambda login: issuer.logout(login.session_id),
        lambda login: issuer.logout(issuer.sessions("alice")[0].handle, sub="alice"),
        lambda login: issuer.logout_everywhere("alice"),
        lambda login: issuer.logout_others("alice", keep=issuer.login("alice").session_id),
    ]
    for end in ways:
        login = issuer.login("alice")
        verifier.verify(login.access_token)
        end(login)
        assert reason(verifier, login.access_token) == "revoked"
        with pytest.raises(SessionEnded):
            issuer.refresh(login.refresh_token)


def test_logout_others_keeps_one(client: FakeRevocations) -> None:
    """Its tokens from before end too, whoever has them; the call's answer goes on."""
    issuer, verifier = issuer_of(client), verifier_of(client)
    keep, other = issuer.login("alice"), issuer.login("alice")
    kept = issuer.logout_others("alice", keep=keep.session_id)
    assert kept.session_id == keep.session_id
    assert reason(verifier, kept.access_token) == ""
    assert reason(verifier, keep.access_token) == reason(verifier, other.access_token) == "revoked"
    assert issuer.refresh(kept.refresh_token).session_id == keep.session_id
    assert len(issuer.sessions("alice")) == 1


def test_an_old_refresh_token_ends_the_session(client: FakeRevocations) -> None:
    issuer, verifier = issuer_of(client), verifier_of(client)
    first = issuer.login("alice")
    second = issuer.refresh(first.refresh_token)
    assert issuer.refresh(first.refresh_token).refresh_token == second.refresh_token  # a retry
    third = issuer.refresh(second.refresh_token)
    with pytest.raises(RefreshReused):
        issuer.refresh(first.refresh_token)
    assert reason(verifier, third.access_token) == "revoked"
    with pytest.raises(SessionEnded):
        issuer.refresh(third.refresh_token)


def test_an_access_token_ends_with_its_session(client: FakeRevocations) -> None:
    client.set_client_settings("app", ClientSettings(absolute_timeout_s=100))
    login = issuer_of(client).login("alice", "app")
    assert login.expires_at == START + 100


def test_as_many_sessions_as_allowed(client: FakeRevocations) -> None:
    issuer = issuer_of(client)
    client.set_client_settings("app", ClientSettings(absolute_timeout_s=1000, max_sessions_per_subject=1))
    issuer.login("alice", "app")
    with pytest.raises(SessionLimit):
        issuer.login("alice", "app")


def test_versions_come_from_the_grant_and_the_view(client: FakeRevocations) -> None:
    """Whichever is higher: neither may have heard of the other's."""
    issuer = issuer_of(client)
    FakeRevocations(client.service).revoke_subject("alice")  # elsewhere
    client.go_stale()
    login = issuer.login("alice")
    assert read(login.access_token)[1]["tver"] == [START * 1000]
    client.go_stale(reachable=False)
    with pytest.raises(Unavailable):
        issuer.refresh(login.refresh_token)


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
    ],
)
def test_mistakes_are_found_at_once(client: FakeRevocations, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        issuer_of(client, **wrong)


async def test_the_async_twin() -> None:
    client = AsyncFakeRevocations(TimedService(Times()))
    async with client:
        issuer = AsyncTokenIssuer(client, key=EC, algorithm="ES256", issuer=ISSUER, audience=AUDIENCE)
        verifier = verifier_of(client)  # type: ignore[arg-type]
        await verifier.verify_async(await issuer.issue("alice"))
        login = await issuer.refresh((await issuer.login("alice")).refresh_token)
        other = await issuer.login("alice")
        kept = await issuer.logout_others("alice", keep=login.session_id)
        assert len(await issuer.sessions("alice")) == 1
        await verifier.verify_async(kept.access_token)
        with pytest.raises(TokenRevoked):
            await verifier.verify_async(other.access_token)
        await issuer.logout(login.session_id)
        await issuer.logout_everywhere("alice")
        with pytest.raises(TokenRevoked):
            await verifier.verify_async(kept.access_token)


def test_both_issuers_have_the_same_names() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert public(TokenIssuer) == public(AsyncTokenIssuer)


def test_the_verifier_of_the_form_above_takes_hand_made_tokens_too(client: FakeRevocations) -> None:
    """The forge of these tests and the issuer agree on what a token is."""
    _, claims = read(issuer_of(client).issue("alice"))
    assert reason(verifier_of(client), sign(claims)) == ""
