"""What callers are told while the store is in trouble: what was done, and no fault of ours for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from revocation.callers.roles import Caller as Identity
from revocation.errors import Guarded, OutcomeUnknown, Overloaded, ServiceError, Unavailable
from revocation.model import Operation, Target
from revocation.rails.consent import Consent
from revocation.store import Closed, StoreUnavailable
from revocation_sdk._audit import AuditPoint
from revocation_sdk._lattice import Kind
from tests.revocation.session_nodes import Nodes, new_op_id, running

REALM = Target(Kind.REALM, None, "")
ALICE, BOB = (Identity(name, None, (name,)) for name in ("spiffe://x/alice", "spiffe://x/bob"))


@pytest.fixture
async def nodes(redis_url: str, tmp_path: Path) -> AsyncIterator[Nodes]:
    roles = tmp_path / "roles.json"
    roles.touch()
    async with running(redis_url, partitions=2, realm={"two_person": True}, flags={"roles": roles}) as nodes:
        yield nodes


async def order(nodes: Nodes, who: Identity, approval: str = "") -> Operation:
    operation = Operation("default", who.name, new_op_id(), "d" * 32)
    node = nodes.nodes[0]
    return await node.rails.admit(operation, REALM, who, Consent(approval=approval), nodes.caller().deadline)


async def ask(nodes: Nodes) -> str:
    with pytest.raises(Guarded) as asked:
        await order(nodes, ALICE)
    return asked.value.metadata["approval"]


@pytest.mark.parametrize("state", ["healing", "joining", "loading"])
async def test_an_order_of_two_persons_is_held_while_no_history_is_usable(nodes: Nodes, state: str) -> None:
    """As every other call is, and not answered by a fault of the service."""
    replica = nodes.nodes[0].replicas[0]
    replica._not_usable(state)
    approval = await ask(nodes)
    replica._not_usable(state)
    assert (await order(nodes, BOB, approval)).shared


async def test_an_order_of_two_persons_goes_on_in_the_history_that_follows(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Any = nodes.stores[0]._store
    real, refusals = store.approval, [Closed.HEAL, Closed.REOPEN]

    async def approval(*arguments: Any) -> Any:
        return refusals.pop() if refusals else await real(*arguments)

    monkeypatch.setattr(store, "approval", approval)
    assert await ask(nodes)
    assert not refusals


async def test_an_order_of_two_persons_at_a_store_that_is_full_or_away(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any) -> Closed:
        return Closed.MEMORY

    monkeypatch.setattr(nodes.stores[0]._store, "approval", full)
    with pytest.raises(Overloaded):
        await order(nodes, ALICE)
    nodes.nodes[0].replicas[0]._not_usable("unreachable")
    with pytest.raises(Unavailable) as refused:
        await order(nodes, ALICE)
    assert refused.value.reason == "STORE_UNAVAILABLE"


async def test_a_dry_run_during_which_the_history_ends_is_to_be_asked_again(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = nodes.nodes[0]
    prove = node.service.prove

    async def and_then_heal(deadline: float) -> Any:
        proofs = await prove(deadline)
        for replica in node.replicas:
            replica._not_usable("healing")
        return proofs

    monkeypatch.setattr(node.service, "prove", and_then_heal)
    with pytest.raises(Unavailable):
        await node.rails.impact("default", REALM, nodes.caller().deadline)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([StoreUnavailable("refused", did_nothing=True)], Unavailable),
        ([StoreUnavailable("cut")], OutcomeUnknown),
        ([AuditPoint(), StoreUnavailable("refused", did_nothing=True)], OutcomeUnknown),
    ],
    ids=["nothing was done", "nobody knows", "in one partition"],
)
async def test_a_strike_says_what_was_done_of_it(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, answers: list[Any], told: type[ServiceError]
) -> None:
    async def strike(*_: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(nodes.stores[0]._store, "strike_by_order", strike)
    with pytest.raises(told):
        await nodes.nodes[0].strike("gone")
