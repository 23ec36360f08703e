"""The canary: measured through the real client, at a listener that is nobody else's, and told when it fails."""

from __future__ import annotations

import asyncio
import os
import secrets
import stat
from pathlib import Path
from typing import Any

import pytest

from revocation.callers.roles import Caller
from revocation.errors import Denied, InvalidField
from revocation.observability import canary
from revocation.observability.canary import Beat, Canary, CanaryAuthorizer, Reserved, measure
from revocation.observability.telemetry import CANARY_FAILURES, Metrics
from revocation.realms import REALM_NAME
from revocation_sdk import Unavailable
from revocation_sdk.testing import FakeRevocations


class Context:
    def __init__(self, token: str | None) -> None:
        self.token = token

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),) if self.token is not None else ()


async def test_only_the_bearer_of_the_secret_is_let_in_and_only_to_do_what_a_canary_does() -> None:
    token = secrets.token_urlsafe(32)
    door = CanaryAuthorizer(token)
    for method in ("Watch", "Revoke:token"):
        assert (await door.authorize(Context(token), method, canary.REALM)).name == "canary"
    for context in (Context(None), Context(""), Context(token[:-1]), Context("ä")):
        with pytest.raises(Denied):
            await door.authorize(context, "Watch", canary.REALM)
    for method, realm in (("Watch", "default"), ("Revoke:whole_realm", canary.REALM), ("StrikeMember", "")):
        with pytest.raises(Denied):
            await door.authorize(Context(token), method, realm)


async def test_no_other_listener_knows_the_realm_whatever_the_roles_say() -> None:
    class Everybody:
        async def authorize(self, context: Any, method: str, realm: str) -> Caller:
            return Caller("admin of every realm")

    with pytest.raises(InvalidField) as refused:
        await Reserved(Everybody()).authorize(None, "Watch", canary.REALM)
    assert refused.value.reason == "UNKNOWN_REALM"
    assert (await Reserved(Everybody()).authorize(None, "Watch", "default")).name == "admin of every realm"
    assert not REALM_NAME.fullmatch(canary.REALM)


async def test_the_place_is_this_user_s_alone_and_goes_away() -> None:
    async with canary.private_place() as address:
        folder = Path(address.removeprefix("unix:")).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert folder.stat().st_uid == os.getuid()
    assert not folder.exists()


def clients() -> tuple[FakeRevocations, FakeRevocations]:
    caller = FakeRevocations(realm=canary.REALM)
    follower = FakeRevocations(caller.service, realm=canary.REALM)
    follower.start()
    return caller, follower


def test_a_measurement_goes_from_the_call_to_the_refusal() -> None:
    caller, follower = clients()
    beat = measure(caller, follower)
    assert not beat.failure
    assert 0 < beat.seconds < 10
    assert len(caller.service.records) == 1


def test_a_view_that_is_stale_fails_without_revoking() -> None:
    caller, follower = clients()
    follower.go_stale()
    assert measure(caller, follower).failure == "not_fresh"
    assert not caller.service.records


def test_a_revocation_that_does_not_arrive_and_one_that_is_not_committed_are_told_apart() -> None:
    caller, follower = clients()
    follower.wait_until_fresh(5)
    follower._core.stream.severed = True  # fresh by what it was told, and then nothing comes any more
    assert measure(caller, follower, patience_s=0.05).failure == "not_refused"
    caller, follower = clients()
    caller._core.reachable = False
    with pytest.raises(Unavailable):
        caller.revoke_subject("anybody")
    assert measure(caller, follower).failure == "not_revoked"


def test_a_token_that_is_refused_before_anybody_revoked_it_fails() -> None:
    caller, follower = clients()
    caller.revoke_realm()
    assert measure(caller, follower).failure == "refused_before"


def test_all_that_can_happen_is_a_metric_from_the_start() -> None:
    metrics = Metrics(version="1", replica="r")
    value = metrics.registry.get_sample_value
    for reason in CANARY_FAILURES:
        assert value("revocation_canary_failures_total", {"reason": reason}) == 0
        metrics.observe_canary(Beat(0.0, failure=reason))
        assert value("revocation_canary_failures_total", {"reason": reason}) == 1
    assert value("revocation_canary_seconds_count") == 0
    metrics.observe_canary(Beat(0.0, 0.02))
    assert value("revocation_canary_seconds_count") == 1
    assert value("revocation_canary_last_seconds") == 0.02


async def test_it_goes_on_after_failures_and_ends_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "_PATIENCE_S", 0.01)
    beats: asyncio.Queue[Beat] = asyncio.Queue()
    made = Canary(0.01, beats.put_nowait)
    running = asyncio.create_task(made.run(f"unix:/nowhere/{secrets.token_hex(4)}", "t"))
    # Nobody listens there: every measurement says so, and none ends the task.
    assert {(await beats.get()).failure for _ in range(3)} == {"not_fresh"}
    assert made.last is not None
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
