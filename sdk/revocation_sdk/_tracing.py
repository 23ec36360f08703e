"""Traces of the application, carried on: into calls, and into the moment at which a revocation was applied.

Needs `opentelemetry-api` and a tracer provider that the application has set; without either nothing happens and next
to nothing is done. Spans carry no identifier: names of methods, the client's own name, numbers of partitions.
"""

from __future__ import annotations

import re
import time
from collections import OrderedDict, deque
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from revocation_sdk._messages import Changes, TraceNote
from revocation_sdk._position import NOWHERE, Position

try:
    from opentelemetry import trace
except ImportError:  # the application has none
    trace = None  # type: ignore[assignment]

TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
"""W3C Trace Context, version 00."""

_REMEMBERED = 256
_PENDING = 64


def active() -> bool:
    """Whether spans would go anywhere."""
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def sampled(traceparent: object) -> bool:
    """Whether this is the context of a trace that is kept."""
    match = TRACEPARENT.fullmatch(traceparent) if isinstance(traceparent, str) else None
    return match is not None and bool(int(match[3], 16) & 1)


def current() -> str:
    """The current span as a traceparent; empty without one."""
    if trace is None:
        return ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return ""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def parent(traceparent: str) -> Any:
    """A traceparent as an OpenTelemetry context; None for anything else."""
    match = TRACEPARENT.fullmatch(traceparent)
    if match is None or trace is None:
        return None
    flags = trace.TraceFlags(int(match[3], 16))
    context = trace.SpanContext(int(match[1], 16), int(match[2], 16), is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(trace.NonRecordingSpan(context))


def call(method: str) -> AbstractContextManager[object]:
    """The span of one call, retries included, in a trace that has begun; it begins none."""
    if not (current() and active()):
        return _NOTHING
    span: AbstractContextManager[object] = trace.get_tracer("revocation").start_as_current_span(
        f"revocation.call {method}", kind=trace.SpanKind.CLIENT, record_exception=False, set_status_on_exception=False
    )
    return span


_NOTHING = nullcontext()


class AppliedTraces:
    """Makes the span of a revocation that was applied. The note about it may come before or after the record."""

    def __init__(self) -> None:
        self._applied: deque[tuple[int, bytes, int, int, int, int]] = deque(maxlen=_REMEMBERED)
        self._pending: OrderedDict[str, TraceNote] = OrderedDict()

    def changed(self, message: Changes, begun_ns: int) -> None:
        """Records were applied, from `begun_ns` until now."""
        before, after = message.previous, message.position
        self._applied.append((message.partition, after.log_id, before.seq, after.seq, begun_ns, time.time_ns()))
        if self._pending:
            for note in [note for note in self._pending.values() if self._made(note)]:
                del self._pending[note.traceparent]

    def told(self, note: TraceNote) -> None:
        """A revocation belongs to a trace."""
        if sampled(note.traceparent) and not self._made(note):
            self._pending[note.traceparent] = note
            if len(self._pending) > _PENDING:
                self._pending.popitem(last=False)

    def _made(self, note: TraceNote) -> bool:
        demands = [(index, position) for index, position in enumerate(note.positions) if position != NOWHERE]
        found = [self._found(index, position) for index, position in demands]
        known = [times for times in found if times is not None]
        if not known or len(known) < len(found):
            return False
        begun_ns, ended_ns = min(times[0] for times in known), max(times[1] for times in known)
        attributes = {"revocation.partitions": [index for index, _ in demands]}
        tracer = trace.get_tracer("revocation")
        span = tracer.start_span(
            "revocation.apply", parent(note.traceparent), trace.SpanKind.CONSUMER, attributes, start_time=begun_ns
        )
        span.end(ended_ns)
        return True

    def _found(self, index: int, position: Position) -> tuple[int, int] | None:
        for partition, log_id, before, after, begun_ns, ended_ns in reversed(self._applied):
            if partition == index and log_id == position.log_id and before < position.seq <= after:
                return begun_ns, ended_ns
        return None
