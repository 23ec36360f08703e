"""Fan-out: what is encoded once for many, and snapshots that are made beside the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import struct
import threading
from functools import partial
from typing import Any, cast

import pytest

from revocation.fanout import hub as hub_module
from revocation.fanout.hub import Hub, RealmHub, Subscriber
from revocation.fanout.landing import Verifier
from revocation.replication.barrier import Proof
from revocation.replication.history import RealmHistory
from revocation.replication.partition import Partition
from revocation.replication.replica import NotReady
from revocation.rpc import stream
from revocation.store import StoreUnavailable
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._lattice import Group, Kind, join_groups
from revocation_sdk._position import NOWHERE, ZERO_DIGEST, Position
from revocation_sdk._view import View
from tests.revocation.turning import eventually

REALM, LOG_ID = "default", b"l" * 16
ROWS_EACH = 500


@pytest.mark.parametrize("nonce", [0, 1, 127, 128, 300, 2**32, 2**64 - 1])
@pytest.mark.parametrize("partitions", [1, 2, 40])
def test_an_answer_to_a_ping_is_what_protobuf_would_make(nonce: int, partitions: int) -> None:
    positions = [Position(LOG_ID, number, b"d" * 20) for number in range(1, partitions)] + [NOWHERE]
    answer = pb.WatchResponse.FromString(stream.progress(nonce, positions, 1_700_000_000_000))
    assert answer == pb.WatchResponse(
        progress=pb.Progress(nonce=nonce, positions=stream.positions(positions), store_ms=1_700_000_000_000)
    )


def rows_of(number: int, count: int = ROWS_EACH) -> bytes:
    packed = b"".join(struct.pack("<QI", (number << 32) + row * 7_919, 2_000_000_000) for row in range(count))
    return join_groups([Group(Kind.TOKEN, 1, packed)])


def a_realm(records: int) -> tuple[RealmHub, RealmHistory]:
    partition = Partition()
    partition.log_id = LOG_ID.hex()
    history = partition.realm(REALM)
    history.restart(Position(LOG_ID, 0, ZERO_DIGEST))
    for number in range(records):
        history.append(rows_of(number))
    return RealmHub([partition], REALM), history


def received(messages: list[bytes]) -> tuple[View, Position]:
    """What a client that had nothing makes of the beginning of a stream; it checks count, digest and gaps."""
    view, position, snapshot, digest = View(), NOWHERE, 0, hashlib.sha256()
    for message in messages:
        answer = pb.WatchResponse.FromString(message)
        match answer.WhichOneof("kind"):
            case "snapshot_chunk":
                view.merge(answer.snapshot_chunk.rows)
                digest.update(answer.snapshot_chunk.rows)
                snapshot = len(view)
            case "snapshot_end":
                assert (answer.snapshot_end.count, answer.snapshot_end.digest) == (snapshot, digest.digest())
                (position,) = stream.positions_from(pb.Positions(partitions=[answer.snapshot_end.position]))
            case "changes":
                (previous,) = stream.positions_from(pb.Positions(partitions=[answer.changes.previous]))
                assert previous == position
                for rows in answer.changes.records:
                    view.merge(rows)
                    position = position.advance(rows)
    return view, position


async def test_a_snapshot_made_beside_a_writer_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is committed while it is made comes behind it."""
    hub, history = a_realm(100)
    real = hub_module._take_snapshot

    enough = threading.Event()

    def slowly(*arguments: object) -> object:
        enough.wait(20)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hub_module, "_take_snapshot", slowly)
    preparing = [asyncio.create_task(hub.prepare((NOWHERE,))) for _ in range(3)]
    written = 100
    while not all(task.done() for task in preparing):
        history.append(rows_of(written, 40))
        written += 1
        if written > 110:
            enough.set()
        await asyncio.sleep(0.001)
    assert written > 110
    beginning = hub.subscribe(Subscriber(), (NOWHERE,), may_snapshot=True)
    view, position = received(beginning.messages)
    assert position == history.position
    assert len(view) == len(history.view) == 100 * ROWS_EACH + (written - 100) * 40


