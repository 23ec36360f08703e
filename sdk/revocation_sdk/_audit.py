"""The audit as its readers see it, and the check of its chains. Pure; the contract is in audit.proto."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import NamedTuple

ZERO = "0" * 40


class AuditPoint(NamedTuple):
    """A place in the audit chain of one partition; `digest` is 40 hexadecimal digits."""

    number: int = 0
    digest: str = ZERO


NOWHERE = AuditPoint()
"""Before the first entry."""


class Action(IntEnum):
    """What happened. The numbers are those of AuditAction."""

    REVOKED = 1
    SESSION_ENDED = 2
    OTHERS_ENDED = 3
    REFRESH_REUSED = 4
    SESSIONS_EVICTED = 5
    CLIENT_SETTINGS = 6
    MEMBER_STRUCK = 7
    APPROVAL_ASKED = 8


class AuditRecord(NamedTuple):
    """One change. `kind` as in rows; `value` is empty for a batch; `sessions` None: not known."""

    action: int
    kind: int = 0
    actor: str = ""
    role: str = ""
    issuer: str | None = None
    value: str = ""
    op_id: str = ""
    """32 hexadecimal digits, or empty."""
    reason: str = ""
    request_id: str = ""
    asked: int = 0
    stored: int = 0
    sessions: int | None = None
    part: int = 0
    parts: int = 0
    approval: str = ""
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class AuditLoss:
    """What a replica remembered that the store lacked, and the history in which it was there."""

    remembered: AuditPoint
    log_id: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """What one step of the store recorded. From `unreadable` on, what was found in `sealed`."""

    partition: int
    number: int
    time_ms: int
    log_seq: int
    extra: str
    sealed: bytes = field(repr=False)
    digest: str
    unreadable: str = ""
    log_id: str = ""
    seen: AuditPoint = NOWHERE
    records: tuple[AuditRecord, ...] = ()
    loss: AuditLoss | None = None

    @property
    def point(self) -> AuditPoint:
        """Where the chain stands behind this entry; to go on from there."""
        return AuditPoint(self.number, self.digest)


class AuditFrom(Enum):
    """From where a partition's entries come, in answer to the position given."""

    OLDEST = 1
    RESUMED = 2
    TOO_OLD = 3
    DIVERGED = 4


@dataclass(frozen=True, slots=True)
class AuditStart:
    """One partition's chain as it stands: entries follow behind `anchor`, or behind the position given."""

    anchor: AuditPoint
    head: AuditPoint
    begins: AuditFrom


def chain_digest(before: str, number: int, time_ms: int, log_seq: int, extra: str, sealed: bytes) -> str:
    """The digest of an entry behind one with the digest `before`."""
    head = f"{before}{number} {time_ms} {log_seq} {extra} ".encode()
    return hashlib.sha1(head + sealed, usedforsecurity=False).hexdigest()


class Fault(Enum):
    """What a check found."""

    ALTERED = "altered"  # an entry is not the one whose digest stands there
    BROKEN = "broken"  # an entry does not follow from the one before it
    REMOVED = "removed"  # numbers are missing
    FORGED = "forged"  # the service did not seal this
    REWRITTEN = "rewritten"  # an authentic entry or a log line knew another past
    TRUNCATED = "truncated"  # the end that is known of is not there
    COPIED = "copied"  # an authentic entry stands there a second time
    HIDDEN = "hidden"  # a record is marked as a repetition of one that is not there
    LOST = "lost"  # a replica said that the store had lost entries, with its history
    KEY_GONE = "key_gone"  # sealed under a master secret that the service no longer has


HARMLESS = frozenset({Fault.KEY_GONE})
"""What is reported and does not fail a check: an operator's own doing, and nothing that the store could do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding, in a partition's chain at a number."""

    fault: Fault
    partition: int
    number: int
    text: str


class LogLine(NamedTuple):
    """What a log line of the service said of one entry."""

    realm: str
    partition: int
    point: AuditPoint


_POINT = re.compile(r"(\d{1,4}):(\d{1,20}):([0-9a-f]{40})")


def points_text(points: Iterable[tuple[int, AuditPoint]]) -> str:
    """Points of entries as log lines carry them."""
    return " ".join(f"{partition}:{point.number}:{point.digest}" for partition, point in points)


def parse_points(text: str) -> dict[int, AuditPoint]:
    """The inverse of `points_text`, by partition. Raises ValueError."""
    found = {int(partition): AuditPoint(int(number), digest) for partition, number, digest in _POINT.findall(text)}
    if points_text(found.items()) != " ".join(text.split()):
        raise ValueError("is not PARTITION:NUMBER:DIGEST, several with blanks between")
    return found


def line_points(line: Mapping[str, object]) -> Iterator[LogLine]:
    """What a log line (parsed) says about entries; nothing if it is about something else."""
    text, realm = line.get("audit"), line.get("realm")
    if isinstance(text, str) and isinstance(realm, str):
        for partition, number, digest in _POINT.findall(text):
            yield LogLine(realm, int(partition), AuditPoint(int(number), digest))


