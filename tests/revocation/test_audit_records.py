"""What the records of changes say, on real nodes and a real store: who asked, who agreed, what shares an entry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from revocation.audit.desk import AuditDesk
from revocation.audit.seal import INSTALLATION
from revocation.callers.roles import Caller as Identity
from revocation.clock import system_clock
from revocation.config.settings import load
from revocation.errors import Guarded
from revocation.keys.keyring import Keyring
from revocation.model import Operation, Target, request_digest
from revocation.rails.consent import Consent
from revocation.store.audit import Remembered, Stand
from revocation_sdk._audit import Action, AuditEntry, AuditPoint, AuditRecord, ChainCheck
from revocation_sdk._lattice import Kind
from tests.revocation.session_nodes import SECRET, Caller, Nodes, new_op_id, running

ALICE, BOB = (Identity(name, None, (name,), "admin") for name in ("spiffe://x/alice", "spiffe://x/bob"))
REALM = Target(Kind.REALM, None, "")


@pytest.fixture
async def nodes(redis_url: str, tmp_path: Path) -> AsyncIterator[Nodes]:
    roles = tmp_path / "roles.json"
    roles.touch()
    async with running(redis_url, count=2, realm={"two_person": True}, flags={"roles": roles}) as nodes:
        yield nodes


async def entries(who: Caller) -> list[AuditEntry]:
    """The whole chain, checked."""
    (start,) = await who.node.audit.starts(who.realm, ())
    found = [entry async for entry in who.node.audit.entries(0, who.realm, 0, start.head.number)]
    check = ChainCheck(0, start)
    for entry in found:
        check.add(entry)
    assert check.finish() == []
    return found


async def records(who: Caller) -> list[AuditRecord]:
    return [record for entry in await entries(who) for record in entry.records]


def operation(who: Caller, identity: Identity, reason: str) -> Operation:
    return Operation(
        who.realm, identity.name, new_op_id(), request_digest(b"realm"), role=identity.role, reason=reason
    )  # fmt: skip


async def test_both_persons_are_on_record_under_one_approval(nodes: Nodes) -> None:
    first, second = nodes.caller(0), nodes.caller(1)
    with pytest.raises(Guarded) as asked:
        await first.node.rails.admit(operation(first, ALICE, "breach"), REALM, ALICE, Consent(), first.deadline)
    approval = asked.value.metadata["approval"]
    consent = Consent(approval=approval)
    order = await second.node.rails.admit(operation(second, BOB, "agreed"), REALM, BOB, consent, second.deadline)
    await second.node.service.revoke(order, REALM, second.deadline)
    found = await records(first)
    assert [(record.action, record.actor, record.reason, record.approval) for record in found] == [
        (Action.APPROVAL_ASKED, ALICE.name, "breach", approval),
        (Action.REVOKED, BOB.name, "agreed", approval),
    ]


async def test_what_waits_together_shares_an_entry(nodes: Nodes) -> None:
    who = nodes.caller()
    await asyncio.gather(*(who.revoke(Kind.SUBJECT, f"user-{number}") for number in range(200)))
    found = await entries(who)
    assert sum(len(entry.records) for entry in found) == 200
    assert len(found) < 100
    assert {record.value for record in await records(nodes.caller(1))} == {f"user-{number}" for number in range(200)}


async def test_replicas_take_turns_in_one_chain(nodes: Nodes) -> None:
    for number in range(10):
        await nodes.caller(number % 2).revoke(Kind.SUBJECT, f"user-{number}")
    assert [record.value for record in await records(nodes.caller())] == [f"user-{number}" for number in range(10)]


async def test_under_another_secret_entries_are_unreadable_and_not_forged(nodes: Nodes) -> None:
    who = nodes.caller()
    await who.revoke(Kind.SUBJECT, "alice")
    (entry,) = await entries(who)
    auditor = who.node.audit.auditor
    auditor._keyring = Keyring.parse("k9:" + "C" * 43)
    (unreadable,) = [entry async for entry in who.node.audit.entries(0, who.realm, 0, 1)]
    assert unreadable == replace(
        entry, unreadable="key", log_id="", seen=unreadable.seen, records=(), loss=None
    )  # fmt: skip


async def test_many_realms_are_kept_a_few_at_a_time_and_again_while_there_is_more() -> None:
    """No script goes through all realms, and one with much to drop holds up no other for ever (I8)."""
    realms = ["default", *(f"r{number}" for number in range(1, 25))]
    asked: list[list[str]] = []

    class Store:
        async def keep_audit(
            self, partition: int, log_id: str, retention_ms: int, most: int, remembered: Sequence[Remembered]
        ) -> list[Stand]:
            asked.append([known.realm for known in remembered])
            return [Stand(AuditPoint(), AuditPoint(), 1, more=known.realm == "r12") for known in remembered]

    replica: Any = SimpleNamespace(partition=SimpleNamespace(log_id="00" * 16), clock=system_clock())
    store: Any = Store()
    config = load({"redis_url": "redis://localhost", "realms": {realm: {} for realm in realms}})
    await AuditDesk(config, Keyring.parse(SECRET), [replica], store).keep(0)
    assert max(map(len, asked)) == 10
    assert [realm for realm, *_ in asked].count("r12") == 16
    assert {realm for several in asked for realm in several} == {*realms, INSTALLATION}
