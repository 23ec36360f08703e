"""Dry runs, confirmations and two persons, on real replicas and a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from revocation.callers.roles import Caller as Identity
from revocation.errors import Guarded, InvalidField, Overloaded
from revocation.model import Operation, Target, request_digest
from revocation.rails.consent import Consent, in_words
from revocation.session import impact as counting
from revocation.session.desk import Place
from revocation.session.impact import Impact, SessionCounts
from revocation_sdk._lattice import Kind
from tests.revocation.session_nodes import ISSUER, Caller, Nodes, new_op_id, running

OTHER = "https://other.example"
ALICE, BOB = (Identity(name, None, (name,)) for name in ("spiffe://x/alice", "spiffe://x/bob"))


@pytest.fixture
async def nodes(redis_url: str, tmp_path: Path) -> AsyncIterator[Nodes]:
    roles = tmp_path / "roles.json"
    roles.touch()  # that there is one is all that the configuration wants to know
    realm = {"confirm_above": 5, "two_person": True}
    async with running(redis_url, count=2, partitions=2, realm=realm, flags={"roles": roles}) as nodes:
        yield nodes


def target(kind: Kind, value: str = "", issuer: str | None = ISSUER) -> Target:
    return Target(kind, None if kind is Kind.REALM else issuer, value)


async def impact(who: Caller, kind: Kind, value: str = "", issuer: str | None = ISSUER) -> Impact:
    return await who.node.rails.impact(who.realm, target(kind, value, issuer), who.deadline)


async def admit(
    who: Caller, kind: Kind, value: str = "", issuer: str | None = ISSUER, *, caller: Identity = ALICE,
    operation: Operation | None = None, **consent: Any,
) -> Operation:  # fmt: skip
    operation = operation or Operation(who.realm, caller.name, new_op_id(), request_digest(value.encode()))
    return await who.node.rails.admit(operation, target(kind, value, issuer), caller, Consent(**consent), who.deadline)


async def guarded(awaitable: Any) -> Guarded:
    with pytest.raises(Guarded) as caught:
        await awaitable
    return caught.value


async def some_sessions(who: Caller) -> None:
    """Nine sessions of four users, in two partitions, of two clients and two issuers."""
    for subject, client_id, count in (("alice", "web", 3), ("alice", "app", 1), ("bob", "web", 2), ("carol", "app", 2)):
        for _ in range(count):
            await who.open(subject, client_id)
    await who.open("alice", "web", issuer=OTHER)


async def test_a_dry_run_counts_what_would_end_and_changes_nothing(nodes: Nodes) -> None:
    who, elsewhere = nodes.caller(0), nodes.caller(1)
    await some_sessions(who)
    positions = who.node.service._realm_positions(who.node.realms["default"])
    assert await impact(elsewhere, Kind.REALM) == Impact(9, 4, exact=True)
    assert await impact(elsewhere, Kind.SUBJECT, "alice") == Impact(4, 1, exact=True)
    assert await impact(elsewhere, Kind.SUBJECT, "alice", None) == Impact(5, 2, exact=True), "whichever issuer"
    assert await impact(elsewhere, Kind.SUBJECT, "nobody") == Impact(0, 0, exact=True)
    assert await impact(elsewhere, Kind.CLIENT, "web") == Impact(5, 2, exact=True)
    assert await impact(elsewhere, Kind.CLIENT, "web", None) == Impact(6, 3, exact=True)
    assert await impact(elsewhere, Kind.KEY, "kid:k") == Impact(9, 4, exact=False, at_most=True)
    assert await impact(Caller(nodes.nodes[0], "other"), Kind.REALM) == Impact(0, 0, exact=True)
    assert who.node.service._realm_positions(who.node.realms["default"]) == positions
    for kind in (Kind.TOKEN, Kind.SESSION):
        with pytest.raises(InvalidField, match="dry_run"):
            await impact(who, kind, "x")


async def test_what_has_ended_in_whatever_way_is_not_counted(nodes: Nodes) -> None:
    who = nodes.caller(0)
    await some_sessions(who)
    first = await who.open("dave", "web")
    await who.end(first.sid)
    kept, _ = await who.open("erin", "web"), await who.open("erin", "web")
    await who.end_others(kept)
    await who.revoke(Kind.SUBJECT, "bob")
    assert await impact(who, Kind.REALM) == Impact(8, 4, exact=True), "of erin's the one that was kept, none of bob's"
    await who.revoke(Kind.CLIENT, "app", None)
    assert await impact(who, Kind.REALM) == Impact(5, 3, exact=True)
    await who.revoke(Kind.REALM, "")
    assert await impact(who, Kind.REALM) == Impact(0, 0, exact=True)
    await who.open("alice", "web")
    assert await impact(who, Kind.REALM) == Impact(1, 1, exact=True)
    await nodes.advance(86_400)
    assert await impact(who, Kind.REALM) == Impact(0, 0, exact=True)


async def test_many_entries_are_counted_in_parts(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_ENTRIES_AT_ONCE", 2)
    monkeypatch.setattr(counting, "_NAMES_AT_ONCE", 1)
    await some_sessions(nodes.caller(0))
    assert await impact(nodes.caller(1), Kind.REALM) == Impact(9, 4, exact=True)


async def test_counting_that_takes_too_long_says_at_least(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    who = nodes.caller(0)
    await some_sessions(who)
    monkeypatch.setattr(counting, "COUNT_S", 0.0)
    found = await impact(who, Kind.REALM)
    assert not found.exact
    assert not found.at_most
    assert found.sessions <= 9
    assert in_words(found).startswith("at least")
    key = await impact(who, Kind.KEY, "kid:k")
    assert (key.exact, key.at_most) == (False, False), "all sessions were not seen: it is no upper bound either"


@pytest.mark.parametrize(
    ("kind", "value", "issuer", "sessions"),
    [
        (Kind.REALM, "", None, 9), (Kind.CLIENT, "web", None, 6), (Kind.KEY, "kid:k", None, 9),
    ],
)  # fmt: skip
async def test_a_confirmation_is_due_above_the_realms_number(
    nodes: Nodes, kind: Kind, value: str, issuer: str | None, sessions: int
) -> None:
    who = nodes.caller(0)
    await some_sessions(who)
    refused = await guarded(admit(who, kind, value, issuer))
    assert (refused.reason, refused.metadata) == ("CONFIRMATION_REQUIRED", {"sessions": str(sessions)})
    assert (await guarded(admit(who, kind, value, issuer, confirm=sessions - 2))).reason == "CONFIRMATION_REQUIRED"
    if kind is not Kind.REALM:
        assert await admit(who, kind, value, issuer, confirm=sessions)


async def test_below_the_number_and_for_single_sessions_nothing_is_asked(nodes: Nodes) -> None:
    who = nodes.caller(0)
    await some_sessions(who)
    assert await admit(who, Kind.SUBJECT, "alice")
    assert await admit(who, Kind.SUBJECT, "alice", None), "five is not more than five"
    assert await admit(who, Kind.CLIENT, "app", None)
    assert await admit(who, Kind.SESSION, "sid")
    await who.open("alice", "web", issuer=OTHER)
    refused = await guarded(admit(who, Kind.SUBJECT, "alice", None))
    assert refused.metadata == {"sessions": "6"}, "whichever issuer, among those that this replica has met"


async def test_a_replica_that_has_met_nobody_looks_for_the_subject(nodes: Nodes) -> None:
    """As after a restart: who revokes a subject without naming its issuer means all of them."""
    await some_sessions(nodes.caller(0))
    await nodes.caller(0).open("alice", "web", issuer=OTHER)
    restarted = nodes.caller(1)
    refused = await guarded(admit(restarted, Kind.SUBJECT, "alice", None))
    assert refused.metadata == {"sessions": "6"}
    assert await admit(restarted, Kind.SUBJECT, "bob", None)


@pytest.mark.parametrize(
    ("kind", "value", "issuer"),
    [
        (Kind.REALM, "", None), (Kind.CLIENT, "app", None), (Kind.KEY, "kid:k", None), (Kind.SUBJECT, "bob", None),
        (Kind.SUBJECT, "bob", ISSUER),
    ],
)  # fmt: skip
async def test_what_could_not_be_counted_in_time_needs_a_confirmation(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, kind: Kind, value: str, issuer: str | None
) -> None:
    """At least none is no answer to whether it is more than five."""
    who = nodes.caller(0)
    await some_sessions(who)
    monkeypatch.setattr(counting, "GUARD_COUNT_S", 0.0)
    refused = await guarded(admit(who, kind, value, issuer))
    assert refused.reason == "CONFIRMATION_REQUIRED"
    assert "did not finish" in refused.message
    assert int(refused.metadata["sessions"]) <= 5
    if kind is not Kind.REALM:  # which needs a second person, too
        assert await admit(who, kind, value, issuer, confirm=int(refused.metadata["sessions"]))


async def test_a_realms_dry_runs_hold_up_no_guard_and_few_dry_runs(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three dry runs of one realm, the first of which goes on and on, while another realm revokes."""
    who, elsewhere = nodes.caller(0), Caller(nodes.nodes[0], "other")
    await some_sessions(who)
    count, counting_goes_on, go_on = SessionCounts._count_place, asyncio.Event(), asyncio.Event()

    async def slowly(desk: SessionCounts, place: Place, counted: Any) -> None:
        if place.realm.name == "other":
            counting_goes_on.set()
            await go_on.wait()
        await count(desk, place, counted)

    monkeypatch.setattr(SessionCounts, "_count_place", slowly)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(impact(elsewhere, Kind.REALM))
        await counting_goes_on.wait()
        second = tasks.create_task(impact(elsewhere, Kind.REALM))
        while not elsewhere.sessions._dry_runs._waiting:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        with pytest.raises(Overloaded) as third:
            await impact(elsewhere, Kind.REALM)
        assert third.value.retry_after_ms > 0
        assert (await guarded(admit(who, Kind.CLIENT, "web", None))).metadata == {"sessions": "6"}
        waiting = tasks.create_task(impact(who, Kind.CLIENT, "web", None))
        go_on.set()
    assert first.result() == second.result() == Impact(0, 0, exact=True)
    assert waiting.result() == Impact(6, 3, exact=True)