class ChainCheck:
    """Checks one partition's chain from its anchor on, entry by entry; `finish` says what was found.

    It keeps a few hundred bytes of each entry.
    """

    def __init__(self, partition: int, start: AuditStart) -> None:
        self._partition = partition
        self._start = start
        self._digests = {start.anchor.number: start.anchor.digest}
        self._last = start.anchor
        self._losses: list[tuple[int, AuditLoss]] = []
        self._contents: dict[bytes, int] = {}
        self._known_ops: set[tuple[str, str, int]] = set()
        self.entries = 0
        self.records = 0
        self.findings: list[Finding] = []

    def add(self, entry: AuditEntry) -> None:
        """The next entry."""
        self.entries += 1
        self.records += len(entry.records)
        expected = chain_digest(
            self._last.digest, entry.number, entry.time_ms, entry.log_seq, entry.extra, entry.sealed
        )
        authentic = not entry.unreadable
        if entry.unreadable == "forged":
            self._find(Fault.FORGED, entry.number, "was not sealed by this service for this realm and partition")
        elif entry.unreadable:
            self._find(Fault.KEY_GONE, entry.number, "was sealed under a master secret that is no longer listed")
        self._follows(entry, expected)
        if authentic:
            self._vouched(entry)
            first = self._contents.setdefault(hashlib.sha256(entry.sealed).digest(), entry.number)
            if first != entry.number:
                self._find(Fault.COPIED, entry.number, f"is a copy of entry {first}")
        self._digests[entry.number] = entry.digest
        self._last = entry.point

    def _follows(self, entry: AuditEntry, expected: str) -> None:
        skipped = entry.number - self._last.number - 1
        if skipped > 0 and not self._excused(entry):
            self._find(Fault.REMOVED, self._last.number + 1, f"{skipped} entries are missing before {entry.number}")
        elif entry.digest != expected:
            fault = Fault.BROKEN if skipped else Fault.ALTERED
            self._find(fault, entry.number, "does not have the digest that follows from its content and the one before")

    def _excused(self, entry: AuditEntry) -> bool:
        """Behind a loss the numbers go on from what was remembered."""
        return entry.loss is not None and entry.loss.remembered.number == entry.number - 1

    def _vouched(self, entry: AuditEntry) -> None:
        """What an authentic entry says about the past."""
        if entry.loss is not None:
            self._losses.append((entry.number, entry.loss))
            self._declared(entry, entry.loss)
        elif (known := self._digests.get(entry.seen.number)) not in (None, entry.seen.digest) and entry.seen.number:
            self._find(Fault.REWRITTEN, entry.seen.number, f"is not what entry {entry.number} knew; {_SINCE}")
        elif entry.seen.number >= entry.number:
            self._find(Fault.REWRITTEN, entry.number, f"knows of an entry {entry.seen.number}, which came before it")
        elif known is None and entry.seen.number > self._start.anchor.number and not self._lost(entry.seen):
            self._find(Fault.REMOVED, entry.seen.number, f"is not there; entry {entry.number} knew it")
        self._repetitions(entry)

    def _declared(self, entry: AuditEntry, loss: AuditLoss) -> None:
        number = loss.remembered.number
        if loss.log_id == entry.log_id:
            self._find(
                Fault.TRUNCATED, number,
                f"was there, says entry {entry.number}, and went while the store's history stayed the same",
            )  # fmt: skip
        else:
            self._find(
                Fault.LOST, number, f"entries up to here were lost with the store's history, says {entry.number}"
            )

    def _repetitions(self, entry: AuditEntry) -> None:
        for record in entry.records:
            name = (record.actor, record.op_id, record.part)
            if record.repeated and name not in self._known_ops and not self._start.anchor.number and not self._losses:
                self._find(Fault.HIDDEN, entry.number, "marks a record as a repetition of one that is nowhere")
            elif not record.repeated and record.op_id:
                self._known_ops.add(name)

    def _lost(self, point: AuditPoint) -> bool:
        return any(loss.remembered.number >= point.number for _, loss in self._losses)

    def finish(self, lines: Iterable[LogLine] = ()) -> list[Finding]:
        """All findings, once every entry was added. `lines` are those of this realm and partition."""
        head = self._start.head
        if self._last.number < head.number:
            self._find(Fault.TRUNCATED, head.number, f"is the head, and the last entry is {self._last.number}")
        elif self._last.number == head.number and self._last.digest != head.digest:
            self._find(Fault.BROKEN, head.number, "is the head, with another digest than the last entry")
        for line in lines:
            self._compare(line.point)
        return self.findings

    def _compare(self, point: AuditPoint) -> None:
        known = self._digests.get(point.number)
        if known == point.digest or point.number < self._start.anchor.number or self._lost(point):
            return
        if known is not None:
            self._find(Fault.REWRITTEN, point.number, "has another digest in the log")
        elif point.number > self._last.number:
            self._find(Fault.TRUNCATED, point.number, f"is in the log, and the chain ends at {self._last.number}")
        else:
            self._find(Fault.REMOVED, point.number, "is in the log, and not in the chain")

    def _find(self, fault: Fault, number: int, text: str) -> None:
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(Finding(fault, self._partition, number, text))


_SINCE = "everything before it may have been changed"
_MOST_FINDINGS = 1_000
