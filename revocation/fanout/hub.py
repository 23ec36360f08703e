"""Fan-out: what the log brings goes to every subscriber of the realm, encoded once.

Everything that changes a subscriber's queue happens in one step of the event loop, so that nothing can slip between a
snapshot and the changes behind it (rule D9), and a progress is queued behind every change that it covers (D4).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from revocation.fanout.landing import Roster, Verifier
from revocation.limits import CHANGES_BYTES, QUEUE_BYTES, SNAPSHOTS_AT_ONCE
from revocation.replication.barrier import Barrier
from revocation.replication.history import RealmHistory, Resume, Step
from revocation.replication.partition import Applied, Partition
from revocation.replication.replica import NotReady
from revocation.rpc import stream
from revocation.store import StoreUnavailable
from revocation_sdk._lattice import count_rows
from revocation_sdk._messages import Changes, Intent, Mark, PartitionIntent, SnapshotChunk, SnapshotEnd
from revocation_sdk._position import NOWHERE, Position

_SNAPSHOT_AGE_STEPS = 2_000
_LARGE_ENTRIES = 20_000
"""From so many entries on a snapshot is made beside the event loop."""
_PROOF_EVERY_S = 0.02
_AGAIN_S = 0.2
"""From an attempt that answered nobody to the next one."""
_POLL_AFTER_S, _POLL_EVERY_S, _LOOK_S = 1.0, 2.0, 0.25
"""Who waits for an answer hears something before it would take the silence for a dead connection (3 s in the SDK)."""
_MOST_PINGS = 64
"""Of one subscriber that wait for the same proof; of more, the last ones are answered."""


class Busy(Exception):
    """Too many snapshots at once: come back a little later."""


class Subscriber:
    """The queue of one stream. `ended` says why it was cut off, and then nothing more comes."""

    def __init__(self, verifier: Verifier | None = None) -> None:
        self.verifier = verifier
        """Who it is, for those who wait until something has been applied."""
        self.seal: Callable[[bytes], bytes] | None = None
        """Signs a message for this stream, if it wants that."""
        self.applied: tuple[Position, ...] = ()
        self.ended: str | None = None
        self.heard = asyncio.get_running_loop().time()
        """When it last said something, in event-loop time."""
        self.wake = asyncio.Event()
        self.writing: asyncio.Task[object] | None = None
        """Who hands a message to gRPC now, and may be stuck because the peer does not read."""
        self._queue: deque[bytes] = deque()
        self._bytes = 0

    @property
    def queued_bytes(self) -> int:
        """What waits to be sent."""
        return self._bytes

    def put(self, message: bytes) -> None:
        """Queues an encoded message; beyond the limit the stream ends with RESYNC (I8)."""
        if self.ended is not None:
            return
        self._queue.append(message)
        self._bytes += len(message)
        if self._bytes > QUEUE_BYTES:
            self.end("slow")
        self.wake.set()

    def poll(self) -> None:
        """Says something to who understands it, unless something is on its way: so at most one of these waits."""
        if self.verifier is not None and self.verifier.polled and not self._queue and self.writing is None:
            self.put(stream.POLL)

    def take(self) -> bytes | None:
        """The next message, or None if there is none."""
        if not self._queue:
            self.wake.clear()
            return None
        message = self._queue.popleft()
        self._bytes -= len(message)
        return message

    def end(self, why: str) -> None:
        """Cuts the stream off: what is queued is dropped, the client resyncs. A write under way is given up."""
        if self.ended is None and self.writing is not None:
            self.writing.cancel()
        self.ended = self.ended or why
        self._queue.clear()
        self._bytes = 0
        self.wake.set()


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """All of a realm in one partition at `position`, encoded."""

    position: Position
    messages: tuple[bytes, ...]


@dataclass(slots=True)
class Beginning:
    """How a stream begins: intents for the welcome, then messages; `snapshots` of them are snapshots."""

    intents: list[PartitionIntent]
    messages: list[bytes]
    snapshots: int = 0


class RealmHub:
    """The subscribers of one realm."""

    def __init__(self, partitions: Sequence[Partition], realm: str) -> None:
        self.subscribers: set[Subscriber] = set()
        self.roster = Roster()
        self._partitions = partitions
        self.realm = realm
        self._pending: dict[int, list[Step]] = {}
        self._snapshots: dict[int, _Snapshot] = {}
        self._making: dict[int, asyncio.Task[None]] = {}
        self._proven: tuple[tuple[Position, ...], int] = ((), 0)
        self._answers = stream.answers(*self._proven)

    @property
    def histories(self) -> list[RealmHistory]:
        """The realm's history in every partition."""
        return [partition.realm(self.realm) for partition in self._partitions]

    def positions(self) -> tuple[Position, ...]:
        """Where the realm stands, by partition."""
        return tuple(history.position for history in self.histories)

    async def prepare(self, resume: tuple[Position, ...]) -> None:
        """Makes the large snapshots that `subscribe` will need, on a thread of their own, for all who wait together.

        A view may be read while it is written, and what is newer than the position noted before does no harm: the
        steps since then follow, and a row that comes twice is joined with itself.
        """
        if len(resume) != len(self._partitions):
            resume = (NOWHERE,) * len(self._partitions)
        for index, (history, position) in enumerate(zip(self.histories, resume, strict=True)):
            if isinstance(history.resume(position), Resume) or len(history.view) < _LARGE_ENTRIES:
                continue
            if self._shareable(index, history) is None:
                task = self._making.get(index)
                if task is None:
                    task = self._making[index] = asyncio.create_task(self._make(index, history), name="snapshot")
                await asyncio.shield(task)

    async def _make(self, index: int, history: RealmHistory) -> None:
        try:
            self._snapshots[index] = await asyncio.to_thread(_take_snapshot, index, history.position, history)
        finally:
            del self._making[index]

    def subscribe(self, subscriber: Subscriber, resume: tuple[Position, ...], may_snapshot: bool) -> Beginning:
        """Registers the subscriber and says how its stream begins, in one step. Raises Busy, registering nothing."""
        self.flush()
        if len(resume) != len(self._partitions):
            resume = (NOWHERE,) * len(self._partitions)
        beginning = Beginning([], [])
        for index, (history, position) in enumerate(zip(self.histories, resume, strict=True)):
            self._begin(beginning, index, history, position)
        if beginning.snapshots and not may_snapshot:
            raise Busy
        self.subscribers.add(subscriber)
        return beginning

    def _begin(self, beginning: Beginning, index: int, history: RealmHistory, position: Position) -> None:
        found = history.resume(position)
        if isinstance(found, Resume):
            intent = Intent.RESUME if found.steps else Intent.UP_TO_DATE
            beginning.intents.append(PartitionIntent(intent, "", found.position))
            beginning.messages += _encode_steps(index, found.steps)
            return
        snapshot, since = self._snapshot(index, history)
        beginning.intents.append(PartitionIntent(Intent.SNAPSHOT, found, NOWHERE))
        beginning.messages += [*snapshot.messages, *_encode_steps(index, since)]
        beginning.snapshots += 1

    def _snapshot(self, index: int, history: RealmHistory) -> tuple[_Snapshot, tuple[Step, ...]]:
        """A snapshot shared with others, and what came since it was made."""
        shared = self._shareable(index, history)
        if shared is not None:
            return shared
        made = self._snapshots[index] = _take_snapshot(index, history.position, history)
        return made, ()

    def _shareable(self, index: int, history: RealmHistory) -> tuple[_Snapshot, tuple[Step, ...]] | None:
        known = self._snapshots.get(index)
        if known is None:
            return None
        found = history.resume(known.position)
        if isinstance(found, str) or found.position != known.position or len(found.steps) >= _SNAPSHOT_AGE_STEPS:
            return None
        return known, found.steps

    def forget_snapshots(self) -> None:
        """Frees what was kept for sharing."""
        self._snapshots.clear()

    def deliver(self, index: int, step: Step | None) -> None:
        """Takes a step of the log; it is sent with the next flush."""
        if step is None:
            self._pending.pop(index, None)
            for subscriber in tuple(self.subscribers):
                subscriber.end("history")
        elif self.subscribers:
            self._pending.setdefault(index, []).append(step)

    def flush(self) -> None:
        """Sends what is pending, encoded once, to every subscriber."""
        pending, self._pending = self._pending, {}
        for index, steps in pending.items():
            for message in _encode_steps(index, steps):
                for subscriber in self.subscribers:
                    subscriber.put(message)

    def progress(self, subscriber: Subscriber, nonce: int, store_ms: int) -> None:
        """Tells one subscriber how far it is proven to have come, behind everything that this covers."""
        self.flush()
        proven = (self.positions(), store_ms)
        if self._proven != proven:  # the same for all whose pings share a barrier
            self._proven, self._answers = proven, stream.answers(*proven)
        subscriber.put(self._answers(nonce))
        if subscriber.verifier is not None:
            subscriber.verifier.answered = asyncio.get_running_loop().time()

    def end_silent(self, before: float) -> None:
        """Cuts off who was last heard before that (event-loop time)."""
        for subscriber in tuple(self.subscribers):
            if subscriber.heard < before:
                subscriber.end("gone")


