"""The operators' HTTP pages, over a real socket."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from revocation.http.server import MOST_CONNECTIONS, OpsServer
from revocation.observability.telemetry import Metrics


class Replica:
    """What the service passes in: whether it is ready, and its metrics."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.metrics = Metrics(version="1.2.3", replica="r1")

    def readiness(self) -> str | None:
        return self.reason


@asynccontextmanager
async def serving(replica: Replica, address: str = "127.0.0.1:0") -> AsyncIterator[httpx.AsyncClient]:
    server = OpsServer(address, replica.readiness, replica.metrics.registry)
    await server.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://{server.address}", trust_env=False) as client:
            yield client
    finally:
        await server.stop()


@pytest.fixture
def replica() -> Replica:
    return Replica()


async def test_alive_while_not_ready(replica: Replica) -> None:
    """Readiness is the service's word, with its reason; liveness is that the loop turns."""
    async with serving(replica) as client:
        assert (await client.get("/readyz")).status_code == 200
        replica.reason = "healing partition 0"
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json() == {"status": "not_ready", "reason": "healing partition 0"}
        assert (await client.get("/livez")).json() == {"status": "ok"}


async def test_metrics_in_the_format_that_is_asked_for(replica: Replica) -> None:
    """Plain Prometheus text by default, OpenMetrics where the scraper prefers it."""
    replica.metrics.rpc_requests.labels("Revoke", "OK").inc(3)
    async with serving(replica) as client:
        plain = await client.get("/metrics")
        assert 'revocation_rpc_requests_total{code="OK",method="Revoke"} 3.0' in plain.text
        assert plain.headers["content-type"].startswith("text/plain")
        open_metrics = await client.get("/metrics", headers={"accept": "application/openmetrics-text"})
        assert open_metrics.text.endswith("# EOF\n")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/", 404), ("POST", "/livez", 405), ("PUT", "/x", 404)])
async def test_nothing_else_is_there(replica: Replica, method: str, path: str, status: int) -> None:
    """Three pages, to be read."""
    async with serving(replica) as client:
        assert (await client.request(method, path)).status_code == status


async def test_address_in_use_is_an_error_and_not_an_exit(replica: Replica) -> None:
    """The service itself decides what a lost address means."""
    async with serving(replica) as client:
        address = f"127.0.0.1:{client.base_url.port}"
        with pytest.raises(OSError, match="in use"):
            await OpsServer(address, replica.readiness, replica.metrics.registry).start()
        assert (await client.get("/livez")).status_code == 200


async def test_leaves_signals_to_the_service(replica: Replica) -> None:
    """SIGTERM drains the service; uvicorn must not catch it."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with serving(replica) as client:
        await client.get("/livez")
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_stops_before_it_started_and_twice(replica: Replica) -> None:
    """A start that failed half-way can stop everything."""
    server = OpsServer("127.0.0.1:0", replica.readiness, replica.metrics.registry)
    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()


async def test_a_connection_that_never_finishes_its_request_does_not_keep_its_place(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as there may be say half a sentence: probes are answered again when their time is over."""
    monkeypatch.setattr("revocation.http.server.CONNECTION_S", 2.0)
    async with serving(replica) as client:
        port = client.base_url.port
        peers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_CONNECTIONS)]
        for _, writer in peers:
            writer.write(b"GET /livez HTTP/1.1\r\nHost:")
        for reader, writer in peers:
            assert await reader.read() == b""
            writer.close()
        assert (await client.get("/livez")).status_code == 200
