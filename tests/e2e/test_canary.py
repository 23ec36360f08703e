"""The measured promise, on real replicas: what it measures, whom it disturbs, and what it does not open."""

from __future__ import annotations

import json
import time
from functools import partial

import pytest

from revocation.cli import main
from revocation_sdk import RevocationClient, ServiceError
from tests.e2e.installation import Installation
from tests.e2e.processes import until

pytestmark = pytest.mark.e2e


def test_every_replica_measures_and_is_no_subscriber_of_anybody(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    replicas = installation.add_replicas(2, installation.store(aof=False).url, canary_s=0.1)
    for replica in replicas:
        until(lambda replica=replica: replica.metric("canary_seconds_count") >= 5, "it has measured")  # type: ignore[misc]
        assert replica.metric("canary_failures_total", reason="refused_before") == 0
        assert replica.metric("subscribers") == 0
        assert not replica.events("revoked")  # no line of the audit log for each
    client = installation.client()
    client.wait_until_fresh(30)
    status = client.status()
    assert (status.subscribers, status.entries) == (1, 0)
    assert status.canary is not None
    until(partial(_measures_well, client), "it measures well")
    landed = client.revoke_session("s", wait_for="all", wait_timeout=30).landed
    assert landed is not None
    assert (landed.complete, landed.live) == (True, 1)

    def found() -> list[str]:
        capsys.readouterr()
        assert main(["doctor", "--address", replicas[0].address, "--json"]) in (0, 1)
        findings = json.loads(capsys.readouterr().out)["findings"]
        return [finding["result"] for finding in findings if finding["check"] == "canary"]

    until(lambda: found() == ["ok"], "doctor sees that it measures well")


def _measures_well(client: RevocationClient) -> bool:
    """What was measured last may have met a pause; then it failed."""
    last = client.status().canary
    assert last is not None
    return not last.failure and 0 < last.seconds < 10


def test_its_realm_is_nobody_else_s(installation: Installation) -> None:
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url, canary_s=0.1)
    with (
        RevocationClient(replica.address, realm="-canary") as stranger,
        pytest.raises(ServiceError) as refused,
    ):
        stranger.revoke_realm()
    assert refused.value.reason == "permission_denied"


def test_without_the_store_it_fails_and_says_so_and_goes_on_afterwards(installation: Installation) -> None:
    store = installation.store()
    (replica,) = installation.add_replicas(1, store.url, canary_s=0.1)
    until(lambda: replica.metric("canary_seconds_count") >= 1, "it has measured")
    store.kill()
    until(lambda: replica.metric("canary_failures_total") >= 1, "it fails", 60)
    store.start()
    replica.wait_ready()
    before = replica.metric("canary_seconds_count")
    until(lambda: replica.metric("canary_seconds_count") > before, "it goes on", 60)
    assert replica.drain() == 0


def test_it_can_be_switched_off(installation: Installation) -> None:
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url, canary_s=0)
    client = installation.client()
    client.wait_until_fresh(30)
    assert client.status().canary is None
    assert replica.metric("canary_seconds_count") == 0


def test_what_dashboards_ask_for_is_exported_by_a_running_service(installation: Installation) -> None:
    """With values, for what happens in any service; names alone are held by tests/test_monitoring.py."""
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url, canary_s=0.5)
    client = installation.client()
    client.wait_until_fresh(30)
    client.revoke_tokens([("t", time.time() + 60)])
    until(lambda: replica.metric("canary_seconds_count") >= 1, "it has measured")
    assert replica.metric("rows_committed_total", realm="default") == 1
    for name in (
        "commits_total", "commit_seconds_count", "barrier_seconds_count", "store_seconds_count",
        "log_lag_seconds_count", "progress_seconds_count", "log_records", "members",
        "store_heard_seconds", "rpc_requests_total",
    ):  # fmt: skip
        until(lambda name=name: replica.metric(name) > 0, f"{name} is exported")  # type: ignore[misc]
    until(lambda: replica.metric("verifiers", realm="default", state="fresh") == 1, "the verifier is counted")
