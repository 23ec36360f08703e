"""Sessions in Redis and Valkey: arguments of `lua/session.lua` and its like, and their replies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from revocation.store import SLOT_S, Closed, Durability, Standing, segment_of
from revocation.store.rails import IndexPart
from revocation.store.redis_audit import audit_point
from revocation.store.sessions import (
    Again,
    Behind,
    ClientSettings,
    Count,
    Entry,
    Finish,
    Limits,
    Look,
    Put,
    Seen,
    Step,
    Stepped,
    SubjectCutoff,
    Turned,
    parse_record,
    record_value,
)
from revocation_sdk._lattice import DENIAL, Kind

SESSION_SCRIPTS = ("session", "session_look", "clients", "impact", "approval")


class RedisSessions(ABC):
    """The part of RedisStore that is about sessions."""

    _skew_ms: int
    _op_retention_ms: int
    _longest_log: int

    @abstractmethod
    async def _durably(
        self, script: str, partition: int, arguments: list[Any], durability: Durability
    ) -> tuple[list[Any], int]: ...

    async def look_sessions(
        self, partition: int, who: Standing, caller_ms: int, look: Look, durability: Durability
    ) -> Seen | Closed:
        """See lua/session_look.lua."""
        waits = int(durability.replicas > 0 or durability.fsync)
        arguments = [who.log_id, who.member, who.incarnation, caller_ms, self._skew_ms, waits, look.realm]
        arguments += [look.op, " ".join(look.indexes), look.at_least, "records" if look.with_records else ""]
        reply, copies = await self._durably("session_look", partition, [*arguments, *look.records], durability)
        if len(reply) == 1:
            return Closed(reply[0].decode())
        entries = zip(reply[5][::2], reply[5][1::2], strict=True)
        return Seen(
            now_ms=int(reply[1]),
            seq=int(reply[2]),
            clock=int(reply[3]),
            op=tuple(reply[4].decode().split()),
            entries=tuple((Entry.unpack(entry), parse_record(value)) for entry, value in entries),
            records=tuple(parse_record(value) for value in reply[6:]),
            copies=copies,
        )

    async def step_session(
        self, partition: int, who: Standing, caller_ms: int, step: Step, durability: Durability
    ) -> Stepped | Again | Behind | Turned | Closed:
        """See lua/session.lua."""
        arguments: list[Any] = [who.log_id, who.member, who.incarnation, caller_ms, self._skew_ms]
        arguments += [self._op_retention_ms, self._longest_log]
        arguments += [part for pair in _arguments(step) for part in pair]
        reply, copies = await self._durably("session", partition, arguments, durability)
        match reply[0]:
            case b"ok":
                numbers = [int(reply[number]) for number in (1, 2, 4, 6)]
                now_ms, seq, realm_seq, count = numbers
                digest, audit = bytes.fromhex(reply[5].decode()), audit_point(*reply[7:9])
                audited = audit if audit.number else None
                return Stepped(now_ms, seq, reply[3], realm_seq, digest, count, copies, audited)
            case b"again":
                return Again(int(reply[1]), int(reply[2]), tuple(field.decode() for field in reply[3:]), copies)
            case b"behind":
                return Behind(int(reply[1]))
            case why:
                word = why.decode()
                return Turned(word) if word in {turned.value for turned in Turned} else Closed(word)

    async def client_settings(
        self, log_id: str, realm: str, names: tuple[str, ...], new: str, most: int, audit: bytes = b""
    ) -> ClientSettings | Closed | None:
        """See lua/clients.lua."""
        reply, _ = await self._durably("clients", 0, [log_id, realm, most, audit, *names, new], Durability())
        if reply[0] == b"full":
            return None
        if len(reply) == 1:
            return Closed(reply[0].decode())
        point = audit_point(*reply[2:4])
        return ClientSettings(reply[1].decode(), point if point.number else None)

    async def index_names(
        self, partition: int, log_id: str, realm: str, cursor: int, count: int
    ) -> tuple[int, list[str]] | Closed:
        """See lua/impact.lua."""
        reply, _ = await self._durably("impact", partition, [log_id, realm, "names", cursor, count], Durability())
        if len(reply) == 1:
            return Closed(reply[0].decode())
        return int(reply[1]), [name.decode() for name in reply[2]]

    async def index_entries(
        self, partition: int, log_id: str, realm: str, wanted: Sequence[tuple[str, int]], clients: bytes, most: int
    ) -> tuple[int, list[IndexPart]] | Closed:
        """See lua/impact.lua."""
        flat = [argument for pair in wanted for argument in pair]
        arguments = [log_id, realm, "entries", clients, most, *flat]
        reply, _ = await self._durably("impact", partition, arguments, Durability())
        if len(reply) == 1:
            return Closed(reply[0].decode())
        return int(reply[1]), [_index_part(part) for part in reply[2:]]

    async def approval(
        self, log_id: str, realm: str, name: str, life_ms: int, new: str, audit: bytes = b""
    ) -> str | Closed:
        """See lua/approval.lua."""
        reply, _ = await self._durably("approval", 0, [log_id, realm, name, life_ms, new, audit], Durability())
        return reply[1].decode() if len(reply) > 1 else Closed(reply[0].decode())


def _index_part(part: list[Any]) -> IndexPart:
    pairs = ((Entry.unpack(entry), parse_record(record)) for entry, record in zip(part[1::2], part[2::2], strict=True))
    return IndexPart(int(part[0]), tuple((entry, sealed) for entry, sealed in pairs if sealed is not None))


def _arguments(step: Step) -> Iterator[tuple[str, Any]]:
    yield "realm", step.realm
    yield "applied", step.applied
    yield "watched", step.watched
    yield "until", step.until_ms
    yield "record", step.record
    yield "expect", "*" if step.expect is None else step.expect
    yield "entry", step.entry
    yield "indexes", " ".join(step.indexes)
    yield "slot", SLOT_S
    if step.op:
        yield "op", step.op
        yield "digest", step.digest
    yield from _action(step.action, step)
    if step.limits:
        yield from _limits(step.limits)
    if step.audit:
        yield "audit", step.audit
    if step.cutoff:
        yield from _cutoff(step.cutoff)


def _action(action: Put | Count | Finish, step: Step) -> Iterator[tuple[str, Any]]:
    match action:
        case Put():
            yield "value", record_value(action)
            yield "due", action.due_ms
            yield "ends", action.ends_ms
        case Count():
            yield "count", action.most
        case Finish():
            tag = int(step.record.partition(":")[0])
            segment, due = segment_of(Kind.SESSION, tag, DENIAL.unpack(action.row)[1])
            yield "row", action.row
            yield "segment", segment
            yield "row_due", due
            yield "why", action.why


def _limits(limits: Limits) -> Iterator[tuple[str, Any]]:
    yield "of_subject", limits.of_subject
    yield "of_client", limits.of_client
    yield "overflow", "evict" if limits.evict else "deny"
    yield "clients", limits.clients
    yield "slack", limits.slack_s
    yield "forget", limits.forget


def _cutoff(cutoff: SubjectCutoff) -> Iterator[tuple[str, Any]]:
    yield "version", cutoff.version
    yield "cutoff_tag", cutoff.key_tag
    yield "horizon", cutoff.horizon_s
    yield "cutoff", cutoff.fingerprints
