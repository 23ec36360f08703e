"""A revocation is one trace: from the application that calls, through the service, to the verifiers that apply it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as otlp
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as otlp_grpc

from tests.e2e.installation import Installation
from tests.e2e.processes import until

pytestmark = pytest.mark.e2e


class Collector(otlp_grpc.TraceServiceServicer):
    """An OTLP collector, in small: every span with the name of who sent it."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        self.lock = threading.Lock()

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        with self.lock:
            for resource in request.resource_spans:
                attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
                for scope in resource.scope_spans:
                    self.spans += [(attributes["service.instance.id"], span) for span in scope.spans]
        return otlp.ExportTraceServiceResponse()

    def of(self, trace: str) -> list[tuple[str, Any]]:
        with self.lock:
            return [(who, span) for who, span in self.spans if span.trace_id.hex() == trace]


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made, server = Collector(), grpc.server(ThreadPoolExecutor(4))
    otlp_grpc.add_TraceServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("REVOCATION_OTEL", "true")
    yield made
    server.stop(None)


def test_a_revocation_is_one_trace_to_the_verifiers_of_all_replicas(
    installation: Installation, collector: Collector
) -> None:
    replicas = installation.add_replicas(2, installation.store(aof=False).url)
    caller = installation.add_verifier("thread", addresses=replicas[0].address)
    verifiers = [
        installation.add_verifier(kind, addresses=replica.address)
        for kind, replica in zip(("thread", "asyncio"), replicas, strict=True)
    ]
    for verifier in installation.verifiers:
        verifier.wait_fresh()
    trace = str(caller.ask(do="revoke", sid="planted-session")["trace"])

    def spans() -> dict[str, list[tuple[str, Any]]]:
        found: dict[str, list[tuple[str, Any]]] = {}
        for who, span in collector.of(trace):
            found.setdefault(span.name, []).append((who, span))
        return found

    until(lambda: len(spans().get("revocation.apply", ())) == 3, "all verifiers have told of it")
    caller.ask(do="flush")
    rest = {"logout", "revocation.call Revoke", "revocation.serve Revoke:session", "revocation.commit"}
    found = until(lambda: spans() if rest <= spans().keys() else None, "the rest came")
    assert found is not None
    ((by, root),) = found["logout"]
    assert by == caller.name
    ((_, call),) = found["revocation.call Revoke"]
    ((by, serve),) = found["revocation.serve Revoke:session"]
    assert by == replicas[0].id
    ((_, commit),) = found["revocation.commit"]
    parents = [call.parent_span_id, serve.parent_span_id, commit.parent_span_id]
    assert parents == [root.span_id, call.span_id, serve.span_id]
    applied = found["revocation.apply"]
    assert {who for who, _ in applied} == {caller.name, *(verifier.name for verifier in verifiers)}
    assert {span.parent_span_id for _, span in applied} == {serve.span_id}
    assert all(commit.start_time_unix_nano <= span.start_time_unix_nano for _, span in applied)
    # I7: names, numbers and codes, and nothing about whom it was.
    assert "planted" not in "".join(str(span) for _, span in collector.spans)


def test_what_is_not_traced_makes_no_span(installation: Installation, collector: Collector) -> None:
    installation.add_replicas(1, installation.store(aof=False).url)
    client = installation.client()
    client.wait_until_fresh(30)
    client.revoke_session("s")
    caller = installation.add_verifier("thread")
    caller.wait_fresh()
    trace = str(caller.ask(do="revoke", sid="t")["trace"])
    wanted = {"revocation.apply", "revocation.serve Revoke:session"}
    until(lambda: wanted <= {span.name for _, span in collector.of(trace)}, "the traced one came")
    # The canary and the first revocation came before it.
    served = [span for _, span in collector.spans if span.name.startswith("revocation.serve")]
    assert {span.trace_id.hex() for span in served} == {trace}
