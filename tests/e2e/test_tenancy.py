"""I6 over the wire: whoever is admin of one realm gets nothing of another one's, by whatever he has seen of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from revocation.cli import main
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub
from revocation_sdk import (
    ApprovalRequired,
    InvalidRequest,
    PermissionDenied,
    RevocationClient,
    SessionEnded,
    Unavailable,
)
from revocation_sdk._lattice import parse_groups
from revocation_sdk._requests import make_op_id
from tests.e2e.installation import Installation
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.secured import Secured

pytestmark = pytest.mark.e2e

SHOP, BANK, BANK_TOO = "spiffe://test/shop", "spiffe://test/bank", "spiffe://test/bank-too"
REALMS: dict[str, Any] = {"shop": {"two_person": True}, "bank": {"two_person": True, "confirm_above": 2}}
LIFE = 300


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with Installation(tmp_path_factory.mktemp("tenancy")) as installation:
        binds = [(SHOP, "admin", ["shop"]), (BANK, "admin", ["bank"]), (BANK_TOO, "admin", ["bank"])]
        made = Secured(installation, binds, realms=REALMS)
        made.on(installation.store().url)
        yield made


@pytest.fixture
def shop(secured: Secured) -> Iterator[RevocationClient]:
    with secured.client(SHOP, realm="shop") as client:
        yield client


@pytest.fixture
def bank(secured: Secured) -> Iterator[RevocationClient]:
    with secured.client(BANK, realm="bank") as client:
        yield client


def test_names_of_sessions_are_worth_nothing_in_another_realm(shop: RevocationClient, bank: RevocationClient) -> None:
    grant = bank.open_session("alice", access_token_life=LIFE)
    (listed,) = bank.list_sessions("alice")
    for name in (grant.session_id, listed.handle):
        with pytest.raises(SessionEnded) as unknown:
            shop.get_session(name, subject="alice")
        assert unknown.value.reason == "unknown"
    with pytest.raises(SessionEnded):
        shop.touch_session(grant.session_id)
    with pytest.raises(SessionEnded):
        shop.refresh_session(grant.refresh_token, access_token_life=LIFE)
    with pytest.raises(SessionEnded):
        shop.end_other_sessions("alice", keep=grant.session_id, access_token_life=LIFE)
    shop.end_session(grant.session_id)
    shop.revoke_session(grant.session_id)
    shop.revoke_subject("alice")
    assert shop.list_sessions("alice") == []
    assert shop.impact(subject="alice").sessions == 0
    assert bank.refresh_session(grant.refresh_token, access_token_life=LIFE).generation == 2


def test_an_op_id_of_another_realm_is_just_an_op_id(shop: RevocationClient, bank: RevocationClient) -> None:
    op_id = make_op_id(time.time())
    there = bank.revoke_subject("carol", op_id=op_id)
    here = shop.revoke_subject("dave", op_id=op_id)
    assert here.cutoff != there.cutoff
    assert bank.revoke_subject("carol", op_id=op_id) == there


def test_an_approval_of_another_realm_is_no_approval(shop: RevocationClient, bank: RevocationClient) -> None:
    with pytest.raises(ApprovalRequired) as asked:
        bank.revoke_realm()
    texts = []
    for approval in (asked.value.approval, "0" * 32):
        with pytest.raises(InvalidRequest) as refused:
            shop.revoke_realm(approval=approval)
        assert refused.value.reason == "approval_invalid"
        texts.append(str(refused.value))
    assert len(set(texts)) == 1


def test_another_realms_errors_are_those_of_a_realm_that_is_not_there(secured: Secured) -> None:
    texts = set()
    for realm in ("bank", "nowhere"):
        client = secured.client(SHOP, realm=realm)
        for ask in (client.status, client.revoke_realm, client.impact, lambda client=client: client.list_sessions("a")):
            with pytest.raises(PermissionDenied) as refused:
                ask()
            texts.add((refused.value.reason, str(refused.value)))
        client.close()
    assert texts == {("permission_denied", "this identity may not do that in this realm")}


def beginning(
    secured: Secured, identity: str, realm: str, resume: pb.Positions | None = None
) -> list[pb.WatchResponse]:
    """What a stream says, up to the answer to a first ping."""
    found: list[pb.WatchResponse] = []
    done = threading.Event()

    def talk() -> Iterator[pb.WatchRequest]:
        yield pb.WatchRequest(hello=pb.Hello(realm=realm, protocol=1, resume=resume))
        yield pb.WatchRequest(ping=pb.Ping(nonce=1))
        done.wait(LIMIT_S)

    with secured.channel(identity) as channel:
        for message in RevocationServiceStub(channel).Watch(talk(), timeout=LIMIT_S):
            found.append(message)
            if message.HasField("progress"):
                break
        done.set()
    return found


def fingerprints(messages: list[pb.WatchResponse]) -> set[bytes]:
    """Of all entries that came, in a snapshot or behind it."""
    return {
        group.rows[start : start + 8]
        for message in messages
        for rows in (message.snapshot_chunk.rows, *message.changes.records)
        for group in parse_groups(rows)
        for start in range(0, len(group.rows), 12 if group.kind < 64 else 28)
    }


def test_positions_and_snapshots_of_realms_do_not_mix(
    secured: Secured, shop: RevocationClient, bank: RevocationClient
) -> None:
    for number in range(20):
        shop.revoke_subject(f"user-{number}")
        bank.revoke_subject(f"user-{number}")
    of_shop, of_bank = beginning(secured, SHOP, "shop"), beginning(secured, BANK, "bank")
    assert fingerprints(of_shop)
    assert fingerprints(of_bank)
    assert not fingerprints(of_shop) & fingerprints(of_bank), "the same users, under keys of their own"
    keys = [{key.key for key in messages[0].welcome.keys} for messages in (of_shop, of_bank)]
    assert not keys[0] & keys[1]
    position = of_bank[-1].progress.positions
    again = beginning(secured, SHOP, "shop", position)
    assert [item.intent for item in again[0].welcome.partitions] == [pb.Welcome.SNAPSHOT]
    assert fingerprints(again) == fingerprints(of_shop)
    own = beginning(secured, BANK, "bank", position)
    assert own[0].welcome.partitions[0].intent != pb.Welcome.SNAPSHOT


def test_a_position_of_another_realm_demands_nothing_and_tells_nothing(
    secured: Secured, shop: RevocationClient, bank: RevocationClient
) -> None:
    """It names a number in the same log, which is compared with the realm's own number and with nothing else."""
    claims = {"jti": "j", "exp": int(time.time()) + 600}
    own = shop.revoke_subject("erin").position
    assert shop.check_remote(claims, not_older_than=own, timeout=LIMIT_S).position == own
    ahead = [bank.revoke_subject("erin").position for _ in range(60)][-1]

    def not_reached() -> bool:
        """As for any number that this realm has not reached. It is waited for, and the answer may come too late."""
        with pytest.raises(Unavailable) as refused:
            shop.check_remote(claims, not_older_than=ahead, timeout=3)
        return refused.value.reason == "position_not_reached"

    until(not_reached, "the position is not reached")
    assert shop.check_remote(claims, timeout=LIMIT_S).position == own, (
        "the other realm's changes are none of this one's"
    )