async def test_a_retry_of_what_was_committed_is_answered_whatever_has_come_since(nodes: Nodes) -> None:
    who = nodes.caller(0)
    operation = Operation("default", ALICE.name, new_op_id(), request_digest(b"web"))
    assert await admit(who, Kind.CLIENT, "web", operation=operation)
    first = await who.node.service.revoke(operation, target(Kind.CLIENT, "web"), who.deadline)
    for number in range(7):
        await who.open(f"user-{number}", "web")
    assert (await guarded(admit(who, Kind.CLIENT, "web"))).reason == "CONFIRMATION_REQUIRED"
    assert await admit(nodes.caller(1), Kind.CLIENT, "web", operation=operation) == operation
    again = await who.node.service.revoke(operation, target(Kind.CLIENT, "web"), who.deadline)
    assert again.cutoff == first.cutoff


async def test_two_persons_commit_once(nodes: Nodes) -> None:
    first, second = nodes.caller(0), nodes.caller(1)
    ordered = Operation("default", ALICE.name, new_op_id(), request_digest(b"realm"))
    asked = await guarded(admit(first, Kind.REALM, operation=ordered))
    again = await guarded(admit(second, Kind.REALM, operation=ordered))
    assert asked.reason == "APPROVAL_REQUIRED"
    assert asked.metadata == again.metadata, "a retry is told the same, by every replica"
    approval = asked.metadata["approval"]
    operations = [await admit(who, Kind.REALM, caller=BOB, approval=approval) for who in (second, first, first)]
    receipts = [await second.node.service.revoke(op, target(Kind.REALM), second.deadline) for op in operations]
    assert len({op.op_id for op in operations}) == 3
    assert len({receipt.cutoff for receipt in receipts}) == 1
    assert [receipt.positions for receipt in receipts] == [receipts[0].positions] * 3


