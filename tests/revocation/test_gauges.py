"""A store that is measured, and gauges that are worked out when somebody asks."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from revocation.fanout.hub import Hub, Subscriber
from revocation.fanout.landing import Verifier
from revocation.gauges import gauges
from revocation.observability.measured import measured
from revocation.observability.telemetry import SCRAPED, Metrics
from revocation.replication.membership import ReplicaOptions
from revocation.replication.partition import Partition
from revocation.replication.replica import Replica
from revocation.store import StoreUnavailable
from revocation.store.memory import MemoryStore
from revocation_sdk._lattice import Kind
from revocation_sdk._position import Position
from tests.store.world import Actor, MemoryWorld, alone, operation, subjects, tokens


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(f"revocation_{name}", labels) or 0.0


async def test_commits_are_counted_by_what_came_of_them() -> None:
    world = MemoryWorld()
    actor, metrics = await alone(world), Metrics(version="1", replica="r")
    store = measured(cast(Any, world.store), metrics, lambda: world.now)
    actor.store = cast(Any, store)
    later = world.now // 1000 + 600
    await actor.commit(operation(1, tokens(later, later)), operation(2, subjects(7, 8, 9)))
    await actor.commit(operation(1, tokens(later, later)))  # a retry adds nothing
    await actor.commit(operation(3, tokens(later), realm="-canary"))
    assert value(metrics, "commits_total", outcome="done") == 3
    assert value(metrics, "rows_committed_total", realm="r") == 5
    assert value(metrics, "rows_committed_total", realm="-canary") == 0
    other = Actor(world, "stranger")
    other.store = cast(Any, store)
    await other.try_commit(operation(4, tokens(later)))
    assert value(metrics, "commits_total", outcome="refused") == 1
    world.store.up = False
    with pytest.raises(StoreUnavailable):
        await actor.try_commit(operation(5, tokens(later)))
    assert value(metrics, "commits_total", outcome="unknown") == 1
    assert value(metrics, "commit_seconds_count", partition="0") == 5


async def test_barriers_heartbeats_and_the_lag_of_the_log_are_timed() -> None:
    world = MemoryWorld()
    actor, metrics = await alone(world), Metrics(version="1", replica="r")
    actor.store = cast(Any, measured(cast(Any, world.store), metrics, lambda: world.now))
    await actor.commit(operation(1, tokens(world.now // 1000 + 600, kind=Kind.TOKEN)))
    await world.advance(250)
    await actor.barrier()
    await actor.beat()
    assert await actor.store.read_log(0, 0, 10, 1000)
    assert await actor.store.read_log(0, 0, 10, 0)  # history, not news
    assert value(metrics, "barrier_seconds_count", partition="0") == 1
    assert value(metrics, "store_seconds_count", partition="0") == 1
    assert value(metrics, "log_lag_seconds_count", partition="0") == 1
    assert value(metrics, "log_lag_seconds_sum", partition="0") == 0.25


class Waiting:
    waiting = 3


async def test_gauges_say_who_follows_and_what_waits() -> None:
    log_id = b"l" * 16
    replica = Replica(
        0, MemoryStore(lambda: 0), ReplicaOptions("m"), lambda *_: None, lambda _: asyncio.sleep(0)
    )  # fmt: skip
    partition: Partition = replica.partition
    partition.log_id = log_id.hex()
    hub = Hub([partition], [], ["default", "-canary"])
    realm, now = hub.realms["default"], time.monotonic()
    partition.realm("default").restart(Position(log_id, 9, bytes(20)))
    for number, answered in enumerate((now, now - 1_000)):
        verifier = Verifier(bytes([number]) * 16, "", "", "", now, answered=answered)
        verifier.applied = (Position(log_id, 9 - 4 * number, bytes(20)),)
        realm.roster.begin(verifier)
        subscriber = Subscriber(verifier)
        subscriber.put(b"x" * 10 * (number + 1))
        realm.subscribers.add(subscriber)
    gone = Verifier(b"g" * 16, "", "", "", now, answered=now)
    realm.roster.begin(gone)
    realm.roster.end(gone, now)

    class FakeNode:
        replicas = (replica,)
        committers = (Waiting(),)

    node = FakeNode()
    node.hub = hub  # type: ignore[attr-defined]
    found = {(name, *labels): amount for name, labels, amount in gauges(cast(Any, node))}
    assert {state: found["verifiers", "default", state] for state in ("fresh", "stale", "left")} == {
        "fresh": 1, "stale": 1, "left": 1,
    }  # fmt: skip
    assert found["verifier_lag_records", "default"] == 4
    assert found["queue_bytes", "default"] == 30
    assert found["queue_longest_bytes", "default"] == 20
    assert found["commits_waiting", "0"] == 3
    assert not any("-canary" in key for key in found)
    assert {key[0] for key in found} == set(SCRAPED)


def test_a_scraped_gauge_is_there_before_anybody_is_asked() -> None:
    metrics = Metrics(version="1", replica="r")
    metrics.gauges = lambda: iter((("queue_bytes", ("default",), 5.0),))
    assert value(metrics, "queue_bytes", realm="default") == 5
    assert {f"revocation_{name}" for name in SCRAPED} <= {family.name for family in metrics.registry.collect()}
