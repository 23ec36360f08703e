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
    store = installation.store()
    replicas = installation.add_replicas(3, store.url)
    client = installation.client(replicas[0].address)
    client.wait_until_fresh(30)
    replicas[2].kill()
    until(lambda: len(client.members()) == 2, "the dead member is struck off")
    store.call("FLUSHALL")
    until(lambda: replicas[0].events("history_opened") or replicas[1].events("history_opened"), "it is noticed")
    assert client.revoke_session("s", timeout=LIMIT_S).stored
    # It comes back as a newcomer, and takes part.
    replicas[2].start()
    replicas[2].wait_ready()
    until(lambda: len([member for member in client.members() if member.active]) == 3, "it is a member again")
