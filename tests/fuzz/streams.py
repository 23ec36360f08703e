"""What a hostile or broken service sends: rows, messages of Watch, positions, failures."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import grpc
from google.protobuf.message import Message

from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._clock import Clock
from revocation_sdk._follower import Follower
from revocation_sdk._lattice import (
    CUTOFF,
    DENIAL,
    GROUP,
    Kind,
    MalformedRows,
    RealmKey,
    count_rows,
    join_groups,
    parse_groups,
)
from revocation_sdk._packed import PureBuilder
from revocation_sdk._packed_fast import NumpyBuilder
from revocation_sdk._position import ZERO_DIGEST, Position, decode_positions, encode_positions
from revocation_sdk._retry import error_of
from revocation_sdk._view import View
from revocation_sdk._wire import failure_of, positions_to
from revocation_sdk._worker import Worker
from revocation_sdk.errors import RevocationError
from tests.fuzz.messages import a_message
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Finding, Target, check_text

KEY = RealmKey(7, b"k" * 32)
LATER = int(time.time()) + 3600


def a_row(kind: int, fp: int, expires_at: int = LATER, version: int = 1, at_ms: int = 5) -> bytes:
    packed = DENIAL.pack(fp, expires_at) if kind < 64 else CUTOFF.pack(fp, expires_at, version, at_ms)
    return GROUP.pack(kind, KEY.tag, 1) + packed


ROWS = (
    b"",
    a_row(1, 5),
    a_row(1, 2**64 - 1) + a_row(66, 0, 2**32 - 1, 2**64 - 1, 2**64 - 1),
    a_row(3, 9, 2**32 - 1),
    b"".join(a_row(1, number) for number in range(50))
    + b"".join(a_row(64, number, version=number) for number in range(50)),
    GROUP.pack(1, 7, 100) + b"".join(DENIAL.pack(number << 50, LATER) for number in range(100)),
    GROUP.pack(1, 7, 0),
    GROUP.pack(99, 7, 1) + CUTOFF.pack(1, 2, 3, 4),
    GROUP.pack(0, 7, 1),
    GROUP.pack(1, 7, 2**32 - 1),
    a_row(1, 5, 0),
)


class Rows(Target):
    """Rows: they parse, and then both builders of the packed table agree; or MalformedRows and nothing has changed."""

    name = "rows"

    def seeds(self) -> Sequence[bytes]:
        return ROWS

    def one(self, data: bytes) -> str:
        views = [View(builder=PureBuilder(8, 2)), View(builder=NumpyBuilder(64, 8))]
        for view in views:
            view.merge(ROWS[4])
        try:
            groups = list(parse_groups(data))
        except MalformedRows as error:
            check_text(str(error))
            self._refused(views, data)
            return "MalformedRows"
        if count_rows(data) != sum(group.length for group in groups):
            raise Finding("rows are counted in two ways")
        if list(parse_groups(join_groups(groups))) != [group for group in groups if group.rows]:
            raise Finding("rows do not survive being written and read")
        for view in views:
            view.merge(data)
        if _entries(views[0]) != _entries(views[1]):
            raise Finding("the two implementations of the packed table disagree")
        return "rows"

    def _refused(self, views: list[View], data: bytes) -> None:
        for view in views:
            before = _entries(view)
            try:
                view.merge(data)
            except MalformedRows:
                if _entries(view) != before:
                    raise Finding("refused rows have changed the view") from None
            else:
                raise Finding("malformed rows were merged")


def _entries(view: View) -> list[tuple[int, int, bytes]]:
    return sorted(
        (group.kind, group.key_tag, group.rows[at : at + size])
        for rows in view.chunks()
        for group in parse_groups(rows)
        for size in [len(group.rows) // group.length]
        for at in range(0, len(group.rows), size)
    )


class _Endpoint:
    """Plays a connection: hands out what a peer would have sent."""

    def __init__(self, answers: Sequence[pb.WatchResponse]) -> None:
        self.answers = answers

    def new(self) -> _Endpoint:
        return self

    def stub(self, _: Any) -> _Endpoint:
        return self

    def Watch(self, _: Iterator[Any], metadata: Any = None) -> _Endpoint:
        return self

    def __iter__(self) -> Iterator[pb.WatchResponse]:
        return iter(self.answers)

    def cancel(self) -> None:
        pass

    close = advance = cancel


class _NoSecurity:
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ()


def packed(*messages: Message | bytes) -> bytes:
    """Messages in a row, each with its length in two bytes."""
    raw = [message if isinstance(message, bytes) else message.SerializeToString() for message in messages]
    return b"".join(min(len(one), 65_535).to_bytes(2, "little") + one[:65_535] for one in raw)


def unpacked(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "little")
        yield data[at + 2 : at + 2 + size]
        at += 2 + size


def a_stream(resume: bool = False, rows: Sequence[bytes] = ROWS[1:4]) -> list[pb.WatchResponse]:
    """A stream that a good service could send."""
    place = Position(b"L" * 16, 0, ZERO_DIGEST)
    where = positions_to((place,)).partitions[0]
    snapshot = b"".join(rows)
    welcome = pb.Welcome(
        partitions=[pb.Welcome.Partition(intent=pb.Welcome.RESUME if resume else pb.Welcome.SNAPSHOT, position=where)],
        settings=pb.RealmSettings(max_token_life_s=86_400, max_leeway_s=60, margin_s=60),
        keys=[pb.RealmKey(tag=KEY.tag, key=KEY.key)],
        store_ms=int(time.time() * 1000),
        replica="r",
    )
    end = pb.SnapshotEnd(position=where, count=count_rows(snapshot), digest=hashlib.sha256(snapshot).digest())
    said = [
        pb.WatchResponse(welcome=welcome),
        pb.WatchResponse(snapshot_chunk=pb.SnapshotChunk(rows=snapshot)),
        pb.WatchResponse(snapshot_end=end),
    ]
    for one in rows:
        after = place.advance(one)
        pair = positions_to((place, after)).partitions
        said.append(pb.WatchResponse(changes=pb.Changes(previous=pair[0], position=pair[1], records=[one])))
        place = after
    said.append(pb.WatchResponse(progress=pb.Progress(nonce=1, positions=positions_to((place,)), store_ms=1)))
    said.append(pb.WatchResponse(goodbye=pb.Goodbye(reason="drain", reconnect_after_ms=5)))
    return said


class WatchStreams(Target):
    """Whole streams into the follower of an SDK: it never stumbles, and is never fresh without a proof."""

    name = "watch-stream"

    def seeds(self) -> Sequence[bytes]:
        good = a_stream()
        mark = pb.WatchResponse(mark=pb.Mark(previous=good[-3].changes.position, rows=ROWS[2]))
        return [
            packed(*good),
            packed(*a_stream(resume=True)),
            packed(*a_stream(rows=ROWS[4:6])),
            packed(*good[:3], mark),
            packed(good[0], good[0]),
            packed(*good[1:]),
            packed(pb.WatchResponse()),
            packed(*good[:2], *good[3:]),
        ]

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        messages = list(unpacked(rng.choice(seeds)))
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(messages))
            step = rng.randrange(6)
            if step == 0:
                messages[at:at] = [a_message(rng, pb.WatchResponse).SerializeToString()]
            elif step == 1 and messages:
                messages[at % len(messages)] = mutate(rng, messages[at % len(messages)])
            elif step == 2 and messages:
                messages[at:at] = [rng.choice(messages)]
            elif step == 3 and messages:
                del messages[at % len(messages)]
            elif step == 4:
                other = list(unpacked(rng.choice(seeds)))
                messages[at:] = other[rng.randint(0, len(other)) :]
            elif messages:
                rng.shuffle(messages)
        return packed(*messages)

    def one(self, data: bytes) -> str:
        answers: list[pb.WatchResponse] = []
        for raw in unpacked(data):
            try:
                answers.append(pb.WatchResponse.FromString(raw))
            except Exception:  # gRPC ends the call by itself
                break
        clock = Clock(lambda: 1000.0, lambda: float(LATER - 3600))
        follower = Follower("default", View())
        endpoint: Any = _Endpoint(answers)
        worker = Worker(follower, endpoint, _NoSecurity(), clock, 2.0, lambda: None)  # type: ignore[arg-type]
        follower.view.merge(a_row(1, 12345))
        stays = worker._follow_once("fuzz")
        if worker.trouble == "internal":
            raise Finding("the follower stumbled")
        if not 0 <= stays <= 60:
            raise Finding(f"kept away for {stays} s")
        if Kind.TOKEN not in {place[0] for place in follower.view.tables()}:
            raise Finding("the view has lost what it held")
        if follower.lease is not None and worker.trouble not in ("stream_ended", ""):
            raise Finding(f"fresh after {worker.trouble}")
        check_text(worker.trouble)
        return ("fresh, " if follower.lease is not None else "") + (worker.trouble or "followed")


class Positions(Target):
    """Positions in text, as receipts show them."""

    name = "position"

    def seeds(self) -> Sequence[bytes]:
        one = Position(b"L" * 16, 5, b"d" * 20)
        return [encode_positions((one,)).encode(), encode_positions((one, one)).encode(), b"", b"A" * 59]

    def one(self, data: bytes) -> str:
        text = data.decode("utf-8", "surrogateescape")
        try:
            found = decode_positions(text)
        except ValueError as error:
            check_text(str(error))
            return "ValueError"
        if encode_positions(found) != text:
            raise Finding("two spellings of one position")
        return "position"


class _Call(grpc.RpcError, grpc.Call):
    """A failed call with what a hostile service says about it."""

    def __init__(self, code: grpc.StatusCode, details: str, status: bytes) -> None:
        self._said = code, details, status

    def code(self) -> grpc.StatusCode:
        return self._said[0]

    def details(self) -> str:
        return self._said[1]

    def trailing_metadata(self) -> Any:
        return (("grpc-status-details-bin", self._said[2]),)

    def _nothing(self, *_: Any) -> Any:
        return None

    initial_metadata = is_active = time_remaining = cancel = add_callback = _nothing  # type: ignore[assignment]


class Failures(Target):
    """Statuses and their details: an error of the public tree comes out, and no absurd wait."""

    name = "failure"

    def seeds(self) -> Sequence[bytes]:
        from revocation import errors
        from revocation.rpc.errors import trailers

        made = [
            errors.InvalidField("token.jti", "is missing"),
            errors.Overloaded("wait", retry_after_ms=5000),
            errors.SessionOver("over", why="idle"),
            errors.Unavailable("not now"),
            errors.Denied("no"),
        ]
        return [bytes([number]) + trailers(error)[0][1] for number, error in enumerate(made)]

    def one(self, data: bytes) -> str:
        codes = list(grpc.StatusCode)
        said = _Call(codes[(data[0] if data else 0) % len(codes)], data[1:60].decode("utf-8", "replace"), data[1:])
        failure = failure_of(said)
        if not 0 <= failure.retry_after_s < float("inf"):
            raise Finding(f"wait {failure.retry_after_s}")
        error = error_of(failure)
        if not isinstance(error, RevocationError) or len(repr(error)) + len(error.reason) > 2000:
            raise Finding(f"an absurd error: {error!r:.200}")
        if not f"{error}{error.reason}{failure.field}".isprintable():
            raise Finding(f"control characters: {error!r}")
        check_text(error.reason)
        return type(error).__name__
