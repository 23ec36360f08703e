"""What a replica remembers of one realm in one partition: its view, where it stands, and the recent past.

Pure. The ring keeps what was applied, in this replica's own order, across changes of history (rule H13): a
reconnecting client resumes from the last place in it that is not beyond the client's position in *its* history. So
a failover is no resync.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Iterator
from dataclasses import dataclass

from revocation_sdk._lattice import Kind, parse_groups
from revocation_sdk._position import NOWHERE, Position
from revocation_sdk._view import ANY_TAG, View

RING_BYTES = 16 * 1024 * 1024
RING_ITEMS = 200_000
_ITEM_OVERHEAD = 250


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the ring: a record, or (`mark`) a change of history."""

    previous: Position
    position: Position
    rows: bytes
    mark: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """From where, and what came since."""

    position: Position
    steps: tuple[Step, ...]


@dataclass(slots=True)
class _Era:
    """The places of one history in the ring: number `first` lies at index `start`."""

    log_id: bytes
    start: int
    first: int


class RealmHistory:
    """One realm in one partition. `tags` are those of the realm's keys that this replica has."""

    def __init__(self, position: Position = NOWHERE, tags: Container[int] = ANY_TAG) -> None:
        self.view = View()
        self.position = position
        self._tags = tags
        self._foreign_key_came = False
        self._steps: deque[Step] = deque()
        self._dropped = 0  # steps that have left the ring: the index of its first one
        self._bytes = 0
        self._eras: list[_Era] = [_Era(position.log_id, 0, position.seq)]

    @property
    def remembered(self) -> int:
        """Steps from which a client can resume."""
        return len(self._steps)

    @property
    def lacks_key(self) -> bool:
        """Whether it holds entries under a key that this replica does not have: no look-up would ever find them.

        Revoked signing keys never expire, so those that were there before do not count (see `orphans`), but those that
        come do: somebody uses the key.
        """
        foreign = self.view.counts(except_tags=self._tags)
        return self._foreign_key_came or any(count for kind, count in foreign.items() if kind != Kind.KEY)

    @property
    def orphans(self) -> int:
        """Revoked signing keys under a key that this replica does not have: not refused any more."""
        return self.view.counts(except_tags=self._tags).get(Kind.KEY, 0)

    def chunks(self) -> Iterator[bytes]:
        """All entries that clients of this replica have the keys for."""
        return self.view.chunks(self._tags)

    def can_read(self, rows: bytes) -> bool:
        """Whether clients of this replica have the keys for all of these rows; if not, they refuse them."""
        return all(tag in self._tags for _, tag, _ in parse_groups(rows))

    def note(self, rows: bytes) -> None:
        """Takes notice of rows that came just now, or a short time ago."""
        if any(kind == Kind.KEY and tag not in self._tags for kind, tag, _ in parse_groups(rows)):
            self._foreign_key_came = True

    def append(self, rows: bytes) -> Step:
        """Applies the next record. Raises MalformedRows, and then nothing was changed."""
        self.view.merge(rows)
        return self._step(Step(self.position, self.position.advance(rows), rows))

    def mark(self, position: Position, rows: bytes = b"") -> Step:
        """Goes on in another history; `rows` is what the change taught. They are in the view already."""
        step = self._step(Step(self.position, position, rows, mark=True))
        self._eras.append(_Era(position.log_id, self._dropped + len(self._steps), position.seq))
        return step

    def restart(self, position: Position) -> None:
        """Forgets the past, not the view: nobody can resume from before."""
        self._steps.clear()
        self._dropped = self._bytes = 0
        self.position = position
        self._eras = [_Era(position.log_id, 0, position.seq)]

    def resume(self, position: Position) -> Resume | str:
        """What a client at `position` lacks; or why it needs a snapshot."""
        if position.log_id == b"":
            return "first"
        index = self._place(position)
        if isinstance(index, str):
            return index
        steps = tuple(self._from(index))
        place = steps[0].previous if steps else self.position
        if place.seq == position.seq and place.digest != position.digest:
            return "diverged"
        return Resume(place, steps)

    def _place(self, position: Position) -> int | str:
        """Index of the last place that is not beyond `position` in its history."""
        for number, era in reversed(list(enumerate(self._eras))):
            if era.log_id != position.log_id:
                continue
            is_last = number + 1 == len(self._eras)
            # The last place of an era that is over is the one before its mark.
            end = self._dropped + len(self._steps) if is_last else self._eras[number + 1].start - 1
            index = min(era.start + position.seq - era.first, end)
            return index if index >= max(era.start, self._dropped) else "too_old"
        return "unknown_history"

    def _from(self, index: int) -> Iterator[Step]:
        # From the right: a reconnecting client lacks the last few of very many.
        wanted = self._dropped + len(self._steps) - index
        taken: list[Step] = []
        for step in reversed(self._steps):
            if len(taken) == wanted:
                break
            taken.append(step)
        return reversed(taken)

    def _step(self, step: Step) -> Step:
        self._steps.append(step)
        self._bytes += len(step.rows) + _ITEM_OVERHEAD
        self.position = step.position
        while self._bytes > RING_BYTES or len(self._steps) > RING_ITEMS:
            self._bytes -= len(self._steps.popleft().rows) + _ITEM_OVERHEAD
            self._dropped += 1
        while len(self._eras) > 1 and self._eras[1].start <= self._dropped:
            del self._eras[0]
        return step
