"""Decisions of the service that need no store to be seen."""

from __future__ import annotations

import copy
import time
import uuid
from types import SimpleNamespace
from typing import Any, cast

import pytest

from revocation.config.settings import load
from revocation.errors import InvalidField, OutcomeUnknown, Overloaded, ServiceError, Unavailable
from revocation.keys.keyring import Keyring, new_secret
from revocation.model import Operation, Target, Tokens
from revocation.node import Node
from revocation.observability.telemetry import Metrics
from revocation.realms import RealmSettings
from revocation.service import Realm, Revocations
from revocation.store import Denials, Op, OpResult, OpState
from revocation.store.memory import MemoryStore
from revocation_sdk._lattice import DENIAL, Kind, RealmKey
from revocation_sdk._position import NOWHERE, Position
from revocation_sdk._requests import make_op_id

NOW_S = int(time.time())
LOG, OTHER_LOG, OLD_LOG = "00" * 16, "01" * 16, "02" * 16


class World:
    """A service whose clocks stand where a test puts them, and that keeps what it is asked to commit."""

    def __init__(self, partitions: int) -> None:
        self.now_s = NOW_S
        self.ops: list[Op] = []
        replica = SimpleNamespace(
            heard=1.0,
            store_ms=lambda: self.now_s * 1000,
            clock=SimpleNamespace(wall_ms=lambda: self.now_s * 1000),
            partition=SimpleNamespace(log_id=LOG),
        )
        self.realm = realm = Realm("default", RealmSettings(), (RealmKey(7, b"k" * 32),))
        self.slack_s = realm.slack_s
        committers = [self] * partitions
        self.replicas = [copy.copy(replica) for _ in range(partitions)]
        self.service = Revocations({"default": realm}, cast(Any, self.replicas), cast(Any, committers), [])

    async def commit(self, op: Op, deadline: float) -> OpResult:
        self.ops.append(op)
        return OpResult(OpState.DONE, realm_seq=1, realm_digest=bytes(20), log_id=LOG)

    def committed(self) -> dict[str, set[bytes]]:
        """Rows by op record."""
        found = {}
        for op in self.ops:
            rows = [group.rows for group in op.groups if isinstance(group, Denials)]
            found[op.key] = {DENIAL.pack(*row) for packed in rows for row in DENIAL.iter_unpack(packed)}
        self.ops.clear()
        return found


def operation() -> Operation:
    return Operation("default", "somebody", uuid.UUID(make_op_id(NOW_S)), "0" * 32)


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_retry_of_a_batch_divides_it_as_the_first_try_did_although_a_part_has_expired(partitions: int) -> None:
    """Else an item that moved into a part which was committed before would be acknowledged and never stored (I2)."""
    world = World(partitions)
    tokens = Tokens(
        None,
        [f"jti-{number}" for number in range(2_000)],
        [NOW_S + (300 if number % 7 else 1 - world.slack_s) for number in range(2_000)],
    )
    same = operation()
    await world.service.revoke_tokens(same, tokens, 0)
    first = world.committed()
    assert sum(map(len, first.values())) == len(tokens.values)
    world.now_s += 60  # every seventh is over now
    await world.service.revoke_tokens(same, tokens, 0)
    second = world.committed()
    assert 0 < sum(map(len, second.values())) < len(tokens.values)
    for key, rows in second.items():
        assert rows <= first[key]


async def test_the_clock_of_a_partition_that_has_not_answered_yet_does_not_count() -> None:
    """It stands at the start of the machine: every token would be beyond the horizon, for good in the caller's eyes."""
    world = World(2)
    world.replicas[1].heard, world.replicas[1].store_ms = None, lambda: 5_000
    await world.service.revoke_tokens(operation(), Tokens(None, ["a"], [NOW_S + 600]), 0)
    await world.service.revoke(operation(), Target(Kind.TOKEN, None, "b", NOW_S + 600), 0)
    assert len(world.ops) == 2


async def test_the_skew_of_a_store_that_has_not_answered_yet_is_none() -> None:
    config = load({"redis_url": "redis://127.0.0.1", "partitions": 2})
    store, metrics = MemoryStore(lambda: 0, partitions=2), Metrics(version="0", replica="r")
    node = Node(config, Keyring.parse(new_secret()), store, metrics, replica_id="r", alone=True)
    assert abs(node.clock_skew_ms()) < 60_000
    node.replicas[0].heard, node.replicas[0]._store_offset = 0.0, 1e12
    assert node.store_ms() >= 1e12


async def test_a_batch_of_which_all_has_expired_commits_nothing() -> None:
    world = World(1)
    tokens = Tokens(None, [f"jti-{number}" for number in range(600)], [NOW_S - 600] * 600)
    receipt = await world.service.revoke_tokens(operation(), tokens, 0)
    assert not receipt.stored
    assert not world.ops