@dataclass(slots=True)
class _Ask:
    """The pings of one subscriber that wait for an answer, the latest one last."""

    hub: RealmHub
    nonces: list[int]
    poll_at: float
    """When it is to hear at least that we are here, in event-loop time."""

    def add(self, nonce: int) -> None:
        self.nonces.append(nonce)
        del self.nonces[:-_MOST_PINGS]


class Hub:
    """Fan-out for all realms of this replica."""

    def __init__(self, partitions: Sequence[Partition], barriers: Sequence[Barrier], realms: Sequence[str]) -> None:
        self.realms: Mapping[str, RealmHub] = {realm: RealmHub(partitions, realm) for realm in realms}
        self.snapshots_running = 0
        self._barriers = barriers
        self._asked: dict[Subscriber, _Ask] = {}
        self._proving: dict[Subscriber, _Ask] = {}
        """Those whose proof is under way."""
        self._not_before = 0.0
        self._answering: asyncio.Task[None] | None = None
        self._look_due = False
        self._flush_due = False
        self.observe: Callable[[float], None] | None = None
        """Told how long the slowest of the pings took that shared a proof, in seconds."""
        self.may_tell: Callable[[str, Verifier], bool] = lambda _realm, _verifier: True
        """Whether a verifier may be told now that it is fresh."""

    @property
    def may_snapshot(self) -> bool:
        """Whether one more snapshot may be sent now."""
        return self.snapshots_running < SNAPSHOTS_AT_ONCE

    def on_applied(self, index: int, applied: list[Applied]) -> None:
        """Called by the replica of a partition for everything it applied.

        Sent in the next turn of the event loop: an idle system adds no delay, and a busy one, where more is read
        meanwhile, sends fewer and larger messages.
        """
        for item in applied:
            hub = self.realms.get(item.realm)
            if hub is not None:
                hub.deliver(index, item.step)
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        for hub in self.realms.values():
            hub.flush()

    def ping(self, hub: RealmHub, subscriber: Subscriber, nonce: int) -> None:
        """Asks for a progress that counts from now: by a barrier that begins after this call (D2)."""
        waiting = self._asked.get(subscriber)
        if waiting is not None:
            waiting.add(nonce)
            return
        before = self._proving.get(subscriber)
        poll_at = asyncio.get_running_loop().time() + _POLL_AFTER_S if before is None else before.poll_at
        self._asked[subscriber] = _Ask(hub, [nonce], poll_at)
        if self._answering is None:
            self._answering = asyncio.create_task(self._answer(), name="progress")
        if not self._look_due:
            self._look_due = True
            asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._asked:
                # Thousands ping all the time: so many share a barrier as come within an interval that nobody feels.
                await asyncio.sleep(max(0.0, self._not_before - loop.time()))
                self._not_before = loop.time() + _PROOF_EVERY_S
                asked, self._asked = self._asked, {}
                self._proving = asked
                try:
                    proofs = await asyncio.gather(*(barrier.prove() for barrier in self._barriers))
                except (NotReady, StoreUnavailable):
                    left = asked  # No proof, no progress: the clients' leases run out by themselves.
                    self._not_before = loop.time() + _AGAIN_S
                else:
                    if self.observe is not None:
                        self.observe(loop.time() - min(subscriber.heard for subscriber in asked))
                    left = self._tell(asked, min(proof.store_ms for proof in proofs))
                self._proving = {}
                self._ask_again(left)
        finally:
            self._answering, self._proving = None, {}

    def _tell(self, asked: dict[Subscriber, _Ask], store_ms: int) -> dict[Subscriber, _Ask]:
        """Answers, and returns those who may not be answered yet."""
        left: dict[Subscriber, _Ask] = {}
        for subscriber, ask in asked.items():
            verifier = subscriber.verifier
            if verifier is not None and not self.may_tell(ask.hub.realm, verifier):
                left[subscriber] = ask
            elif subscriber in ask.hub.subscribers:
                for nonce in ask.nonces:
                    ask.hub.progress(subscriber, nonce, store_ms)
        return left

    def _ask_again(self, left: dict[Subscriber, _Ask]) -> None:
        """Keeps the latest ping of each, so that all are fresh again as soon as the store can prove it.

        A barrier that begins later proves all the more: what it proves counts from the moment the ping was sent.
        """
        if left and not self._asked:
            self._not_before = asyncio.get_running_loop().time() + _AGAIN_S  # there is no hurry
        for subscriber, ask in left.items():
            if subscriber in ask.hub.subscribers and subscriber not in self._asked:
                del ask.nonces[:-1]
                self._asked[subscriber] = ask

    def _look(self) -> None:
        """A stream that waits for a proof is not dead; without a word from us its client would take it for that.

        When the store is away, thousands would connect again at once, and again and again until it is back.
        """
        self._look_due = False
        loop = asyncio.get_running_loop()
        now = loop.time()
        for subscriber, ask in (*self._proving.items(), *self._asked.items()):
            if ask.poll_at <= now:
                ask.poll_at = now + _POLL_EVERY_S
                subscriber.poll()
        if self._answering is not None:
            self._look_due = True
            loop.call_later(_LOOK_S, self._look)


def _encode_steps(index: int, steps: Sequence[Step]) -> Iterator[bytes]:
    """Changes and marks for these steps, joined as far as a message may go."""
    run: list[Step] = []
    size = 0
    for step in steps:
        if run and (step.mark or size + len(step.rows) > CHANGES_BYTES):
            yield _encode_run(index, run)
            run, size = [], 0
        if step.mark:
            yield stream.mark(Mark(index, step.previous, step.position, step.rows))
        else:
            run.append(step)
            size += len(step.rows)
    if run:
        yield _encode_run(index, run)


def _encode_run(index: int, run: list[Step]) -> bytes:
    return stream.changes(Changes(index, run[0].previous, run[-1].position, tuple(step.rows for step in run)))


def _take_snapshot(index: int, position: Position, history: RealmHistory) -> _Snapshot:
    digest, count, messages = hashlib.sha256(), 0, []
    for rows in history.chunks():
        digest.update(rows)
        count += count_rows(rows)
        messages.append(stream.snapshot_chunk(SnapshotChunk(index, rows)))
    messages.append(stream.snapshot_end(SnapshotEnd(index, position, count, digest.digest())))
    return _Snapshot(position, tuple(messages))
