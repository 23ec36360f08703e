"""What the service says about itself: log lines, request ids and metrics. Every metric is defined here, once.

No line and no label carries a token or an identifier (I7): callers log fingerprints and counts, and `redact` is the
net under them. Labels have few values: realms and partitions are configured, methods and codes are ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import random
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from time import perf_counter
from typing import IO, TYPE_CHECKING, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from structlog.types import EventDict, Processor, WrappedLogger

if TYPE_CHECKING:
    from revocation.observability.canary import Beat

REDACTED: Final = "[redacted]"
SENSITIVE: Final = frozenset(
    {
        *("token", "access_token", "refresh_token", "id_token", "jwt", "authorization", "cookie", "bearer"),
        *("jti", "sid", "session_id", "subject", "sub", "client_id", "user", "username", "email", "claims"),
        *("password", "passphrase", "secret", "secrets", "key", "private_key", "realm_key", "credentials"),
    }
)
"""Keys whose values never reach a log, at any depth, whatever their case."""

_JWT = re.compile(r"\beyJ[\w-]{5,}(?:\.[\w-]*){1,4}")
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]*@", re.IGNORECASE)
_DEEPEST = 6
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""Id of the request that this task works on; every log line carries it. Empty outside of requests."""


def begin_request(given: str | None = None) -> str:
    """Sets the request id: the caller's own if it is sane, else a new one. Returns it."""
    chosen = given if given and _REQUEST_ID.fullmatch(given) else f"{random.getrandbits(64):016x}"
    request_id.set(chosen)
    return chosen


def configure_logging(level: str = "info", stream: IO[str] | None = None) -> None:
    """Sends all log lines, those of libraries too, to `stream` (default: standard error).

    One JSON object a line, or a human form on a terminal. Safe to call again.
    """
    stream = sys.stderr if stream is None else stream
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        _add_request_id,
        redact,  # after everything that adds something
    ]
    renderer: Processor = structlog.processors.JSONRenderer(ensure_ascii=False)
    if stream.isatty():
        # Plain tracebacks: the pretty ones print local variables, tokens among them.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for library in ("uvicorn", "asyncio", "grpc", "redis"):
        logging.getLogger(library).setLevel(max(logging.WARNING, root.level))
    logging.raiseExceptions = False  # a closed standard error must not end a request
    global _audit_handler
    _audit_handler = handler if not stream.isatty() and root.level <= logging.INFO else None
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


_audit_handler: logging.StreamHandler[IO[str]] | None = None
_encode = json.JSONEncoder().encode  # ASCII: no name that an identity chose can keep the line from being written


def audit(event: str, **fields: str | int | bool) -> None:
    """One line for a change: the same as from the logger `revocation.audit`, at a tenth of the cost.

    There is one for every revocation, so that the way of all other lines would be the largest part of what it costs.
    """
    handler = _audit_handler
    if handler is None or logging.getLogger().handlers != [handler]:
        structlog.get_logger("revocation.audit").info(event, **fields)
        return
    line: dict[str, object] = {
        key: REDACTED if _sensitive(key) else clean_text(value) if isinstance(value, str) else value
        for key, value in fields.items()
    }
    line |= {"event": event, "level": "info", "logger": "revocation.audit"}
    line["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds")[:-6] + "Z"
    if current := request_id.get():
        line["request_id"] = current
    _audit_lines.append(_encode(line) + "\n")
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        _write_audit_lines(handler)
        return
    global _audit_due
    if _audit_due is not loop:
        # What one round of commits acknowledges is written at once, before the event loop turns to anything else.
        _audit_due = loop
        loop.call_soon(_write_audit_lines, handler)


_audit_lines: deque[str] = deque()
_audit_due: asyncio.AbstractEventLoop | None = None
"""The event loop that will write them."""


def _write_audit_lines(handler: logging.StreamHandler[IO[str]]) -> None:
    global _audit_due
    _audit_due = None
    text = ""
    with contextlib.suppress(IndexError):
        while True:
            text += _audit_lines.popleft()
    # As with all lines, a standard error that is closed or full ends no request.
    with handler.lock or contextlib.nullcontext(), contextlib.suppress(OSError, ValueError):
        handler.stream.write(text)
        handler.stream.flush()