async def test_a_batch_names_the_item_that_is_beyond_the_horizon_also_if_it_is_the_only_one() -> None:
    world = World(1)
    too_late = Target(Kind.TOKEN, None, "a", NOW_S + 40 * 86_400)
    with pytest.raises(InvalidField) as of_batch:
        await world.service.revoke_tokens(operation(), Tokens(None, ["a"], [too_late.expires_at]), 0)
    with pytest.raises(InvalidField) as of_one:
        await world.service.revoke(operation(), too_late, 0)
    assert (of_batch.value.field, of_one.value.field) == ("items[0].expires_at", "token.expires_at")


@pytest.mark.parametrize("partitions", [1, 3])
async def test_a_batch_is_divided_as_release_0_1_0_divided_it(partitions: int) -> None:
    """A retry may reach the other release: `op/k` must mean the same rows there, or some are never stored (I2)."""
    world = World(partitions)
    tokens = Tokens("issuer", [f"jti-{number}" for number in range(2_345)], [NOW_S + 300] * 2_345)
    same = operation()
    await world.service.revoke_tokens(same, tokens, 0)
    by_partition: dict[int, list[bytes]] = {}
    key = world.realm.keys[0]
    for value in tokens.values:
        row = DENIAL.pack(key.fingerprint(Kind.TOKEN, "issuer", value), NOW_S + 300 + world.slack_s)
        home = key.fingerprint(Kind.TOKEN, None, value) % partitions
        by_partition.setdefault(home, []).append(row)
    pieces = [
        set(rows[start : start + 500]) for _, rows in sorted(by_partition.items()) for start in range(0, len(rows), 500)
    ]
    assert world.committed() == {same.key(number): rows for number, rows in enumerate(pieces)}


@pytest.mark.parametrize("first", [Unavailable("nothing was committed"), Overloaded("full", retry_after_ms=1)])
@pytest.mark.parametrize("done", [0, 1])
async def test_a_batch_of_which_a_part_may_have_been_committed_is_an_unknown_outcome(
    first: ServiceError, done: int
) -> None:
    """Whatever the other parts say: "nothing was committed" must be true of all of them."""
    world = World(1)
    outcomes: list[Any] = [first, OutcomeUnknown("perhaps"), first, OpResult(OpState.DONE)][: 3 + done]
    answers = iter(outcomes)

    async def commit(op: Op, deadline: float) -> OpResult:
        answer: Any = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return cast(OpResult, answer)

    world.commit = commit  # type: ignore[method-assign]
    tokens = Tokens(
        None, [f"jti-{number}" for number in range(500 * len(outcomes))], [NOW_S + 300] * 500 * len(outcomes)
    )
    with pytest.raises(OutcomeUnknown):
        await world.service.revoke_tokens(operation(), tokens, 0)


def acknowledged(realm_seq: int, log_id: str) -> OpResult:
    return OpResult(OpState.DONE, realm_seq=realm_seq, realm_digest=bytes([realm_seq]) * 20, log_id=log_id)


def position(realm_seq: int, log_id: str) -> Position:
    return Position(bytes.fromhex(log_id), realm_seq, bytes([realm_seq]) * 20)


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ([acknowledged(5, LOG)], position(5, LOG)),
        ([acknowledged(5, LOG), acknowledged(4, LOG)], position(5, LOG)),
        ([acknowledged(5, LOG), acknowledged(6, LOG)], position(6, LOG)),
        # A history that lost a suffix is in force: its numbers are smaller, and what was lost has been put back.
        ([acknowledged(50, LOG), acknowledged(40, OTHER_LOG)], position(40, OTHER_LOG)),
        ([acknowledged(40, OTHER_LOG), acknowledged(50, LOG)], position(40, OTHER_LOG)),
        ([acknowledged(50, LOG), acknowledged(40, OTHER_LOG), acknowledged(41, OTHER_LOG)], position(41, OTHER_LOG)),
        ([acknowledged(50, LOG), acknowledged(60, OLD_LOG)], position(50, LOG)),
    ],
)
async def test_a_receipt_names_the_history_in_which_it_was_acknowledged(
    results: list[OpResult], told: Position
) -> None:
    """The number of one history is none of another: a caller would wait for a record that is no promise there."""
    world, answers = World(2), iter(results)

    async def commit(op: Op, deadline: float) -> OpResult:
        for replica in world.replicas:  # the history changes between the acknowledgements and the receipt
            replica.partition = SimpleNamespace(log_id=OTHER_LOG)
        return next(answers)

    world.commit = commit  # type: ignore[method-assign]
    tokens = Tokens(None, ["jti"] * 500 * len(results), [NOW_S + 300] * 500 * len(results))  # of one partition
    receipt = await world.service.revoke_tokens(operation(), tokens, 0)
    assert set(receipt.positions) == {NOWHERE, told}
