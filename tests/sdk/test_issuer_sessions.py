"""Sessions behind the tokens, as an issuer's users meet them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from revocation_sdk import (
    InvalidRequest,
    RefreshReused,
    SessionEnded,
    SessionLimit,
    TokenRevoked,
    Unavailable,
)
from revocation_sdk.issuer import AsyncTokenIssuer
from revocation_sdk.testing import AsyncFakeRevocations, FakeRevocations
from revocation_sdk.types import ClientSettings, Grant, Login
from tests.sdk.forge import (
    AUDIENCE,
    EC,
    ISSUER,
    START,
    TimedService,
    Times,
    fake,
    issuer_of,
    read,
    reason,
    times,
    verifier_of,
)

CUTOFFS: list[Callable[[FakeRevocations], object]] = [
    lambda client: client.revoke_subject("alice"),
    lambda client: client.revoke_client("app"),
    lambda client: client.revoke_realm(),
]


@pytest.fixture
def client() -> FakeRevocations:
    made = fake()
    made.start()
    return made


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


def test_a_function_that_has_to_be_awaited_is_refused_before_anything_is_exchanged(client: FakeRevocations) -> None:
    async def look_up(grant: Grant) -> dict[str, str]:
        raise AssertionError(grant)

    issuer = issuer_of(client)
    login = issuer.login("alice")
    with pytest.raises(InvalidRequest) as caught:
        issuer.refresh(login.refresh_token, claims=look_up)  # type: ignore[arg-type]
    assert caught.value.field == "claims"
    first = client.refresh_session(login.refresh_token, access_token_life=60)
    assert first.generation == 1


async def test_claims_at_a_refresh_can_be_awaited() -> None:
    """Looked up in a database, by an application on an event loop."""

    async def look_up(grant: Grant) -> dict[str, str]:
        return {"name": grant.subject.title()}

    async with AsyncFakeRevocations(TimedService(Times())) as client:
        issuer = AsyncTokenIssuer(client, key=EC, algorithm="ES256", issuer=ISSUER, audience=AUDIENCE)
        login = await issuer.login("alice", claims={"name": "of the login"})
        login = await issuer.refresh(login.refresh_token, claims=look_up)
        assert read(login.access_token)[1]["name"] == "Alice"
        login = await issuer.refresh(login.refresh_token, claims=lambda grant: {"name": grant.subject})
        assert read(login.access_token)[1]["name"] == "alice"
        login = await issuer.refresh(login.refresh_token)
        assert "name" not in read(login.access_token)[1]


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


def test_logout_is_for_the_owner_where_one_is_named(client: FakeRevocations) -> None:
    issuer, other = issuer_of(client), issuer_of(client, issuer="https://other.example")
    login = issuer.login("alice")
    handle = issuer.sessions("alice")[0].handle
    for attempt in (
        lambda: issuer.logout(login.session_id, sub="mallory"),
        lambda: issuer.logout(handle, sub="mallory"),
        lambda: other.logout(login.session_id, sub="alice"),
        lambda: client.get_session(login.session_id, subject="mallory"),
    ):
        with pytest.raises(SessionEnded):
            attempt()
    with pytest.raises(InvalidRequest) as caught:
        issuer.logout(handle)
    assert caught.value.field == "subject"
    assert [one.issuer for one in client.list_sessions("alice")] == [ISSUER]
    issuer.logout(login.session_id, sub="alice")
    assert client.list_sessions("alice") == []


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


def test_a_refresh_token_is_worth_nothing_to_another_issuer_or_client(client: FakeRevocations) -> None:
    consumers, staff = issuer_of(client), issuer_of(client, issuer="https://staff.example")
    login = consumers.login("1", "web")
    assert login.client_id == "web"
    for ask in (
        lambda: staff.refresh(login.refresh_token),
        lambda: consumers.refresh(login.refresh_token, client_id="app"),
        lambda: consumers.refresh(login.refresh_token, client_id=""),
        lambda: client.refresh_session(login.refresh_token, access_token_life=60, issuer="https://staff.example"),
    ):
        with pytest.raises(SessionEnded) as caught:
            ask()
        assert caught.value.reason == "unknown"
    again = consumers.refresh(login.refresh_token, client_id=login.client_id)
    assert (again.session_id, again.client_id) == (login.session_id, "web")
    assert consumers.refresh(again.refresh_token).session_id == login.session_id


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


@pytest.mark.parametrize("revoke", CUTOFFS)
def test_a_login_right_after_a_cutoff_is_valid(
    client: FakeRevocations, revoke: Callable[[FakeRevocations], object]
) -> None:
    """Though the issuer's own view has not heard of it: the versions are what the service grants."""
    issuer, verifier = issuer_of(client), verifier_of(client)
    client.go_stale()
    revoke(FakeRevocations(client.service))  # elsewhere
    login = issuer.login("alice", "app")
    assert max(read(login.access_token)[1]["tver"]) == START * 1000
    client.go_fresh()
    assert reason(verifier, login.access_token) == ""
    client.go_stale(reachable=False)
    with pytest.raises(Unavailable):
        issuer.refresh(login.refresh_token)


@pytest.mark.parametrize("revoke", CUTOFFS)
def test_what_is_minted_for_a_session_that_a_cutoff_has_ended_is_refused(
    client: FakeRevocations, revoke: Callable[[FakeRevocations], object]
) -> None:
    """The refresh was granted, then came the cutoff, and the issuer heard of it before it minted."""
    issuer, verifier = issuer_of(client), verifier_of(client)

    def claims(_: Grant) -> None:
        revoke(client)

    late = issuer.refresh(issuer.login("alice", "app").refresh_token, claims=claims)
    assert reason(verifier, late.access_token) == "revoked"
    with pytest.raises(SessionEnded):
        issuer.refresh(late.refresh_token)
    assert reason(verifier, issuer.login("alice", "app").access_token) == ""


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