async def test_those_who_wait_together_share_one_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    hub, _ = a_realm(100)
    made = 0
    real = hub_module._take_snapshot

    def counted(*arguments: object) -> object:
        nonlocal made
        made += 1
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(hub_module, "_take_snapshot", counted)
    await asyncio.gather(*(hub.prepare((NOWHERE,)) for _ in range(20)))
    messages = [hub.subscribe(Subscriber(), (NOWHERE,), may_snapshot=True).messages for _ in range(20)]
    assert made == 1
    assert all(one is other for one, other in zip(messages[0], messages[-1], strict=True))


async def test_who_can_resume_makes_no_snapshot() -> None:
    hub, history = a_realm(100)
    await hub.prepare((history.position,))
    assert hub._snapshots == {}


async def test_a_snapshot_of_a_past_that_was_forgotten_is_not_used() -> None:
    hub, history = a_realm(100)
    await hub.prepare((NOWHERE,))
    history.append(rows_of(100))
    history.restart(Position(b"m" * 16, 7, b"e" * 20))
    view, position = received(hub.subscribe(Subscriber(), (NOWHERE,), may_snapshot=True).messages)
    assert (len(view), position) == (101 * ROWS_EACH, history.position)


async def test_the_silent_are_cut_off() -> None:
    hub, history = a_realm(1)
    silent, alive = Subscriber(), Subscriber()
    for subscriber in (silent, alive):
        hub.subscribe(subscriber, (history.position,), may_snapshot=True)
    alive.heard += 10
    hub.end_silent(silent.heard + 5)
    assert (silent.ended, alive.ended) == ("gone", None)


# Pings


