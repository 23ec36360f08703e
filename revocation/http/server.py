"""What operators and probes ask over plain HTTP: /livez, /readyz, /metrics. Nothing here changes anything.

Runs in the service's own event loop, so that /livez answers exactly as long as that loop turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import h11
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from revocation.config.address import split_address
from revocation.http.tls import HttpTls, Reloading

MOST_CONNECTIONS = 64
CONNECTION_S = 30.0
"""A connection ends after this long, unless it is just being answered."""

_OPENMETRICS = "application/openmetrics-text"
Readiness = Callable[[], str | None]
"""None when this replica may get calls, else why not, in a few words."""


def build_app(readiness: Readiness, registry: CollectorRegistry) -> Starlette:
    """The ASGI application. Answers JSON, /metrics excepted."""

    async def livez(_request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def readyz(_request: Request) -> Response:
        reason = readiness()
        if reason is None:
            return JSONResponse({"status": "ok"})
        return JSONResponse({"status": "not_ready", "reason": reason}, status_code=503)

    async def metrics(request: Request) -> Response:
        # Of the header only this is looked at: the encoder would answer with what else it finds there.
        wanted = _OPENMETRICS in request.headers.get("accept", "")
        encode, content_type = choose_encoder(_OPENMETRICS + "; version=1.0.0" if wanted else "")
        return Response(encode(registry), headers={"content-type": content_type})

    routes = [Route(f"/{page.__name__}", page, methods=["GET"]) for page in (livez, readyz, metrics)]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False  # a redirect would repeat the request's Host header
    return app


def _bearing(app: ASGIApp) -> ASGIApp:
    """Bears peers that go on wrongly before they are answered: uvicorn would log a traceback for each."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(h11.LocalProtocolError):
            await app(scope, receive, send)

    return call


class _Connection(H11Protocol):
    """A connection that does not last: one that never finishes its request would hold its place for ever."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begins, with a time to end."""
        super().connection_made(transport)
        self._end = self.loop.call_later(CONNECTION_S, self._end_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._end.cancel()
        super().connection_lost(exc)

    def _end_if_idle(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:  # one more moment
            self._end = self.loop.call_later(1.0, self._end_if_idle)
        else:
            self.transport.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the service decides itself what SIGTERM means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class OpsServer:
    """Serves `build_app` on one address."""

    def __init__(
        self, address: str, readiness: Readiness, registry: CollectorRegistry, tls: HttpTls | None = None
    ) -> None:
        """Plain text without `tls`. Raises OSError if its files cannot be used."""
        self._host, self._port = split_address(address)
        config = uvicorn.Config(
            _bearing(build_app(readiness, registry)),
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            http=_Connection,
            ws="none",
            limit_concurrency=MOST_CONNECTIONS,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=1,
        )
        config.load()  # which would make a context of its own, so that ours comes after it
        config.ssl = Reloading(tls).context if tls is not None else None
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None
        self.address = address
        """Where it listens: `HOST:PORT`, the port being the real one once started."""

    async def start(self) -> None:
        """Listens. Raises OSError if the address cannot be had, for instance because it is in use."""
        # Bound here: uvicorn ends the whole process when it cannot bind.
        found = await asyncio.get_running_loop().getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        family, _, _, _, target = found[0]
        listener = socket.create_server(target[:2], family=family, backlog=128)
        listener.setblocking(False)
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.address = f"{host}:{listener.getsockname()[1]}"
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="ops-http")

    async def stop(self) -> None:
        """Finishes what is being answered, for a second at most. Harmless before `start` and when repeated."""
        if self._task is not None:
            self._server.should_exit = True
            await self._task
            self._task = None