def test_what_the_command_line_says_and_how_it_exits(
    secured: Secured, bank: RevocationClient, capsys: pytest.CaptureFixture[str]
) -> None:
    """5 where a rail holds it back, with what to do about it; then it goes through."""
    ca, cert, key = map(str, secured.files(BANK))
    common = ["--address", secured.replica.address, "--realm", "bank", "--ca", ca, "--cert", cert, "--cert-key", key]

    def run(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = main([*words, *common, "--json"])
        return code, json.loads(capsys.readouterr().out.strip())

    for number in range(4):
        bank.open_session(f"user-{number}", client_id="app", access_token_life=LIFE)
    code, said = run("revoke", "client", "app")
    assert (code, said["error"]["reason"], said["error"]["sessions"]) == (5, "confirmation_required", 4)
    assert "--confirm 4" in said["error"]["message"]
    code, said = run("revoke", "realm", "--yes", "--confirm", "1000")
    assert (code, said["error"]["reason"]) == (5, "approval_required")
    assert f"--approval {said['error']['approval']}" in said["error"]["message"]
    assert run("revoke", "realm", "--yes", "--approval", said["error"]["approval"])[0] == 2, "the same person"
    code, said = run("revoke", "client", "app", "--confirm", "4")
    assert (code, said["stored"]) == (0, True)
    assert run("revoke", "client", "app", "--dry-run")[1]["sessions"] == 0


def test_two_persons_across_a_restart(secured: Secured, bank: RevocationClient) -> None:
    """What the first one asked for waits in the store; the second one's order commits, once."""
    for number in range(3):
        bank.open_session(f"restart-{number}", access_token_life=LIFE)
    count = bank.impact().sessions
    assert count >= 3
    with pytest.raises(ApprovalRequired) as asked:
        bank.revoke_realm(confirm=count)
    replica = secured.replica
    replica.kill()
    replica.start()
    replica.wait_ready()
    assert bank.impact().sessions == count
    with pytest.raises(InvalidRequest):
        bank.revoke_realm(approval=asked.value.approval)
    with secured.client(BANK_TOO, realm="bank") as second:
        receipts = [second.revoke_realm(approval=asked.value.approval) for _ in range(3)]
    assert len({receipt.cutoff for receipt in receipts}) == 1
    assert bank.impact().sessions == 0


def test_who_may_not_revoke_may_not_look_at_what_would_end(secured: Secured) -> None:
    """A dry run needs the role of the revocation."""
    request = pb.RevokeRequest(realm="bank", dry_run=True, whole_realm=pb.RealmTarget())
    with secured.channel(SHOP) as channel:
        stub = RevocationServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Revoke(request, timeout=LIMIT_S)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
