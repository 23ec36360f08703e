"""The processes of the world: service replicas and clients, made of the real cores, and the streams between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from revocation.clock import Clock
from revocation.commit import Committer
from revocation.fanout.hub import Busy, Hub, Subscriber
from revocation.realms import RealmSettings
from revocation.replication.barrier import Barrier
from revocation.replication.membership import ReplicaOptions
from revocation.replication.partition import Applied
from revocation.replication.replica import NotReady, Replica, Superseded
from revocation.rpc import stream as wire
from revocation.service import Realm, Revocations
from revocation.store import Closed, Durability, Registry, StoreUnavailable
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk import _wire
from revocation_sdk._follower import Follower, Lease, Resync
from revocation_sdk._lattice import MalformedRows, RealmKey
from revocation_sdk._messages import Mark, Message, Ping, SnapshotEnd
from revocation_sdk._messages import RealmSettings as Announced
from revocation_sdk._view import View
from tests.sim.cluster import EPOCH_MS
from tests.sim.delivery import Delivery
from tests.sim.loop import Process
from tests.sim.oracle import Oracle, Witness
from tests.sim.store import SimStore

REALM = "default"
SETTINGS = RealmSettings()
KEY = RealmKey(7, bytes(range(32)))
PING_S = 0.4
SILENCE_S = 2.0
HEALING_S = 1.0
"""How long a replica may take to heal a history, with the longest delays, after whatever kept it from that."""
WAIT_MS = 500


class Wire:
    """One direction of a stream: in order, each message in its time, until it is cut."""

    def __init__(self, to: Process, deliver: Callable[[bytes], None], random: Random, delay_s: float) -> None:
        self._to, self._deliver, self._random, self._delay_s = to, deliver, random, delay_s
        self._last = 0.0
        self.open = True
        self.held: list[bytes] | None = None

    def send(self, message: bytes) -> None:
        if self.held is not None:
            self.held.append(message)
            return
        when = self._to.loop.time() + self._random.uniform(0.1, 1.0) * self._delay_s
        self._last = max(self._last + 1e-6, when)
        self._to.at(self._last, self._arrive, message)

    def _arrive(self, message: bytes) -> None:
        if self.open and self._to.alive:
            self._deliver(message)

    def hold(self) -> None:
        """The network keeps everything back."""
        if self.held is None:
            self.held = []

    def release(self) -> None:
        held, self.held = self.held or [], None
        for message in held:
            self.send(message)


class Member(Replica):
    """Also keeps in mind whom it knew when it confirmed last, and so had to name (H4): what a mistake may hide."""

    knew: frozenset[str] = frozenset()

    async def _confirm(self, registry: Registry) -> int | Closed:
        self.knew = frozenset(self._known)
        return await super()._confirm(registry)


class Service:
    """One service replica: the real Replica, Committer, Barrier and Hub on a simulated store."""

    def __init__(
        self, process: Process, store: SimStore, options: ReplicaOptions, oracle: Oracle, skew_ms: Callable[[], int]
    ) -> None:
        self.process = process
        self.store = store
        self.name = options.member
        self.oracle = oracle
        self.draining = False
        self.witness = Witness()
        loop = process.loop
        clock = Clock(lambda: EPOCH_MS + round(loop.time() * 1000) + skew_ms(), lambda: loop.time() + 1000.0)
        waits = Durability(replicas=options.copies, timeout_ms=WAIT_MS)
        self.replica = Member(0, store, options, self._on_applied, self._on_confirmed, clock)
        self.committer = Committer(self.replica, store, waits)
        self.barrier = Barrier(self.replica, store, waits)
        realm = Realm(REALM, SETTINGS, (KEY,))
        self.revocations = Revocations({REALM: realm}, [self.replica], [self.committer], [self.barrier])
        self.hub = Hub([self.replica.partition], [self.barrier], [REALM])
        self.links: set[Link] = set()
        self.asked: list[asyncio.Task[None]] = []
        """Calls, to be finished before it leaves."""
        process.spawn(self._run())

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def hindered(self) -> bool:
        """Whether it cannot do what it would, or could not until so shortly ago that it has not confirmed in time."""
        store = self.store
        slow = store.slow_replies or store.late_until + HEALING_S > self.process.loop.time()
        return self.process.paused or bool(slow) or not store.reaches(store.cluster.cur)

    @property
    def astray(self) -> bool:
        """Whether it follows an old primary, or did until so shortly ago that it has not confirmed in time."""
        store = self.store
        return store.node is not store.cluster.cur or store.astray_until + HEALING_S > self.process.loop.time()

    @property
    def view(self) -> View:
        return self.replica.partition.realm(REALM).view

    def _on_applied(self, index: int, applied: list[Applied]) -> None:
        self.hub.on_applied(index, applied)

    async def _on_confirmed(self, _: int) -> None:
        await asyncio.sleep(0)

    async def _run(self) -> None:
        try:
            await self.replica.run()
        except Superseded:
            pass
        except Exception as error:
            self.oracle.fail(f"the replica {self.name} died of {error!r}")

    async def prove(self) -> bool:
        """A barrier, and whether it told the truth."""
        began = self.process.loop.time()
        try:
            async with asyncio.timeout(2.0):
                await self.barrier.prove()
        except (NotReady, StoreUnavailable, TimeoutError):
            return False
        self.oracle.complete(f"replica {self.name}", self.view, self.witness, began)
        return True

    def accept(self, link: Link) -> None:
        """A client has come; its first message is on its way."""
        self.links.add(link)

    def end(self) -> None:
        """The process is gone."""
        self.process.kill()
        for link in list(self.links):
            link.cut()


@dataclass(eq=False)
class Link:
    """A stream between a client and a service replica."""

    client: Client
    service: Service

    def __post_init__(self) -> None:
        client, service = self.client, self.service
        random = client.random
        self.up = Wire(service.process, self._asked, random, client.delay_s)
        self.down = Wire(client.process, self._told, random, client.delay_s)
        self.subscriber = Subscriber()
        self.writer: asyncio.Task[None] | None = None
        self.jammed_until = 0.0
        """The connection takes nothing before that, so that what is to be said queues up."""
        service.accept(self)

    def _asked(self, message: bytes) -> None:
        request = pb.WatchRequest.FromString(message)
        hub = self.service.hub.realms[REALM]
        if request.WhichOneof("kind") == "ping":
            self.subscriber.applied = wire.positions_from(request.ping.applied)
            self.service.hub.ping(hub, self.subscriber, request.ping.nonce)
            return
        if not self.service.replica.partition.log_id or self.service.draining:
            self.cut()
            return
        try:
            beginning = hub.subscribe(self.subscriber, wire.positions_from(request.hello.resume), True)
        except Busy:
            self.cut()
            return
        announced = Announced(SETTINGS.max_token_life_s, SETTINGS.max_leeway_s, SETTINGS.margin_s)
        store_ms = self.service.replica.store_ms()
        self.down.send(wire.welcome(beginning.intents, announced, (KEY,), store_ms, self.service.name))
        for encoded in beginning.messages:
            self.down.send(encoded)
        self.writer = self.service.process.spawn(self._write())

    async def _write(self) -> None:
        loop = self.service.process.loop
        while True:
            if self.jammed_until > loop.time():
                await loop.sleep(self.jammed_until - loop.time())
            message = self.subscriber.take()
            if message is not None:
                self.down.send(message)
            elif self.subscriber.ended is not None:
                self.cut()
                return
            else:
                await self.subscriber.wake.wait()

    def _told(self, encoded: bytes) -> None:
        self.client.take(self, _wire.watch_message(pb.WatchResponse.FromString(encoded)))

    def cut(self) -> None:
        """The connection is gone, on both sides."""
        if not self.down.open:
            return
        self.up.open = self.down.open = False
        self.service.links.discard(self)
        self.service.hub.realms[REALM].subscribers.discard(self.subscriber)
        if self.writer is not None:
            self.writer.cancel()
        self.client.process.soon(self.client.lost, self)


class FlakyView(View):
    """A view whose next merge may fail, before anything was changed."""

    fails = False

    def merge(self, *parts: bytes) -> None:
        if self.fails:
            self.fails = False
            raise MalformedRows("planted")
        super().merge(*parts)


class Client:
    """A verifier: the real Follower and View, and a stream to some service replica."""

    def __init__(
        self,
        process: Process,
        oracle: Oracle,
        random: Random,
        delay_s: float,
        skew_ms: Callable[[], int],
        choose: Callable[[], Service | None],
    ) -> None:
        self.process = process
        self.name = process.name
        self.random = random
        self.delay_s = delay_s
        self.oracle = oracle
        self.view = FlakyView()
        self.follower = Follower(REALM, self.view)
        self.delivery = Delivery(process.name, oracle.fail)
        self.witness = Witness()
        self.link: Link | None = None
        self._skew_ms = skew_ms
        self._choose = choose
        self._heard = 0.0
        self._pinged = 0.0
        self._lease: Lease | None = None
        process.soon(self._turn)

    def mono(self) -> float:
        return self.process.loop.time() + 77.0

    def wall(self) -> float:
        return (EPOCH_MS + self._skew_ms()) / 1000 + self.process.loop.time()

    def age(self) -> float:
        """As a verdict would say it; infinite if never."""
        lease = self.follower.lease
        return float("inf") if lease is None else lease.age(self.mono(), self.wall())

    def _turn(self) -> None:
        """Now and then: connect, ping, give up on a silent stream."""
        now = self.process.loop.time()
        if self.link is None:
            self._connect()
        elif now - self._heard > SILENCE_S:
            self.link.cut()
        elif now - self._pinged >= PING_S and self.follower.live:
            self._pinged = now
            self._send(self.follower.ping(self.mono(), self.wall()))
        self.process.at(now + self.random.uniform(0.1, 0.25), self._turn)

    def _connect(self) -> None:
        service = self._choose()
        if service is None:
            return
        self._heard = self.process.loop.time()
        self.link = Link(self, service)
        hello = self.follower.hello()
        self.delivery.begin(hello.resume)
        self.link.up.send(_wire.watch_request(hello).SerializeToString())

    def _send(self, ping: Ping) -> None:
        assert self.link is not None
        self.link.up.send(_wire.watch_request(ping).SerializeToString())

    def take(self, link: Link, message: Message) -> None:
        if link is not self.link:
            return
        self._heard = self.process.loop.time()
        self.delivery.take(message)
        try:
            self.follower.receive(message, self.mono())
        except Resync as broken:
            expected = broken.reason == "wrong_resume" and self.delivery.behind
            if not expected and broken.reason != "malformed_rows":  # which only `fail_apply` can be behind
                self.oracle.fail(f"delivery: {self.name} at {link.service.name}: {broken.reason} by {message}")
            link.cut()
            return
        self.delivery.applied(message)
        self.check(again=isinstance(message, SnapshotEnd | Mark))

    def check(self, again: bool) -> None:
        """Whether the lease tells the truth: a new one, or (`again`) an old one, for a view that may have shrunk."""
        lease = self.follower.lease
        if lease is not None and (again or lease is not self._lease):
            self._lease = lease
            witness = Witness() if again else self.witness
            self.oracle.complete(self.name, self.follower.view, witness, lease.mono - 77.0)

    def lost(self, link: Link) -> None:
        if link is self.link:
            self.follower.disconnected()
            self.link = None
