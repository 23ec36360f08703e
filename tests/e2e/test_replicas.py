"""Service replicas come, go, restart and fence each other, and callers notice nothing."""

from __future__ import annotations

import pytest

from tests.e2e.installation import PATIENT_S, Installation, Replica
from tests.e2e.load import Load, assert_kept
from tests.e2e.processes import LIMIT_S, until

pytestmark = pytest.mark.e2e


def test_replicas_restart_in_turn_and_no_revocation_fails(installation: Installation) -> None:
    """A rolling restart: goodbye to the verifiers, exit code 0, no ghost that a history waits for."""
    store = installation.store(aof=False)
    replicas = installation.add_replicas(2, store.url, drain_s=2)
    for kind in ("thread", "asyncio"):
        installation.add_verifier(kind, max_staleness=PATIENT_S)
    client = installation.client()
    client.wait_until_fresh(30)
    load = Load(installation.signer, 3_000)
    for verifier in installation.verifiers:
        verifier.ask(do="sample", tokens=load.tokens)
        verifier.wait_fresh()
    was_unknown = {verifier.name: verifier.ask(do="state")["unknown"] for verifier in installation.verifiers}
    load.start(client, pause_s=0.03, timeout=LIMIT_S)
    for replica in replicas:
        load.until_more(20)
        assert replica.drain() == 0, replica.log()[-2000:]
        load.until_more(20)
        installation.all_moved(replica)
        replica.start()
        replica.wait_ready()
    load.until_more(20)
    load.stop()
    assert not [wanted.failures for wanted in load.all if wanted.failures]
    assert_kept(load, installation.verifiers)
    for verifier in installation.verifiers:
        assert verifier.ask(do="state")["unknown"] == was_unknown[verifier.name], f"{verifier.name} was stale meanwhile"
    ids = sorted(replica.id for replica in replicas)
    until(lambda: sorted(m.id for m in client.members() if m.active and m.confirmed) == ids, "the members are active")
    assert not any(replica.events("member_struck_off") for replica in replicas)


def test_a_second_process_under_the_same_id_fences_the_first(installation: Installation) -> None:
    (first,) = installation.add_replicas(1, installation.store().url)
    client = installation.client()
    client.wait_until_fresh(30)
    client.revoke_session("before")
    second = Replica("second", installation.folder, redis_url=installation.servers._all[0].url)
    second.id = first.id
    second._command[second._command.index("second")] = first.id
    installation.processes.append(second)
    second.start()
    second.wait_ready()
    assert first.wait() == 2
    assert first.events("another_process_took_over")
    other = installation.client(second.address)
    assert other.revoke_session("after").stored
    assert [member.id for member in other.members()] == [first.id]


def test_a_member_that_was_killed_is_struck_off_and_holds_nobody_up(installation: Installation) -> None:
    """Quietly (H10), while the store is well: by force nobody would be struck off within an hour."""
    store = installation.store()
    replicas = installation.add_replicas(3, store.url, strike_after_s=3_600)
    others = replicas[:2]
    clients = [installation.client(replica.address) for replica in others]
    token = installation.signer.sign()
    assert installation.client(replicas[2].address).revoke_token(token).stored
    replicas[2].kill()
    for client in clients:
        until(lambda client=client: len(client.members()) == 2, "the dead member is struck off")  # type: ignore[misc]
    struck = [event for replica in others for event in replica.events("member_struck_off")]
    assert [(event["member"], event["forced"]) for event in struck] == [(replicas[2].id, False)]
    opened = sum(len(replica.events("history_opened")) for replica in others)
    store.call("FLUSHALL")
    until(lambda: sum(len(replica.events("history_opened")) for replica in others) > opened, "it is noticed")
    client = clients[0]
    assert client.revoke_session("s", timeout=LIMIT_S).stored
    # What it had acknowledged, the others held.
    assert installation.add_verifier("thread", addresses=others[0].address).verdict(token) == "revoked"
    # It comes back as a newcomer, and takes part.
    replicas[2].start()
    replicas[2].wait_ready()
    until(lambda: len([member for member in client.members() if member.active]) == 3, "it is a member again")