@pytest.mark.parametrize(
    "attempt",
    [
        lambda approval: {"caller": ALICE, "approval": approval},
        lambda approval: {"caller": Identity(BOB.name, None, (ALICE.name, BOB.name)), "approval": approval},
        lambda approval: {"caller": BOB, "approval": approval[::-1]},
        lambda approval: {"caller": BOB, "approval": "../" + approval[3:]},
        lambda approval: {"caller": BOB, "approval": approval + "0"},
    ],
    ids=["the same person", "the same person with a second identity", "another name", "a path", "too long"],
)
async def test_an_approval_is_worth_nothing_to_anybody_else(
    nodes: Nodes, attempt: Callable[[str], dict[str, Any]]
) -> None:
    who = nodes.caller(0)
    approval = (await guarded(admit(who, Kind.REALM))).metadata["approval"]
    refused = await guarded(admit(who, Kind.REALM, **attempt(approval)))
    assert refused.reason == "APPROVAL_INVALID"
    assert approval not in refused.message
    assert await admit(who, Kind.REALM, caller=BOB, approval=approval), "it is still there for a second one"


async def test_an_approval_is_bound_to_its_realm_and_its_time(nodes: Nodes, redis_url: str) -> None:
    who = nodes.caller(0)
    approval = (await guarded(admit(who, Kind.REALM))).metadata["approval"]
    (key,) = await nodes.raw.keys("*approval*")
    assert ALICE.name not in f"{key!r} {await nodes.raw.get(key)!r}", "I7"
    assert 0 < await nodes.raw.pttl(key) <= 600_000
    elsewhere = Caller(nodes.nodes[0], "other")
    assert not (await admit(elsewhere, Kind.REALM, caller=BOB, approval=approval)).shared, "which demands no second one"
    await nodes.raw.delete(key)  # as its expiry does
    assert (await guarded(admit(who, Kind.REALM, caller=BOB, approval=approval))).reason == "APPROVAL_INVALID"


async def test_what_needs_no_second_person_is_not_held_up(nodes: Nodes) -> None:
    who = nodes.caller(0)
    operation = Operation("default", ALICE.name, new_op_id(), "d")
    assert await admit(who, Kind.SUBJECT, "alice", operation=operation) is operation
    other = Caller(nodes.nodes[0], "other")
    assert await admit(other, Kind.REALM, operation=Operation("other", ALICE.name, new_op_id(), "d"))


def test_an_impact_as_people_say_it() -> None:
    assert in_words(Impact(48_213, 16_020, exact=True)) == "48,213 sessions of 16,020 users"
    assert in_words(Impact(9, 4, exact=False, at_most=True)) == "at most 9 sessions of at most 4 users"
