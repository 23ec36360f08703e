"""I2: what was acknowledged survives every crash of a process, under load."""

from __future__ import annotations

import random

import pytest

from tests.e2e.installation import Installation, Replica, kill_pid, pid_of_store
from tests.e2e.load import Load, assert_done_once, assert_kept, assert_logged_once

pytestmark = pytest.mark.e2e


def test_killing_an_embedded_service_or_its_store_loses_nothing(installation: Installation) -> None:
    replica = installation.add_embedded()
    url = f"unix://{installation.folder / replica.name / 'store.sock'}"
    for kind in ("thread", "asyncio"):
        installation.add_verifier(kind)
    client = installation.client()
    client.wait_until_fresh(30)
    load = Load(installation.signer, 3_000)
    for verifier in installation.verifiers:
        verifier.ask(do="sample", tokens=load.tokens)
    load.start(client, pause_s=0.03)
    load.until_more(50)
    for crash in ("store", "service", "both"):
        if crash != "service":
            kill_pid(pid_of_store(url))
        if crash != "store":
            replica.kill()
            replica.start()
        load.until_more(50)
    load.stop()
    assert any(wanted.failures for wanted in load.acknowledged), "no crash met a revocation under way"
    installation.add_verifier("thread")
    installation.verifiers[-1].ask(do="sample", tokens=load.tokens)
    assert_kept(load, installation.verifiers)
    assert_done_once(load, client)
    assert_logged_once(load, url)


def test_killing_the_owner_of_a_shared_store_or_a_replica_loses_nothing(installation: Installation) -> None:
    owner = installation.owner()
    replicas = installation.add_replicas(2, installation.owner_url, ack="fsynced")
    for kind in ("thread", "asyncio"):
        installation.add_verifier(kind)
    client = installation.client()
    client.wait_until_fresh(30)
    load = Load(installation.signer, 3_000)
    for verifier in installation.verifiers:
        verifier.ask(do="sample", tokens=load.tokens)
    load.start(client, pause_s=0.03)
    load.until_more(50)
    victim = followed(installation)
    victim.kill()
    load.until_more(50)
    installation.all_moved(victim)
    victim.start()
    for crash in ("owner", "replica and owner", "both replicas"):
        victims = {"owner": [], "both replicas": replicas}.get(crash, [random.choice(replicas)])
        for victim in victims:
            victim.kill()
        if "owner" in crash:
            owner.kill()
            installation.start_owner(owner)
        for victim in victims:
            victim.start()
        load.until_more(50)
    load.stop()
    installation.add_verifier("thread")
    installation.verifiers[-1].ask(do="sample", tokens=load.tokens)
    assert_kept(load, installation.verifiers)
    assert_done_once(load, client)
    assert_logged_once(load, installation.owner_url)


def followed(installation: Installation) -> Replica:
    """The replica that the first verifier follows."""
    name = installation.verifiers[0].ask(do="state")["replica"]
    return next(replica for replica in installation.replicas if replica.id == name)
