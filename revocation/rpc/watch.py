"""Watch: one stream of one verifier. The hub fills its queue; this writes the queue out and reads the pings."""

from __future__ import annotations

import asyncio
import contextlib
import random
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from functools import partial

import structlog

from revocation import limits
from revocation.callers.roles import Caller
from revocation.errors import Denied, InvalidField, Overloaded, ServiceError, Unavailable
from revocation.fanout.hub import Beginning, Busy, RealmHub, Subscriber
from revocation.fanout.landing import Verifier
from revocation.node import Node
from revocation.rpc import stream, wire
from revocation.rpc.calls import Calls, Context, Lasting
from revocation.rpc.signed import SharedSeals, challenge_of
from revocation.service import Realm
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._messages import Goodbye
from revocation_sdk._messages import RealmSettings as Announced
from revocation_sdk._position import Position

log = structlog.get_logger("revocation.watch")
PROTOCOL = 1


class Watch:
    """Serves streams."""

    def __init__(self, calls: Calls, node: Node) -> None:
        self.calls = calls
        self._node = node
        self._seals: dict[str, SharedSeals] = {}

    async def serve(self, requests: AsyncIterator[pb.WatchRequest], context: Context) -> None:
        """One stream, from hello to its end."""
        said = aiter(requests)
        try:
            try:
                hello = await self._hello(said)
            except TimeoutError:  # a peer that says nothing, or a service that is too busy to hear it
                await self.calls.refuse(context, "Watch", Unavailable("no hello came in time; connect again"))

            async def body(caller: Caller, _: float) -> None:
                await self._follow(hello, said, context, caller)

            await self.calls.run(context, "Watch", hello.realm, body)
        finally:
            # gRPC's generator is one end of a cycle of references; unfinished, it would take all of it through two
            # collections, and the second is rare in a service that holds much.
            if isinstance(said, AsyncGenerator):
                await said.aclose()

    async def _hello(self, requests: AsyncIterator[pb.WatchRequest]) -> pb.Hello:
        async with asyncio.timeout(limits.HELLO_TIMEOUT_S):
            first = await anext(aiter(requests), None)
        # What is missing is refused in `_follow`, inside of what all calls have in common.
        return first.hello if first is not None and first.WhichOneof("kind") == "hello" else pb.Hello()

    async def _follow(
        self, hello: pb.Hello, requests: AsyncIterator[pb.WatchRequest], context: Context, caller: Caller
    ) -> None:
        if hello.protocol != PROTOCOL:
            raise InvalidField("hello.protocol", f"must be {PROTOCOL}", reason="PROTOCOL_VIOLATION")
        realm = self._node.service.realm(hello.realm)
        hub = self._node.hub.realms[realm.name]
        lasting = self.calls.lasting(context, "Watch", realm.name, caller)
        await lasting.still_allowed()
        self._may_begin()
        verifier = _verifier(hello, caller)
        subscriber = Subscriber(verifier)
        subscriber.seal = self._seal(realm.name, challenge_of(hello))
        resume = stream.positions_from(hello.resume)
        self._admit(hub, resume)
        await hub.prepare(resume)
        self._may_begin()  # still
        beginning = self._subscribe(hub, subscriber, resume)
        pings = asyncio.create_task(self._read_pings(requests, hub, subscriber, lasting), name="pings")
        try:
            with _ending_with_identity(subscriber, caller):
                await self._node.subscribers.begin(hub, verifier)
                welcome = self._welcome(realm, beginning)
                with self._catching_up(hub.realm, beginning):
                    await self._begin(welcome, beginning, subscriber, context)
                await self._write_out(subscriber, context)
        finally:
            self._leave(hub, subscriber, verifier)
            pings.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await pings

    def _leave(self, hub: RealmHub, subscriber: Subscriber, verifier: Verifier) -> None:
        hub.subscribers.discard(subscriber)
        subscriber.end("gone")  # who still refers to it holds nothing of what was queued
        self._node.subscribers.end(hub, verifier)
        self._node.metrics.count_subscribers(hub.realm, len(hub.subscribers))

    def _seal(self, realm: str, challenge: bytes) -> Callable[[bytes], bytes] | None:
        """What signs for a stream that sent a challenge."""
        if not challenge:
            return None
        seals = self._seals.setdefault(realm, SharedSeals(self._node.signing, realm))
        return partial(seals.seal, challenge=challenge)

    def _welcome(self, realm: Realm, beginning: Beginning) -> bytes:
        settings = realm.settings
        announced = Announced(settings.max_token_life_s, settings.max_leeway_s, settings.margin_s)
        return stream.welcome(beginning.intents, announced, realm.keys, self._node.store_ms(), self._node.replica_id)

    def _may_begin(self) -> None:
        if self.calls.draining:
            raise Unavailable("this replica is shutting down", reason="DRAINING")
        if not self._node.loaded:
            raise Unavailable("this replica is loading")
        if sum(len(hub.subscribers) for hub in self._node.hub.realms.values()) >= self._node.max_subscribers:
            text = "as many streams as this replica takes"
            raise Overloaded(text, retry_after_ms=_jitter(5_000), limit="streams", reason=_TOO_MANY)

    def _admit(self, hub: RealmHub, resume: tuple[Position, ...]) -> None:
        """The realm's own limits. Who missed nothing costs nothing, and may always come back."""
        quotas = self._node.quotas
        refused = quotas.admit_stream(hub.realm, len(hub.subscribers), self._node.max_subscribers)
        if refused is None and resume != hub.positions():
            refused = quotas.admit_late(hub.realm, time.perf_counter())
        if refused is not None:
            text = f"the realm's limit of {refused.limit} is reached"
            raise Overloaded(text, retry_after_ms=_jitter(2 * refused.retry_after_ms), reason=_TOO_MANY)

    def _subscribe(self, hub: RealmHub, subscriber: Subscriber, resume: tuple[Position, ...]) -> Beginning:
        try:
            may_snapshot = self._node.hub.may_snapshot and self._node.quotas.may_snapshot(hub.realm)
            beginning = hub.subscribe(subscriber, resume, may_snapshot)
        except Busy:
            text = "too many snapshots at once"
            raise Overloaded(text, retry_after_ms=_jitter(2_000), limit="snapshots", reason=_TOO_MANY) from None
        self._node.metrics.count_subscribers(hub.realm, len(hub.subscribers))
        for intent in beginning.intents:
            if intent.reason:
                self._node.metrics.snapshots.labels(intent.reason).inc()
        return beginning

    @contextlib.contextmanager
    def _catching_up(self, realm: str, beginning: Beginning) -> Iterator[None]:
        snapshot = beginning.snapshots > 0
        self._node.quotas.catching_up(realm, sum(map(len, beginning.messages)), snapshot)
        try:
            yield
        finally:
            self._node.quotas.caught_up(realm, snapshot)

    async def _begin(self, welcome: bytes, beginning: Beginning, subscriber: Subscriber, context: Context) -> None:
        hub, loop = self._node.hub, asyncio.get_running_loop()
        # Before anything that may be given up: with the metadata of a cancelled write still under way, gRPC refuses to
        # send the status, and the call would stay open for as long as the peer likes.
        await context.send_initial_metadata(())
        hub.snapshots_running += bool(beginning.snapshots)
        self._node.metrics.snapshots_running.set(hub.snapshots_running)
        try:
            for message in (welcome, *beginning.messages):
                impatience = loop.call_later(limits.SNAPSHOT_PATIENCE_S, subscriber.end, "slow")
                try:
                    await self._send(message, subscriber, context)
                finally:
                    impatience.cancel()
        finally:
            beginning.messages.clear()
            hub.snapshots_running -= bool(beginning.snapshots)
            self._node.metrics.snapshots_running.set(hub.snapshots_running)

    async def _write_out(self, subscriber: Subscriber, context: Context) -> None:
        while True:
            message = subscriber.take()
            if message is not None:
                await self._send(message, subscriber, context)
            elif subscriber.ended is not None:
                raise self._end(subscriber.ended)
            else:
                await subscriber.wake.wait()

    async def _send(self, message: bytes, subscriber: Subscriber, context: Context) -> None:
        """Writes; what a peer does not read blocks for megabytes, and then until the subscriber is cut off."""
        if subscriber.ended is not None:
            raise self._end(subscriber.ended)
        if subscriber.seal is not None:
            message = subscriber.seal(message)
        task = subscriber.writing = asyncio.current_task()
        try:
            await context.write(message)
        except asyncio.CancelledError:
            if subscriber.ended is None or task is None or task.cancelling() > 1:
                raise
            task.uncancel()
            raise self._end(subscriber.ended) from None
        finally:
            subscriber.writing = None

    def _end(self, why: str) -> ServiceError:
        self._node.metrics.resyncs.labels(why).inc()
        if why == "slow":
            self._node.metrics.queue_overflows.inc()
        if why == "gone":
            return Unavailable("no ping for too long")
        if why == "identity":
            return Denied("the identity of this stream has expired", reason="UNAUTHENTICATED")
        if why == "roles":
            return Denied("this identity may not follow this realm any more")
        if why == "drain":
            return Unavailable("this replica is shutting down", reason="DRAINING")
        if why == "protocol":
            return InvalidField("ping", "was expected", reason="PROTOCOL_VIOLATION")
        return Unavailable("the stream cannot go on without a gap; connect again", reason="RESYNC")

    async def _read_pings(
        self, requests: AsyncIterator[pb.WatchRequest], hub: RealmHub, subscriber: Subscriber, lasting: Lasting
    ) -> None:
        loop = asyncio.get_running_loop()
        async for request in requests:  # who falls silent is noticed by `Node`, without a timer for each ping
            if subscriber.ended is not None:
                return
            if request.WhichOneof("kind") != "ping":
                subscriber.end("protocol")
                return
            subscriber.heard = loop.time()
            if not await _still_allowed(lasting):
                subscriber.end("roles")
                return
            self._note(hub, subscriber, request.ping)
            self._node.hub.ping(hub, subscriber, request.ping.nonce)
        subscriber.end("gone")

    def _note(self, hub: RealmHub, subscriber: Subscriber, ping: pb.Ping) -> None:
        subscriber.applied = stream.positions_from(ping.applied)
        if subscriber.verifier is not None:
            subscriber.verifier.applied = subscriber.applied
            subscriber.verifier.judged_by(ping.max_staleness_ms)
            self._node.subscribers.heard(hub.realm)

    async def drain(self, grace_s: float) -> None:
        """Says goodbye to all subscribers, spread over the grace period so that they do not come back as a herd."""
        subscribers = [s for hub in self._node.hub.realms.values() for s in hub.subscribers]
        for subscriber in subscribers:
            subscriber.put(stream.goodbye(Goodbye("drain", int(random.uniform(0, grace_s * 500)))))
        for number, subscriber in enumerate(subscribers):
            asyncio.get_running_loop().call_later(
                0.1 + grace_s * 0.5 * number / max(1, len(subscribers)), subscriber.end, "drain"
            )


