"""What a replica holds of one partition: every realm in it, and where its log stands.

Pure: records and histories come in as values. It checks both chains of every record, the partition's and the
realm's, and can say what a new history lacks of what it holds (rule H3).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from revocation.limits import SUFFIX_BYTES
from revocation.replication.history import RealmHistory, Step
from revocation.replication.ops import OpRecords
from revocation.store import ZERO, Heads, LogEntry, Registry, opening_digest
from revocation_sdk._position import ZERO_DIGEST, Position
from revocation_sdk._view import ANY_TAG

LEARNED_BYTES = 256 * 1024
RECENT_MS = 900_000
"""Whoever revoked a signing key so short a time before a replica was loaded may well do so again."""
_RECORD_OVERHEAD = 1_000


class Diverged(Exception):
    """The log is not a continuation of what this replica holds: a gap, a trim or another past (`fork`). Load again."""

    def __init__(self, why: str, fork: bool = False) -> None:
        super().__init__(why)
        self.fork = fork


@dataclass(frozen=True, slots=True)
class Applied:
    """What an applied record or a change of history means for the realm's subscribers."""

    realm: str
    step: Step | None  # None: the past was forgotten, subscribers must come again


@dataclass(frozen=True, slots=True)
class _Known:
    """A record, and the digests that stood before it: the partition's, and the realm's if it is known."""

    entry: LogEntry
    before: str
    realm_before: bytes | None


@dataclass(frozen=True, slots=True)
class Suffix:
    """What a new history lacks of the old one, and where each realm stood where it begins."""

    lost: tuple[LogEntry, ...]
    heads: dict[str, tuple[int, bytes]]


