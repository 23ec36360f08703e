"""Whole service nodes in one process, on one real store whose time a test moves on: for tests of sessions."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import redis.asyncio as aioredis

from revocation.config.settings import Config, load
from revocation.keys.keyring import Keyring
from revocation.model import Operation, Target, request_digest
from revocation.node import Node
from revocation.observability.telemetry import Metrics
from revocation.session.desk import Grant, Owner
from revocation.session.lists import Shown
from revocation.session.machine import Device
from revocation.session.service import Opening, Renewal
from revocation.store.redis import RedisStore
from revocation_sdk._judge import Facts, Revoked, judge
from revocation_sdk._lattice import Kind

SECRET = "k1:" + "A" * 43
ISSUER = "https://id.example"
TIME_KEY = "revocation:{test}:ahead_ms"
PHONE = Device("phone")
REALM: dict[str, Any] = {"max_token_life_s": 3_600, "absolute_timeout_s": 86_400, "idle_timeout_s": 7_200}
_TOLD = (
    "(function() local t, ahead = redis.call('TIME'), redis.call('GET', '" + TIME_KEY + "') or '0'; "
    "local us = t[1] * 1000000 + t[2] + ahead * 1000; "
    "return {math.floor(us / 1000000), us % 1000000} end)()"
)
_op_ids = iter(range(1 << 60))


def new_op_id() -> uuid.UUID:
    """A UUID version 7 of now."""
    value = (time.time_ns() // 1_000_000) << 80 | 7 << 76 | 2 << 62 | next(_op_ids)
    return uuid.UUID(int=value)


class PausingStore:
    """A store that lets a test stop a caller before and after each round trip of a use case of sessions."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self.arrived: asyncio.Event | None = None
        self.go_on = asyncio.Event()
        self.pause_at = -1
        self._points = 0

    def arm(self, point: int) -> None:
        """Stop at the `point`-th place from now on, counted from 0."""
        self.pause_at, self._points = point, 0
        self.arrived, self.go_on = asyncio.Event(), asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        if name not in {"look_sessions", "step_session", "barrier"}:
            return method

        async def paused(*arguments: Any, **options: Any) -> Any:
            await self._point()
            answer = await method(*arguments, **options)
            await self._point()
            return answer

        return paused

    async def _point(self) -> None:
        point, self._points = self._points, self._points + 1
        if point == self.pause_at and self.arrived is not None:
            self.arrived.set()
            await self.go_on.wait()


class Nodes:
    """Service nodes that share a store. `ahead` moves the store's time on."""

    def __init__(self, url: str, nodes: list[Node], stores: list[Any], raw: aioredis.Redis) -> None:
        self.url, self.nodes, self.stores, self.raw = url, nodes, stores, raw
        self._ahead_ms = 0

    async def advance(self, seconds: float) -> None:
        """Lets the store's time pass."""
        self._ahead_ms += int(seconds * 1000)
        await self.raw.set(TIME_KEY, self._ahead_ms)

    def caller(self, number: int = 0) -> Caller:
        """Somebody who calls one of the nodes."""
        return Caller(self.nodes[number])

    def verdict(self, grant: Grant, number: int = 0) -> Revoked | None:
        """What a verifier with the view of a node says to the access token of a grant, expiry aside."""
        node = self.nodes[number]
        realm = node.realms["default"]
        facts = Facts(
            issuer=ISSUER, token_id="jti", sid=grant.sid, subject=grant.subject, client_id=grant.client_id or None,
            versions=grant.versions,
        )  # fmt: skip
        now = node.store_ms() / 1000
        views = [replica.partition.realm("default").view for replica in node.replicas]
        verdicts = [judge(view, realm.keys, facts, now, realm.settings.margin_s) for view in views]
        return next((verdict for verdict in verdicts if verdict is not None), None)


