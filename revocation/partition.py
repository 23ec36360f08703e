"""What a replica holds of one partition: every realm in it, and where its log stands.

Pure: records and histories come in as values. It checks both chains of every record, the partition's and the
realm's, and can say what a new history lacks of what it holds (rule H3).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from revocation.history import RealmHistory, Step
from revocation.store import ZERO, Heads, LogEntry, Registry
from revocation_sdk._lattice import MalformedRows
from revocation_sdk._position import ZERO_DIGEST, Position

SUFFIX_ENTRIES = 20_000
LEARNED_BYTES = 256 * 1024


class Diverged(Exception):
    """The log is not a continuation of what this replica holds: a gap, a trim or another past. Load again."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What an applied record or a change of history means for the realm's subscribers."""

    realm: str
    step: Step | None  # None: the past was forgotten, subscribers must come again


class Partition:
    """The state of one partition in one replica."""

    def __init__(self) -> None:
        self.log_id = ""
        self.seq = 0
        self.digest = ZERO
        self.realms: dict[str, RealmHistory] = {}
        self._recent: deque[LogEntry] = deque(maxlen=SUFFIX_ENTRIES)

    @property
    def empty(self) -> bool:
        """Whether this replica holds nothing and so has nothing to re-propose."""
        return not any(len(history.view) for history in self.realms.values())

    def realm(self, name: str) -> RealmHistory:
        """The realm's history; an unknown realm starts at the beginning of this partition's."""
        history = self.realms.get(name)
        if history is None:
            history = self.realms[name] = RealmHistory(self._position(0, ZERO_DIGEST))
        return history

    def apply(self, entry: LogEntry) -> Applied:
        """Applies the next record of the log. Raises Diverged if it is not the next one of this past."""
        history = self.realm(entry.realm)
        if entry.seq != self.seq + 1 or entry.digest != chain(self.digest, entry):
            raise Diverged("partition chain")
        expected = history.position.advance(entry.rows)
        if (entry.realm_seq, entry.realm_digest) != (expected.seq, expected.digest.hex()):
            raise Diverged("realm chain")
        try:
            step = history.append(entry.rows)
        except MalformedRows as error:
            raise Diverged("malformed record") from error
        self.seq, self.digest = entry.seq, entry.digest
        self._recent.append(entry)
        return Applied(entry.realm, step)

    def recent(self) -> tuple[LogEntry, ...]:
        """The last records, oldest first, as many as are remembered."""
        return tuple(self._recent)

    def suffix(self, registry: Registry) -> list[LogEntry] | None:
        """What this replica holds beyond the point at which the history of `registry` begins.

        None: it cannot tell, because the past differs or is not remembered so far back, or because the store may
        have lost state under an intact log; then everything must be put back.
        """
        if registry.full or registry.base > self.seq:
            return None
        lost = [entry for entry in self._recent if entry.seq > registry.base]
        if len(lost) != self.seq - registry.base:
            return None
        at_base = self.digest if not lost else self._digest_before(lost[0])
        return lost if at_base == registry.base_digest else None

    def _digest_before(self, entry: LogEntry) -> str | None:
        before = [known for known in self._recent if known.seq == entry.seq - 1]
        if before:
            return before[0].digest
        return ZERO if entry.seq == 1 else None

    def adopt_suffix(self, log_id: str, base: int, lost: list[LogEntry]) -> list[Applied]:
        """Goes on in a new history from its base; what was lost was put back and comes again as new records."""
        heads: dict[str, Position] = {name: history.position for name, history in self.realms.items()}
        for entry in reversed(lost):
            heads[entry.realm] = Position(b"", entry.realm_seq - 1, self._realm_digest_before(entry))
        if lost:
            self.digest = self._digest_before(lost[0]) or ZERO
            for _ in lost:
                self._recent.pop()
        self.seq = base
        self.log_id = log_id
        return [
            Applied(name, self.realms[name].mark(self._position(head.seq, head.digest))) for name, head in heads.items()
        ]

    def _realm_digest_before(self, entry: LogEntry) -> bytes:
        if entry.realm_seq == 1:
            return ZERO_DIGEST
        for known in reversed(self._recent):
            if known.realm == entry.realm and known.realm_seq == entry.realm_seq - 1 and known.seq < entry.seq:
                return bytes.fromhex(known.realm_digest)
        raise Diverged("suffix forgotten")

    def adopt_heads(self, log_id: str, heads: Heads, learned: dict[str, bytes]) -> list[Applied]:
        """Goes on from `heads` after the store's state was merged; `learned` is what the merge taught, by realm."""
        self._recent.clear()
        self.seq, self.digest = heads.seq, heads.digest
        self.log_id = log_id
        applied = []
        for name in sorted({*self.realms, *heads.realms}):
            seq, digest = heads.realms.get(name, (0, ZERO))
            position = self._position(seq, bytes.fromhex(digest))
            history = self.realms.setdefault(name, RealmHistory(position))
            rows = learned.get(name, b"")
            if history.position == position and not rows:
                continue
            if len(rows) > LEARNED_BYTES:
                history.restart(position)
                applied.append(Applied(name, None))
            else:
                applied.append(Applied(name, history.mark(position, rows)))
        return applied

    def remember(self, entries: Iterable[LogEntry], registry: Registry) -> None:
        """Fills the rings from the retained log of a freshly loaded partition, so that a restart is no resync.

        Only records that lead without a gap to where the partition stands are of use.
        """
        retained = list(entries)
        chained = [b for a, b in pairwise(retained) if b.digest == chain(a.digest, b)]
        if not retained or len(chained) != len(retained) - 1 or retained[-1].digest != self.digest:
            return
        self._recent.extend(retained)
        for name, history in self.realms.items():
            of_realm = [entry for entry in retained if entry.realm == name]
            if of_realm:
                self._refill(history, of_realm, registry)

    def _refill(self, history: RealmHistory, entries: list[LogEntry], registry: Registry) -> None:
        """The ring of one realm: records up to the base belong to the history before this one."""
        current, before = bytes.fromhex(registry.log_id), bytes.fromhex(registry.previous)
        first, *rest = entries
        era = before if first.seq < registry.base and before else current
        history.restart(Position(era, first.realm_seq, bytes.fromhex(first.realm_digest)))
        for entry in rest:
            if entry.seq > registry.base and history.position.log_id != current:
                history.mark(Position(current, history.position.seq, history.position.digest))
            history.append(entry.rows)
        if history.position.log_id != current:
            history.mark(Position(current, history.position.seq, history.position.digest))

    def _position(self, seq: int, digest: bytes) -> Position:
        return Position(bytes.fromhex(self.log_id), seq, digest)


def chain(previous: str, entry: LogEntry) -> str:
    """The partition's digest after `entry`; `append` in lua/partition.lua computes the same."""
    text = f"{previous}{entry.realm} {entry.realm_seq} {entry.realm_digest} {entry.at_ms} {entry.ops}"
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
