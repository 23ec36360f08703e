"""What a replica's gauges say when somebody asks: who follows, what waits, and how the store is. See SCRAPED."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import chain

from revocation.fanout.hub import RealmHub
from revocation.fanout.landing import lag
from revocation.node import Node
from revocation.observability.telemetry import Sample
from revocation.replication.replica import Replica


def gauges(node: Node) -> Iterator[Sample]:
    """The values now. Called in the event loop: nothing changes meanwhile."""
    now = time.monotonic()  # which event loops go by, too
    hubs = [hub for hub in node.hub.realms.values() if not hub.realm.startswith("-")]
    yield from chain.from_iterable(_of_realm(hub, now) for hub in hubs)
    for replica, committer in zip(node.replicas, node.committers, strict=True):
        yield from _of_partition(replica, committer.waiting)


def _of_realm(hub: RealmHub, now: float) -> Iterator[Sample]:
    verifiers, current = hub.roster.all(now), hub.positions()
    open_ones = [verifier for verifier in verifiers if verifier.connected]
    fresh = sum(verifier.fresh_until > now for verifier in open_ones)
    counts = {"fresh": fresh, "stale": len(open_ones) - fresh, "left": len(verifiers) - len(open_ones)}
    for state, count in counts.items():
        yield "verifiers", (hub.realm, state), count
    yield "verifier_lag_records", (hub.realm,), max((lag(one.applied, current) for one in open_ones), default=0)
    queued = [subscriber.queued_bytes for subscriber in tuple(hub.subscribers)]
    yield "queue_bytes", (hub.realm,), sum(queued)
    yield "queue_longest_bytes", (hub.realm,), max(queued, default=0)
    yield "keys_not_refused", (hub.realm,), sum(history.orphans for history in hub.histories)
    yield "ring_records", (hub.realm,), sum(history.remembered for history in hub.histories)


def _of_partition(replica: Replica, waiting: int) -> Iterator[Sample]:
    name = (str(replica.index),)
    yield "commits_waiting", name, waiting
    yield "log_records", name, replica.partition.seq
    yield "store_replicas", name, replica.registry.replicas
    yield "store_heard_seconds", name, replica.clock.mono() - (replica.heard or 0.0)
    members = list(replica.registry.members.values())
    active = sum(member.active for member in members)
    yield "members", (*name, "active"), active
    yield "members", (*name, "joining"), len(members) - active
