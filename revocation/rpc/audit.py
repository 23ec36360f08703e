"""AuditService: the chains of a realm for auditors, from the store to the wire."""

from __future__ import annotations

from collections.abc import Sequence

from revocation import limits
from revocation.audit.seal import INSTALLATION
from revocation.callers.roles import Caller
from revocation.errors import InvalidField, Overloaded
from revocation.fairness.places import Places
from revocation.node import Node
from revocation.rpc.calls import Calls, Context, Lasting
from revocation_api.v1 import audit_pb2 as pb
from revocation_api.v1 import revocation_pb2
from revocation_sdk._audit import NOWHERE, AuditEntry, AuditFrom, AuditPoint, AuditRecord, AuditStart

_FROM = {
    AuditFrom.OLDEST: pb.AuditStart.OLDEST,
    AuditFrom.RESUMED: pb.AuditStart.RESUMED,
    AuditFrom.TOO_OLD: pb.AuditStart.TOO_OLD,
    AuditFrom.DIVERGED: pb.AuditStart.DIVERGED,
}


class AuditServicer:
    """Every method of AuditService."""

    def __init__(self, calls: Calls, node: Node) -> None:
        self._calls = calls
        self._node = node
        self._desk = node.audit
        self._places = Places(limits.AUDIT_FOLLOWERS)

    async def Follow(self, request: pb.FollowRequest, context: Context) -> None:
        """Sends the entries with `context.write`, so that errors become statuses as everywhere."""

        async def body(caller: Caller, _: float) -> None:
            if request.realm != INSTALLATION:
                self._node.service.realm(request.realm)
            if not self._places.take(request.realm):
                text = "as many readers of this realm's audit as this replica takes"
                raise Overloaded(text, retry_after_ms=5_000, limit="audit_followers")
            lasting = self._calls.lasting(context, method, request.realm, caller)
            try:
                await self._stream(request, lasting, context)
            finally:
                self._places.leave(request.realm)

        method = "Follow:installation" if request.realm == INSTALLATION else "Follow"
        await self._calls.run(context, method, request.realm, body)

    async def _stream(self, request: pb.FollowRequest, lasting: Lasting, context: Context) -> None:
        starts = await self._desk.starts(request.realm, _points(request.after))
        await context.write(pb.FollowResponse(start=_start(starts)))
        heads = [start.head.number for start in starts]
        after = [start.anchor.number for start in starts]
        for number, start in enumerate(starts):
            if start.begins is AuditFrom.RESUMED:
                after[number] = request.after[number].number
        await self._send(request.realm, after, heads, context)
        await context.write(pb.FollowResponse(heads=pb.AuditHeads(heads=[_position(start.head) for start in starts])))
        while request.follow and not self._calls.draining:
            await self._desk.wait()
            await lasting.still_allowed()
            stands = await self._desk.starts(request.realm, ())
            await self._send(request.realm, after, [stand.head.number for stand in stands], context)

    async def _send(self, realm: str, after: list[int], until: list[int], context: Context) -> None:
        for partition, number in enumerate(until):
            async for entry in self._desk.entries(partition, realm, after[partition], number):
                await context.write(pb.FollowResponse(entry=_entry(entry)))
                after[partition] = entry.number


def _points(positions: Sequence[pb.AuditPosition]) -> list[AuditPoint]:
    """Raises InvalidField."""
    if any(len(item.digest) not in {0, 20} for item in positions):
        raise InvalidField("after", "has a digest that is not 20 bytes")
    return [AuditPoint(item.number, item.digest.hex()) if item.number else NOWHERE for item in positions]


def _position(point: AuditPoint) -> pb.AuditPosition:
    return pb.AuditPosition(number=point.number, digest=bytes.fromhex(point.digest)) if point.number else _NONE


_NONE = pb.AuditPosition()


def _start(starts: Sequence[AuditStart]) -> pb.AuditStart:
    return pb.AuditStart(
        partitions=[
            pb.AuditStart.Partition(
                anchor=_position(start.anchor), head=_position(start.head), **{"from": _FROM[start.begins]}
            )
            for start in starts
        ]
    )


def _entry(entry: AuditEntry) -> pb.AuditEntry:
    loss = entry.loss
    return pb.AuditEntry(
        partition=entry.partition,
        number=entry.number,
        time_ms=entry.time_ms,
        log_seq=entry.log_seq,
        extra=entry.extra,
        sealed=entry.sealed,
        digest=bytes.fromhex(entry.digest),
        unreadable=entry.unreadable,
        log_id=bytes.fromhex(entry.log_id),
        seen=_position(entry.seen),
        records=[_record(record) for record in entry.records],
        loss=pb.AuditLoss(remembered=_position(loss.remembered), log_id=bytes.fromhex(loss.log_id)) if loss else None,
    )


def _record(record: AuditRecord) -> pb.AuditRecord:
    return pb.AuditRecord(
        action=pb.AuditAction.ValueType(record.action),
        kind=revocation_pb2.Kind.ValueType(record.kind),
        actor=record.actor,
        role=record.role,
        issuer=record.issuer,
        value=record.value,
        op_id=bytes.fromhex(record.op_id),
        reason=record.reason,
        request_id=record.request_id,
        asked=record.asked,
        stored=record.stored,
        sessions=record.sessions,
        part=record.part,
        parts=record.parts,
        approval=record.approval,
        repeated=record.repeated,
    )