@contextlib.contextmanager
def _ending_with_identity(subscriber: Subscriber, caller: Caller) -> Iterator[None]:
    """A stream lasts no longer than the identity that opened it."""
    if caller.until is None:
        yield
        return
    left_s = max(0.0, caller.until - time.time())
    end = asyncio.get_running_loop().call_later(left_s, subscriber.end, "identity")
    try:
        yield
    finally:
        end.cancel()


async def _still_allowed(lasting: Lasting) -> bool:
    try:
        await lasting.still_allowed()
    except ServiceError:
        return False
    return True


def _verifier(hello: pb.Hello, caller: Caller) -> Verifier:
    """Who begins a stream. One that does not tell its instance is another one on each stream."""
    name = wire.bounded("hello.name", hello.name, limits.LABEL_BYTES)
    sdk_version = wire.bounded("hello.sdk_version", hello.sdk_version, limits.LABEL_BYTES)
    if len(hello.instance) not in (0, _INSTANCE_BYTES):
        raise InvalidField("hello.instance", f"has {len(hello.instance)} bytes; none or {_INSTANCE_BYTES} are allowed")
    verifier = Verifier(
        instance=hello.instance or secrets.token_bytes(_INSTANCE_BYTES),
        name=name,
        identity=caller.name,
        sdk_version=sdk_version,
        since=asyncio.get_running_loop().time(),
        polled=bool(hello.instance),
    )
    verifier.judged_by(hello.max_staleness_ms)
    return verifier


_TOO_MANY = "TOO_MANY_STREAMS"
_INSTANCE_BYTES = 16


def _jitter(milliseconds: int) -> int:
    return int(random.uniform(0.5, 1.0) * milliseconds)
