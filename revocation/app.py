"""The composition root: what `revocation serve` runs, in the order in which it starts and stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import signal
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
import uvloop

from revocation import __version__
from revocation.callers.auth import AnonymousAdmin, RoleAuthorizer
from revocation.callers.roles import RolesInvalid
from revocation.config.address import is_local
from revocation.config.settings import Config
from revocation.embedded import EmbeddedError, EmbeddedStore
from revocation.gauges import gauges
from revocation.http.server import OpsServer, Readiness
from revocation.http.tls import HttpTls
from revocation.keys.keyring import Keyring, SecretInvalid, new_secret, secret_of_directory
from revocation.node import Node
from revocation.observability import canary, tracing
from revocation.observability.telemetry import Metrics
from revocation.replication.replica import Superseded
from revocation.rpc.server import Server, listening
from revocation.store import StoreRefused, StoreUnavailable
from revocation.store.connect import connect
from revocation.store.redis import RedisStore

log = structlog.get_logger("revocation")
_HEALTH_S = 0.1
_CONNECT_RETRY_S = 0.2
_KeepSecret = Callable[[], Awaitable[object]] | None


class StartRefused(Exception):
    """The service cannot start as configured; the message says what to do. Exit code 2."""


def run(config: Config) -> int:
    """Serves until a signal ends it. Returns the exit code: 0 after a clean end, 2 if it may not start."""
    try:
        with contextlib.ExitStack() as stack:
            # What was imported stays; and a service that holds much, and makes little that refers to itself, must not
            # look through all of it again and again.
            gc.freeze()
            gc.set_threshold(50_000, 20, 100)
            # From the main thread, and before any loop or channel exists.
            embedded = stack.enter_context(EmbeddedStore(config.data_dir)) if config.embedded else None
            return uvloop.run(_serve(config, embedded))
    except (EmbeddedError, SecretInvalid, StoreRefused, StartRefused, RolesInvalid, tracing.TracingRefused) as error:
        log.error("cannot_start", why=str(error))
        return 2


async def _serve(config: Config, embedded: EmbeddedStore | None) -> int:
    stopping = _stop_on_signal()
    async with AsyncExitStack() as stack:
        store = await _store(config, embedded, stack)
        store_name = await _connect(store, stopping)
        keyring, keep_secret = await _keyring(config, embedded, store)
        replica_id = _replica_id(config, embedded)
        metrics = Metrics(version=__version__, replica=replica_id)
        node = Node(
            config, keyring, store, metrics,
            replica_id=replica_id, alone=embedded is not None, keep_secret=keep_secret,
        )  # fmt: skip
        node.store_name = store_name
        if config.otel:
            stack.push_async_callback(asyncio.to_thread, tracing.configure(replica_id, __version__))
        metrics.gauges = lambda: gauges(node)
        store.on_trouble = lambda kind: metrics.store_errors.labels(kind).inc()
        watching = asyncio.create_task(store.watch_eviction(), name="eviction")
        stack.push_async_callback(_cancelled, watching)
        running = asyncio.create_task(node.run(), name="node")
        server = await _start_server(config, node)
        if config.http_listen is not None:
            ops = await _listen_http(config, config.http_listen, lambda: _not_ready(node, stopping), metrics)
            stack.push_async_callback(ops.stop)
        await stack.enter_async_context(_health(server, node))
        log.info("serving", listen=config.listen, port=server.port, store=store_name, replica=replica_id)
        return await _until_stopped(config, node, server, running, stopping)


async def _until_stopped(
    config: Config, node: Node, server: Server, running: asyncio.Task[None], stopping: asyncio.Event
) -> int:
    waiting = asyncio.create_task(stopping.wait())
    async with _canary(node):  # which must be gone before this replica leaves: it commits, too
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
    failed = running.done()  # superseded, refused by the store, or by a fault: nothing under way can be completed
    log.info("stopping", failed=failed)
    await server.drain(0 if failed else config.drain_s)
    if failed:
        waiting.cancel()
        return _explain(running)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2.0):
            await node.leave()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    return 0


@asynccontextmanager
async def _canary(node: Node) -> AsyncIterator[None]:
    if node.canary is None:
        yield
        return
    async with AsyncExitStack() as stack:
        try:
            address = await stack.enter_async_context(canary.private_place())
        except OSError as error:
            log.warning("no_canary", why=error.strerror, hint="it needs a directory for temporary files (TMPDIR)")
        else:
            token = secrets.token_urlsafe(32)
            await stack.enter_async_context(listening(node, canary.CanaryAuthorizer(token), address))
            task = asyncio.create_task(node.canary.run(address, token), name="canary")
            stack.push_async_callback(_cancelled, task)
        yield


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def _explain(running: asyncio.Task[None]) -> int:
    """The node ended by itself: why, and the exit code."""
    error = running.exception()
    if isinstance(error, BaseExceptionGroup):
        if error.subgroup(Superseded) is not None:
            log.error("another_process_took_over", hint="two processes run under one --replica-id")
            return 2
        refused = error.subgroup(StoreRefused)
        if refused is not None:
            log.error("store_refused", why="; ".join(map(str, refused.exceptions)))
            return 2
    log.error("node_failed", exc_info=error)
    return 1


async def _store(config: Config, embedded: EmbeddedStore | None, stack: AsyncExitStack) -> RedisStore:
    url = embedded.url if embedded else config.store_url() or ""
    margins = [settings.margin_s for settings in config.realms.values()]
    store = connect(
        url,
        partitions=config.partitions,
        skew_ms=min(margins) * 500,
        op_retention_ms=config.op_record_s * 1000,
        longest_log=config.log_max_entries,
        allow_eviction=config.allow_eviction,
    )
    stack.push_async_callback(store.close)
    return store


async def _connect(store: RedisStore, stopping: asyncio.Event) -> str:
    """Waits for the store to answer; raises StoreRefused if it is not fit."""
    told = ""
    while True:
        try:
            return await store.start()
        except StoreUnavailable as error:
            if stopping.is_set():
                raise StartRefused("stopped before the store answered") from None
            if told != error.kind:
                log.warning("waiting_for_store", error=str(error), kind=error.kind, hint=error.hint)
                told = error.kind
            await asyncio.sleep(_CONNECT_RETRY_S)


async def _keyring(config: Config, embedded: EmbeddedStore | None, store: RedisStore) -> tuple[Keyring, _KeepSecret]:
    """The keyring; and, if its secret is kept in the store, how to put it back there."""
    text = config.secret_text()
    if text is None and embedded is not None:
        text = secret_of_directory(embedded.data_dir)
    if text is None:
        if not is_local(config.listen):
            raise StartRefused(
                "no master secret: set REVOCATION_SECRET_FILE (or REVOCATION_SECRET) to `kid:base64`, the same for "
                "all replicas; `openssl rand -base64 32` makes one"
            )
        log.warning("secret_in_store", hint="made by this service and kept in the store: fine for a try, not for real")
        shared = await store.shared_secret(new_secret())
        return Keyring.parse(shared), lambda: store.shared_secret(shared)
    return Keyring.parse(text), None


def _replica_id(config: Config, embedded: EmbeddedStore | None) -> str:
    if embedded is not None and config.source("replica_id") == "default":
        return embedded.replica_id
    return config.replica_id


async def _start_server(config: Config, node: Node) -> Server:
    try:
        authorizer = RoleAuthorizer(config.roles) if config.roles is not None else AnonymousAdmin()
        server = Server(config, node, authorizer)
        await server.start()
    except (RuntimeError, OSError):
        raise StartRefused(f"cannot listen on {config.listen}: is the address in use?") from None
    return server


async def _listen_http(config: Config, address: str, readiness: Readiness, metrics: Metrics) -> OpsServer:
    tls = None
    if config.http_tls_cert is not None and config.http_tls_key is not None:
        tls = HttpTls(config.http_tls_cert, config.http_tls_key, config.http_client_ca)
    try:
        ops = OpsServer(address, readiness, metrics.registry, tls)
        await ops.start()
    except ssl.SSLError:
        raise StartRefused("the certificate files of the HTTP listener cannot be used; give PEM") from None
    except OSError as error:
        raise StartRefused(f"cannot listen on {address} for HTTP: {error.strerror}") from None
    return ops


def _not_ready(node: Node, stopping: asyncio.Event) -> str | None:
    if stopping.is_set():
        return "draining"
    states = sorted({replica.state for replica in node.replicas} - {"usable"})
    lacking = f" (master secrets that it lacks: {', '.join(node.lacking.kids)})" if node.lacking.kids else ""
    return ", ".join(states) + lacking if states else None


@asynccontextmanager
async def _health(server: Server, node: Node) -> AsyncIterator[None]:
    """Keeps the health service and the gauges true."""

    async def watch() -> None:
        serving = False
        while True:
            if node.ready != serving:
                serving = node.ready
                await server.set_serving(serving)
            for replica in node.replicas:
                node.metrics.set_partition_state(replica.index, replica.state)
                node.metrics.waiting_for_members.labels(str(replica.index)).set(len(replica.waiting_for()))
            node.metrics.clock_skew_seconds.set(node.clock_skew_ms() / 1000)
            await asyncio.sleep(_HEALTH_S)

    task = asyncio.create_task(watch(), name="health")
    try:
        yield
    finally:
        task.cancel()


def _stop_on_signal() -> asyncio.Event:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    stop: Callable[[], None] = stopping.set
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    return stopping
