"""What a stream brings must be ordered, unique and gapless, and it must begin where the client can go on.

Judged by the messages alone, without the follower: it has checks of its own, and one of both could be wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from revocation_sdk._messages import Changes, Intent, Mark, Message, Progress, SnapshotChunk, SnapshotEnd, Welcome
from revocation_sdk._position import NOWHERE, Position


class Delivery:
    """All that one client is sent, one stream after the other. One partition."""

    def __init__(self, name: str, fail: Callable[[str], None]) -> None:
        self.messages = 0
        self.behind = False
        """Whether this stream began at a place that the client must refuse."""
        self._name, self._fail = name, fail
        self._at: Position | None = None
        """Where the stream is; None before the end of its snapshot."""
        self._told: set[Position] = set()
        """Where this stream has been."""
        self._been: set[Position] = set()
        """Where the client has been, on this stream and on those before it."""
        self._wanted: Position = NOWHERE
        self._snapshot = hashlib.sha256()
        self._batch: list[Position] = []
        """The places that the last message leads through."""

    def begin(self, resume: tuple[Position, ...]) -> None:
        """A new stream, asked to go on from there."""
        self._wanted = resume[0] if resume else NOWHERE
        self._at, self._told, self._snapshot, self.behind = None, set(), hashlib.sha256(), False

    def applied(self, message: Message) -> None:
        """The client has taken it over."""
        match message:
            case Changes() | Mark() | SnapshotEnd():
                self._been.update(self._batch)

    def take(self, message: Message) -> None:
        """The next message of the stream."""
        self.messages += 1
        self._batch.clear()
        match message:
            case Welcome(partitions=(begun,)) if begun.intent is not Intent.SNAPSHOT:
                self._resume(begun.position)
            case SnapshotChunk():
                self._snapshot.update(message.rows)
            case SnapshotEnd():
                if self._snapshot.digest() != message.digest:
                    self._broken("gapless", "a snapshot of which something is missing")
                self._move(message.position)
            case Changes() | Mark():
                self._follow(message)
            case Progress():
                self._answer(message)

    def _resume(self, position: Position) -> None:
        if position not in self._been and self._is_behind(position):
            self.behind = True
        elif self._wanted == NOWHERE or position not in self._been:
            self._broken("resumable", f"a stream that goes on at {_text(position)}, where the client has never been")
        self._move(position)

    def _is_behind(self, position: Position) -> bool:
        """Whether the replica has not come yet to where the client is, and is at a place that the client left out: it
        entered this history further on by a snapshot, or was taken past it by a mark.

        The replica cannot know that. The client refuses, and gets a snapshot.
        """
        been = {place.seq for place in self._been if place.log_id == position.log_id}
        same = position.log_id == self._wanted.log_id
        return same and position.seq < self._wanted.seq and position.seq not in been

    def _follow(self, message: Changes | Mark) -> None:
        if message.position in self._told:
            self._broken("unique", f"{_text(message.position)} a second time")
        elif self._at is None or message.previous != self._at:
            sort = "ordered" if message.previous in self._told else "gapless"
            self._broken(sort, f"{_text(message.previous)} after {_text(self._at)}")
        elif isinstance(message, Changes):
            place = message.previous
            for rows in message.records:
                place = place.advance(rows)
                self._batch.append(place)
            if place != message.position:
                self._broken("gapless", f"records that do not lead to {_text(message.position)}")
        self._move(message.position)

    def _answer(self, message: Progress) -> None:
        if message.positions != (self._at,):
            self._broken("ordered", f"progress at {_text(message.positions[0])}, ahead of {_text(self._at)}")

    def _move(self, position: Position) -> None:
        self._at = position
        self._told.add(position)
        self._batch.append(position)

    def _broken(self, sort: str, what: str) -> None:
        self._fail(f"{sort}: {self._name} was sent {what}")


def _text(position: Position | None) -> str:
    return "nowhere" if position is None else f"{position.log_id.hex()[:6]}:{position.seq}"