class Barriers:
    """A barrier that fails, hangs or proves, as it is told."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.trouble = trouble
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.begun = 0

    async def prove(self) -> Proof:
        self.begun += 1
        await self.hangs.wait()
        if self.trouble is not None:
            raise self.trouble
        return Proof(1_700_000_000_000, 0)


class Pinging:
    """A hub, and subscribers that ping."""

    def __init__(self, trouble: Exception | None = None) -> None:
        self.barrier = Barriers(trouble)
        self.partition = a_realm(1)[0]._partitions[0]
        self.hub = Hub([self.partition], [cast(Any, self.barrier)], [REALM])
        self.realm = self.hub.realms[REALM]

    def come(self, *, polled: bool = True) -> Subscriber:
        now = asyncio.get_running_loop().time()
        subscriber = Subscriber(Verifier(b"i" * 16, "", "", "", now, polled=polled))
        self.realm.subscribe(subscriber, self.realm.positions(), may_snapshot=True)
        return subscriber

    def ping(self, subscriber: Subscriber, nonce: int) -> None:
        self.hub.ping(self.realm, subscriber, nonce)


def told(subscriber: Subscriber) -> list[str | int]:
    """All that waits for a subscriber: the nonces of progress, and other messages by name."""
    found: list[str | int] = []
    while (message := subscriber.take()) is not None:
        answer = pb.WatchResponse.FromString(message)
        found.append(answer.progress.nonce if answer.HasField("progress") else str(answer.WhichOneof("kind")))
    return found


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes less."""
    for name in ("_AGAIN_S", "_POLL_AFTER_S", "_POLL_EVERY_S", "_LOOK_S"):
        monkeypatch.setattr(hub_module, name, 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("trouble", [NotReady("healing"), StoreUnavailable("down"), None])
async def test_who_waits_for_a_proof_hears_that_we_are_here(trouble: Exception | None) -> None:
    """Whether it fails or hangs: else all clients take a store that is away for a dead connection."""
    pinging = Pinging(trouble)
    if trouble is None:
        pinging.barrier.hangs.clear()
    waiting, idle = pinging.come(), pinging.come()
    pinging.ping(waiting, 1)
    for _ in range(3):
        await eventually(lambda: waiting.queued_bytes, "it hears something")
        assert told(waiting) == ["poll"]
    assert told(idle) == []


@pytest.mark.usefixtures("impatient")
async def test_one_word_at_most_waits_for_a_subscriber_that_does_not_read() -> None:
    pinging = Pinging(StoreUnavailable("down"))
    stuck, written = pinging.come(), pinging.come()
    written.writing = asyncio.current_task()
    for subscriber in (stuck, written):
        pinging.ping(subscriber, 1)
    await eventually(lambda: pinging.barrier.begun > 20, "proofs are tried")
    assert told(stuck) == ["poll"]
    assert told(written) == [], "a message is on its way to it"


@pytest.mark.usefixtures("impatient")
async def test_a_release_that_knows_no_poll_is_sent_none() -> None:
    """0.1.0 ends a stream at a message that it does not know."""
    pinging = Pinging(StoreUnavailable("down"))
    old = pinging.come(polled=False)
    pinging.ping(old, 1)
    await eventually(lambda: pinging.barrier.begun > 20, "proofs are tried")
    assert told(old) == []


@pytest.mark.usefixtures("impatient")
async def test_as_soon_as_the_store_is_back_all_are_answered_without_another_ping() -> None:
    pinging = Pinging(StoreUnavailable("down"))
    waiting = [pinging.come(polled=False) for _ in range(20)]
    for subscriber in waiting:
        for nonce in (1, 2):
            pinging.ping(subscriber, nonce)
    await eventually(lambda: pinging.barrier.begun > 3, "proofs are tried")
    pinging.barrier.trouble = None
    await eventually(lambda: all(subscriber.queued_bytes for subscriber in waiting), "all are answered")
    assert [told(subscriber) for subscriber in waiting] == [[2]] * 20
    await eventually(lambda: pinging.hub._answering is None, "nobody waits any more")


async def test_all_pings_that_come_together_are_answered() -> None:
    pinging = Pinging()
    subscriber = pinging.come()
    for nonce in (5, 6, 7):
        pinging.ping(subscriber, nonce)
    await eventually(lambda: subscriber.queued_bytes, "it is answered")
    assert told(subscriber) == [5, 6, 7]


async def test_of_a_flood_of_pings_the_last_ones_are_kept() -> None:
    pinging = Pinging()
    pinging.barrier.hangs.clear()
    subscriber = pinging.come()
    for nonce in range(1, 10_000):
        pinging.ping(subscriber, nonce)
        if nonce == 5_000:
            await eventually(lambda: pinging.barrier.begun, "proofs are tried")
    pinging.barrier.hangs.set()
    await eventually(lambda: pinging.hub._answering is None, "nobody waits any more")
    answered = [nonce for nonce in told(subscriber) if nonce != "poll"]
    assert answered == [*range(5_001 - 64, 5_001), *range(10_000 - 64, 10_000)]


@pytest.mark.usefixtures("impatient")
async def test_who_has_gone_is_not_kept_while_the_store_is_away() -> None:
    pinging = Pinging(StoreUnavailable("down"))
    subscriber = pinging.come()
    pinging.ping(subscriber, 1)
    pinging.realm.subscribers.discard(subscriber)
    await eventually(lambda: pinging.hub._answering is None, "nobody waits any more")
    assert not pinging.hub._asked
    assert not pinging.hub._proving


@pytest.mark.usefixtures("impatient")
async def test_nobody_hears_that_it_is_fresh_before_it_may() -> None:
    """But the others do, and it does as soon as it may."""
    pinging = Pinging()
    held, other = pinging.come(), pinging.come()
    pinging.hub.may_tell = lambda realm, verifier: realm == REALM and verifier is not held.verifier
    pinging.ping(held, 1)
    for nonce in range(1, 4):
        pinging.ping(other, nonce)
        await eventually(partial(lambda nonce: nonce in told(other), nonce), "the other one is answered")
    assert set(told(held)) <= {"poll"}
    pinging.hub.may_tell = lambda *_: True
    await eventually(lambda: 1 in told(held), "it is answered")
