"""What goes wrong with a store in operation: the status that callers get, and the hint that operators read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme

from revocation.store.hints import HINTS
from tests.e2e.installation import MAX_STALENESS_S, Installation, Replica
from tests.e2e.load import assert_logged_once
from tests.e2e.processes import until
from tests.e2e.rpc import a_revocation, call, stub
from tests.e2e.under_load import begin
from tests.servers import NoServer, Server, find_tls_binary, free_port

pytestmark = pytest.mark.e2e


def told(replica: Replica, kind: str, event: str = "store_unreachable") -> bool:
    """The log has told of this kind of trouble, and what to do about it."""
    return any(line["hint"] == HINTS[kind] for line in replica.events(event) if line.get("kind") == kind)


def refuses(service: Any, replica: Replica, kind: str) -> None:
    """It answers UNAVAILABLE in time, logs the hint and counts the kind; and acknowledges nothing meanwhile."""
    until(lambda: call(service.Revoke, a_revocation()).code == "UNAVAILABLE", "it is noticed")
    until(lambda: told(replica, kind), f"the log tells of {kind}")
    for _ in range(5):
        answer = call(service.Revoke, a_revocation())
        assert (answer.code, answer.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), answer
    assert replica.metric("store_errors_total", kind=kind) > 0


def recovers(service: Any, replica: Replica) -> None:
    replica.wait_ready()
    until(lambda: call(service.Revoke, a_revocation()).code == "OK", "it acknowledges again")


@contextmanager
def serving(installation: Installation, url: str, **flags: Any) -> Iterator[tuple[Replica, Any]]:
    (replica,) = installation.add_replicas(1, url, **flags)
    with stub(replica.address) as service:
        assert call(service.Revoke, a_revocation()).code == "OK"
        yield replica, service


def test_a_changed_password_is_told_and_a_repaired_one_is_taken_up(installation: Installation) -> None:
    """WRONGPASS: connections that are open stay open, so they are closed as a restart of the store would."""
    store = installation.servers.start({"requirepass": "old"}, aof=True)
    with serving(installation, store.url) as (replica, service):
        store.call("CONFIG", "SET", "requirepass", "new")
        store.config["requirepass"] = "new"
        store.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        refuses(service, replica, "credentials")
        store.call("CONFIG", "SET", "requirepass", "old")
        recovers(service, replica)


def test_a_service_that_starts_with_a_wrong_password_ends_and_does_not_show_it(installation: Installation) -> None:
    """It would be refused as often as it asked; a rollout must see that at once."""
    store = installation.servers.start({"requirepass": "right-secret"})
    replica = Replica("replica", installation.folder, redis_url=f"redis://:wrong-secret@{store.address}")
    installation.processes.append(replica)
    replica.start()
    assert replica.wait() == 2
    (line,) = replica.events("cannot_start")
    assert "user and password" in line["why"]
    assert "wrong-secret" not in replica.log()


def test_a_store_that_is_gone_and_one_that_is_silent_are_told(installation: Installation) -> None:
    """Nothing answers, or not in time: two kinds, since something else is to be done about each."""
    store = installation.store()
    with serving(installation, store.url) as (replica, service):
        store.kill()
        refuses(service, replica, "unreachable")
        store.start()
        recovers(service, replica)
        store.pause()
        refuses(service, replica, "timeout")
        store.resume()
        recovers(service, replica)


def test_a_policy_that_evicts_is_told_and_the_service_goes_on(installation: Installation) -> None:
    """The store comes back with it, as a node does that takes over. The service holds what may get lost."""
    store = installation.store()
    with serving(installation, store.url) as (replica, service):
        assert not replica.events("store_may_evict")
        store.kill()
        store.config["maxmemory-policy"] = "allkeys-lru"
        store.start()
        until(lambda: told(replica, "eviction", "store_may_evict"), "the log tells of it")
        assert replica.metric("store_errors_total", kind="eviction") > 0
        recovers(service, replica)


def test_rights_that_were_taken_away_are_told(installation: Installation) -> None:
    """NOPERM."""
    store = installation.store()
    store.call("ACL", "SETUSER", "service", "on", ">pw", "~*", "+@all")
    with serving(installation, f"redis://service:pw@{store.address}") as (replica, service):
        store.call("ACL", "SETUSER", "service", "-evalsha")
        refuses(service, replica, "rights")
        store.call("ACL", "SETUSER", "service", "+evalsha")
        recovers(service, replica)


def test_a_store_without_memory_refuses_and_verifiers_stay_fresh(installation: Installation) -> None:
    """OOM: commits get RESOURCE_EXHAUSTED; what is known stays proven current, at a level with WAIT too."""
    store = installation.store()
    installation.servers.start(replica_of=store)
    with serving(installation, store.url, ack="replicated:1") as (replica, service):
        verifier = installation.add_verifier("thread")
        verifier.wait_fresh()
        store.call("CONFIG", "SET", "maxmemory", 100_000)
        for _ in range(3):
            answer = call(service.Revoke, a_revocation())
            assert (answer.code, answer.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED"), answer
        assert replica.metric("limits_reached_total", limit="store_memory") == 3
        assert [line["hint"] for line in replica.events("commits_refused")] == [HINTS["memory"]]
        proven = time.monotonic()
        token = installation.signer.sign()
        verifier.ask(do="sample", tokens={"alive": token})
        vouched = proven + MAX_STALENESS_S + 0.5
        until(lambda: verifier.ask(do="state")["fresh_at"] > vouched, "it was vouched for meanwhile")
        store.call("CONFIG", "SET", "maxmemory", 0)
        recovers(service, replica)


def test_a_store_that_cannot_write_to_its_disk(installation: Installation) -> None:
    """MISCONF: after a failed save it refuses changes."""
    store = installation.servers.start(
        {"enable-protected-configs": "yes", "save": "3600 1", "stop-writes-on-bgsave-error": "yes"}
    )
    with serving(installation, store.url) as (replica, service):
        good = store.folder
        gone = good.with_name("gone")
        gone.mkdir()
        store.call("CONFIG", "SET", "dir", str(gone))
        gone.rmdir()
        store.call("BGSAVE")
        until(lambda: store.info("persistence")["rdb_last_bgsave_status"] == "err", "the save has failed")
        refuses(service, replica, "disk")
        store.call("CONFIG", "SET", "dir", str(good))
        store.call("BGSAVE")
        recovers(service, replica)


def test_a_store_with_too_few_replicas_of_its_own(installation: Installation) -> None:
    """NOREPLICAS."""
    store = installation.store()
    with serving(installation, store.url) as (replica, service):
        store.call("CONFIG", "SET", "min-replicas-to-write", 1)
        refuses(service, replica, "replicas")
        store.call("CONFIG", "SET", "min-replicas-to-write", 0)
        recovers(service, replica)


def test_a_store_that_somebody_elses_script_blocks(installation: Installation) -> None:
    """BUSY, or silence: the caller hears within its deadline, and the same op id succeeds afterwards."""
    store = installation.servers.start({"lua-time-limit": "100", "busy-reply-threshold": "100"}, aof=True)
    with serving(installation, store.url) as (replica, service):
        request = a_revocation()
        with pytest.raises(Exception, match=r"."):  # our own connection gives up first
            store.call("EVAL", "while true do end", 0)
        until(lambda: told(replica, "busy"), "the log tells of it")
        assert call(service.Revoke, request).code in {"UNAVAILABLE", "ABORTED"}
        store.call("SCRIPT", "KILL")
        replica.wait_ready()
        assert replica.metric("store_errors_total", kind="busy") > 0
        until(lambda: call(service.Revoke, request).code == "OK", "the retry succeeds")


def test_a_store_that_loads_its_data_is_waited_for(installation: Installation) -> None:
    """LOADING, at start and in operation."""
    store = installation.servers.start({"enable-debug-command": "yes"})
    with serving(installation, store.url, settle_s=0.2) as (replica, service):
        store.call("DEBUG", "POPULATE", 200_000, "ballast", 100)
        store.call("SAVE")
        store.kill()
        _start_without_waiting(store)
        until(lambda: told(replica, "loading"), "the log tells of it")
        answer = call(service.Revoke, a_revocation())
        assert (answer.code, answer.reason) == ("UNAVAILABLE", "STORE_UNAVAILABLE"), answer
        (late,) = [Replica("late", installation.folder, redis_url=store.url)]
        installation.processes.append(late)
        late.start()
        until(lambda: told(late, "loading", "waiting_for_store"), "a service that starts tells of it, too")
        assert replica.metric("store_errors_total", kind="loading") > 0
        store.call("CONFIG", "SET", "key-load-delay", 0)
        recovers(service, replica)


def _start_without_waiting(store: Server) -> None:
    wait, store.wait_ready = store.wait_ready, lambda timeout=0.0: None  # type: ignore[method-assign]
    try:
        _keep_config(store)
    finally:
        store.wait_ready = wait  # type: ignore[method-assign]


def _keep_config(store: Server) -> None:
    store.config |= {"key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"}
    store.start()


def test_a_node_that_was_made_a_replica_is_told_and_left(installation: Installation) -> None:
    """READONLY: the scripts look at the role before they write anything."""
    store, other = installation.store(), installation.store()
    with serving(installation, store.url) as (replica, service):
        store.call("REPLICAOF", "127.0.0.1", other.port)
        refuses(service, replica, "read_only")
        store.call("REPLICAOF", "NO", "ONE")
        recovers(service, replica)


def test_sentinels_that_name_no_primary(installation: Installation) -> None:
    """MasterNotFound."""
    store = installation.store()
    sentinels = installation.servers.sentinels(store)
    url = f"redis+sentinel://{','.join(one.address for one in sentinels)}/main"
    with serving(installation, url) as (replica, service):
        for sentinel in sentinels:
            sentinel.kill()
        until(lambda: call(service.Revoke, a_revocation()).code == "OK", "the primary that is known is enough")
        store.kill()
        refuses(service, replica, "no_primary")
        store.start()
        for sentinel in sentinels:
            sentinel.start()
        recovers(service, replica)


def test_slots_of_a_cluster_that_move_while_revocations_go_on(installation: Installation) -> None:
    """MOVED and ASK: the keys of a partition go to another node, live. Nobody acknowledges or vouches while they are
    on their way; every op id has one record afterwards."""
    nodes = installation.servers.cluster(3)
    under = begin(installation, f"redis+cluster://{nodes[0].address}")
    before, opened, alive = installation.snapshots(), under.opened(), installation.signer.sign()
    slot = int(nodes[0].call("CLUSTER", "KEYSLOT", "revocation:{p0}:meta"))
    source = nodes[slot * 3 // 16_384]
    target = nodes[(nodes.index(source) + 1) % 3]
    source_id, target_id = (node.call("CLUSTER", "MYID") for node in (source, target))
    target.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    source.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    while keys := source.call("CLUSTER", "GETKEYSINSLOT", slot, 20):
        source.call("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    for replica in installation.replicas:
        until(lambda replica=replica: told(replica, "moved"), "the log tells of it")  # type: ignore[misc]
        assert replica.metric("store_errors_total", kind="moved") > 0
        assert not replica.metric("store_errors_total", kind="other"), "something was said that nobody understood"
    for verifier in installation.verifiers:
        until(lambda verifier=verifier: verifier.why(alive) == "unknown", f"{verifier.name} is stale")  # type: ignore[misc]
    for node in (target, source):
        node.call("CLUSTER", "SETSLOT", slot, "NODE", target_id)
    under.load.until_more(50)
    assert under.opened() > opened, "the other node is another store"
    assert installation.snapshots() == before, "a connected client had to take a snapshot"
    under.finish()
    assert_logged_once(under.load, target.url)


# -- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def tls(installation: Installation, tmp_path: Path) -> Callable[[], tuple[Server, int, dict[str, str]]]:
    """A store that speaks TLS and demands certificates: server, port and paths."""
    try:
        installation.servers.binary = find_tls_binary()
    except NoServer as error:
        if os.environ.get("REVOCATION_TEST_TLS") == "required":
            raise
        pytest.skip(str(error))

    def start() -> tuple[Server, int, dict[str, str]]:
        ca, paths = trustme.CA(), {name: str(tmp_path / name) for name in ("ca", "server", "client", "other_ca")}
        ca.cert_pem.write_to_path(paths["ca"])
        trustme.CA().cert_pem.write_to_path(paths["other_ca"])
        for name in ("server", "client"):
            issued = ca.issue_cert("localhost")
            paths[f"{name}_key"] = f"{paths[name]}.key"
            issued.cert_chain_pems[0].write_to_path(paths[name])
            issued.private_key_pem.write_to_path(paths[f"{name}_key"])
        port = free_port()
        config = {
            "tls-port": str(port), "tls-cert-file": paths["server"], "tls-key-file": paths["server_key"],
            "tls-ca-cert-file": paths["ca"], "tls-auth-clients": "yes",
        }  # fmt: skip
        return installation.servers.start(config, aof=True), port, paths

    return start


def query(paths: dict[str, str], **other: str) -> str:
    given = {"ssl_ca_certs": paths["ca"], "ssl_certfile": paths["client"], "ssl_keyfile": paths["client_key"]} | other
    return "&".join(f"{name}={quote(value)}" for name, value in given.items() if value)


WRONG_TLS = {
    "another CA": lambda port, paths: f"rediss://localhost:{port}?{query(paths, ssl_ca_certs=paths['other_ca'])}",
    "no client certificate": lambda port, paths: f"rediss://localhost:{port}?ssl_ca_certs={quote(paths['ca'])}",
    "another name": lambda port, paths: f"rediss://127.0.0.1:{port}?{query(paths)}&ssl_check_hostname=true",
}


@pytest.mark.parametrize("wrong", WRONG_TLS)
def test_a_handshake_that_fails_is_told(
    installation: Installation, tls: Callable[[], tuple[Server, int, dict[str, str]]], wrong: str
) -> None:
    """A service that starts waits for a certificate to be put right, and says what is wrong."""
    _, port, paths = tls()
    replica = Replica("replica", installation.folder, redis_url=WRONG_TLS[wrong](port, paths))
    installation.processes.append(replica)
    replica.start()
    until(lambda: told(replica, "tls", "waiting_for_store"), "the log tells of it")
    assert replica.running


def test_a_certificate_that_goes_bad_in_operation(
    installation: Installation, tls: Callable[[], tuple[Server, int, dict[str, str]]]
) -> None:
    """Connections that are open go on; new ones fail, and are told of."""
    store, port, paths = tls()
    with serving(installation, f"rediss://localhost:{port}?{query(paths)}") as (replica, service):
        foreign = trustme.CA().issue_cert("localhost")
        good = Path(paths["server"]).read_bytes(), Path(paths["server_key"]).read_bytes()
        foreign.cert_chain_pems[0].write_to_path(paths["server"])
        foreign.private_key_pem.write_to_path(paths["server_key"])
        store.kill()
        store.start()
        refuses(service, replica, "tls")
        Path(paths["server"]).write_bytes(good[0])
        Path(paths["server_key"]).write_bytes(good[1])
        store.kill()
        store.start()
        recovers(service, replica)


def test_without_a_server_with_tls_it_is_said_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above are skipped with these words, and fail where REVOCATION_TEST_TLS=required."""
    monkeypatch.setenv("PATH", "")
    find_tls_binary.cache_clear()
    with pytest.raises(NoServer, match="apt-get install redis-server"):
        find_tls_binary()
    find_tls_binary.cache_clear()
