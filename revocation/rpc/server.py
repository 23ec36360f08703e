"""The gRPC server: services, health, reflection, transport and limits in one function."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import structlog
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from revocation import limits
from revocation.callers.auth import Authorizer
from revocation.config.settings import Config
from revocation.node import Node
from revocation.observability.canary import Reserved
from revocation.rpc.audit import AuditServicer
from revocation.rpc.calls import Calls
from revocation.rpc.revocations import RevocationServicer
from revocation.rpc.sessions import SessionServicer
from revocation.rpc.strict import Lenient, one_request, or_empty
from revocation.rpc.watch import Watch
from revocation_api.v1 import audit_pb2, revocation_pb2, session_pb2

log = structlog.get_logger("revocation.rpc")

SERVICE = "revocation.v1.RevocationService"
SESSION_SERVICE = "revocation.v1.SessionService"
AUDIT_SERVICE = "revocation.v1.AuditService"
LIVENESS = "liveness"
"""The name under which the health service says whether the process lives, whatever its store does."""
_SERVICES = (SERVICE, SESSION_SERVICE, AUDIT_SERVICE)
_OPTIONS = (
    ("grpc.max_receive_message_length", limits.MESSAGE_BYTES),
    ("grpc.max_send_message_length", 2 * limits.MESSAGE_BYTES),
    ("grpc.max_metadata_size", limits.METADATA_BYTES),
    # Both sides ask whether the other is there; without it a dead peer lasts a quarter of an hour.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    ("grpc.http2.max_ping_strikes", 0),
    # A mass connect is met by our own admission, not by cancelled calls.
    ("grpc.server.max_pending_requests", 100_000),
    ("grpc.server.max_pending_requests_hard_limit", 200_000),
    ("grpc.so_reuseport", 0),
)


class Server:
    """A started gRPC server. `port` is the one it listens on (0 for a unix socket)."""

    def __init__(self, config: Config, node: Node, authorizer: Authorizer) -> None:
        self.calls = Calls(node.metrics, Reserved(authorizer), node.quotas)
        self._config = config
        self._watch = Watch(self.calls, node)
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (
                _handlers(SERVICE, revocation_pb2.DESCRIPTOR, RevocationServicer(self.calls, node), self._watch),
                _handlers(SESSION_SERVICE, session_pb2.DESCRIPTOR, SessionServicer(self.calls, node), self._watch),
                _handlers(AUDIT_SERVICE, audit_pb2.DESCRIPTOR, AuditServicer(self.calls, node), self._watch),
            )
        )
        lenient: Any = Lenient(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, lenient)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), lenient)
        self.port = self._listen()

    def _listen(self) -> int:
        config = self._config
        if config.tls_cert is None or config.tls_key is None:
            return self._server.add_insecure_port(config.listen)
        credentials = _Certificates(config.tls_cert, config.tls_key, config.client_ca).credentials()
        return self._server.add_secure_port(config.listen, credentials)

    async def start(self) -> None:
        """Begins to serve; not healthy until told so, but alive."""
        await self._health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.set_serving(False)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """What the health service says under the names "" and of the services."""
        known = health_pb2.HealthCheckResponse
        status = known.SERVING if serving else known.NOT_SERVING
        for name in ("", *_SERVICES):
            await self._health.set(name, status)

    async def drain(self, grace_s: float) -> None:
        """Ends gracefully: not healthy, no new calls, goodbye to subscribers, calls under way finish."""
        await self.set_serving(False)
        self.calls.draining = True
        await self._watch.drain(grace_s)
        await self._server.stop(grace_s)


def _handlers(name: str, file: Any, servicer: Any, watch: Watch) -> grpc.GenericRpcHandler:
    """Every method of a service. By hand, because the messages of Watch come encoded from the hub."""
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
    for method in file.services_by_name[name.rpartition(".")[2]].methods:
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        if method.name == "Watch":
            handlers["Watch"] = grpc.stream_stream_rpc_method_handler(
                watch.serve, request_deserializer=or_empty(request.FromString), response_serializer=bytes
            )
        else:
            body, streams = getattr(servicer, method.name), method.server_streaming
            handlers[method.name] = one_request(watch.calls, method.name, body, request, response, streams=streams)
    return grpc.method_handlers_generic_handler(name, handlers)


@asynccontextmanager
async def listening(node: Node, authorizer: Authorizer, address: str) -> AsyncIterator[None]:
    """A second, local listener with callers of its own, while the block runs."""
    calls = Calls(node.metrics, authorizer, node.quotas)
    server, watch = grpc.aio.server(options=_OPTIONS), Watch(calls, node)
    handlers = _handlers(SERVICE, revocation_pb2.DESCRIPTOR, RevocationServicer(calls, node), watch)
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(address)
    await server.start()
    try:
        yield
    finally:
        await server.stop(None)


class _Certificates:
    """Certificates from files, read anew for the next handshake when they have changed."""

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._files = [cert, key, *([client_ca] if client_ca is not None else [])]
        self._stamp = self._stamps()
        self._current = self._configuration()

    def credentials(self) -> grpc.ServerCredentials:
        """Credentials that follow the files. Raises OSError if they cannot be read now."""
        return grpc.dynamic_ssl_server_credentials(
            self._current, self._latest, require_client_authentication=len(self._files) == 3
        )

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        cert, key, *ca = (path.read_bytes() for path in self._files)
        return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=ca[0] if ca else None)

    def _latest(self) -> grpc.ServerCertificateConfiguration:
        """Asked by gRPC before every handshake."""
        stamp = self._stamps()
        if stamp != self._stamp:
            try:
                self._current, self._stamp = self._configuration(), stamp
                log.info("certificates_reloaded")
            except OSError:
                log.warning("certificates_not_reloaded", hint="the last good ones stay in use")
        return self._current

    def _stamps(self) -> tuple[int, ...]:
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in self._files)
