"""The fake that applications test against behaves like the client and service that it stands for."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from revocation_sdk import (
    AsyncRevocationClient,
    ConfigError,
    InvalidRequest,
    NotFresh,
    RevocationClient,
    SessionEnded,
    State,
    StatusUnknown,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    Unavailable,
)
from revocation_sdk.testing import AsyncFakeRevocations, FakeRevocations, RealmSettings
from revocation_sdk.types import ClientSettings
from tests.sdk.forge import START, claims, fake, sign, times
from tests.sdk.likeness import CASES, Desk

pytest_plugins = ["pytester"]


def test_on_the_machines_own_clock() -> None:
    with FakeRevocations() as client:
        assert isinstance(client, RevocationClient)
        assert client.state is State.FRESH
        assert client.check_remote({"jti": "1", "exp": int(time.time()) + 60}).fresh


def test_one_that_is_not_started() -> None:
    client = fake()
    assert client.state is State.IDLE
    client.wait_until_fresh(timeout=0)
    assert state_of(client) is State.FRESH
    client.close()
    assert state_of(client) is State.CLOSED


def state_of(client: FakeRevocations) -> State:
    return client.state


def test_check() -> None:
    """Code that verifies by itself asks with the claims."""
    client = fake()
    assert client.check(claims()).fresh
    client.revoke_session("session-1")
    with pytest.raises(TokenRevoked) as caught:
        client.check(claims())
    assert caught.value.target == "session"
    assert client.check(claims(sid="2")).fresh
    client.revoke_key("k1")
    with pytest.raises(TokenRevoked):
        client.check(claims(sid="2"), key_id="k1")
    with pytest.raises(TokenInvalid):
        client.check(claims(jti=...))
    with pytest.raises(TokenExpired):
        client.check(claims(exp=START - 1000))


def test_check_of_a_foreign_token() -> None:
    """One without versions, compared by its `iat`, as with a Verifier."""
    client = fake()
    client.revoke_subject("alice")
    times(client).pass_by(3600)
    foreign = claims(iat=START + 3600, exp=START + 4200)
    with pytest.raises(TokenRevoked):
        client.check(foreign)
    assert client.check(foreign, version_claim=None).fresh
    assert client.check_remote(foreign, version_claim=None).fresh
    for question in (client.check, client.check_remote):
        with pytest.raises(TokenRevoked):
            question(foreign, version_claim=None, issuer_skew=3600)
        with pytest.raises(ConfigError):
            question(foreign, issuer_skew=float("nan"))
    assert client.check(claims(iat=START + 3600, exp=START + 4200, ver=[2**60]), version_claim="ver").fresh


def test_check_by_another_name_of_the_client() -> None:
    client = fake()
    client.revoke_client("web")
    assert client.check(claims(cid="web")).fresh
    with pytest.raises(TokenRevoked) as caught:
        client.check(claims(cid="web"), client_claim="cid")
    assert caught.value.target == "client"


def test_long_claims_are_judged_and_not_kept() -> None:
    client = fake()
    token = sign(claims(jti=..., note="x" * 5000))
    assert client.check(claims(jti=...), token=token).fresh
    assert client.check(claims()).fresh
    assert len(client._core.checker._known) == 1


def test_many_threads_share_a_fake_client() -> None:
    """Whatever they do at once, a test sees verdicts only."""
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    client, found, end = fake(), Counter[str](), time.monotonic() + 1.0

    def until_the_end(what: Callable[[int], object]) -> None:
        number = 0
        while time.monotonic() < end:
            number += 1
            try:
                what(number)
            except Exception as error:
                found[repr(error)] += 1

    acts: list[Callable[[int], object]] = [
        lambda number: client.revoke_session(f"s{number}"),
        lambda number: client.check(claims()),
        lambda number: client.check(claims()),
        lambda number: client.invalidate(),
    ]
    try:
        with client, ThreadPoolExecutor(len(acts)) as pool:
            list(pool.map(until_the_end, acts))
    finally:
        sys.setswitchinterval(switching)
    assert not found


def test_check_remote() -> None:
    client = fake()
    assert client.check_remote(claims()).fresh
    client.revoke_tokens([("token-1", START + 600), ("2", START + 600)])
    with pytest.raises(TokenRevoked):
        client.check_remote(claims())


def test_stale_and_fresh_again() -> None:
    """What happens elsewhere meanwhile is caught up with, by the follower that the real client has."""
    client = fake()
    elsewhere = FakeRevocations(client.service)
    client.start()
    assert client.check(claims()).fresh
    client.go_stale()
    assert client.state is State.STALE
    elsewhere.revoke_subject("alice")
    with pytest.raises(StatusUnknown):
        client.check(claims())
    assert not client.check(claims(), on_stale="allow").fresh
    with pytest.raises(NotFresh):
        client.wait_until_fresh(timeout=60)  # at once: waiting changes nothing here
    client.go_fresh()
    with pytest.raises(TokenRevoked):
        client.check(claims())


def test_unreachable() -> None:
    client = fake()
    client.go_stale(reachable=False)
    for call in (lambda: client.revoke_realm(), lambda: client.check_remote(claims()), lambda: client.status()):
        with pytest.raises(Unavailable):
            call()
    client.go_fresh()
    assert client.revoke_realm().stored


def test_invalidate_needs_a_new_proof() -> None:
    client = fake()
    client.start()
    client.go_stale()
    client.invalidate()
    with pytest.raises(StatusUnknown) as caught:
        client.check(claims())
    assert caught.value.age_s is None
    client.go_fresh()
    assert client.check(claims()).fresh


def test_time_passes_for_all() -> None:
    client = FakeRevocations()
    before = client.clock.wall()
    other = FakeRevocations(client.service)
    client.advance(1000)
    assert other.clock.wall() - before >= 1000
    assert client.state is State.IDLE
    other.start()
    assert other.state is State.FRESH


def test_entries_expire() -> None:
    client = fake(settings=RealmSettings(max_token_life_s=100, max_leeway_s=10, margin_s=10))
    client.start()
    client.revoke_session("session-1")
    times(client).pass_by(121)
    assert client.check(claims(START + 121, exp=START + 200)).fresh
    assert len(client.follower.view) == 0


def test_receipts() -> None:
    client = fake()
    receipt = client.revoke_subject("alice")
    assert receipt.stored
    assert receipt.cutoff is not None
    assert receipt.cutoff.at_ms == START * 1000
    assert client.revoke_subject("alice", op_id=receipt.op_id) == receipt  # a repetition, not a second time
    with pytest.raises(InvalidRequest):
        client.revoke_subject("bob", op_id=receipt.op_id)
    again = client.revoke_subject("alice")
    assert again.cutoff is not None
    assert again.cutoff.version > receipt.cutoff.version
    assert not client.revoke_token(jti="1", expires_at=START - 1000).stored
    with pytest.raises(InvalidRequest):
        client.revoke_token(jti="1", expires_at=START + 10**9)
    assert client.get_version("alice").version[0] == again.cutoff.version


def test_sessions_time_out() -> None:
    client = fake()
    client.set_client_settings("app", ClientSettings(absolute_timeout_s=1000, idle_timeout_s=100))
    idle = client.open_session("alice", client_id="app", access_token_life=60)
    used = client.open_session("alice", client_id="app", access_token_life=60)
    for _ in range(15):
        times(client).pass_by(60)
        used = client.refresh_session(used.refresh_token, access_token_life=60)
    with pytest.raises(SessionEnded) as caught:
        client.refresh_session(idle.refresh_token, access_token_life=60)
    assert caught.value.reason == "idle"
    times(client).pass_by(60)
    client.touch_session(used.session_id)
    times(client).pass_by(60)
    with pytest.raises(SessionEnded) as caught:
        client.refresh_session(used.refresh_token, access_token_life=60)
    assert caught.value.reason == "absolute"


@pytest.mark.parametrize("target", ["subject", "client", "realm"])
def test_sessions_end_with_what_they_stand_on(target: str) -> None:
    client = fake()
    grant = client.open_session("alice", client_id="app", access_token_life=60)
    {
        "subject": lambda: client.revoke_subject("alice"),
        "client": lambda: client.revoke_client("app"),
        "realm": lambda: client.revoke_realm(),
    }[target]()
    with pytest.raises(SessionEnded) as caught:
        client.refresh_session(grant.refresh_token, access_token_life=60)
    assert caught.value.reason == target


@pytest.mark.parametrize("name", [*CASES])
def test_sessions_end_as_with_the_service(name: str) -> None:
    """`e2e/test_test_kit.py` runs the same cases on a real one."""
    client = fake()
    client.start()
    CASES[name](Desk(client, "alice", "mallory"))


def test_the_oldest_session_makes_room() -> None:
    client = fake()
    settings = ClientSettings(absolute_timeout_s=1000, max_sessions_per_subject=2, evict_oldest=True)
    client.set_client_settings("app", settings)
    assert client.get_client_settings("app") == settings
    grants = [client.open_session("alice", client_id="app", access_token_life=60) for _ in range(4)]
    assert len(client.list_sessions("alice")) == 2
    for grant, ended in zip(grants, (True, True, False, False), strict=True):
        token = claims(jti="x", sid=grant.session_id)
        if ended:
            with pytest.raises(TokenRevoked):
                client.check(token)
        else:
            assert client.check(token).fresh


@pytest.mark.parametrize(
    ("fake_kind", "real"), [(FakeRevocations, RevocationClient), (AsyncFakeRevocations, AsyncRevocationClient)]
)
def test_nothing_of_the_real_surface_is_missing(fake_kind: type, real: type) -> None:
    """Every public method is the real one: only what is behind them differs."""
    for name, member in inspect.getmembers(real):
        if not name.startswith("_"):
            assert getattr(fake_kind, name) is member


async def test_async() -> None:
    async with AsyncFakeRevocations() as client:
        await client.wait_until_fresh(timeout=0)
        assert (await client.revoke_subject("alice")).stored
        assert (await client.status()).entries == 1
        assert await client.members() == []


def test_registered_explicitly_only(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """No entry point: a project that does not name the plugin has no fixture of ours."""
    assert not any("revocation" in str(point.dist) for point in entry_points(group="pytest11"))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("def test_it(revocations): revocations.revoke_subject('alice')")
    pytester.makeconftest('pytest_plugins = ["revocation_sdk.testing"]')
    assert pytester.runpytest_subprocess("-p", "no:cacheprovider", "-q").ret == 0


def test_needs_no_pytest(tmp_path: Path) -> None:
    code = "import sys; sys.modules['pytest'] = None; from revocation_sdk.testing import FakeRevocations as F; F()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=60)
