"""Sessions in memory: what `lua/session.lua` and its like do, to be read and to be tested against."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from revocation.store import ZERO, Closed, Durability, OpResult, OpState, Standing, segment_of
from revocation.store.rails import IndexPart
from revocation.store.sessions import (
    ENTRY_BYTES,
    Again,
    Behind,
    ClientSettings,
    Count,
    Entry,
    Finish,
    Limits,
    Look,
    Put,
    Sealed,
    Seen,
    Step,
    Stepped,
    Turned,
    record_name,
)
from revocation_sdk._lattice import CUTOFF, DENIAL, Group, Kind, join_groups

if TYPE_CHECKING:
    from revocation.store.memory_data import Data

_TAIL = 256
_EVICT_AT_ONCE = 500


@dataclass(slots=True)
class _Record:
    sealed: Sealed
    due_ms: float
    count: int = 0


@dataclass(slots=True)
class SessionData:
    """The sessions of one partition, by realm and name. An index holds packed entries and when each ends (ms)."""

    records: dict[tuple[str, str], _Record] = field(default_factory=dict)
    indexes: dict[tuple[str, str], dict[bytes, int]] = field(default_factory=dict)
    clients: dict[tuple[str, str], str] = field(default_factory=dict)
    approvals: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    """What waits for approval, and until when."""

    def end(self, realm: str, key_tag: int, rows: bytes, due_s: float, why: str) -> None:
        """Rows of sessions end their records, whichever path they come by."""
        for start in range(0, len(rows), DENIAL.size):
            record = self.records.get((realm, record_name(key_tag, rows[start : start + 8])))
            if record is not None and not record.sealed.ended:
                record.sealed, record.due_ms = Sealed(ended=why), due_s * 1000

    def lives(self, realm: str, key_tag: int, row: bytes) -> bool:
        """Whether there is a record of this name that has not been ended."""
        record = self.records.get((realm, record_name(key_tag, row[:8])))
        return record is not None and not record.sealed.ended

    def expire(self, now: int) -> None:
        """What is over is gone."""
        self.records = {name: record for name, record in self.records.items() if record.due_ms >= now}
        self.approvals = {name: kept for name, kept in self.approvals.items() if kept[1] >= now}
        self.indexes = {
            name: entries for name, entries in self.indexes.items() if max(entries.values(), default=0) >= now
        }

    def live_entries(self, realm: str, indexes: tuple[str, ...], now: int) -> list[bytes]:
        """The entries that have not expired."""
        return [entry for name in indexes for entry, ends in self.indexes.get((realm, name), {}).items() if ends > now]

    def sealed(self, realm: str, name: str) -> Sealed | None:
        """A record."""
        record = self.records.get((realm, name))
        return record.sealed if record else None


class MemorySessions(ABC):
    """The part of MemoryStore that is about sessions."""

    _op_retention_ms: int
    _longest_log: int

    @abstractmethod
    def _enter(self, partition: int) -> tuple[Data, int]: ...
    @abstractmethod
    def _gate(self, data: Data, log_id: str) -> Closed | None: ...
    @abstractmethod
    def _sane(self, data: Data, now: int, caller_ms: int) -> Closed | None: ...
    @abstractmethod
    def _copies(self, durability: Durability) -> int: ...
    @abstractmethod
    def _append(self, partition: int, realm: str, rows: bytes, ops: str, now: int) -> None: ...

    async def look_sessions(
        self, partition: int, who: Standing, caller_ms: int, look: Look, durability: Durability
    ) -> Seen | Closed:
        """See lua/session_look.lua."""
        data, now = self._enter(partition)
        closed = self._gate(data, who.log_id) or self._sane(data, now, caller_ms) or data.standing(who)
        if closed is not None:
            return closed
        held = data.sessions
        total = sum(len(held.indexes.get((look.realm, name), {})) for name in look.indexes)
        entries = held.live_entries(look.realm, look.indexes, now) if total >= look.at_least else []
        return Seen(
            now_ms=now,
            seq=data.at.seq,
            clock=data.at.clock,
            op=data.op_fields(look.op),
            entries=tuple((Entry.unpack(entry), self._record_of(held, look, entry)) for entry in entries),
            records=tuple(held.sealed(look.realm, name) for name in look.records),
            copies=self._copies(durability),
        )

    def _record_of(self, held: SessionData, look: Look, entry: bytes) -> Sealed | None:
        return held.sealed(look.realm, Entry.unpack(entry).record) if look.with_records else None

    async def step_session(
        self, partition: int, who: Standing, caller_ms: int, step: Step, durability: Durability
    ) -> Stepped | Again | Behind | Turned | Closed:
        """See lua/session.lua."""
        data, now = self._enter(partition)
        closed = self._gate(data, who.log_id) or self._sane(data, now, caller_ms) or data.standing(who)
        if closed is not None:
            return closed
        known = data.op_fields(step.op)
        if known:
            if known[0] != step.digest:
                return Turned.CONFLICT
            data.ops[step.op].until_ms = now + self._op_retention_ms
            return Again(now, data.at.seq, known[1:], self._copies(durability))
        turned = self._turned(data, step, now)
        if turned is not None:
            return turned
        held, forget = data.sessions, set(_entries(step.limits.forget)) if step.limits else set()
        evicted = _crowded_out(held, step, step.limits, forget, now) if step.limits else []
        if evicted is None:
            return Turned.LIMIT
        if (evicted or step.cutoff or isinstance(step.action, Finish)) and len(data.log) >= self._longest_log:
            return Closed.FULL
        return self._write_step(partition, step, evicted, forget, now, durability)

    def _turned(self, data: Data, step: Step, now: int) -> Turned | Behind | None:
        if step.until_ms and now >= step.until_ms:
            return Turned.LATE
        if _unseen(data, step):
            return Behind(data.at.seq)
        record = data.sessions.records.get((step.realm, step.record))
        if step.expect == b"" and record is not None:
            return Turned.CHANGED
        if step.expect and (record is None or record.sealed.stamp != step.expect):
            return Turned.CHANGED
        if isinstance(step.action, Count) and record is not None and record.count >= step.action.most:
            return Turned.CAPPED
        if step.cutoff and step.cutoff.version <= data.at.clock:
            return Turned.CHANGED
        return None

    def _write_step(
        self, partition: int, step: Step, evicted: list[bytes], forget: set[bytes], now: int, durability: Durability
    ) -> Stepped:
        data = self._enter(partition)[0]
        held, rows, expires_at = data.sessions, b"", 0
        for entry in map(Entry.unpack, evicted):
            assert step.limits is not None
            row = DENIAL.pack(
                int.from_bytes(entry.fingerprint, "little"), now // 1000 + entry.life_s + step.limits.slack_s + 1
            )
            rows += self._keep_row(data, step.realm, entry.key_tag, row, now, "limit")
        if isinstance(step.action, Finish):
            row = step.action.row
            rows += self._keep_row(data, step.realm, int(step.record.partition(":")[0]), row, now, step.action.why)
            expires_at = DENIAL.unpack(row)[1]
            forget.add(step.entry)
        if step.cutoff:
            expires_at = now // 1000 + step.cutoff.horizon_s + 1
            rows += self._keep_cutoff(data, step, expires_at, now)
        count = self._write_record(held, step)
        for name in step.indexes:
            index = held.indexes.get((step.realm, name), {})
            for gone in forget | set(evicted):
                index.pop(gone, None)
        _write_entry(held, step, now)
        stepped = self._write_log(partition, step, rows, expires_at, now)
        if rows and step.audit:
            extra = str(len(evicted)) if evicted else ""
            stepped = replace(stepped, audit=data.audit(step.realm, now, stepped.realm_seq, extra, step.audit))
        return replace(stepped, count=count, copies=self._copies(durability))

    def _keep_row(self, data: Data, realm: str, key_tag: int, row: bytes, now: int, why: str) -> bytes:
        name, due = segment_of(Kind.SESSION, key_tag, DENIAL.unpack(row)[1])
        data.keep(realm, name, due, row, now, why)
        return join_groups([Group(Kind.SESSION, key_tag, row)])

    def _keep_cutoff(self, data: Data, step: Step, expires_at: int, now: int) -> bytes:
        cutoff = step.cutoff
        assert cutoff is not None
        prints = [cutoff.fingerprints[start : start + 8] for start in range(0, len(cutoff.fingerprints), 8)]
        rows = b"".join(
            CUTOFF.pack(int.from_bytes(fingerprint, "little"), expires_at, cutoff.version, now)
            for fingerprint in prints
        )
        data.keep(step.realm, *segment_of(Kind.SUBJECT, cutoff.key_tag, expires_at), rows, now)
        data.at = replace(data.at, clock=cutoff.version)
        return join_groups([Group(Kind.SUBJECT, cutoff.key_tag, rows)])

    def _write_record(self, held: SessionData, step: Step) -> int:
        place = (step.realm, step.record)
        if isinstance(step.action, Put):
            held.records[place] = _Record(Sealed(step.action.stamp, step.action.body), step.action.due_ms)
        elif isinstance(step.action, Count):
            held.records[place].count += 1
            return held.records[place].count
        return 0

    def _write_log(self, partition: int, step: Step, rows: bytes, expires_at: int, now: int) -> Stepped:
        data = self._enter(partition)[0]
        version = step.cutoff.version if step.cutoff else 0
        realm_seq, realm_digest = 0, ZERO
        if rows:
            text = f"{step.op}:{step.digest}:{version}:{expires_at}:{now}" if step.op and step.expect != b"" else ""
            self._append(partition, step.realm, rows, text, now)
            realm_seq, realm_digest = data.realms[step.realm]
        if step.op:
            numbers = (version, now, expires_at, data.at.seq, realm_seq)
            result = OpResult(OpState.DONE, *numbers, bytes.fromhex(realm_digest))
            data.note_op(step.op, step.digest, result, now + self._op_retention_ms)
        data.high = max(data.high, now)
        return Stepped(now, data.at.seq, rows, realm_seq, bytes.fromhex(realm_digest))

    async def client_settings(
        self, log_id: str, realm: str, names: tuple[str, ...], new: str, most: int, audit: bytes = b""
    ) -> ClientSettings | Closed | None:
        """See lua/clients.lua."""
        data, now = self._enter(0)
        if closed := self._gate(data, log_id):
            return closed
        clients = data.sessions.clients
        found = next((clients[realm, name] for name in names if (realm, name) in clients), "")
        if not new:
            return ClientSettings(found)
        if not found and sum(of == realm for of, _ in clients) >= most:
            return None
        for name in names:
            clients.pop((realm, name), None)
        clients[realm, names[0]] = new
        return ClientSettings(new, data.audit(realm, now, 0, "", audit) if audit else None)

    async def index_names(
        self, partition: int, log_id: str, realm: str, cursor: int, count: int
    ) -> tuple[int, list[str]] | Closed:
        """See lua/impact.lua."""
        data, _ = self._enter(partition)
        if closed := self._gate(data, log_id):
            return closed
        names = sorted(name for of, name in data.sessions.indexes if of == realm)
        end = cursor + count
        return (end if end < len(names) else 0), names[cursor:end]

    async def index_entries(
        self, partition: int, log_id: str, realm: str, wanted: Sequence[tuple[str, int]], clients: bytes, most: int
    ) -> tuple[int, list[IndexPart]] | Closed:
        """See lua/impact.lua."""
        data, now = self._enter(partition)
        if closed := self._gate(data, log_id):
            return closed
        parts = []
        for name, offset in wanted:
            held = data.sessions.indexes.get((realm, name), {})
            entries = sorted((ends, entry) for entry, ends in held.items() if ends > now)[offset : offset + most]
            most -= len(entries)
            found = (Entry.unpack(entry) for _, entry in entries)
            those = {clients[start : start + 8] for start in range(0, len(clients), 8)}
            pairs = [
                (one, data.sessions.sealed(realm, one.record)) for one in found if not those or one.client in those
            ]
            live = tuple((one, sealed) for one, sealed in pairs if sealed is not None and not sealed.ended)
            parts.append(IndexPart(len(entries), live))
        return now, parts

    async def approval(
        self, log_id: str, realm: str, name: str, life_ms: int, new: str, audit: bytes = b""
    ) -> str | Closed:
        """See lua/approval.lua."""
        data, now = self._enter(0)
        if closed := self._gate(data, log_id):
            return closed
        if new and (realm, name) not in data.sessions.approvals:
            data.sessions.approvals[realm, name] = (new, now + life_ms)
            if audit:
                data.audit(realm, now, 0, "", audit)
        return data.sessions.approvals.get((realm, name), ("", 0))[0]


def _unseen(data: Data, step: Step) -> bool:
    """Does the log hold anything that the caller's view lacks and that could have changed its mind?"""
    missing = data.at.seq - step.applied
    if missing == 0 or not step.watched:
        return False
    tail = [entry for entry in data.log if entry.seq > step.applied]
    if not 0 < missing <= _TAIL or len(tail) != missing:
        return True
    watched = [step.watched[start : start + 8] for start in range(0, len(step.watched), 8)]
    return any(entry.realm == step.realm and fp in entry.rows for entry in tail for fp in watched)


