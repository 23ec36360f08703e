"""I1: a view that may be incomplete does not call itself fresh, whatever was stopped, killed or cut."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import Proxy
from tests.e2e.installation import PING_S, Installation
from tests.e2e.load import Load, judge
from tests.e2e.processes import until

pytestmark = pytest.mark.e2e

D = 2 * PING_S
"""The smallest max_staleness that this ping interval allows."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("freshness")) as made:
        made.add_replicas(1, made.store().url)
        for kind, policy in (("thread", "deny"), ("asyncio", "check"), ("thread", "allow")):
            made.add_verifier(kind, on_stale=policy)
        yield made


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_a_verifier_that_is_cut_off_turns_stale_in_time_and_follows_its_policy(
    installed: Installation, how: str
) -> None:
    (replica,) = installed.replicas
    token = installed.signer.sign()
    installed.accepted_everywhere(token)
    for verifier in installed.verifiers:
        verifier.ask(do="sample", tokens={how: token}, pause_s=0.005)
    replica.stop() if how == "stopped" else replica.kill()
    cut_off = time.monotonic()
    deny, check, allow = installed.verifiers
    until(lambda: {v.state() for v in installed.verifiers} == {"stale"}, "all are stale")
    assert deny.why(token) == "unknown"
    assert check.why(token) == "unknown"
    verdict = allow.verify(token)
    assert (verdict["why"], verdict["fresh"]) == ("accepted", False)
    assert allow.ask(do="state")["allowed"] >= 1
    assert deny.verify(token, on_stale="allow")["why"] == "accepted"
    assert allow.verify(token, on_stale="deny")["why"] == "unknown"
    for verifier in installed.verifiers:
        # The last ping that can have been answered left before the cut.
        assert verifier.ask(do="state")["fresh_at"] <= cut_off + verifier.max_staleness
    replica.resume() if how == "stopped" else replica.start()
    installed.accepted_everywhere(token)


def test_a_stale_verifier_asks_the_service_about_each_token(installed: Installation) -> None:
    """The stream is held on its way, new connections pass: what `check` needs is there."""
    (replica,) = installed.replicas
    client = installed.client()
    client.wait_until_fresh(30)
    revoked, other = installed.signer.sign(), installed.signer.sign()
    with Proxy(("127.0.0.1", replica.port)) as proxy:
        verifier = installed.add_verifier("thread", addresses=proxy.address, on_stale="check", max_staleness=D)
        verifier.wait_fresh()
        assert verifier.verdict(other) == "accepted"
        proxy.set("hold", old_only=True)
        cut_off = time.monotonic()
        client.revoke_token(revoked)
        until(lambda: time.monotonic() > cut_off + D, "the lease is over")

        def by_asking() -> bool:
            """Whether the service's word counted: the view was stale before and after it."""
            if verifier.state() != "stale":
                proxy.set("hold", old_only=True)  # the silence was noticed, and the view itself knows
                return False
            # An answer that does not come within half a second is none: "unknown" is right too, only not for ever.
            assert verifier.why(revoked) in {"revoked", "unknown"}
            verdict = verifier.verify(other)
            assert verdict["why"] in {"accepted", "unknown"}
            return verdict["why"] == "accepted" and verdict["fresh"] and verifier.state() == "stale"

        until(by_asking, "the service is asked about a token and answers")
        assert verifier.verdict(revoked) == "revoked"
        proxy.heal()
        verifier.wait_fresh()
        assert verifier.verdict(revoked) == "revoked"
        installed.verifiers.remove(verifier)


def test_a_stream_that_lags_behind_is_never_fresh(installed: Installation) -> None:
    """Answers come all the time, each too late: what counts is when its ping was sent, not when it came (D1)."""
    client = installed.client()
    client.wait_until_fresh(30)
    load = Load(installed.signer, 200, kinds=("token", "subject"))
    with Proxy(("127.0.0.1", installed.replicas[0].port)) as proxy:
        verifier = installed.add_verifier("thread", addresses=proxy.address, max_staleness=D)
        verifier.ask(do="sample", tokens=load.tokens, pause_s=0.002)
        verifier.wait_fresh()
        proxy.set("delay", delay_s=1.6 * D)
        until(lambda: verifier.state() == "stale", "it is stale")
        load.start(client, threads=2, pause_s=0.04)
        load.until_more(60)
        load.stop()
        until(lambda: verifier.ask(do="report")["refused_at"], "what is delayed comes through")
        proxy.heal()
        verifier.wait_fresh()
        assert not judge(load.all, verifier, verifier.ask(do="report"), whole=False).any
        installed.verifiers.remove(verifier)


def test_a_verifier_that_was_stopped_never_accepts_by_what_it_knew_before(installation: Installation) -> None:
    """Verifiers, service and both are stopped for shorter and longer than max_staleness, and resumed, many times."""
    (replica,) = installation.add_replicas(1, installation.store().url)
    for kind in ("thread", "asyncio", "thread"):
        installation.add_verifier(kind, max_staleness=D)
    client = installation.client()
    client.wait_until_fresh(30)
    load = Load(installation.signer, 400, kinds=("token", "subject"))
    for verifier in installation.verifiers:
        verifier.ask(do="sample", tokens=load.tokens, pause_s=0.002)
        verifier.wait_fresh()
    load.start(client, threads=2, pause_s=0.08, timeout=20.0)
    for _ in range(12):
        victims = random.sample([*installation.verifiers, replica], random.choice((1, 1, 2, 4)))
        random.shuffle(victims)
        for victim in victims:
            victim.stop()
            time.sleep(random.uniform(0, 0.05))
        time.sleep(random.choice((0.3, 1.2, 2.0)) * D)
        for victim in victims:
            victim.resume()
            time.sleep(random.uniform(0, 0.1))
        load.until_more(3)
    load.stop()
    for verifier in installation.verifiers:
        verifier.wait_fresh()
        report = verifier.ask(do="report")
        assert not judge(load.all, verifier, report, whole=False).any
        assert report["unknown"] > 0, "no stop was long enough"
    installation.refused_everywhere(wanted.token for wanted in load.acknowledged)
