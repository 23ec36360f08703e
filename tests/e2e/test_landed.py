"""Knowing that a revocation landed: who has applied it, at whichever replica, and who has not."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from revocation.cli import main
from revocation_sdk import Landed, RevocationClient, Subscriber
from tests.e2e.installation import MAX_STALENESS_S, PATIENT_S, Installation
from tests.e2e.processes import until
from tests.e2e.releases import previous

pytestmark = pytest.mark.e2e


def followers(installation: Installation, count: int, addresses: str | None = None) -> list[RevocationClient]:
    made = [installation.client(addresses, name=f"client-{number}", max_staleness=PATIENT_S) for number in range(count)]
    for client in made:
        client.start()
    for client in made:
        client.wait_until_fresh(60)
    return made


def names(laggards: Iterable[Subscriber]) -> list[str]:
    return sorted(one.name for one in laggards)


def applied(client: RevocationClient, position: str, count: int) -> Landed | None:
    """What is told once so many have applied it; a wait that is over before all of them could say so tells less."""
    landed = client.await_applied(position, wait_timeout=3)
    return landed if landed.applied == count and not landed.silent_replicas else None


def silent(client: RevocationClient, position: str, replica: str) -> bool:
    """Whether this replica is the only one that has not answered; others may need longer than the wait."""
    landed = client.await_applied(position, wait_timeout=1)
    assert not landed.complete
    return landed.silent_replicas == (replica,)


def test_of_fifty_verifiers_at_three_replicas_the_stopped_one_is_named(installation: Installation) -> None:
    replicas = installation.add_replicas(3, installation.store(aof=False).url)
    clients = [
        client for replica, count in zip(replicas, (17, 16, 16), strict=True)
        for client in followers(installation, count, replica.address)
    ]  # fmt: skip
    stopped = installation.add_verifier("thread", addresses=replicas[2].address, max_staleness=PATIENT_S)
    stopped.wait_fresh(60)
    asking = clients[0]
    # Everybody says that it is there, within one poll and not after the two seconds of a ping.
    landed = asking.revoke_session(str(uuid.uuid4()), wait_for="all", wait_timeout=30).landed
    assert landed is not None
    assert (landed.complete, landed.applied, landed.live, landed.laggards) == (True, 50, 50, ())

    stopped.stop()
    token = installation.signer.sign()
    begun = time.monotonic()
    receipt = asking.revoke_token(token, wait_for="all", wait_timeout=3)
    assert time.monotonic() - begun < 30
    assert receipt.stored
    assert receipt.landed is not None
    assert not receipt.landed.complete
    landed = until(partial(applied, asking, receipt.position, 49), "all but the stopped one have it")
    assert landed is not None
    assert names(landed.laggards) == [stopped.name]
    assert (landed.complete, landed.applied, landed.live, landed.silent_replicas) == (False, 49, 50, ())
    (laggard,) = landed.laggards
    assert (laggard.replica, laggard.identity, laggard.connected) == (replicas[2].id, "anonymous", True)
    assert laggard.lag == 1
    # So many as are needed are there without it.
    few = asking.revoke_session(str(uuid.uuid4()), wait_for=49, wait_timeout=30).landed
    assert few is not None
    assert few.complete

    stopped.resume()
    landed = asking.await_applied(receipt.position, wait_timeout=30)
    assert (landed.complete, landed.applied) == (True, 50)
    assert stopped.why(token) == "revoked"


def test_a_verifier_that_is_gone_is_owed_nothing_once_it_cannot_be_fresh(installation: Installation) -> None:
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url)
    (asking,) = followers(installation, 1)
    verifier = installation.add_verifier("asyncio")
    verifier.wait_fresh()
    verifier.kill()
    at_once = asking.revoke_session("one", wait_for="all", wait_timeout=0.2).landed
    assert at_once is not None
    if not (at_once.complete or at_once.failure or at_once.silent_replicas):  # unless somebody took too long for that
        assert verifier.name in names(at_once.laggards)  # who asks may be too slow for that, too
    landed = asking.revoke_session("two", wait_for="all", wait_timeout=20 * MAX_STALENESS_S).landed
    assert landed is not None
    assert (landed.complete, landed.applied, landed.live) == (True, 1, 1)
    assert replica.running


def test_a_replica_that_does_not_answer_is_named_and_one_that_died_for_as_long_as_it_matters(
    installation: Installation,
) -> None:
    replicas = installation.add_replicas(3, installation.store(aof=False).url)
    (asking,) = followers(installation, 1, replicas[0].address)
    verifier = installation.add_verifier("thread", addresses=replicas[1].address, max_staleness=PATIENT_S)
    verifier.wait_fresh()
    replicas[1].stop()
    receipt = asking.revoke_session("one")
    until(partial(silent, asking, receipt.position, replicas[1].id), "the stopped replica is named")
    replicas[1].resume()
    verifier.wait_fresh()
    verifier.stop()
    replicas[1].kill()
    # Nobody is left who knows of the stopped verifier, so nobody says that all have it before it cannot be fresh.
    receipt = asking.revoke_session("two")
    until(partial(silent, asking, receipt.position, replicas[1].id), "the dead replica is named")
    until(lambda: len(asking.members()) == 2, "the dead member is struck off")
    landed = asking.revoke_session("three", wait_for="all", wait_timeout=50).landed
    assert landed is not None
    assert landed.complete


def test_a_verifier_of_the_release_before_counts_and_is_not_disturbed(
    installation: Installation, tmp_path: Path
) -> None:
    """It knows no poll; what it has applied it tells with its pings."""
    installation.add_replicas(1, installation.store(aof=False).url)
    (asking,) = followers(installation, 1)
    old = installation.add_verifier("thread", release=previous(tmp_path / "release"), max_staleness=PATIENT_S)
    old.wait_fresh()
    streams = old.log().count("Welcome")
    for number in range(3):
        landed = asking.revoke_session(f"session {number}", wait_for="all", wait_timeout=30).landed
        assert landed is not None
        assert (landed.complete, landed.applied, landed.live) == (True, 2, 2)
    assert old.log().count("Welcome") == streams
    found = asking.subscribers()
    assert old.name in {one.name for one in found.subscribers}


def test_a_history_that_changes_meanwhile_makes_nobody_done_by_a_number(installation: Installation) -> None:
    """The store is emptied: what is waited for is asked again, of the history that healing made."""
    store = installation.store(aof=False)
    replicas = installation.add_replicas(2, store.url)
    asking, *_ = [*followers(installation, 2, replicas[0].address), *followers(installation, 2, replicas[1].address)]
    before = [asking.revoke_session(f"before {number}") for number in range(50)]
    store.call("FLUSHALL")
    until(lambda: any(replica.events("history_opened") for replica in replicas), "it is noticed")
    for receipt in (before[-1], asking.revoke_session("after", timeout=30)):
        landed = until(partial(_complete, asking, receipt.position), "all have it", 60)
        assert landed is not None
        assert (landed.applied, landed.live) == (4, 4)


def _complete(client: RevocationClient, position: str) -> Landed | None:
    landed = client.await_applied(position, wait_timeout=10)
    return landed if landed.complete else None


def test_status_lists_the_verifiers_of_all_replicas_and_the_command_line_names_laggards(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    replicas = installation.add_replicas(2, installation.store(aof=False).url)
    clients = [client for replica in replicas for client in followers(installation, 5, replica.address)]
    verifier = installation.add_verifier("thread", max_staleness=PATIENT_S)
    verifier.wait_fresh()
    words = ["--address", replicas[0].address, "--json"]

    def status() -> Any:
        """With every verifier: a replica that does not answer in time is left out, with its own."""
        capsys.readouterr()
        assert main(["status", *words]) == 0
        found = json.loads(capsys.readouterr().out)
        return found if found["verifiers_total"] == len(found["verifiers"]) == 11 else None

    shown = until(status, "all verifiers are listed")
    assert {one["replica"] for one in shown["verifiers"]} == {replica.id for replica in replicas}
    assert all(one["fresh"] and one["connected"] and one["max_staleness_s"] == PATIENT_S for one in shown["verifiers"])
    assert main(["status", *words, "--verifiers", "4"]) == 0
    assert len(json.loads(capsys.readouterr().out)["verifiers"]) == 4
    # Page by page everybody comes, and nobody twice.
    until(lambda: len(pages(clients[0])) == 11, "all are in the pages")

    verifier.stop()

    def laggards() -> list[str]:
        capsys.readouterr()
        assert main(["revoke", "session", "s", *words, "--wait", "all", "--wait-timeout", "1"]) == 1
        told = json.loads(capsys.readouterr().out)
        assert told["stored"] is True
        return [one["name"] for one in told["landed"]["laggards"]]

    until(lambda: laggards() == [verifier.name], "the stopped one is the only one that is named")
    assert main(["revoke", "session", "s", "--address", replicas[0].address, "--wait", "10"]) == 0
    assert "applied by: 10 of 11 live verifiers" in capsys.readouterr().out
    assert main(["revoke", "session", "s", *words, "--wait", "some"]) == 2


def pages(client: RevocationClient) -> list[str]:
    """The instances of all pages."""
    found: list[str] = []
    page = ""
    while True:
        answer, page = client._core.run(client._core.requests.subscribers(3, page), 10)
        found += [one.instance for one in answer.subscribers]
        if not page:
            break
    assert len(found) == len(set(found))
    return found
