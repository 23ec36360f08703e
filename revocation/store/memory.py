"""The store in memory: what `lua/` does, to be read and to be tested against.

It gives the same answers as the scripts on a server, with time and faults in the hands of whoever made it: `clock`
says what time it is, `identity` changes with every restart and promotion of a server, `primary` and `up` go off, and
`snapshot` and `restore` lose a suffix, or everything. It never sleeps, except in a read of the log that was told to.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from revocation.store import (
    LOADING,
    NO_AUDIT,
    NO_WAIT,
    Closed,
    Committed,
    Cutoffs,
    Denials,
    Durability,
    Heads,
    LogEntry,
    Member,
    Op,
    OpResult,
    OpState,
    Registry,
    Standing,
    StoreRefused,
    StoreUnavailable,
    Tail,
    opening_digest,
    segment_of,
)
from revocation.store.memory_audit import MemoryAudit
from revocation.store.memory_data import Data
from revocation.store.memory_mailbox import MemoryMailbox
from revocation.store.memory_sessions import MemorySessions, SessionData
from revocation.store.segments import split, split_all
from revocation_sdk._audit import AuditPoint
from revocation_sdk._lattice import CUTOFF, Group, join_groups


class MemoryStore(MemorySessions, MemoryAudit, MemoryMailbox):
    """The store in memory. Tests change its public fields as they like."""

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        partitions: int = 1,
        skew_ms: int = 30_000,
        op_retention_ms: int = 600_000,
        longest_log: int = 1_000_000,
    ) -> None:
        self.partitions = partitions
        self.clock = clock
        self.identity = "1"
        self.primary = True
        self.up = True
        self.replicas = 0
        """Store replicas that are connected; they hold everything at once."""
        self.data = [Data() for _ in range(partitions)]
        self.secrets: dict[str, str] = {}
        self._skew_ms = skew_ms
        self._op_retention_ms = op_retention_ms
        self._longest_log = longest_log
        self._appended = [asyncio.Event() for _ in range(partitions)]
        self._posted = asyncio.Event()

    # -- faults -------------------------------------------------------------------------------------------------

    def snapshot(self) -> list[Data]:
        """What it holds now, to `restore` later."""
        return copy.deepcopy(self.data)

    def restore(self, data: list[Data], identity: str) -> None:
        """Another process takes over, with data from an earlier time."""
        self.data, self.identity = copy.deepcopy(data), identity

    def wipe(self, identity: str | None = None) -> None:
        """Forgets everything: FLUSHALL, or with an identity a restart without persistence."""
        self.restore([Data() for _ in range(self.partitions)], identity or self.identity)
        self.secrets.clear()

    # -- the protocol -------------------------------------------------------------------------------------------

    async def start(self) -> str:
        """Nothing to connect to."""
        return "memory"

    async def close(self) -> None:
        """Nothing to close."""

    async def reconnect(self) -> None:
        """Nothing to drop."""

    async def commit(
        self,
        partition: int,
        who: Standing,
        caller_ms: int,
        ops: Sequence[Op],
        durability: Durability,
        audits: Mapping[str, bytes] = NO_AUDIT,
    ) -> Committed | Closed:
        """See lua/commit.lua."""
        data, now = self._enter(partition)
        closed = self._gate(data, who.log_id) or self._sane(data, now, caller_ms) or data.standing(who)
        if closed is not None:
            return closed
        fresh: dict[str, Op] = {}
        for op in ops:
            if op.key not in data.ops:
                fresh.setdefault(op.key, op)
        if fresh and len(data.log) >= self._longest_log:
            return Closed.FULL
        self._write(partition, list(fresh.values()), now)
        new = [fresh.get(op.key) is op for op in ops]
        points = {realm: self._audit(data, realm, sealed, ops, new, now) for realm, sealed in audits.items()}
        results = []
        for op in ops:
            record = data.ops[op.key]
            if record.digest != op.digest:
                results.append(OpResult(OpState.CONFLICT))
                continue
            record.until_ms = now + self._op_retention_ms
            results.append(
                replace(record.result, audit=points.get(op.realm))
                if op.key in fresh
                else replace(record.result, state=OpState.AGAIN)
            )
        data.high = max(data.high, now)
        return Committed(now, data.at.seq, tuple(results), self._copies(durability))

    def _audit(
        self, data: Data, realm: str, sealed: bytes, ops: Sequence[Op], new: list[bool], now: int
    ) -> AuditPoint | None:
        """One entry for what is new in a realm; it says which of the operations that is."""
        which = "".join("01"[fresh] for op, fresh in zip(ops, new, strict=True) if op.realm == realm)
        if "1" not in which:
            return None
        return data.audit(realm, now, data.realms[realm][0], which if "0" in which else "", sealed)

    def _write(self, partition: int, ops: list[Op], now: int) -> None:
        """One record for each realm, one version for all."""
        data = self.data[partition]
        version = max(data.at.clock + 1, now, *(op.above + 1 for op in ops))
        for realm in dict.fromkeys(op.realm for op in ops):
            rows, texts = b"", []
            for op in (op for op in ops if op.realm == realm):
                for name, due, group in _parts(data.sessions, op, version, now):
                    data.keep(realm, name, due, group.rows, now)
                    rows += join_groups([group])
                until = max((now // 1000 + g.horizon_s + 1 for g in op.groups if isinstance(g, Cutoffs)), default=0)
                texts.append(f"{op.key}:{op.digest}:{version if until else 0}:{until}:{now}")
                if until:
                    data.at = replace(data.at, clock=version)
            self._append(partition, realm, rows, " ".join(texts), now)

    def _append(self, partition: int, realm: str, rows: bytes, ops: str, now: int) -> None:
        self.data[partition].append(realm, rows, ops, now, now + self._op_retention_ms)
        self._appended[partition].set()
        self._appended[partition] = asyncio.Event()

    async def barrier(
        self, partition: int, who: Standing, caller_ms: int, durability: Durability, *, newcomer: bool = False
    ) -> Tail | Closed:
        """See lua/barrier.lua."""
        data, now = self._enter(partition)
        closed = self._gate(data, who.log_id) or self._sane(data, now, caller_ms) or data.standing(who, newcomer)
        if closed is not None:
            return closed
        if durability.replicas:
            data.high = max(data.high, now)
        return Tail(now, data.at.seq, self._copies(durability), data.at.clock)

    async def beat(
        self,
        partition: int,
        who: Standing | None,
        member: str,
        caller_ms: int,
        read: int,
        trim_below: int,
        *,
        applied: int = 0,
    ) -> Registry:
        """See lua/beat.lua."""
        data, now = self._enter(partition)
        state = self._gate(data, who.log_id if who else "")
        if state is Closed.DEMOTED:
            return Registry(state)
        if state in {None, Closed.HEAL}:  # nobody should heal a history that is to be opened anew
            state = self._sane(data, now, caller_ms) or state
        record = data.at.members.get(member)
        if who and state is None:
            state = data.standing(who)
            state = None if state is Closed.WAIT else state
        if record and who and record.incarnation <= who.incarnation and abs(now - caller_ms) <= self._skew_ms:
            data.at.members[member] = record = replace(record, beat_ms=now, read=record.read if state else read)
            if state is None:
                data.own_ms[member] = caller_ms
                reads = [other.read for other in data.at.members.values()]
                active = record.active or len(reads) == 1 or min(reads) >= record.registered
                known = record.applied if applied == LOADING else applied
                data.at.members[member] = replace(record, active=active, applied=known)
        data.hold(member, applied == LOADING, now)
        if state is None:
            data.high = max(data.high, now)
            data.at = replace(data.at, nodes=max(data.at.nodes, self.replicas))
            data.log = [entry for entry in data.log if entry.seq >= min(trim_below, data.needed())]
        members = dict(data.at.members)
        return replace(data.at, closed=state, now_ms=now, replicas=self.replicas, members=members)

    async def open_history(
        self, partition: int, seen: str, log_id: str, settle_ms: int, members: Sequence[str], epoch: int = 0
    ) -> Closed | None:
        """See lua/open.lua."""
        data, now = self._enter(partition)
        if not self.primary:
            return Closed.DEMOTED
        if data.at.log_id != seen or (data.owner == self.identity and not data.suspect and epoch <= data.at.epoch):
            return Closed.LATE
        if data.went_back(now):
            return Closed.CLOCK
        begun = replace(
            data.at,
            log_id=log_id,
            settled=(bool(data.at.members) and data.at.settled and epoch > 0) or settle_ms == 0,
            opened_ms=now,
            previous=data.at.log_id,
            base=data.at.seq,
            base_digest=data.at.digest,
            epoch=max(data.at.epoch, epoch) + 1,
            digest=opening_digest(data.at.digest, log_id),
            full=data.suspect,
            usable=False,
        )
        data.at, data.owner, data.suspect = begun, self.identity, False
        data.register(members, now)
        return None

    async def confirm(
        self, partition: int, log_id: str, member: str, incarnation: int | None, caller_ms: int, known: Sequence[str],
        *, nonce: str = "",
    ) -> int | Closed:  # fmt: skip
        """See lua/confirm.lua."""
        data, now = self._enter(partition)
        closed = self._gate(data, log_id) or self._sane(data, now, caller_ms)
        if closed is not None:
            return closed
        listed = member in data.at.members
        data.register([member], now)
        record = data.at.members[member]
        if incarnation is None and nonce and data.drawn.get(member) == (nonce, record.incarnation):
            incarnation = record.incarnation
        elif incarnation is None:
            incarnation = max(now, record.incarnation + 1) if listed else now
            if listed:
                data.at = replace(data.at, version=data.at.version + 1)
                record = replace(record, registered=data.at.version)
        elif record.incarnation > incarnation:
            return Closed.FENCED
        active = record.active and record.incarnation == incarnation
        data.at.members[member] = Member(incarnation, log_id, record.registered, 0, active, now)
        data.own_ms[member] = caller_ms
        data.drawn[member] = (nonce, incarnation)
        data.register(known, now)
        data.note_usable()
        return incarnation

    async def settle(self, partition: int, log_id: str, settle_ms: int) -> Closed | None:
        """See lua/settle.lua."""
        data, now = self._enter(partition)
        if closed := self._gate(data, log_id):
            return closed
        if now - data.at.opened_ms < settle_ms:
            return Closed.EARLY
        data.at = replace(data.at, settled=True)
        data.note_usable()
        return None

    async def strike(
        self, partition: int, log_id: str, member: str, mode: str, incarnation: int | None, silent_ms: int,
        *, durability: Durability = NO_WAIT,
    ) -> Closed | None:  # fmt: skip
        """See lua/strike.lua."""
        data, now = self._enter(partition)
        closed = self._gate(data, log_id) or (Closed.CLOCK if data.went_back(now) else None)
        if closed is not None or data.suspect:
            return closed or Closed.REOPEN
        record = data.at.members.get(member)
        if record is None:
            return Closed.GONE
        if incarnation not in {None, record.incarnation}:
            return Closed.FENCED
        if mode != "forced" and not data.at.usable:
            return Closed.WAIT
        if mode != "leave" and data.high - record.beat_ms < silent_ms:
            return Closed.ALIVE
        del data.at.members[member]
        if mode == "forced":
            data.at = replace(data.at, nodes=self.replicas)
        data.own_ms.pop(member, None)
        data.drawn.pop(member, None)
        data.note_usable()
        return None

    async def propose(
        self, partition: int, log_id: str, clock: int, realm: str, rows: bytes, ops: str
    ) -> Closed | None:
        """See lua/propose.lua."""
        data, now = self._enter(partition)
        if closed := self._gate(data, log_id):
            return closed
        body = b""
        for kind, key_tag, name, due, part in split_all(rows):
            data.keep(realm, name, due, part, now)
            body += join_groups([Group(kind, key_tag, part)])
        given = dict[str, str]()
        for op in ops.split():
            given.setdefault(op.partition(":")[0], op)
        lacking = " ".join(op for key, op in given.items() if key not in data.ops)
        if body or lacking:
            self._append(partition, realm, body, lacking, now)
        data.at = replace(data.at, clock=max(data.at.clock, clock))
        return None

    async def heads(self, partition: int, log_id: str) -> Heads | Closed:
        """See lua/segments.lua."""
        data, _ = self._enter(partition)
        return self._gate(data, log_id) or Heads(data.at.seq, data.at.digest, dict(data.realms))

    async def segment_names(self, partition: int, log_id: str, realm: str, start: int, stop: int) -> list[str] | Closed:
        """See lua/segments.lua."""
        data, now = self._enter(partition)
        if closed := self._gate(data, log_id):
            return closed
        live = [(s.due, name) for (of, name), s in data.segments.items() if of == realm and s.due > now // 1000]
        return [name for _, name in sorted(live, reverse=True)][start : stop + 1]

    async def segment_rows(
        self, partition: int, log_id: str, realm: str, wanted: Sequence[tuple[str, int]], size: int
    ) -> list[bytes] | Closed:
        """See lua/segments.lua."""
        data, _ = self._enter(partition)
        if closed := self._gate(data, log_id):
            return closed
        return [data.rows_of(realm, name)[offset : offset + size] for name, offset in wanted]

    async def read_log(self, partition: int, after: int, count: int, block_ms: int) -> list[LogEntry]:
        """Records behind `after`; waits by the event loop's clock, which a simulation replaces."""
        try:
            async with asyncio.timeout(block_ms / 1000):
                while True:
                    data, _ = self._enter(partition)
                    found = [entry for entry in data.log if entry.seq > after][:count]
                    if found or not block_ms:
                        return found
                    await self._appended[partition].wait()
        except TimeoutError:
            return []

    async def agree_on_secret(self, commitments: dict[str, str]) -> tuple[str, ...]:
        """Writes down a commitment to each key id, or compares."""
        self._enter(0)
        for kid, commitment in commitments.items():
            if self.secrets.setdefault(kid, commitment) != commitment:
                raise StoreRefused(f"the store was made with another master secret under the key id {kid!r}")
        return tuple(sorted(self.secrets.keys() - commitments.keys()))

    # -- what all scripts share (lua/partition.lua) -------------------------------------------------------------

    def _enter(self, partition: int) -> tuple[Data, int]:
        if not self.up:
            raise StoreUnavailable("down")
        now = self.clock()
        self.data[partition].expire(now)
        return self.data[partition], now

    def _gate(self, data: Data, log_id: str) -> Closed | None:
        if not self.primary:
            return Closed.DEMOTED
        if not data.at.log_id or data.owner != self.identity:
            return Closed.REOPEN
        return Closed.HEAL if data.at.log_id != log_id else None

    def _sane(self, data: Data, now: int, caller_ms: int) -> Closed | None:
        if data.went_back(now) or now - caller_ms > self._skew_ms:
            contradicted = any(own_ms - caller_ms > self._skew_ms / 2 for own_ms in data.own_ms.values())
            data.suspect |= data.went_back(now) or not contradicted
            return Closed.CLOCK
        if caller_ms - now > self._skew_ms:
            return Closed.CLOCK
        return Closed.REOPEN if data.suspect else None

    def _copies(self, durability: Durability) -> int:
        return self.replicas if durability.replicas else int(durability.fsync)


def _parts(sessions: SessionData, op: Op, version: int, now: int) -> list[tuple[str, str, Group]]:
    """The rows of an operation by segment: (name, due, group)."""
    parts = []
    for group in op.groups:
        if isinstance(group, Denials):
            if group.if_session and not sessions.lives(op.realm, group.key_tag, group.rows):
                continue
            for name, due, rows in split(group.kind, group.key_tag, group.rows):
                parts.append((name, due, Group(group.kind, group.key_tag, rows)))
            continue
        expires_at = now // 1000 + group.horizon_s + 1
        prints = [int.from_bytes(group.fingerprints[i : i + 8], "little") for i in range(0, len(group.fingerprints), 8)]
        rows = b"".join(CUTOFF.pack(fingerprint, expires_at, version, now) for fingerprint in prints)
        parts.append((*segment_of(group.kind, group.key_tag, expires_at), Group(group.kind, group.key_tag, rows)))
    return parts
