"""The store dies, comes back, comes back empty, or another one takes its place: I1, I2, I3."""

from __future__ import annotations

import pytest

from tests.chaos.proxy import Proxy
from tests.e2e.installation import Installation, Replica
from tests.e2e.load import Load, assert_done_once, assert_kept, assert_logged_once
from tests.e2e.processes import until
from tests.e2e.rpc import a_revocation, call, stub
from tests.servers import Server

pytestmark = pytest.mark.e2e


def begin(installation: Installation, url: str, *, count: int = 3_000, **flags: object) -> tuple[Load, object]:
    """Two replicas, verifiers at both, and revocations going on."""
    installation.add_replicas(2, url, ack="memory", **flags)
    for kind, replica in zip(("thread", "asyncio"), installation.replicas, strict=True):
        installation.add_verifier(kind, addresses=replica.address)
    client = installation.client()
    client.wait_until_fresh(30)
    load = Load(installation.signer, count)
    for verifier in installation.verifiers:
        verifier.ask(do="sample", tokens=load.tokens)
        verifier.wait_fresh()
    load.start(client, pause_s=0.03)
    load.until_more(50)
    return load, client


def finish(installation: Installation, load: Load, client: object) -> None:
    """Ends the load; old verifiers and a new one refuse all that was acknowledged."""
    from revocation_sdk import RevocationClient

    load.stop()
    assert isinstance(client, RevocationClient)
    assert all(replica.running for replica in installation.replicas)
    installation.add_verifier("thread")
    installation.verifiers[-1].ask(do="sample", tokens=load.tokens)
    assert_kept(load, installation.verifiers)
    assert_done_once(load, client)


def test_without_a_store_the_answer_is_unavailable_at_once_and_nothing_is_acknowledged(
    installation: Installation,
) -> None:
    store = installation.store()
    (replica,) = installation.add_replicas(1, store.url)
    with stub(replica.address) as service:
        assert call(service.Revoke, a_revocation()).code == "OK"
        store.kill()
        until(lambda: call(service.Revoke, a_revocation()).code == "UNAVAILABLE", "it is noticed")
        took = []
        for _ in range(10):
            answer = call(service.Revoke, a_revocation(), timeout=60)
            took.append(answer.seconds)
            assert (answer.code, answer.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), answer
            assert answer.seconds < 30, "it did not wait for the deadline"
        assert min(took) < 2, "at once, wherever the machine has no pause"
        store.start()
        replica.wait_ready()
        request = a_revocation()
        store.pause()
        answers = [call(service.Revoke, request, timeout=1.5) for _ in range(3)]
        assert {answer.code for answer in answers} <= {"ABORTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"}, answers
        store.resume()
        replica.wait_ready()
        until(lambda: call(service.Revoke, request).code == "OK", "the retry succeeds")


def test_a_store_that_is_killed_and_restarted_with_its_disk(installation: Installation) -> None:
    store = installation.store(aof=True)
    load, client = begin(installation, store.url)
    before = installation.snapshots()
    for _ in range(3):
        store.kill()
        store.start()
        load.until_more(30)
    assert installation.snapshots() == before
    finish(installation, load, client)


def test_flushall_is_healed_from_the_memory_of_the_replicas(installation: Installation) -> None:
    store = installation.store(aof=False)
    load, client = begin(installation, store.url)
    before = installation.snapshots()
    for _ in range(3):
        store.call("FLUSHALL")
        load.until_more(30)
    assert installation.snapshots() == before, "a connected client had to take a snapshot"
    finish(installation, load, client)
    assert_logged_once(load, store.url)


def test_a_store_that_comes_back_empty_is_healed_from_the_memory_of_the_replicas(installation: Installation) -> None:
    store = installation.store(aof=True)
    load, client = begin(installation, store.url)
    before = installation.snapshots()
    for _ in range(2):
        store.kill()
        store.wipe()
        store.start()
        load.until_more(30)
    assert installation.snapshots() == before, "a connected client had to take a snapshot"
    finish(installation, load, client)
    # A replica that starts now finds what the others put back, and knows the same secret.
    (late,) = installation.add_replicas(1, store.url, ack="memory")
    newcomer = installation.add_verifier("thread", addresses=late.address)
    newcomer.ask(do="sample", tokens=load.tokens)
    assert_kept(load, [newcomer])


def test_keys_that_the_store_lost_are_put_back_when_somebody_has_loaded_without_them(
    installation: Installation,
) -> None:
    store = installation.store()
    load, _ = begin(installation, store.url, count=300)
    load.until_more(100)
    load.stop()
    keys = [key for key in store.call("KEYS", "*") if ":seg:" in key]
    assert store.call("DEL", *keys) == len(keys) > 0
    store.call("XTRIM", "revocation:{p0}:log", "MAXLEN", 0)  # or a newcomer would learn the last of them there
    (late,) = installation.add_replicas(1, store.url, ack="memory")
    until(lambda: sum(_put_back(replica) for replica in installation.replicas[:2]) >= len(load.acknowledged), "healed")
    newcomer = installation.add_verifier("thread", addresses=late.address)
    newcomer.ask(do="sample", tokens=load.tokens)
    assert_kept(load, installation.verifiers)
    assert installation.replicas[0].events("store_lost_rows") or installation.replicas[1].events("store_lost_rows")


def _put_back(replica: Replica) -> int:
    lines = replica.get("metrics").splitlines()
    return sum(int(float(line.split()[1])) for line in lines if line.startswith("revocation_rows_put_back_total{"))


def test_promotion_of_a_store_replica_that_lacks_a_suffix(installation: Installation) -> None:
    primary = installation.store(aof=True)
    with Proxy(("127.0.0.1", primary.port)) as link, Proxy(("127.0.0.1", primary.port)) as way:
        second = installation.servers.start({"replicaof": f"127.0.0.1 {link.port}"}, aof=True)
        until(lambda: second.info("replication").get("master_link_status") == "up", "the store replica is in step")
        load, client = begin(installation, f"redis://{way.address}")
        before = installation.snapshots()
        link.set("hold")
        load.until_more(50)
        assert _length(primary) > _length(second), "nothing was lost"
        primary.kill()
        second.call("REPLICAOF", "NO", "ONE")
        way.retarget(("127.0.0.1", second.port))
        load.until_more(50)
        assert installation.snapshots() == before, "a connected client had to take a snapshot"
        finish(installation, load, client)


def _length(store: Server) -> int:
    return int(store.call("XLEN", "revocation:{p0}:log"))