def _add_request_id(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    if current := request_id.get():
        event.setdefault("request_id", current)
    return event


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Removes values of sensitive keys at any depth, and tokens and URL credentials from all text."""
    return {
        # `_record` is the logging module's own and is not rendered.
        key: REDACTED if _sensitive(key) else value if key == "_record" else _clean(value)
        for key, value in event.items()
    }


@lru_cache(maxsize=4096)
def _sensitive(key: object) -> bool:
    return isinstance(key, str) and key.lower().replace("-", "_") in SENSITIVE


def _clean(value: object, depth: int = 0) -> object:
    if depth > _DEEPEST:
        return REDACTED
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return clean_text(value)
        case Mapping():
            return {
                clean_text(str(key)): REDACTED if _sensitive(key) else _clean(item, depth + 1)
                for key, item in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_clean(item, depth + 1) for item in value]
        case bytes() | bytearray() | memoryview():
            return f"[{len(value)} bytes]"  # rows, keys, digests: nothing to read, maybe something to hide
        case _:
            return clean_text(str(value))


def clean_text(text: str) -> str:
    """`text` without what looks like a JWT and without the credentials of URLs."""
    if "eyJ" in text:
        text = _JWT.sub(REDACTED, text)
    return _URL_PASSWORD.sub(r"\1***@", text) if "://" in text else text


_FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
CANARY_FAILURES: Final = ("not_fresh", "refused_before", "not_revoked", "not_refused")
PARTITION_STATES: Final = ("usable", "loading", "healing", "joining", "unreachable", "secret_missing")


SCRAPED: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "verifiers": ("Verifiers that count, by state: fresh, stale, or left while still fresh.", ("realm", "state")),
    "verifier_lag_records": ("Records that the verifier furthest behind has not reported.", ("realm",)),
    "keys_not_refused": ("Signing keys revoked under a master secret that this replica lacks.", ("realm",)),
    "queue_bytes": ("What waits to be sent to all subscribers.", ("realm",)),
    "queue_longest_bytes": ("What waits for the subscriber that reads slowest; its stream ends at 4 MiB.", ("realm",)),
    "commits_waiting": ("Operations that wait for a commit script.", ("partition",)),
    "log_records": ("Number of the last record of the log.", ("partition",)),
    "ring_records": ("Records from which a verifier can resume.", ("realm",)),
    "store_replicas": ("Store replicas that are connected to the primary.", ("partition",)),
    "store_heard_seconds": ("Age of the last heartbeat that the store answered.", ("partition",)),
    "members": ("Service replicas in the registry, by state: active, or not yet.", ("partition", "state")),
}
"""Gauges that are worked out when somebody asks: text and labels by name."""

Sample = tuple[str, tuple[str, ...], float]
"""Name of a gauge in SCRAPED, values of its labels, value."""


class _Scraped(Collector):
    """The gauges of SCRAPED. `describe` tells of them without asking anybody."""

    def __init__(self, gauges: Callable[[], Iterator[Sample]]) -> None:
        self._gauges = gauges

    def describe(self) -> Iterator[Metric]:
        yield from self._families().values()

    def collect(self) -> Iterator[Metric]:
        families = self._families()
        for name, labels, value in self._gauges():
            families[name].add_metric(labels, value)
        yield from families.values()

    @staticmethod
    def _families() -> dict[str, GaugeMetricFamily]:
        return {
            name: GaugeMetricFamily(f"revocation_{name}", text, labels=labels)
            for name, (text, labels) in SCRAPED.items()
        }


class Metrics:
    """The metrics of one replica, in a registry of their own, so that several replicas fit into one process."""

    def __init__(self, *, version: str, replica: str) -> None:
        self.registry = CollectorRegistry()
        self.gauges: Callable[[], Iterator[Sample]] = lambda: iter(())
        """Works out what SCRAPED names, when somebody asks."""
        self.registry.register(_Scraped(lambda: self.gauges()))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        Info("revocation_build", "Version of the service.", registry=self.registry).info(
            {"version": version, "replica": replica}
        )

        self.rpc_requests = counter("rpc_requests", "Finished calls.", "method", "code")
        self.rpc_seconds = histogram("rpc_seconds", "Time that calls took.", "method", "code")

        self.limited = counter("limited", "Calls and streams refused by a limit of their realm.", "realm", "limit")

        self._of_the_store()
        self.limits_reached = counter(
            "limits_reached", "Calls and streams refused by a limit of this replica.", "limit"
        )
        self.canary_seconds = histogram(
            "canary_seconds", "From sending a revocation until a verifier of this replica refuses the token."
        )
        self.canary_failures = counter("canary_failures", f"Failed canaries: {', '.join(CANARY_FAILURES)}.", "reason")
        for reason in CANARY_FAILURES:
            self.canary_failures.labels(reason)
        self.canary_last_seconds = gauge("canary_last_seconds", "What the last canary took; NaN if it failed.")

        self.session_events = counter(
            "session_events", "What happened to sessions: opened, refreshed, repeated, reused, ended, ...", "event"
        )

        self.subscribers = gauge("subscribers", "Open streams of verifiers.", "realm")
        self.snapshots = counter("snapshots", "Snapshots sent, by reason.", "reason")
        self.snapshots_running = gauge("snapshots_running", "Snapshots being sent now.")
        self.resyncs = counter("resyncs", "Streams ended so that the verifier connects again, by reason.", "reason")
        self.queue_overflows = counter("queue_overflows", "Subscribers cut off because they read too slowly.")
        self.view_entries = gauge("view_entries", "Live entries that this replica holds.", "realm")

        self.partition_state = gauge(
            "partition_state", f"1 for the state of the partition, one of {', '.join(PARTITION_STATES)}.",
            *("partition", "state"),
        )  # fmt: skip
        self.history_changes = counter("history_changes", "New histories of a partition, as seen here.", "partition")
        self.waiting_for_members = gauge(
            "waiting_for_members", "Members without whose confirmation a history stays unusable.", "partition"
        )

    def _of_the_store(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.commits = counter("commits", "Commit scripts run, by outcome: done, refused, unknown.", "outcome")
        self.rows_committed = counter("rows_committed", "Rows that acknowledged commits added.", "realm")
        self.rows_put_back = counter(
            "rows_put_back", "Rows that the store had lost under an intact log, put back from memory.", "realm"
        )
        self.commit_seconds = histogram("commit_seconds", "Time that commit scripts took at the store.", "partition")
        self.barrier_seconds = histogram("barrier_seconds", "Time that barriers at the store took.", "partition")
        self.store_errors = counter(
            "store_errors", "Failed calls to the store, and other trouble with it, by kind.", "kind"
        )
        self.store_seconds = histogram("store_seconds", "Time that heartbeats at the store took.", "partition")
        self.log_lag_seconds = histogram(
            "log_lag_seconds", "From a commit, by the store's clock, until it was queued for all subscribers here.",
            "partition",
        )  # fmt: skip
        self.progress_seconds = histogram(
            "progress_seconds", "From a ping until its answer was queued: the slowest of those that share a proof."
        )
        self.clock_skew_seconds = gauge("clock_skew_seconds", "Clock of the service minus clock of the store.")

    def observe_canary(self, beat: Beat) -> None:
        """Takes a measurement of the canary."""
        if beat.failure:
            self.canary_failures.labels(beat.failure).inc()
            self.canary_last_seconds.set(math.nan)
        else:
            self.canary_seconds.observe(beat.seconds)
            self.canary_last_seconds.set(beat.seconds)

    def count_subscribers(self, realm: str, count: int) -> None:
        """How many streams a realm has. The canary is no subscriber: autoscalers count them."""
        if not realm.startswith("-"):
            self.subscribers.labels(realm).set(count)

    def set_partition_state(self, partition: int, state: str) -> None:
        """Says in which one of PARTITION_STATES a partition is now."""
        for known in PARTITION_STATES:
            self.partition_state.labels(str(partition), known).set(known == state)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"revocation_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"revocation_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"revocation_{name}", text, labels, registry=self.registry, buckets=_FAST_S)


@contextlib.contextmanager
def timed(observe: Callable[[float], None]) -> Iterator[None]:
    """Gives the seconds that the block took to `observe`, also when it raises."""
    begin = perf_counter()
    try:
        yield
    finally:
        observe(perf_counter() - begin)
