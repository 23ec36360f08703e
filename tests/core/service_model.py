"""A model of the service, for the simulator: the logs of a store, replicas that read them, and one stream to a client.

What a replica remembers and how it resumes a client is the real `RealmHistory`; what lies around it is made to fail.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from revocation.replication.history import RealmHistory, Resume, Step
from revocation_sdk._lattice import CUTOFF, DENIAL, Group, Kind, RealmKey, join_groups
from revocation_sdk._messages import (
    Changes,
    Intent,
    Mark,
    Message,
    PartitionIntent,
    Ping,
    Progress,
    RealmSettings,
    SnapshotChunk,
    SnapshotEnd,
    Welcome,
)
from revocation_sdk._position import NOWHERE, ZERO_DIGEST, Position
from revocation_sdk._view import View

KEY = RealmKey(7, b"k" * 32)
LEEWAY, MARGIN, SKEW = 5.0, 20.0, 5.0


class Surroundings(Protocol):
    """What the model needs of the world around it."""

    rng: random.Random
    now: float

    def store_ms(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Fact:
    """A revocation that was acknowledged."""

    at: float
    kind: Kind
    fp: int
    version: int
    token_exp: float

    @property
    def expires_at(self) -> int:
        return int(self.token_exp + LEEWAY + MARGIN) + 1

    @property
    def rows(self) -> bytes:
        if self.kind is Kind.TOKEN:
            return join_groups([Group(self.kind, KEY.tag, DENIAL.pack(self.fp, self.expires_at))])
        row = CUTOFF.pack(self.fp, self.expires_at, self.version, int(self.at * 1000))
        return join_groups([Group(self.kind, KEY.tag, row)])

    def in_force(self, view: View, now: float) -> bool:
        entry = view.cutoff(self.kind, KEY.tag, self.fp, now)
        return entry is not None and entry.version >= self.version


class Log:
    """One partition of the store. Bit n of a mask stands for fact n."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.histories = 0
        self.covers: dict[Position, int] = {}
        self.open()

    @property
    def tail(self) -> Position:
        return self.places[-1]

    @property
    def everything(self) -> int:
        return (1 << len(self.facts)) - 1

    def open(self) -> None:
        """Begins another history, in which everything is, since the replicas have put back what was lost."""
        self.histories += 1
        start = Position(self.histories.to_bytes(16, "big"), 0, ZERO_DIGEST)
        self.places, self.records = [start], [b""]
        self.covers[start] = self.everything

    def commit(self, *numbers: int) -> None:
        """Writes a record. Its place covers what the one before does, and these facts."""
        rows = b"".join(self.facts[number].rows for number in numbers)
        place = self.tail.advance(rows)
        self.covers[place] = self.covers[self.tail] | sum(1 << number for number in numbers)
        self.places.append(place)
        self.records.append(rows)

    def rewind(self, length: int) -> list[int]:
        """Loses the end of its log and does not notice: model D10. Returns what was in it."""
        lost = self.covers[self.tail] & ~self.covers[self.places[length]]
        del self.places[length + 1 :], self.records[length + 1 :]
        return [number for number in range(len(self.facts)) if lost >> number & 1]

    def rows(self, mask: int) -> bytes:
        return b"".join(fact.rows for number, fact in enumerate(self.facts) if mask >> number & 1)


class Replica:
    """A service replica: what it has read of every partition, and whom it tells."""

    def __init__(self, logs: list[Log]) -> None:
        self.logs = logs
        self.histories = [self.load(log, 0, 0) for log in logs]
        self.told: list[Callable[[int, Step], None]] = []

    @staticmethod
    def load(log: Log, first: int, last: int) -> RealmHistory:
        """A replica that starts: loads the state, and fills its ring from the log."""
        loaded = RealmHistory(log.places[first])
        loaded.view.merge(log.rows(log.covers[log.places[first]]))
        for rows in log.records[first + 1 : last + 1]:
            loaded.append(rows)
        return loaded

    def read(self, partition: int, count: int) -> None:
        """Reads on; at a change of history it learns what it had missed (H13)."""
        own, log = self.histories[partition], self.logs[partition]
        if own.position.log_id != log.tail.log_id:
            rows = log.rows(log.covers[log.places[0]] & ~log.covers[own.position])
            own.view.merge(rows)
            self.tell(partition, own.mark(log.places[0], rows))
        start = own.position.seq + 1
        for rows in log.records[start : start + count]:
            self.tell(partition, own.append(rows))

    def tell(self, partition: int, step: Step) -> None:
        for tell in self.told:
            tell(partition, step)


