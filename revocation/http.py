"""What operators and probes ask over plain HTTP: /livez, /readyz, /metrics. Nothing here changes anything.

Runs in the service's own event loop, so that /livez answers exactly as long as that loop turns.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from revocation.address import split_address

MOST_CONNECTIONS = 64
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
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(registry), headers={"content-type": content_type})

    routes = [Route(f"/{page.__name__}", page, methods=["GET"]) for page in (livez, readyz, metrics)]
    return Starlette(routes=routes)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the service decides itself what SIGTERM means."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class OpsServer:
    """Serves `build_app` on one address."""

    def __init__(self, address: str, readiness: Readiness, registry: CollectorRegistry) -> None:
        self._host, self._port = split_address(address)
        self._server = _Server(
            uvicorn.Config(
                build_app(readiness, registry),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                http="h11",
                ws="none",
                limit_concurrency=MOST_CONNECTIONS,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=1,
            )
        )
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