class Partition:
    """The state of one partition in one replica. `tags` says of a realm which keys the replica has.

    Op records are kept for `op_record_ms`, as the store keeps them.
    """

    def __init__(
        self, tags: Callable[[str], Container[int]] = lambda _realm: ANY_TAG, op_record_ms: int = 900_000
    ) -> None:
        self._tags = tags
        self._op_record_ms = op_record_ms
        self.log_id = ""
        self.seq = 0
        self.digest = ZERO
        self.realms: dict[str, RealmHistory] = {}
        self._recent: deque[_Known] = deque()
        self._recent_bytes = 0
        self._ops = OpRecords()
        self._covered: int | None = None

    def realm(self, name: str) -> RealmHistory:
        """The realm's history; an unknown realm starts at the beginning of this partition's."""
        history = self.realms.get(name)
        if history is None:
            history = self.realms[name] = RealmHistory(self._position(0, ZERO_DIGEST), self._tags(name))
        return history

    def lacks_key(self, now: float, realms: Iterable[str] | None = None) -> bool:
        """Whether some of these realms (None: any) holds live entries under a key that this replica does not have.

        Where something is amiss, what expired at or before `now` is dropped first.
        """
        names = self.realms if realms is None else realms
        lacking = [history for history in map(self.realm, tuple(names)) if history.lacks_key]
        for history in lacking:
            history.view.drop_expired(now)
        return any(history.lacks_key for history in lacking)

    def forget_past(self) -> list[Applied]:
        """Empties the rings: what they hold cannot be read by clients that have this replica's keys."""
        for history in self.realms.values():
            history.restart(history.position)
        return [Applied(name, None) for name in self.realms]

    def apply(self, entry: LogEntry) -> Applied:
        """Applies the next record of the log. Raises Diverged if it is not the next one of this past."""
        history = self.realm(entry.realm)
        if entry.seq != self.seq + 1:
            raise Diverged("gap")
        if entry.digest != chain(self.digest, entry):
            raise Diverged("partition chain", fork=True)
        before = history.position
        expected = before.advance(entry.rows)
        if (entry.realm_seq, entry.realm_digest) != (expected.seq, expected.digest.hex()):
            raise Diverged("realm chain")
        step: Step | None = history.append(entry.rows)
        if not history.can_read(entry.rows):
            if entry.ops:  # without, it was put back, and may have been there for long
                history.note(entry.rows)
            history.restart(history.position)
            step = None
        self._keep(_Known(entry, self.digest, before.digest))
        self._ops.add(entry.at_ms, entry.realm, entry.ops)
        self.seq, self.digest = entry.seq, entry.digest
        return Applied(entry.realm, step)

    def recent(self) -> tuple[LogEntry, ...]:
        """The last records, oldest first, as many as are remembered."""
        return tuple(known.entry for known in self._recent)

    def ops(self, most: int) -> Iterator[tuple[str, list[str]]]:
        """The op records that this replica holds: a realm, and up to `most` of its own, again and again.

        Also those which it put back and has not read again: another store may be lost before that, and a retry must
        find its answer all the same.
        """
        return self._ops.batches(most)

    def read_ops(self, entries: Iterable[LogEntry]) -> None:
        """Takes in the op records of a log that was retained."""
        for entry in entries:
            self._ops.add(entry.at_ms, entry.realm, entry.ops)

    def forget_ops(self, now_ms: int) -> None:
        """Drops the records of operations that nobody may repeat any more. `now_ms`: by the smallest of the clocks."""
        self._ops.forget(now_ms - self._op_record_ms)

    def _keep(self, known: _Known) -> None:
        self._recent.append(known)
        self._recent_bytes += record_bytes(known.entry)
        while self._recent_bytes > SUFFIX_BYTES:
            self._recent_bytes -= record_bytes(self._recent.popleft().entry)

    def cover(self, log_id: str, seq: int) -> None:
        """Hears that the log of this history reaches up to `seq`, all that this replica put back included.

        What was put back, and what a load read ahead, is in the view before its records are read. Until they are,
        the log up to `self.seq` does not tell all that this replica holds, and no suffix of it does.
        """
        if self._covered is None and log_id == self.log_id:
            self._covered = seq

    @property
    def ahead(self) -> bool:
        """Whether the view may hold more than the log up to `self.seq` tells."""
        return self._covered is None or self._covered > self.seq

    def suffix(self, registry: Registry) -> Suffix | None:
        """What this replica holds beyond the point at which the history of `registry` begins.

        None: it cannot tell, because the past differs or is not remembered so far back, because what it holds is not
        all in the records that it has read, or because the store may have lost state under an intact log; then
        everything must be put back.
        """
        if registry.full or registry.base > self.seq or self.ahead:
            return None
        lost = [known for known in self._recent if known.entry.seq > registry.base]
        if len(lost) != self.seq - registry.base or registry.base_digest not in self._digests_at(registry.base, lost):
            return None
        heads = {name: (history.position.seq, history.position.digest) for name, history in self.realms.items()}
        for known in reversed(lost):
            if known.realm_before is None:
                return None
            heads[known.entry.realm] = (known.entry.realm_seq - 1, known.realm_before)
        return Suffix(tuple(known.entry for known in lost), heads)

    def _digests_at(self, seq: int, beyond: list[_Known]) -> set[str]:
        """The digests that the log had at `seq` in this past: before and after a history was opened there."""
        found = {beyond[0].before if beyond else self.digest}
        return found | {known.entry.digest for known in self._recent if known.entry.seq == seq}

    def adopt_suffix(self, registry: Registry, suffix: Suffix) -> list[Applied]:
        """Goes on in a new history from its base; what was lost was put back and comes again as new records."""
        for entry in suffix.lost:
            self._recent.pop()
            self._recent_bytes -= record_bytes(entry)
        self._enter(registry.log_id, registry.base, opening_digest(registry.base_digest, registry.log_id))
        return [Applied(name, self.realms[name].mark(self._position(*head))) for name, head in suffix.heads.items()]

    def adopt_heads(self, log_id: str, heads: Heads, learned: dict[str, bytes]) -> list[Applied]:
        """Goes on from `heads` after the store's state was merged; `learned` is what the merge taught, by realm.

        While the view is ahead of the position, a client that is where we are lacks more than the merge taught *us*:
        a mark would take it past records that it never got (I1). Then the past is forgotten, and clients come again.
        """
        ahead = self.ahead
        self._recent.clear()
        self._recent_bytes = 0
        self._enter(log_id, heads.seq, heads.digest)
        applied = []
        for name in sorted({*self.realms, *heads.realms}):
            seq, digest = heads.realms.get(name, (0, ZERO))
            position = self._position(seq, bytes.fromhex(digest))
            history = self.realms.setdefault(name, RealmHistory(position, self._tags(name)))
            rows = learned.get(name, b"")
            if history.position == position and not rows:
                continue
            if ahead or len(rows) > LEARNED_BYTES:
                history.restart(position)
                applied.append(Applied(name, None))
            else:
                history.note(rows)
                applied.append(Applied(name, history.mark(position, rows)))
        return applied

    def _enter(self, log_id: str, seq: int, digest: str) -> None:
        self.log_id, self.seq, self.digest, self._covered = log_id, seq, digest, None

    def remember(self, entries: Iterable[LogEntry], registry: Registry) -> None:
        """Fills the rings from the retained log of a freshly loaded partition, so that a restart is no resync.

        Only records that lead without a gap to where the partition stands are of use.
        """
        entries = list(entries)
        for entry in entries:
            if entry.ops and entry.at_ms > registry.now_ms - RECENT_MS:
                self.realm(entry.realm).note(entry.rows)
        retained = _continuous(entries, registry)
        if not retained or _after(retained[-1], registry) != self.digest:
            return
        realm_digests: dict[str, bytes] = {}
        before = None
        for entry in retained:
            if before is not None:  # what stood before the first one is not known
                self._keep(_Known(entry, before, realm_digests.get(entry.realm)))
            before = _after(entry, registry)
            realm_digests[entry.realm] = bytes.fromhex(entry.realm_digest)
        for name, history in self.realms.items():
            of_realm = [entry for entry in retained if entry.realm == name]
            if of_realm and of_realm[-1].realm_digest == history.position.digest.hex():
                self._refill(history, of_realm, registry)

    def _refill(self, history: RealmHistory, entries: list[LogEntry], registry: Registry) -> None:
        """The ring of one realm: records up to the base belong to the history before this one."""
        current, before = bytes.fromhex(registry.log_id), bytes.fromhex(registry.previous)
        # Who comes from before what cannot be read gets a snapshot without it.
        unreadable = [place for place, entry in enumerate(entries) if not history.can_read(entry.rows)]
        first, *rest = entries[unreadable[-1] if unreadable else 0 :]
        era = before if first.seq <= registry.base and before else current
        history.restart(Position(era, first.realm_seq, bytes.fromhex(first.realm_digest)))
        for entry in rest:
            if entry.seq > registry.base and history.position.log_id != current:
                history.mark(Position(current, history.position.seq, history.position.digest))
            history.append(entry.rows)
        if history.position.log_id != current:
            history.mark(Position(current, history.position.seq, history.position.digest))

    def _position(self, seq: int, digest: bytes) -> Position:
        return Position(bytes.fromhex(self.log_id), seq, digest)


def record_bytes(entry: LogEntry) -> int:
    """About what a record takes in memory."""
    return len(entry.rows) + len(entry.ops) + _RECORD_OVERHEAD


def chain(previous: str, entry: LogEntry) -> str:
    """The partition's digest after `entry`; `append` in lua/partition.lua computes the same."""
    text = f"{previous}{entry.realm} {entry.realm_seq} {entry.realm_digest} {entry.at_ms} {entry.ops}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def _after(entry: LogEntry, registry: Registry) -> str:
    """The partition's digest behind a record of the log; a history that begins there goes on from another one."""
    return opening_digest(entry.digest, registry.log_id) if entry.seq == registry.base else entry.digest


def _continuous(entries: list[LogEntry], registry: Registry) -> list[LogEntry]:
    """The last records that follow each other without a gap and without a change of history but the last one."""
    start = 0
    for index, (first, second) in enumerate(pairwise(entries), 1):
        if second.seq != first.seq + 1 or second.digest != chain(_after(first, registry), second):
            start = index
    return entries[start:]
