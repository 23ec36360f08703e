"""A client's metrics for the application's own registry: `client.metrics(registry)`. Needs `prometheus_client`.

Pull-based: what can be worked out when somebody scrapes is. Labels are the client's realm and name, never identifiers.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from revocation_sdk._core import Core
from revocation_sdk._counts import APPLY_BUCKETS_S
from revocation_sdk.types import State

LABELS = ("realm", "client")
FAMILIES: dict[str, tuple[type[Any], str, tuple[str, ...]]] = {
    "state": (
        GaugeMetricFamily,
        "1 for the state of the client: idle, connecting, fresh, stale or closed.",
        ("state",),
    ),
    "age_seconds": (GaugeMetricFamily, "How long ago the view was known to be complete; NaN: never.", ()),
    "max_staleness_seconds": (
        GaugeMetricFamily,
        "The largest max_staleness by which this client's verifiers judge.",
        (),
    ),
    "entries": (GaugeMetricFamily, "Live entries of the view.", ()),
    "position": (GaugeMetricFamily, "Number of the last record applied.", ("partition",)),
    "streams_ended": (CounterMetricFamily, "Streams that ended, by why; another one followed.", ("reason",)),
    "apply_seconds": (HistogramMetricFamily, "Time that messages of the stream took to be applied.", ()),
    "verdicts": (
        CounterMetricFamily,
        "Verdicts, by outcome: accepted, accepted_stale, revoked, expired, invalid, unknown, failed.",
        ("outcome",),
    ),
    "cache_hits": (CounterMetricFamily, "Tokens whose signature had been verified before.", ()),
    "cache_misses": (CounterMetricFamily, "Tokens whose signature had to be verified.", ()),
}
"""Kind, text and further labels, by name."""


class ClientsCollector(Collector):
    """Reads clients whenever their registry is collected. One that is gone is left out."""

    def __init__(self) -> None:
        self._clients: WeakKeyDictionary[Core, str] = WeakKeyDictionary()

    def add(self, core: Core, name: str) -> None:
        """Another client. Raises ValueError if one of this realm and name is there already."""
        for known, given in list(self._clients.items()):
            if known is core or (known.realm, given) != (core.realm, name):
                continue
            if known.state() is not State.CLOSED:
                raise ValueError(f"a client of this realm is there under the name {name!r}; give another name=")
            del self._clients[known]  # closed for good, though garbage may not have been collected yet
        self._clients[core] = name

    def describe(self) -> Iterator[Metric]:
        """The families, without asking the clients: the registry looks for names that collide."""
        yield from families().values()

    def collect(self) -> Iterator[Metric]:
        """The families as they are now."""
        found = families()
        for core, name in list(self._clients.items()):
            _Sampled(found, (core.realm, name)).take(core)
        yield from found.values()


class _Sampled:
    """Takes the samples of one client."""

    def __init__(self, found: dict[str, Any], labels: tuple[str, str]) -> None:
        self._found = found
        self._labels = labels

    def take(self, core: Core) -> None:
        following, counts, state = core.following, core.following.counts, core.state()
        for known in State:
            self._add("state", known == state, known.value)
        age = following.age()
        self._add("age_seconds", math.nan if age is None else age)
        self._add("max_staleness_seconds", following.staleness_s)
        self._add("entries", len(core.follower.view))
        for number, position in enumerate(core.follower.positions):
            self._add("position", position.seq, str(number))
        for reason, count in list(counts.streams_ended.items()):
            self._add("streams_ended", count, reason)
        for outcome, count in counts.verdicts().items():
            self._add("verdicts", count, outcome)
        self._add("cache_hits", counts.hits)
        self._add("cache_misses", counts.misses)
        ends = (*map(str, APPLY_BUCKETS_S), "+Inf")
        buckets = list(zip(ends, accumulate(counts.applied), strict=True))
        self._found["apply_seconds"].add_metric(self._labels, buckets, counts.apply_s)

    def _add(self, name: str, value: float, *labels: str) -> None:
        self._found[name].add_metric((*self._labels, *labels), value)


def families() -> dict[str, Any]:
    """Empty families, by name."""
    return {
        name: kind(f"revocation_client_{name}", text, labels=(*LABELS, *more))
        for name, (kind, text, more) in FAMILIES.items()
    }


_collectors: WeakKeyDictionary[CollectorRegistry, ClientsCollector] = WeakKeyDictionary()
_lock = threading.Lock()


def register(core: Core, registry: CollectorRegistry, name: str) -> None:
    """Adds a client to a registry. Raises ValueError if one of this realm and name is there already."""
    with _lock:
        collector = _collectors.get(registry)
        if collector is None:
            collector = ClientsCollector()
            registry.register(collector)
            _collectors[registry] = collector
        collector.add(core, name)