def _crowded_out(held: SessionData, step: Step, limits: Limits, forget: set[bytes], now: int) -> list[bytes] | None:
    """Which entries must go, so that there is room for one more; None if none may go."""
    wanted = [limit for limit in (limits.of_subject, limits.of_client) if limit]
    total = sum(len(held.indexes.get((step.realm, name), {})) for name in step.indexes)
    if not wanted or total < min(wanted):
        return []
    live = []
    for packed in held.live_entries(step.realm, step.indexes, now):
        sealed = held.sealed(step.realm, Entry.unpack(packed).record)
        if packed not in forget and (sealed is None or sealed.ended):
            forget.add(packed)
        elif packed not in forget:
            live.append(packed)
    live.sort(key=lambda packed: Entry.unpack(packed).opened_ms)
    clients = {limits.clients[start : start + 8] for start in range(0, len(limits.clients), 8)}
    mine = [packed for packed in live if Entry.unpack(packed).client in clients]
    gone: list[bytes] = []
    for candidates, limit in ((mine, limits.of_client), (live, limits.of_subject)):
        excess = len(candidates) - limit + 1 - sum(packed in gone for packed in candidates) if limit else 0
        gone += [packed for packed in candidates if packed not in gone][: max(excess, 0)]
    gone = gone[:_EVICT_AT_ONCE]
    return None if gone and not limits.evict else gone


def _write_entry(held: SessionData, step: Step, now: int) -> None:
    """Into the subject's own index, from which also goes what has expired."""
    if not step.indexes:
        return
    place = (step.realm, step.indexes[0])
    index = {entry: ends for entry, ends in held.indexes.get(place, {}).items() if ends > now}
    if isinstance(step.action, Put):
        index[step.entry] = step.action.ends_ms
    held.indexes[place] = index


def _entries(packed: bytes) -> list[bytes]:
    return [packed[start : start + ENTRY_BYTES] for start in range(0, len(packed), ENTRY_BYTES)]
