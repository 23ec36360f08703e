"""What scripts are told and what they answer, in Python's terms."""

from __future__ import annotations

import json
from typing import Any

from revocation.store import SLOT_S, Closed, Denials, LogEntry, Member, Op, OpResult, OpState, Registry, Standing
from revocation.store.segments import split
from revocation_sdk._audit import AuditPoint


def standing_arguments(who: Standing) -> tuple[str, str, int]:
    """Under which history, name and incarnation a caller speaks."""
    return who.log_id, who.member, who.incarnation


def closed_of(reply: list[Any]) -> Closed | None:
    """Why a script did nothing; None if it did."""
    return None if reply[0] == b"ok" else Closed(reply[0].decode())


def op_arguments(op: Op) -> list[Any]:
    """An operation as `lua/commit.lua` takes it."""
    groups: list[Any] = []
    count = 0
    for group in op.groups:
        if isinstance(group, Denials):
            for name, due, rows in split(group.kind, group.key_tag, group.rows):
                groups += ["s" if group.if_session else "d", int(group.kind), group.key_tag, name, due, rows]
                count += 1
        else:
            groups += ["c", int(group.kind), group.key_tag, group.horizon_s, SLOT_S, group.fingerprints]
            count += 1
    return [op.realm, op.key, op.digest, count, *groups]


def op_result(reply: list[bytes], audit: AuditPoint | None) -> OpResult:
    """What became of an operation."""
    state = OpState(reply[0].decode())
    if state is OpState.CONFLICT:
        return OpResult(state)
    version, at, expires, seq, realm_seq = map(int, reply[1:6])
    digest = bytes.fromhex(reply[6].decode())
    return OpResult(state, version, at, expires, seq, realm_seq, digest, audit if state is OpState.DONE else None)


def registry_of(reply: list[Any]) -> Registry:
    """What `lua/beat.lua` tells."""
    closed = Closed(reply[0].decode()) if reply[0] else None
    if len(reply) == 1:
        return Registry(closed)
    meta = json.loads(reply[2])
    if not meta:
        return Registry(closed, int(reply[1]))
    members = {reply[i].decode(): _member(reply[i + 1]) for i in range(3, len(reply), 2)}
    return Registry(
        closed=closed,
        now_ms=int(reply[1]),
        log_id=meta.get("log", ""),
        settled=meta.get("settled") == "1",
        opened_ms=int(meta.get("opened", 0)),
        previous=meta.get("prev", ""),
        base=int(meta.get("base", 0)),
        base_digest=meta.get("base_digest", "0" * 40),
        full=meta.get("full") == "1",
        seq=int(meta.get("seq", 0)),
        digest=meta.get("digest", "0" * 40),
        clock=int(meta.get("clock", 0)),
        version=int(meta.get("reg", 0)),
        usable=meta.get("usable") == "1",
        replicas=int(meta.get("replicas", 0)),
        nodes=int(meta.get("nodes", 0)),
        epoch=int(meta.get("epoch", 0)),
        members=members,
    )


def _member(text: bytes) -> Member:
    record = json.loads(text)
    return Member(
        int(record["inc"]),
        record["log"],
        int(record["reg"]),
        int(record["read"]),
        bool(record["act"]),
        int(record["beat"]),
        int(record.get("at", 0)),
    )


def log_entry(record_id: bytes, fields: dict[bytes, bytes]) -> LogEntry:
    """One record of the log."""
    return LogEntry(
        seq=int(record_id.split(b"-")[0]),
        realm=fields[b"r"].decode(),
        realm_seq=int(fields[b"q"]),
        realm_digest=fields[b"d"].decode(),
        digest=fields[b"p"].decode(),
        at_ms=int(fields[b"t"]),
        rows=fields[b"b"],
        ops=fields[b"o"].decode(),
    )
