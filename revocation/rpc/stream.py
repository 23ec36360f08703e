"""The messages of Watch, encoded. Hub and servicer hand bytes to gRPC, so that a change is encoded once for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._lattice import RealmKey
from revocation_sdk._messages import (
    Changes,
    Goodbye,
    Intent,
    Mark,
    PartitionIntent,
    RealmSettings,
    SnapshotChunk,
    SnapshotEnd,
)
from revocation_sdk._position import NOWHERE, ZERO_DIGEST, Position

_INTENTS = {
    Intent.UP_TO_DATE: pb.Welcome.UP_TO_DATE,
    Intent.RESUME: pb.Welcome.RESUME,
    Intent.SNAPSHOT: pb.Welcome.SNAPSHOT,
}


def position(value: Position) -> pb.Position:
    """One position."""
    if value == NOWHERE:
        return pb.Position()
    return pb.Position(log_id=value.log_id, seq=value.seq, digest=value.digest)


def positions(values: Iterable[Position]) -> pb.Positions:
    """One position for each partition."""
    return pb.Positions(partitions=[position(value) for value in values])


def positions_from(message: pb.Positions) -> tuple[Position, ...]:
    """What a client says of its positions; an absurd one is as good as none, and leads to a snapshot."""
    return tuple(
        Position(item.log_id, item.seq, item.digest or ZERO_DIGEST) if item.log_id else NOWHERE
        for item in message.partitions
    )


def welcome(
    intents: Sequence[PartitionIntent], settings: RealmSettings, keys: Sequence[RealmKey], store_ms: int, replica: str
) -> bytes:
    """The first answer of a stream."""
    return pb.WatchResponse(
        welcome=pb.Welcome(
            partitions=[
                pb.Welcome.Partition(intent=_INTENTS[item.intent], reason=item.reason, position=position(item.position))
                for item in intents
            ],
            settings=pb.RealmSettings(
                max_token_life_s=settings.max_token_life_s,
                max_leeway_s=settings.max_leeway_s,
                margin_s=settings.margin_s,
            ),
            keys=[pb.RealmKey(tag=key.tag, key=key.key) for key in keys],
            store_ms=store_ms,
            replica=replica,
        )
    ).SerializeToString()


def snapshot_chunk(chunk: SnapshotChunk) -> bytes:
    """A part of a snapshot."""
    return pb.WatchResponse(
        snapshot_chunk=pb.SnapshotChunk(partition=chunk.partition, rows=chunk.rows)
    ).SerializeToString()


def snapshot_end(end: SnapshotEnd) -> bytes:
    """The end of a partition's snapshot."""
    return pb.WatchResponse(
        snapshot_end=pb.SnapshotEnd(
            partition=end.partition, position=position(end.position), count=end.count, digest=end.digest
        )
    ).SerializeToString()


def changes(value: Changes) -> bytes:
    """Records that follow each other."""
    return pb.WatchResponse(
        changes=pb.Changes(
            partition=value.partition,
            previous=position(value.previous),
            position=position(value.position),
            records=value.records,
        )
    ).SerializeToString()


def mark(value: Mark) -> bytes:
    """A change of history."""
    return pb.WatchResponse(
        mark=pb.Mark(
            partition=value.partition,
            previous=position(value.previous),
            position=position(value.position),
            rows=value.rows,
        )
    ).SerializeToString()


def progress(nonce: int, values: Iterable[Position], store_ms: int) -> bytes:
    """The answer to a ping."""
    return answers(values, store_ms)(nonce)


def answers(values: Iterable[Position], store_ms: int) -> Callable[[int], bytes]:
    """The answers to all pings that one proof covers, by nonce: what they share is encoded once, and they are many."""
    shared = pb.Progress(positions=positions(values), store_ms=store_ms).SerializeToString()

    def answer(nonce: int) -> bytes:
        # In protobuf's encoding fields may come in any order, and a message is the sum of its fields.
        body = _NONCE + _varint(nonce) + shared if nonce else shared
        return _PROGRESS + _varint(len(body)) + body

    return answer


_NONCE = bytes((pb.Progress.NONCE_FIELD_NUMBER << 3,))
_PROGRESS = bytes((pb.WatchResponse.PROGRESS_FIELD_NUMBER << 3 | 2,))


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def trace(positions_of: Iterable[Position], traceparent: str) -> bytes:
    """A revocation belongs to a trace."""
    return pb.WatchResponse(
        trace=pb.Trace(position=positions(positions_of), traceparent=traceparent)
    ).SerializeToString()


POLL = pb.WatchResponse(poll=pb.Poll()).SerializeToString()
"""Somebody waits for this verifier."""


def goodbye(value: Goodbye) -> bytes:
    """The stream will end."""
    return pb.WatchResponse(
        goodbye=pb.Goodbye(reason=value.reason, reconnect_after_ms=value.reconnect_after_ms)
    ).SerializeToString()
