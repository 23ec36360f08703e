"""Three replicas behind Envoy: killed, rolled and drained under load, and nobody behind the proxy notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.envoy import Envoy
from tests.e2e.installation import PATIENT_S, Installation, Replica, Verifier
from tests.e2e.load import Load, assert_kept, assert_logged_once
from tests.e2e.processes import LIMIT_S, until

pytestmark = pytest.mark.proxy

VERIFIERS = 6
CALM = {"ping_interval": 2.0, "max_staleness": PATIENT_S}
"""A verifier that is not made to think that its replica is dead, or itself stale, by a machine that is busy."""


@pytest.fixture
def proxied(installation: Installation) -> tuple[Installation, Envoy, str]:
    store = installation.store(aof=False)
    replicas = installation.add_replicas(3, store.url, drain_s=2)
    envoy = Envoy(installation.folder, [replica.port for replica in replicas])
    installation.processes.append(envoy)
    envoy.start()
    envoy.wait_healthy(3)
    for number in range(VERIFIERS):
        kind = ("thread", "asyncio")[number % 2]
        installation.add_verifier(kind, addresses=envoy.address, **CALM)
    return installation, envoy, store.url


def streams(verifier: Verifier) -> tuple[int, int]:
    """How many streams it has begun, and how many of them with a snapshot."""
    begun = [line for line in verifier.log().splitlines() if " Welcome " in line]
    return len(begun), sum("SNAPSHOT" in line for line in begun)


def rolled(installation: Installation, envoy: Envoy, load: Load) -> int:
    """Drains one replica after the other and starts it anew; returns how many streams had to move."""
    moved = 0
    for replica in installation.replicas:
        moved += int(replica.metric("subscribers"))
        load.until_more(20)
        assert replica.drain() == 0, replica.log()[-2000:]
        load.until_more(20)
        installation.all_moved(replica)
        back(replica, envoy)
    return moved


def killed(installation: Installation, replica: Replica, envoy: Envoy, load: Load) -> int:
    """Kills a replica and starts it anew; returns how many streams had to move."""
    moved = int(replica.metric("subscribers"))
    replica.kill()
    load.until_more(40)
    installation.all_moved(replica)
    back(replica, envoy)
    load.until_more(40)
    return moved


def back(replica: Replica, envoy: Envoy) -> None:
    replica.start()
    replica.wait_ready()
    envoy.wait_healthy(3)


def test_replicas_are_killed_rolled_and_drained_behind_envoy(proxied: tuple[Installation, Envoy, str]) -> None:
    """No failed revocation, no verifier stale beyond D, and each stream moves only when its own replica goes."""
    installation, envoy, url = proxied
    client = installation.client(envoy.address, **CALM)
    client.wait_until_fresh(30)
    load = Load(installation.signer, 6_000)
    for verifier in installation.verifiers:
        verifier.ask(do="sample", tokens=load.tokens)
        verifier.wait_fresh()
    unknown = {verifier.name: verifier.ask(do="state")["unknown"] for verifier in installation.verifiers}
    load.start(client, pause_s=0.03, timeout=LIMIT_S)
    load.until_more(60)
    calls = [replica.metric("rpc_requests_total", method="Revoke") for replica in installation.replicas]
    assert min(calls) > 0, f"every replica gets calls over the one connection of the client: {calls}"

    moved = rolled(installation, envoy, load) + killed(installation, installation.replicas[0], envoy, load)
    load.stop()

    assert not [wanted.failures for wanted in load.all if wanted.failures]
    assert_kept(load, installation.verifiers)
    assert_logged_once(load, url)
    for verifier in installation.verifiers:
        state = verifier.ask(do="state")
        assert state["unknown"] == unknown[verifier.name], f"{verifier.name} was stale meanwhile"
    begun, snapshots = (sum(counts) for counts in zip(*map(streams, installation.verifiers), strict=True))
    # The test's own client is the one subscriber more.
    assert snapshots == VERIFIERS, "whoever comes back resumes"
    assert begun <= VERIFIERS + moved + VERIFIERS, f"{moved} streams had to move, {begun - VERIFIERS} began anew"


def test_a_proxy_that_dies_makes_verifiers_stale_and_comes_back(
    proxied: tuple[Installation, Envoy, str], tmp_path: Path
) -> None:
    """What stands in between can break like everything else: not fresh in time, then fresh again by themselves."""
    installation, envoy, _ = proxied
    token = installation.signer.sign()
    installation.accepted_everywhere(token)
    envoy.kill()
    until(lambda: {verifier.state() for verifier in installation.verifiers} == {"stale"}, "all are stale")
    assert {verifier.why(token) for verifier in installation.verifiers} == {"unknown"}
    direct = installation.client(installation.replicas[0].address)
    direct.revoke_token(token)
    envoy.start()
    installation.refused_everywhere([token])
