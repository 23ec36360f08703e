"""The example application's handlers, without a browser and on a service in memory; `make browser` drives the page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from examples.webapp import app as webapp
from revocation_sdk.testing import AsyncFakeRevocations

LOGOUT, REFRESH = "/session/logout", "/session/refresh"


@pytest.fixture
def revocations() -> AsyncFakeRevocations:
    return AsyncFakeRevocations()


@pytest.fixture
async def browser(
    revocations: AsyncFakeRevocations, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """One browser, signed in."""
    monkeypatch.setattr(webapp, "AsyncRevocationClient", lambda address: revocations)
    transport = httpx.ASGITransport(app=webapp.app)
    async with (
        webapp.lifespan(webapp.app),
        httpx.AsyncClient(
            transport=transport, base_url="https://testserver"
        ) as client,  # https: the cookies are Secure
    ):
        form = {"user": "alice", "password": "wonderland"}
        assert (await client.post("/session/login", json=form)).status_code == 200
        yield client


def headers(browser: httpx.AsyncClient, access_token: str = "of five minutes ago") -> dict[str, str]:
    """What the page sends, with an access token that is not valid any more."""
    return {"x-csrf": browser.cookies.get("csrf") or "", "authorization": f"Bearer {access_token}"}


async def test_who_was_idle_for_longer_than_an_access_token_lives_can_sign_out(browser: httpx.AsyncClient) -> None:
    """Signing out goes by the cookie; afterwards nothing of the session is left, not even for who kept a copy of it."""
    kept = dict(browser.cookies)
    assert (await browser.post(LOGOUT, headers=headers(browser))).status_code == 200
    assert not browser.cookies
    browser.cookies.update(kept)
    answer = await browser.post(REFRESH, headers=headers(browser))
    assert (answer.status_code, answer.json()["why"]) == (401, "logout")


async def test_signing_out_of_a_session_that_is_over_is_done(browser: httpx.AsyncClient) -> None:
    kept = dict(browser.cookies)
    assert (await browser.post(LOGOUT, headers=headers(browser))).status_code == 200
    browser.cookies.update(kept)
    assert (await browser.post(LOGOUT, headers=headers(browser))).status_code == 200


async def test_signing_out_is_not_claimed_while_the_service_is_away(
    browser: httpx.AsyncClient, revocations: AsyncFakeRevocations
) -> None:
    """An answer that is no success, and cookies that still serve."""
    revocations.go_stale(reachable=False)
    assert (await browser.post(LOGOUT, headers=headers(browser))).status_code == 503
    revocations.go_fresh()
    assert (await browser.post(REFRESH, headers=headers(browser))).status_code == 200


async def test_another_page_cannot_sign_out(browser: httpx.AsyncClient) -> None:
    assert (await browser.post(LOGOUT, headers={"x-csrf": "guess"})).status_code == 403
    foreign = {**headers(browser), "origin": "https://evil.example"}
    assert (await browser.post(LOGOUT, headers=foreign)).status_code == 403
    assert (await browser.post(REFRESH, headers=headers(browser))).status_code == 200
