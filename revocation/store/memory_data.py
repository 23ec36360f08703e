"""What a server holds of one partition, in memory. See memory.py."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from revocation.store import HOLD_MS, ZERO, Closed, LogEntry, Member, OpResult, OpState, Registry, Standing
from revocation.store.memory_audit import Chain
from revocation.store.memory_mailbox import MailData
from revocation.store.memory_sessions import SessionData
from revocation_sdk._audit import AuditPoint
from revocation_sdk._lattice import Kind


@dataclass(slots=True)
class _Segment:
    due: float
    rows: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _OpRecord:
    until_ms: int
    digest: str
    result: OpResult


@dataclass(slots=True)
class Data:
    """One partition as a server holds it; a fresh one is an empty server. `at` is what the registry shows."""

    at: Registry = field(default_factory=lambda: Registry(None))
    owner: str = ""
    high: int = 0
    suspect: bool = False
    own_ms: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Member -> the nonce with which it confirmed last, and its incarnation then."""
    holds: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Process that loads -> the number that the log may not be trimmed past, and until when (ms)."""
    log: list[LogEntry] = field(default_factory=list)
    realms: dict[str, tuple[int, str]] = field(default_factory=dict)
    segments: dict[tuple[str, str], _Segment] = field(default_factory=dict)
    ops: dict[str, _OpRecord] = field(default_factory=dict)
    sessions: SessionData = field(default_factory=SessionData)
    mail: MailData = field(default_factory=MailData)
    audits: dict[str, Chain] = field(default_factory=dict)

    def note_usable(self) -> None:
        """H6: settled, and every member has confirmed this history."""
        confirmed = all(member.log_id == self.at.log_id for member in self.at.members.values())
        self.at = replace(self.at, usable=self.at.settled and confirmed)

    def register(self, names: Sequence[str], now: int) -> None:
        """Lists members that others know of."""
        for name in [name for name in names if name not in self.at.members]:
            self.at = replace(self.at, version=self.at.version + 1)
            self.at.members[name] = Member(0, "", self.at.version, 0, False, now)

    def standing(self, who: Standing, newcomer: bool = False) -> Closed | None:
        """H6, H8: why this member may not acknowledge and vouch. `newcomer`: also if it is not active yet."""
        member = self.at.members.get(who.member)
        if member is None:
            return Closed.HEAL
        if member.incarnation > who.incarnation:
            return Closed.FENCED
        if member.incarnation < who.incarnation or member.log_id != self.at.log_id:
            return Closed.HEAL
        return None if self.at.usable and (member.active or newcomer) else Closed.WAIT

    def went_back(self, now: int) -> bool:
        """Whether time did."""
        return now + 1000 <= self.high

    def hold(self, name: str, loads: bool, now: int) -> None:
        """What a load will read from on; forgotten when it says nothing for a while, or has ended."""
        self.holds = {other: held for other, held in self.holds.items() if held[1] >= now}
        if loads:
            self.holds[name] = self.holds.get(name, (self.at.seq, 0))[0], now + HOLD_MS
        else:
            self.holds.pop(name, None)

    def needed(self) -> int:
        """The first record that somebody still has to read."""
        held = [seq for seq, _ in self.holds.values()]
        return 1 + min([*held, *(member.applied for member in self.at.members.values())], default=self.at.seq)

    def expire(self, now: int) -> None:
        """Keys that are over are gone, and nothing else happens then."""
        self.segments = {name: segment for name, segment in self.segments.items() if segment.due * 1000 >= now}
        self.ops = {key: record for key, record in self.ops.items() if record.until_ms >= now}
        self.sessions.expire(now)

    def keep(self, realm: str, name: str, due: str, rows: bytes, now: int, why: str = "logout") -> None:
        """Appends rows to a segment; those of sessions end their records."""
        end = float("inf") if due == "never" else int(due)
        kind, key_tag, _ = name.split("-")
        if int(kind) == Kind.SESSION:
            self.sessions.end(realm, int(key_tag), rows, end, why)
        if end * 1000 > now:
            self.segments.setdefault((realm, name), _Segment(end)).rows.extend(rows)

    def rows_of(self, realm: str, name: str) -> bytes:
        """All rows of a segment."""
        segment = self.segments.get((realm, name))
        return bytes(segment.rows) if segment else b""

    def append(self, realm: str, rows: bytes, ops: str, now: int, until_ms: int) -> None:
        """One record of a realm, and those of its operations: both chains go on by one."""
        realm_seq, realm_digest = self.realms.get(realm, (0, ZERO))
        realm_seq, realm_digest = realm_seq + 1, _sha1(realm_digest.encode() + rows)
        seq = self.at.seq + 1
        digest = _sha1(f"{self.at.digest}{realm} {realm_seq} {realm_digest} {now} {ops}".encode())
        self.at = replace(self.at, seq=seq, digest=digest)
        self.realms[realm] = (realm_seq, realm_digest)
        self.log.append(LogEntry(seq, realm, realm_seq, realm_digest, digest, now, rows, ops))
        for text in ops.split():
            key, request, version, expires_at, at_ms = text.split(":")
            drawn = (int(version), int(at_ms), int(expires_at))
            result = OpResult(OpState.DONE, *drawn, seq, realm_seq, bytes.fromhex(realm_digest))
            self.ops.setdefault(key, _OpRecord(until_ms, request, result))

    def audit(self, realm: str, now: int, seq: int, extra: str, sealed: bytes) -> AuditPoint:
        """The next entry of a realm's audit."""
        return self.audits.setdefault(realm, Chain()).add(now, seq, extra, sealed)

    def op_fields(self, key: str) -> tuple[str, ...]:
        """The op record as scripts keep it: digest, version, at, expiry, seq, realm seq, realm digest."""
        record = self.ops.get(key)
        if record is None:
            return ()
        done = record.result
        numbers = (done.version, done.at_ms, done.expires_at, done.seq, done.realm_seq)
        return (record.digest, *map(str, numbers), done.realm_digest.hex())

    def note_op(self, key: str, digest: str, result: OpResult, until_ms: int) -> None:
        """Writes down what an operation answered."""
        self.ops[key] = _OpRecord(until_ms, digest, result)


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()
