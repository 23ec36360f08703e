"""The audit of a realm, for auditors: read it, follow it, check it.

    with RevocationClient(...) as client:
        for entry in read(client):
            for record in entry.records:
                print(record.actor, record.kind, record.value)
        report = verify(client, log_lines)

The caller needs the role auditor or admin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from revocation_api.v1 import audit_pb2
from revocation_api.v1.audit_pb2_grpc import AuditServiceStub
from revocation_sdk._audit import (
    HARMLESS,
    NOWHERE,
    Action,
    AuditEntry,
    AuditFrom,
    AuditLoss,
    AuditPoint,
    AuditRecord,
    AuditStart,
    ChainCheck,
    Fault,
    Finding,
    line_points,
    parse_points,
    points_text,
)
from revocation_sdk._client import BaseClient, core_of
from revocation_sdk._core import CALL_TIMEOUT_S
from revocation_sdk._operation import build
from revocation_sdk.errors import ServiceError, Unavailable

__all__ = [
    "Action",
    "AuditEntry",
    "AuditFrom",
    "AuditLoss",
    "AuditPoint",
    "AuditRecord",
    "AuditStart",
    "Fault",
    "Finding",
    "Report",
    "parse_points",
    "points_text",
    "read",
    "verify",
]


def read(
    client: BaseClient,
    *,
    realm: str | None = None,
    after: Mapping[int, AuditPoint] | None = None,
    follow: bool = False,
    timeout: float = CALL_TIMEOUT_S,
) -> Iterator[AuditEntry]:
    """The entries of a realm's audit (default: the client's realm; "*" is the installation), oldest first.

    Args:
        client: Whose identity has the role auditor or admin there.
        realm: Whose audit.
        after: By partition, the last entry known; the others come. A point that is not there any more begins anew.
        follow: Go on with what comes, for ever.
        timeout: Seconds to wait until the service begins to answer.

    Raises:
        PermissionDenied: The caller is no auditor.
        Unavailable: No service; or the stream broke or ended early: go on with `after` the last entry that came.
    """
    for event in _events(client, realm or client.realm, after or {}, follow, timeout):
        if isinstance(event, AuditEntry):
            yield event


@dataclass(frozen=True, slots=True)
class Report:
    """What a check found. `heads` by partition: keep them, and the next check tells whether they are still there."""

    entries: int
    records: int
    lines: int
    anchors: tuple[AuditPoint, ...]
    heads: tuple[AuditPoint, ...]
    findings: tuple[Finding, ...]

    def failed(self, *, accept_loss: bool = False) -> bool:
        """Whether something is wrong. A loss that a replica declared counts, unless it is accepted."""
        passed = HARMLESS | ({Fault.LOST} if accept_loss else frozenset())
        return any(finding.fault not in passed for finding in self.findings)


def verify(
    client: BaseClient,
    log: Iterable[Mapping[str, object]] = (),
    *,
    realm: str | None = None,
    timeout: float = CALL_TIMEOUT_S,
) -> Report:
    """Reads a realm's whole audit and checks its chains; `log` are lines of the service's log, parsed.

    Raises as `read`.
    """
    name = realm or client.realm
    checks: list[ChainCheck] = []
    starts: tuple[AuditStart, ...] = ()
    heads: tuple[AuditPoint, ...] = ()
    for event in _events(client, name, {}, False, timeout):
        if isinstance(event, AuditEntry):
            checks[event.partition].add(event)
        elif event and isinstance(event[0], AuditStart):
            starts = tuple(start for start in event if isinstance(start, AuditStart))
            checks = [ChainCheck(partition, start) for partition, start in enumerate(starts)]
        else:
            heads = tuple(point for point in event if isinstance(point, AuditPoint))
    lines = [found for line in log for found in line_points(line) if found.realm == name]
    findings = [
        finding
        for partition, check in enumerate(checks)
        for finding in check.finish(line for line in lines if line.partition == partition)
    ]
    return Report(
        sum(check.entries for check in checks),
        sum(check.records for check in checks),
        len(lines),
        tuple(start.anchor for start in starts),
        heads,
        tuple(findings),
    )


_Event = AuditEntry | Sequence[AuditStart] | Sequence[AuditPoint]


def _events(
    client: BaseClient, realm: str, after: Mapping[int, AuditPoint], follow: bool, timeout: float
) -> Iterator[_Event]:
    points = [after.get(partition, NOWHERE) for partition in range(max(after, default=-1) + 1)]
    request = build(audit_pb2.FollowRequest, realm=realm, after=[_position(point) for point in points], follow=follow)
    partitions, complete = 0, False
    for answer in core_of(client).calls.stream(AuditServiceStub, "Follow", request, timeout):
        match answer.WhichOneof("kind"):
            case "start":
                partitions = len(answer.start.partitions)
                yield tuple(_start(partition) for partition in answer.start.partitions)
            case "entry":
                if answer.entry.partition >= partitions:
                    raise ServiceError("the service's answer cannot be read", reason="malformed_answer")
                yield _entry(answer.entry)
            case "heads":
                complete = 0 < partitions == len(answer.heads.heads)
                yield tuple(_point(head) for head in answer.heads.heads)
    if follow or not complete:  # what ended before it was whole proves nothing
        raise Unavailable("the stream of the audit ended early", reason="stream_ended")


def _position(point: AuditPoint) -> audit_pb2.AuditPosition:
    digest = bytes.fromhex(point.digest) if point.number else b""
    return audit_pb2.AuditPosition(number=point.number, digest=digest)


def _point(position: audit_pb2.AuditPosition) -> AuditPoint:
    return AuditPoint(position.number, position.digest.hex()) if position.number else NOWHERE


def _start(partition: audit_pb2.AuditStart.Partition) -> AuditStart:
    begins = getattr(partition, "from")
    known = {item.value for item in AuditFrom}
    how = AuditFrom(begins) if begins in known else AuditFrom.OLDEST
    return AuditStart(_point(partition.anchor), _point(partition.head), how)


def _entry(entry: audit_pb2.AuditEntry) -> AuditEntry:
    loss = entry.loss if entry.HasField("loss") else None
    return AuditEntry(
        partition=entry.partition,
        number=entry.number,
        time_ms=entry.time_ms,
        log_seq=entry.log_seq,
        extra=entry.extra,
        sealed=entry.sealed,
        digest=entry.digest.hex(),
        unreadable=entry.unreadable,
        log_id=entry.log_id.hex(),
        seen=_point(entry.seen),
        records=tuple(_record(record) for record in entry.records),
        loss=AuditLoss(_point(loss.remembered), loss.log_id.hex()) if loss else None,
    )


def _record(record: audit_pb2.AuditRecord) -> AuditRecord:
    return AuditRecord(
        action=int(record.action),
        kind=int(record.kind),
        actor=record.actor,
        role=record.role,
        issuer=record.issuer if record.HasField("issuer") else None,
        value=record.value,
        op_id=record.op_id.hex(),
        reason=record.reason,
        request_id=record.request_id,
        asked=record.asked,
        stored=record.stored,
        sessions=record.sessions if record.HasField("sessions") else None,
        part=record.part,
        parts=record.parts,
        approval=record.approval,
        repeated=record.repeated,
    )
