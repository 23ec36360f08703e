"""Releases side by side: replicas, verifiers and stored data of one minor version apart, upgraded and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import jwt
import pytest

from revocation_sdk import RefreshReused, RevocationClient, SessionEnded, StatusUnknown, TokenIssuer, TokenRevoked
from tests.e2e.installation import PATIENT_S, Installation, Replica
from tests.e2e.load import Load, assert_done_once, assert_kept, assert_logged_once
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.releases import Release, previous
from tests.e2e.tokens import AUDIENCE, ISSUER

pytestmark = pytest.mark.e2e


@pytest.fixture
def before(tmp_path: Path) -> Release:
    return previous(tmp_path / "previous")


def issuer(installation: Installation, client: RevocationClient) -> TokenIssuer:
    (key,) = installation.signer.keys.values()
    return TokenIssuer(client, key=key, algorithm="ES256", issuer=ISSUER, audience=AUDIENCE, key_id="k1")


def change(installation: Installation, replicas: Sequence[Replica], release: Release | None, load: Load) -> None:
    """Drains one after the other and starts it from another release's code."""
    for replica in replicas:
        assert replica.drain() == 0, replica.log()[-2000:]
        installation.all_moved(replica)
        replica.release = release
        replica.start()
        replica.wait_ready()
        load.until_more(20)


def test_a_rolling_upgrade_and_the_way_back_under_load(installation: Installation, before: Release) -> None:
    """No failed revocation, no verifier stale, one record for each op id, whichever release answered which try."""
    store = installation.store(aof=False)
    replicas = installation.add_replicas(2, store.url, drain_s=2, release=before)
    installation.add_verifier(max_staleness=PATIENT_S, release=before)
    installation.add_verifier("asyncio", max_staleness=PATIENT_S)
    client = installation.client(max_staleness=PATIENT_S)
    client.wait_until_fresh(30)
    load = Load(installation.signer, 3_000)
    for verifier in installation.verifiers:
        verifier.ask(do="sample", tokens=load.tokens)
        verifier.wait_fresh()
    unknown = {verifier.name: verifier.ask(do="state")["unknown"] for verifier in installation.verifiers}
    load.start(client, pause_s=0.03, timeout=LIMIT_S)
    load.until_more(40)
    change(installation, replicas, None, load)
    change(installation, replicas[:1], before, load)
    assert_done_once(load, client, sample=40)  # asked of both releases in turn
    change(installation, replicas[1:], before, load)
    load.stop()
    assert not [wanted.failures for wanted in load.all if wanted.failures]
    installation.add_verifier(release=before)
    installation.add_verifier()
    for verifier in installation.verifiers[2:]:
        verifier.ask(do="sample", tokens=load.tokens)
        verifier.wait_fresh()
        verifier.ask(do="settle")
    assert_kept(load, installation.verifiers)
    assert_logged_once(load, store.url)
    for verifier in installation.verifiers[:2]:
        assert verifier.ask(do="state")["unknown"] == unknown[verifier.name], f"{verifier.name} was stale meanwhile"


def test_sessions_go_on_across_releases(installation: Installation, before: Release) -> None:
    """Opened by either, refreshed by both in turn, ended by the other; reuse is seen whoever rotated."""
    store = installation.store()
    (old,) = installation.add_replicas(1, store.url, release=before)
    (new,) = installation.add_replicas(1, store.url)
    clients = [installation.client(replica.address) for replica in (old, new)]
    for client in clients:
        client.wait_until_fresh(30)
    for first, second in (clients, reversed(clients)):
        opened = issuer(installation, first).login("alice", device="phone")
        once = issuer(installation, second).refresh(opened.refresh_token)
        twice = issuer(installation, first).refresh(once.refresh_token)
        assert [session.device for session in issuer(installation, second).sessions("alice")] == ["phone"]
        with pytest.raises(RefreshReused):
            issuer(installation, second).refresh(opened.refresh_token)
        with pytest.raises(SessionEnded):
            issuer(installation, first).refresh(twice.refresh_token)
        for client in clients:
            until(partial(_refused, client, twice.access_token), "the access token is dead")
        again = issuer(installation, first).login("alice")
        issuer(installation, second).logout_everywhere("alice")
        with pytest.raises(SessionEnded):
            issuer(installation, first).refresh(again.refresh_token)


def _refused(client: RevocationClient, token: str) -> bool:
    claims = jwt.decode(token, options={"verify_signature": False})
    try:
        client.check(claims, key_id="k1")
    except TokenRevoked:
        return True
    except StatusUnknown:
        pass
    return False


@pytest.mark.parametrize("survivor", ["old", "new"])
def test_a_store_that_was_emptied_is_healed_by_whichever_release_lives(
    installation: Installation, before: Release, survivor: str
) -> None:
    """What one release put into the store, the other puts back."""
    store = installation.store()
    (old,) = installation.add_replicas(1, store.url, release=before)
    (new,) = installation.add_replicas(1, store.url)
    both = installation.client()
    both.wait_until_fresh(30)
    tokens = [installation.signer.sign() for _ in range(20)]
    for number, token in enumerate(tokens):
        installation.client((old, new)[number % 2].address).revoke_token(token)
    live, gone = (old, new) if survivor == "old" else (new, old)
    until(lambda: live.metric("subscribers") >= 0 and gone.drain() == 0, "the other has left")
    store.call("FLUSHALL")
    until(lambda: live.events("history_opened"), "it is noticed")
    live.wait_ready()
    gone.start()
    gone.wait_ready()
    installation.add_verifier(addresses=gone.address)
    installation.add_verifier(addresses=gone.address, release=before)
    installation.refused_everywhere(tokens)