@dataclass
class Stream:
    """The server's end of Watch, and the wires."""

    world: Surroundings
    replica: Replica
    sent: list[Position] = field(default_factory=list)
    pending: list[deque[Step]] = field(default_factory=list)
    arrived: list[int] = field(default_factory=list)
    barriers: deque[tuple[int, list[int], int]] = field(default_factory=deque)
    up: deque[Ping] = field(default_factory=deque)
    down: deque[Message] = field(default_factory=deque)

    def tell(self, partition: int, step: Step) -> None:
        self.pending[partition].append(step)

    def answer(self, resume: tuple[Position, ...]) -> None:
        """Says what it will do, and sends the snapshots."""
        rng, intents, snapshots = self.world.rng, [], []
        for index, own in enumerate(self.replica.histories):
            found = own.resume(resume[index] if resume else NOWHERE)
            if rng.random() < 0.1:
                found = self.careless(own, resume[index] if resume else NOWHERE)
            if isinstance(found, str) or rng.random() < 0.1:
                intents.append(PartitionIntent(Intent.SNAPSHOT, "first", NOWHERE))
                snapshots += self.snapshot(index, own)
                found = Resume(own.position, ())
            else:
                intent = Intent.RESUME if found.steps else Intent.UP_TO_DATE
                intents.append(PartitionIntent(intent, "", found.position))
            self.sent.append(found.position)
            self.pending.append(deque(found.steps))
        store_ms = self.world.store_ms()
        self.down.append(Welcome(tuple(intents), RealmSettings(), (KEY,), store_ms, "r"))
        self.down.extend(snapshots)
        self.replica.told.append(self.tell)

    def careless(self, own: RealmHistory, wanted: Position) -> Resume | str:
        """What a broken server would offer: the place of that number, whatever its digest; or just the end."""
        steps = tuple(own._steps)
        for index, step in enumerate(steps):
            if (step.position.log_id, step.position.seq) == (wanted.log_id, wanted.seq):
                return Resume(step.position, steps[index + 1 :])
        return Resume(own.position, ())

    def snapshot(self, index: int, own: RealmHistory) -> list[Message]:
        own.view.drop_expired(self.world.now - SKEW)
        chunks = list(own.view.chunks())
        digest = hashlib.sha256(b"".join(chunks)).digest()
        count = len(own.view)
        return [*(SnapshotChunk(index, rows) for rows in chunks), SnapshotEnd(index, own.position, count, digest)]

    def barrier(self) -> None:
        """D2: vouches for the pings that have arrived, and for no later one."""
        tails = [log.covers[log.tail] for log in self.replica.logs]
        self.barriers.extend((nonce, tails, self.world.store_ms()) for nonce in self.arrived)
        self.arrived.clear()

    def send(self, most: int) -> None:
        for index, pending in enumerate(self.pending):
            run: list[Step] = []
            while pending and len(run) < most and not (run and pending[0].mark):
                run.append(pending.popleft())
                if run[-1].mark:
                    break
            if not run:
                continue
            first, self.sent[index] = run[0].previous, run[-1].position
            if run[-1].mark:
                self.down.append(Mark(index, first, run[0].position, run[0].rows))
            else:
                self.down.append(Changes(index, first, run[-1].position, tuple(step.rows for step in run)))
        while self.barriers and self.reached(self.barriers[0][1]):
            nonce, _, store_ms = self.barriers.popleft()
            self.down.append(Progress(nonce, tuple(self.sent), store_ms))

    def reached(self, tails: list[int]) -> bool:
        """D3: only when all that the barrier saw has been sent."""
        logs = self.replica.logs
        return all(tail & ~log.covers[sent] == 0 for log, sent, tail in zip(logs, self.sent, tails, strict=True))