class Caller:
    """A client of one node: the use cases with short names."""

    def __init__(self, node: Node, realm: str = "default") -> None:
        self.node, self.sessions, self.realm = node, node.sessions, realm

    @property
    def deadline(self) -> float:
        return asyncio.get_running_loop().time() + 60

    def operation(self, *content: str, op_id: uuid.UUID | None = None) -> Operation:
        return Operation(self.realm, "tester", op_id or new_op_id(), request_digest("\0".join(content).encode()))

    async def open(
        self, subject: str = "alice", client_id: str = "web", *, op_id: uuid.UUID | None = None, life_s: int = 600,
        device: Device = PHONE, issuer: str | None = ISSUER,
    ) -> Grant:  # fmt: skip
        operation = self.operation("open", subject, client_id, op_id=op_id)
        return await self.sessions.open(Opening(operation, issuer, subject, client_id, device, life_s), self.deadline)

    async def refresh(
        self, grant: Grant | str, address: str = "", *, issuer: str | None = ISSUER, client_id: str | None = None
    ) -> Grant:
        token = grant if isinstance(grant, str) else grant.refresh_token
        renewal = Renewal(self.realm, token, 600, Device(address=address), issuer, client_id)
        return await self.sessions.refresh(renewal, self.deadline)

    async def end(
        self, session: str, subject: str = "", op_id: uuid.UUID | None = None, issuer: str | None = ISSUER
    ) -> Any:
        operation = self.operation("end", session, op_id=op_id)
        return await self.sessions.end(operation, Owner(self.realm, issuer, subject), session, self.deadline)

    async def end_others(self, keep: Grant, op_id: uuid.UUID | None = None) -> Grant:
        operation = self.operation("others", keep.sid, op_id=op_id)
        return await self.sessions.end_others(operation, self.owner(keep.subject), keep.sid, 600, self.deadline)

    async def touch(self, sid: str) -> Shown:
        return await self.sessions.touch(self.realm, sid, self.deadline)

    async def list(self, subject: str = "alice", current: str = "") -> list[Shown]:
        shown, after = await self.sessions.page(self.owner(subject), current, 0, "", self.deadline)
        while after:
            more, after = await self.sessions.page(self.owner(subject), current, 0, after, self.deadline)
            shown += more
        return shown

    async def revoke(self, kind: Kind, value: str, issuer: str | None = ISSUER) -> None:
        target = Target(kind, None if kind is Kind.REALM else issuer, value)
        await self.node.service.revoke(self.operation("revoke", value), target, self.deadline)

    def owner(self, subject: str) -> Owner:
        return Owner(self.realm, ISSUER, subject)


def config_of(url: str, name: str, partitions: int, realms: dict[str, Any], more: Mapping[str, object]) -> Config:
    flags: dict[str, object] = {"redis_url": url, "replica_id": name, "partitions": partitions, "settle_s": 0.1}
    flags |= {"heartbeat_s": 0.05, "realms": realms, **more}
    return load(flags)


@contextlib.asynccontextmanager
async def running(
    url: str, *, count: int = 1, partitions: int = 1, secrets: Sequence[str] = (SECRET,),
    prepare: Callable[[RedisStore], None] = lambda _: None, realm: Mapping[str, Any] = MappingProxyType({}),
    flags: Mapping[str, object] = MappingProxyType({}),
) -> AsyncIterator[Nodes]:  # fmt: skip
    """Nodes that are usable."""
    raw = aioredis.Redis.from_url(url)
    realms = {"default": REALM | dict(realm), "other": REALM}
    stores: list[Any] = []
    nodes: list[Node] = []
    for number in range(count):
        store = RedisStore.from_url(url, partitions=partitions, skew_ms=10**13)
        store._sources = {name: text.replace("redis.call('TIME')", _TOLD) for name, text in store._sources.items()}
        prepare(store)
        await store.start()
        stores.append(PausingStore(store))
        config = config_of(url, f"node-{number}", partitions, realms, flags)
        metrics = Metrics(version="0", replica=f"node-{number}")
        keyring = Keyring.parse(secrets[number % len(secrets)])
        nodes.append(Node(config, keyring, stores[-1], metrics, replica_id=f"node-{number}", alone=True))
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    try:
        for node in nodes:
            await asyncio.gather(*(replica.usable(30) for replica in node.replicas))
        yield Nodes(url, nodes, stores, raw)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for store in stores:
            await store.close()
        await raw.aclose()
