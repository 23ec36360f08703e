"""Fan-out: what is encoded once for many, and snapshots that are made beside the event loop."""

from __future__ import annotations

import asyncio
import hashlib
import struct
import threading

import pytest

from revocation.fanout import hub as hub_module
from revocation.fanout.hub import RealmHub, Subscriber
from revocation.replication.history import RealmHistory
from revocation.replication.partition import Partition
from revocation.rpc import stream
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._lattice import Group, Kind, join_groups
from revocation_sdk._position import NOWHERE, ZERO_DIGEST, Position
from revocation_sdk._view import View

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
