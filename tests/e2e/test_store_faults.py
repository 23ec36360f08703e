"""The store dies, comes back, comes back empty, or another one takes its place: I1, I2, I3."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from tests.chaos.proxy import Proxy
from tests.e2e.installation import Installation, Replica
from tests.e2e.load import assert_kept, assert_logged_once
from tests.e2e.processes import until
from tests.e2e.rpc import a_revocation, call, stub
from tests.e2e.under_load import begin
from tests.servers import Server

pytestmark = pytest.mark.e2e


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


@pytest.mark.parametrize("level", ["memory", "fsynced"])
def test_a_store_that_is_killed_and_restarted_with_its_disk(installation: Installation, level: str) -> None:
    store = installation.store(aof=True)
    under = begin(installation, store.url, ack=level)
    before = installation.snapshots()
    for _ in range(3):
        store.kill()
        store.start()
        under.load.until_more(30)
    assert installation.snapshots() == before
    under.finish()


def test_a_store_that_stands_still_and_goes_on(installation: Installation) -> None:
    """SIGSTOP: nobody acknowledges or vouches meanwhile, and nobody has to heal afterwards."""
    store = installation.store()
    under = begin(installation, store.url)
    opened, before, stood = under.opened(), installation.snapshots(), []
    for _ in range(2):
        store.pause()
        begun = time.monotonic()
        for verifier in installation.verifiers:
            until(lambda verifier=verifier: verifier.state() != "fresh", f"{verifier.name} is stale")  # type: ignore[misc]
        stood.append((begun, time.monotonic()))
        store.resume()
        under.load.until_more(30)
    within = [(one.asked_at, one.acknowledged_at) for one in under.load.acknowledged]
    assert not [times for times in within for begun, end in stood if begun < (times[0] or 0) and (times[1] or 0) < end]
    assert (under.opened(), installation.snapshots()) == (opened, before)
    under.finish()


def test_a_store_that_was_rolled_back_without_a_restart(installation: Installation) -> None:
    """As a machine that is put back to a snapshot while it runs: the same process shows what was before."""
    store = installation.store()
    under = begin(installation, store.url)
    before, then, length = installation.snapshots(), dumped(store), _length(store)
    under.load.until_more(50)
    opened = under.opened()
    restore(store, then)
    until(lambda: under.opened() > opened, "a new history is opened")
    under.load.until_more(50)
    assert _length(store) > length
    assert installation.snapshots() == before, "a connected client had to take a snapshot"
    under.finish()


def dumped(store: Server) -> list[tuple[bytes, int, bytes]]:
    """Every key with the time that it has left and its value, all of the same moment."""
    with redis.Redis(port=store.port) as client:
        flat: Any = client.eval(_DUMP, 0)
    return list(zip(*[iter(flat)] * 3, strict=True))


_DUMP = """
local found = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  for _, value in ipairs({key, math.max(redis.call('PTTL', key), 0), redis.call('DUMP', key)}) do
    found[#found + 1] = value
  end
end
return found
"""


def restore(store: Server, keys: list[tuple[bytes, int, bytes]]) -> None:
    """Puts the store back to what was dumped, in one step."""
    with redis.Redis(port=store.port) as client, client.pipeline() as pipeline:
        pipeline.flushall()
        for key, left_ms, value in keys:
            pipeline.restore(key, left_ms, value)
        pipeline.execute()


def test_flushall_is_healed_from_the_memory_of_the_replicas(installation: Installation) -> None:
    store = installation.store(aof=False)
    under = begin(installation, store.url)
    before = installation.snapshots()
    for _ in range(3):
        store.call("FLUSHALL")
        under.load.until_more(30)
    assert installation.snapshots() == before, "a connected client had to take a snapshot"
    under.finish()
    assert_logged_once(under.load, store.url)


def test_a_store_that_comes_back_empty_is_healed_from_the_memory_of_the_replicas(installation: Installation) -> None:
    store = installation.store(aof=True)
    under = begin(installation, store.url)
    before = installation.snapshots()
    for _ in range(2):
        store.kill()
        store.wipe()
        store.start()
        under.load.until_more(30)
    assert installation.snapshots() == before, "a connected client had to take a snapshot"
    under.finish()
    # A replica that starts now finds what the others put back, and knows the same secret.
    (late,) = installation.add_replicas(1, store.url, ack="memory")
    newcomer = installation.add_verifier("thread", addresses=late.address)
    newcomer.ask(do="sample", tokens=under.load.tokens)
    assert_kept(under.load, [newcomer])


def test_keys_that_the_store_lost_are_put_back_when_somebody_has_loaded_without_them(
    installation: Installation,
) -> None:
    store = installation.store()
    under = begin(installation, store.url, count=300)
    under.load.until_more(100)
    under.load.stop()
    keys = [key for key in store.call("KEYS", "*") if ":seg:" in key]
    assert store.call("DEL", *keys) == len(keys) > 0
    store.call("XTRIM", "revocation:{p0}:log", "MAXLEN", 0)  # or a newcomer would learn the last of them there
    (late,) = installation.add_replicas(1, store.url, ack="memory")
    until(
        lambda: sum(_put_back(replica) for replica in installation.replicas[:2]) >= len(under.load.acknowledged),
        "healed",
    )
    newcomer = installation.add_verifier("thread", addresses=late.address)
    newcomer.ask(do="sample", tokens=under.load.tokens)
    assert_kept(under.load, installation.verifiers)
    assert installation.replicas[0].events("store_lost_rows") or installation.replicas[1].events("store_lost_rows")


def _put_back(replica: Replica) -> int:
    lines = replica.get("metrics").splitlines()
    return sum(int(float(line.split()[1])) for line in lines if line.startswith("revocation_rows_put_back_total{"))


def test_promotion_of_a_store_replica_that_lacks_a_suffix(installation: Installation) -> None:
    primary = installation.store(aof=True)
    with Proxy(("127.0.0.1", primary.port)) as link, Proxy(("127.0.0.1", primary.port)) as way:
        second = installation.servers.start({"replicaof": f"127.0.0.1 {link.port}"}, aof=True)
        until(lambda: second.info("replication").get("master_link_status") == "up", "the store replica is in step")
        under = begin(installation, f"redis://{way.address}")
        before = installation.snapshots()
        link.set("hold")
        under.load.until_more(50)
        assert _length(primary) > _length(second), "nothing was lost"
        primary.kill()
        second.call("REPLICAOF", "NO", "ONE")
        way.retarget(("127.0.0.1", second.port))
        under.load.until_more(50)
        assert installation.snapshots() == before, "a connected client had to take a snapshot"
        under.finish()


def _length(store: Server) -> int:
    return int(store.call("XLEN", "revocation:{p0}:log"))
