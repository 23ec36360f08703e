"""Ack levels: what a service offers, what a call may demand at least, and the answer when the copies are not there."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk import OutcomeUnknown, SessionEnded, Unavailable
from revocation_sdk.errors import InvalidRequest
from tests.cli.running import environment
from tests.e2e.installation import Installation
from tests.e2e.processes import until
from tests.e2e.rpc import a_revocation, call, stub
from tests.e2e.tokens import ISSUER
from tests.servers import Server

pytestmark = pytest.mark.e2e
LEVELS = {"memory": pb.MEMORY, "replicated": pb.REPLICATED, "fsynced": pb.FSYNCED}


@pytest.mark.parametrize(
    ("ack", "offered"),
    [("memory", {"memory"}), ("replicated:1", {"memory", "replicated"}), ("fsynced", {"memory", "fsynced"})],
)
def test_a_call_may_demand_a_level_and_is_refused_where_it_is_not_offered(
    installation: Installation, ack: str, offered: set[str]
) -> None:
    store = installation.store()
    installation.servers.start(replica_of=store)
    (replica,) = installation.add_replicas(1, store.url, ack=ack)
    with stub(replica.address) as service:
        assert call(service.Revoke, a_revocation()).code == "OK"
        for level, number in LEVELS.items():
            before = int(store.call("XLEN", "revocation:{p0}:log"))
            answer = call(service.Revoke, a_revocation(min_ack=number))
            if level in offered:
                assert answer.code == "OK", (level, answer)
            else:
                assert (answer.code, answer.reason, answer.field) == (
                    "FAILED_PRECONDITION", "ACK_NOT_OFFERED", "min_ack",
                )  # fmt: skip
                assert f"--ack {level}" in answer.message
                assert int(store.call("XLEN", "revocation:{p0}:log")) == before


def test_sdk_and_command_line_demand_a_level(installation: Installation) -> None:
    (replica,) = installation.add_replicas(1, installation.store().url, ack="memory")
    client = installation.client()
    assert client.revoke_session("s", min_ack="memory").stored
    calls: list[Any] = [
        lambda: client.revoke_session("s", min_ack="replicated"),
        lambda: client.revoke_tokens([("j", 4_000_000_000)], min_ack="fsynced"),
    ]
    for demand in calls:
        with pytest.raises(InvalidRequest) as refused:
            demand()
        assert (refused.value.reason, refused.value.field) == ("ack_not_offered", "min_ack")
    with pytest.raises(InvalidRequest) as refused:
        client.revoke_session("s", min_ack="all")  # type: ignore[arg-type]
    assert refused.value.field == "min_ack"
    command = [sys.executable, "-m", "revocation", "revoke", "session", "s", "--address", replica.address, "--json"]
    for level, code in (("memory", 0), ("fsynced", 2)):
        done = subprocess.run(
            [*command, "--min-ack", level], capture_output=True, text=True, env=environment(), timeout=60
        )
        assert done.returncode == code, done
    assert json.loads(done.stdout or done.stderr)["error"]["reason"] == "ack_not_offered"


def test_copies_that_are_not_there_leave_the_outcome_unknown_and_the_same_op_id_completes_it(
    installation: Installation,
) -> None:
    primary = installation.store()
    second = installation.servers.start(replica_of=primary)
    installation.add_replicas(1, primary.url, ack="replicated:1")
    client = installation.client()
    client.wait_until_fresh(30)
    assert client.revoke_subject("before", min_ack="replicated").stored
    records = _records(primary)
    second.pause()
    with pytest.raises(OutcomeUnknown) as unknown:
        client.revoke_subject("alice", timeout=2.5)
    assert unknown.value.op_id
    second.resume()
    receipt = until(lambda: _try(client, unknown.value.op_id), "the copies are there again")
    again = client.revoke_subject("alice", op_id=unknown.value.op_id)
    assert again.cutoff == receipt.cutoff
    assert _records(primary) == records + 1


def _try(client: Any, op_id: str) -> Any:
    try:
        return client.revoke_subject("alice", op_id=op_id, timeout=5)
    except (OutcomeUnknown, Unavailable):
        return None


def _records(store: Server) -> int:
    return int(store.call("XLEN", "revocation:{p0}:log"))


def test_a_disk_that_is_not_there_leaves_the_outcome_unknown_and_the_same_op_id_completes_it(
    installation: Installation,
) -> None:
    """As on another server after a failover. Nobody is told that it is on disk, and verifiers stay fresh."""
    store = installation.store()
    (replica,) = installation.add_replicas(1, store.url, ack="fsynced")
    with stub(replica.address) as service:
        assert call(service.Revoke, a_revocation(min_ack=pb.FSYNCED)).code == "OK"
        store.call("CONFIG", "SET", "appendonly", "no")
        request, records = a_revocation(), _records(store)
        for _ in range(3):
            answer = call(service.Revoke, request)
            assert (answer.code, answer.reason) == ("ABORTED", "OUTCOME_UNKNOWN"), answer
        replica.wait_ready()  # it goes on to vouch
        store.call("CONFIG", "SET", "appendonly", "yes")
        until(lambda: call(service.Revoke, request).code == "OK", "it is on disk")
        assert _records(store) == records + 1


def test_ends_of_sessions_follow_ack_and_all_else_about_sessions_follows_session_ack(
    installation: Installation,
) -> None:
    store = installation.store()
    installation.add_replicas(1, store.url, ack="fsynced", session_ack="memory")
    client = installation.client()
    client.wait_until_fresh(30)
    login = client.open_session("alice", issuer=ISSUER, access_token_life=60)
    store.call("CONFIG", "SET", "appendonly", "no")
    assert client.open_session("alice", issuer=ISSUER, access_token_life=60)
    login = client.refresh_session(login.refresh_token, issuer=ISSUER, access_token_life=60)
    with pytest.raises(OutcomeUnknown):
        client.end_session(login.session_id, timeout=2.5)
    with pytest.raises(OutcomeUnknown):
        client.revoke_session(login.session_id, timeout=2.5)


def test_a_login_may_need_more_copies_than_an_end(installation: Installation) -> None:
    """And waits for those of --ack all the same: it looks first, and a look vouches as a barrier does."""
    primary = installation.store()
    second = installation.servers.start(replica_of=primary)
    careful, hasty = (
        installation.add_replicas(1, primary.url, ack=ack, session_ack=session_ack)[0]
        for ack, session_ack in (("memory", "replicated:1"), ("replicated:1", "memory"))
    )
    client, other = installation.client(careful.address), installation.client(hasty.address)
    for one in (client, other):
        one.wait_until_fresh(30)
    login = client.open_session("alice", issuer=ISSUER, access_token_life=60)
    second.pause()
    with pytest.raises(OutcomeUnknown):
        client.open_session("alice", issuer=ISSUER, access_token_life=60, timeout=2.5)
    with pytest.raises(OutcomeUnknown):
        client.refresh_session(login.refresh_token, issuer=ISSUER, access_token_life=60, timeout=2.5)
    assert client.end_session(login.session_id).stored
    with pytest.raises((Unavailable, OutcomeUnknown)):  # which, depends on whose time is over first
        other.open_session("alice", issuer=ISSUER, access_token_life=60, timeout=2.5)


@pytest.mark.parametrize("ack", ["memory", "replicated:1", "fsynced"])
def test_a_store_that_was_emptied_has_no_sessions_and_remembers_all_ends(installation: Installation, ack: str) -> None:
    """Records have one home, the store; ends are entries like all others, and are healed."""
    store = installation.store()
    installation.servers.start(replica_of=store)
    (replica,) = installation.add_replicas(1, store.url, ack=ack)
    client = installation.client()
    client.wait_until_fresh(30)
    login, ended = (client.open_session("alice", issuer=ISSUER, access_token_life=60) for _ in range(2))
    client.end_session(ended.session_id)
    store.call("FLUSHALL")
    until(lambda: len(replica.events("history_opened")) > 1, "it is noticed")
    replica.wait_ready()
    with pytest.raises(SessionEnded) as over:
        client.refresh_session(login.refresh_token, issuer=ISSUER, access_token_life=60)
    assert over.value.reason == "unknown"
    assert client.open_session("alice", issuer=ISSUER, access_token_life=60)
    verifier = installation.add_verifier()
    token, dead = (installation.signer.sign(sub="alice", sid=one.session_id) for one in (login, ended))
    assert (verifier.verdict(token), verifier.verdict(dead)) == ("accepted", "revoked")
