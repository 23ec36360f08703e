"""`revocation doctor`: each finding says what it saw and what to do; a failed check is exit 1."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from revocation.cli.connection import Connection
from revocation.cli.findings import Finding, certificates, configuration, transport
from revocation.cli.findings_store import store
from revocation.cli.output import Exit
from tests.cli.conftest import Cli
from tests.cli.running import Service
from tests.servers import Servers, until


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def store_findings(**flags: object) -> dict[str, Finding]:
    config, findings = configuration(flags)
    assert config is not None, findings
    return by_check(store(config))


def test_a_healthy_service(cli: Cli, service: Service) -> None:
    """Everything is looked at, nothing fails; nobody is identified, and that is a warning."""
    result = cli("doctor", "--address", service.address, "--data-dir", str(service.data_dir), "--json")
    shown = result.json
    assert (result.code, shown["ok"]) == (Exit.OK, True), shown
    looked_at = {finding["check"] for finding in shown["findings"]}
    parts = {"configuration", "store", "eviction", "persistence", "replication", "service", "partition", "clocks"}
    assert parts | {"freshness", "max_staleness"} <= looked_at
    # The canary of a service that has just begun has not been around yet.
    results = {finding["result"] for finding in shown["findings"] if finding["check"] != "canary"}
    assert results == {"ok", "warn"}


def test_no_service(cli: Cli) -> None:
    """Exit 1, with what to check."""
    result = cli("doctor", "--address", "unix:/nowhere", "--timeout", "0.2", "--json")
    assert result.code == Exit.REVOKED
    findings = {finding["check"]: finding for finding in result.json["findings"]}
    assert findings["service"]["result"] == "fail"
    assert "check the address" in findings["service"]["what_to_do"]
    assert findings["store"]["result"] == "skip"


def test_faults_of_the_configuration(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is a finding."""
    monkeypatch.setenv("REVOCATION_PARTITIONS", "99")
    monkeypatch.setenv("REVOCATION_LISTEN", "nowhere")
    result = cli("doctor", "--address", "unix:/nowhere", "--timeout", "0.2", "--json")
    faults = [finding["message"] for finding in result.json["findings"] if finding["check"] == "configuration"]
    assert len(faults) == 2


def test_a_store_that_may_forget(servers: Servers) -> None:
    """Eviction fails, missing persistence warns; an accepted eviction is a warning."""
    server = servers.start({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"})
    found = store_findings(redis_url=server.url)
    assert found["eviction"].result == "fail"
    assert "noeviction" in found["eviction"].what_to_do
    assert found["persistence"].result == "warn"
    assert store_findings(redis_url=server.url, allow_eviction=True)["eviction"].result == "warn"


def test_ack_levels_that_cannot_be_reached(servers: Servers) -> None:
    """fsynced without a file, replicated without replicas, and the URL of a replica."""
    primary = servers.start()
    assert store_findings(redis_url=primary.url, ack="fsynced")["persistence"].result == "fail"
    assert store_findings(redis_url=primary.url, ack="replicated:1")["replication"].result == "fail"
    replica = servers.start(replica_of=primary)
    assert store_findings(redis_url=primary.url, ack="replicated:1")["replication"].result == "ok"
    assert "primary" in store_findings(redis_url=replica.url)["replication"].what_to_do


def test_a_store_that_does_not_answer(servers: Servers) -> None:
    """Wrong password, wrong port: a finding, and no password in it."""
    server = servers.start({"requirepass": "right"})
    for url in (server.url.replace("right", "planted"), "redis://:planted@127.0.0.1:1"):
        found = store_findings(redis_url=url)["store"]
        assert found.result == "fail"
        assert "planted" not in str(found)


@pytest.mark.parametrize(("days", "result"), [(-1, "fail"), (5, "warn"), (100, "ok")])
def test_certificates(tmp_path: Path, days: int, result: str) -> None:
    """Expired, about to expire, fine; of a file, and of what a listener presents."""
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    begin = end - datetime.timedelta(days=200)
    issued = trustme.CA().issue_cert("localhost", not_before=begin, not_after=end)
    pem = tmp_path / "cert.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(pem)
    config, _ = configuration({"tls_cert": pem, "tls_key": pem})
    assert config is not None
    (of_file,) = certificates(config)
    assert of_file.result == result
    with socket.create_server(("127.0.0.1", 0)) as listener:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        thread = threading.Thread(target=_handshakes, args=(listener, context))
        thread.start()
        (presented,) = transport(connection(f"localhost:{listener.getsockname()[1]}", ca=pem))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert presented.result == result


def _handshakes(listener: socket.socket, context: ssl.SSLContext) -> None:
    with suppress(OSError):
        while True:
            plain, _ = listener.accept()
            with plain, suppress(OSError), context.wrap_socket(plain, server_side=True) as secured:
                secured.recv(1)


def connection(address: str, ca: Path | None = None) -> Connection:
    return Connection(
        address=address, realm="default", timeout=5, ca=ca, cert=None, cert_key=None, token_file=None, insecure=False
    )


def test_a_store_that_sentinels_watch(servers: Servers) -> None:
    """Enough of them that agree: fine. One that is alone, or that knows no such primary, is told."""
    primary = servers.start()
    servers.start(replica_of=primary)
    sentinels = servers.sentinels(primary)
    everybody = ",".join(sentinel.address for sentinel in sentinels)
    found = store_findings(redis_url=f"redis+sentinel://{everybody}/main")
    assert found["sentinel"].result == "ok", found
    assert "3 Sentinels" in found["sentinel"].message
    assert found["store"].result == "ok"
    assert store_findings(redis_url=f"redis+sentinel://{everybody}/other")["sentinel"].result == "fail"
    for sentinel in sentinels[1:]:
        sentinel.kill()
    until(lambda: store_findings(redis_url=f"redis+sentinel://{everybody}/main")["sentinel"].result == "fail", "it")


def test_a_cluster(servers: Servers) -> None:
    """Every primary is looked at under its own name; a cluster without some of its slots fails."""
    nodes = servers.cluster()
    url = "redis+cluster://" + ",".join(node.address for node in nodes)
    config, _ = configuration({"redis_url": url})
    assert config is not None
    found = store(config)
    assert by_check(found)["cluster"].result == "ok", found
    assert sum(finding.check == "eviction" for finding in found) == len(nodes)
    assert all(any(node.address in finding.message for finding in found) for node in nodes)
    nodes[0].kill()
    until(
        lambda: "fail" in {finding.result for finding in store(config) if finding.check in {"cluster", "store"}}, "it"
    )
