"""The excuse of chaos is as narrow as the tables of docs/guarantees.md."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos import faults
from tests.chaos.cluster import Cluster
from tests.chaos.excuse import lost_at
from tests.chaos.faults import Fault, Loss, Maker


def made(store: Loss = "", *, killed: str = "", begun: float = 100.0, ended: float = 102.0) -> Fault:
    """A fault of the store, or the end of a service replica."""
    return Fault("kind", killed or "store-0", lambda: None, ended - begun, store, bool(killed), begun, ended)


FAILOVER, EMPTIED, HARMLESS = made("suffix"), made("all"), made()
KILLED = made(killed="replica-0")


@pytest.mark.parametrize(
    ("ack", "broken", "excused"),
    [
        ("memory", [FAILOVER, KILLED], True),
        ("memory", [EMPTIED, KILLED], True),
        ("fsynced", [FAILOVER, KILLED], True),
        ("replicated:2", [EMPTIED, KILLED], True),
        ("replicated:2", [FAILOVER, KILLED], False),
        ("memory", [HARMLESS, KILLED], False),
        ("memory", [FAILOVER], False),
        ("memory", [KILLED], False),
        ("memory", [FAILOVER, replace(KILLED, begun=90.0)], False),
        ("memory", [FAILOVER, replace(KILLED, begun=115.0)], False),
        ("memory", [replace(FAILOVER, begun=120.0, ended=125.0), KILLED], False),
        ("replicated:2", [replace(EMPTIED, begun=94.0, ended=94.5), KILLED], False),
        ("memory", [], False),
    ],
)
def test_only_two_copies_that_go_at_once_are_excused(ack: str, broken: list[Fault], excused: bool) -> None:
    assert (lost_at(ack, 100.5, broken, []) is not None) is excused


def test_nothing_is_excused_that_a_replica_holds_which_was_not_killed() -> None:
    both = [FAILOVER, KILLED]
    assert lost_at("memory", 100.5, both, ["replica-0"]) is not None
    assert lost_at("memory", 100.5, both, ["replica-1"]) is None
    assert lost_at("memory", 100.5, both, ["replica-0", "replica-1"]) is None


def test_what_was_seen_before_the_loss_is_not_excused() -> None:
    killed = replace(KILLED, begun=101.0)
    assert lost_at("memory", 100.5, [FAILOVER, killed, replace(KILLED, begun=103.0)], []) == 101.0


class Thing:
    """A process or a server that lets everything be done to it."""

    name = "thing"
    running, stopped = True, False

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: self


def cluster() -> Cluster:
    nodes = [SimpleNamespace(name=f"store-{number}", server=Thing(), proxy=Thing()) for number in range(3)]
    made = SimpleNamespace(
        services=[Thing()], fronts=[Thing()], sentinels=[SimpleNamespace(kill=lambda: None, port=1)],
        verifiers=[Thing(), Thing()], nodes=nodes, primary=lambda: nodes[0], network=Thing(),
    )  # fmt: skip
    return cast(Cluster, made)


@pytest.mark.parametrize("make", dict.fromkeys(faults.FAULTS), ids=lambda make: make.__name__)
def test_what_a_fault_may_take_with_it(make: Maker) -> None:
    """The store loses only by what its primary suffers, and a memory only by SIGKILL."""
    chance = random.Random(1)
    for _ in range(200):
        fault = make(cluster(), chance)
        assert fault.kills == (fault.kind == "service SIGKILL")
        if fault.store == "all":
            assert fault.kind in {"primary restarted empty", "FLUSHALL"}
        elif fault.store:
            assert fault.kind.startswith(("primary", "store n"))
            assert fault.what == "store-0"
            assert fault.seconds > faults.NO_FAILOVER_S or fault.kind == "primary SIGKILL"
