"""Traces: a revocation is one, from its caller through the service to the verifiers that applied it.

A sampled `traceparent` in a call's metadata is what it hangs on. The service adds its own spans if it was started with
`--otel`; the trace goes on to the verifiers in any case. Spans carry no identifier (I7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import structlog

from revocation_sdk import _tracing

log = structlog.get_logger("revocation.tracing")

_span: ContextVar[Any] = ContextVar("span", default=None)
_traceparent: ContextVar[str] = ContextVar("traceparent", default="")


class TracingRefused(Exception):
    """Traces cannot be exported; the message says what to do."""


def configure(replica: str, version: str) -> Callable[[], None]:
    """Exports spans by OTLP as the OTEL_* variables say. Returns what ends it, which may block for seconds.

    Raises TracingRefused.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingRefused("--otel needs the extra `otel` (docs/install.md)") from error
    resource = Resource.create({"service.version": version, "service.instance.id": replica})
    if resource.attributes.get("service.name", "").startswith("unknown_service"):  # type: ignore[union-attr]
        resource = resource.merge(Resource({"service.name": "revocation"}))
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


def begin(traceparent: object) -> None:
    """A call begins; in the task that runs it."""
    if not _tracing.sampled(traceparent):
        return
    _traceparent.set(str(traceparent))
    if _tracing.active():
        from opentelemetry import trace

        span = trace.get_tracer("revocation").start_span(
            "revocation.serve", _tracing.parent(str(traceparent)), trace.SpanKind.SERVER
        )
        _span.set(span)
        context = span.get_span_context()
        _traceparent.set(f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}")


def end(method: str, code: str) -> None:
    """The call has ended."""
    span = _span.get()
    if span is not None:
        span.update_name(f"revocation.serve {method}")
        span.set_attribute("rpc.grpc.status", code)
        span.end()
        _span.set(None)
    _traceparent.set("")


def carried() -> str:
    """What goes on to the verifiers: the call's span, or its caller's; empty if it is not traced."""
    return _traceparent.get()


@contextlib.contextmanager
def inner(name: str) -> Iterator[None]:
    """A span inside of the call's; nothing where none is made."""
    span = _span.get()
    if span is None:
        yield
        return
    from opentelemetry import trace

    with trace.get_tracer("revocation").start_as_current_span(
        name, trace.set_span_in_context(span), record_exception=False, set_status_on_exception=False
    ):
        yield
