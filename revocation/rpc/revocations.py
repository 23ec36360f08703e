"""RevocationService: every method but Watch, which is in `watch.py`."""

from __future__ import annotations

import time
from operator import attrgetter

import structlog

from revocation import __version__, limits
from revocation.audit.seal import INSTALLATION
from revocation.callers.roles import Caller
from revocation.errors import Guarded, InvalidField
from revocation.model import Operation, Receipt, Target
from revocation.node import Node
from revocation.observability import tracing
from revocation.observability.canary import REALM as CANARY_REALM
from revocation.observability.canary import Canary
from revocation.observability.telemetry import audit
from revocation.rails.consent import Consent
from revocation.rpc import landing, stream, wire
from revocation.rpc.calls import Calls, Context
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._audit import points_text
from revocation_sdk._lattice import Kind
from revocation_sdk._position import NOWHERE

log = structlog.get_logger("revocation.audit")
_ACKS = {"memory": pb.MEMORY, "replicated": pb.REPLICATED, "fsynced": pb.FSYNCED}


class RevocationServicer:
    """Parses, asks `service.py`, answers."""

    def __init__(self, calls: Calls, node: Node) -> None:
        self._calls = calls
        self._node = node
        self._service = node.service
        self._rails = node.rails

    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeResponse:
        async def body(caller: Caller, deadline: float) -> pb.RevokeResponse:
            self._check_ack(request.min_ack)
            if request.dry_run:
                return wire.impact(await self._rails.impact(*wire.dry_run(request), deadline))
            operation, target = wire.operation(request, caller), wire.target(request)
            operation = await self._admitted(operation, target, caller, wire.consent(request), deadline)
            with tracing.inner("revocation.commit"):
                receipt = await self._service.revoke(operation, target, deadline)
            self._record(operation, target.kind, 1, receipt, request.reason)
            return wire.receipt(request.op_id, receipt)

        return await self._calls.run(context, _method(request), request.realm, body)

    async def BatchRevokeTokens(self, request: pb.BatchRevokeTokensRequest, context: Context) -> pb.RevokeResponse:
        async def body(caller: Caller, deadline: float) -> pb.RevokeResponse:
            self._check_ack(request.min_ack)
            operation, tokens = wire.operation(request, caller), wire.batch(request)
            with tracing.inner("revocation.commit"):
                receipt = await self._service.revoke_tokens(operation, tokens, deadline)
            self._record(operation, Kind.TOKEN, len(tokens.values), receipt, request.reason)
            return wire.receipt(request.op_id, receipt)

        return await self._calls.run(context, "BatchRevokeTokens", request.realm, body, rows=len(request.items))

    async def Check(self, request: pb.CheckRequest, context: Context) -> pb.CheckResponse:
        async def body(_: Caller, deadline: float) -> pb.CheckResponse:
            facts, wanted = wire.facts(request), stream.positions_from(request.not_older_than)
            return wire.verdict(*await self._service.check(request.realm, facts, wanted, deadline))

        return await self._calls.run(context, "Check", request.realm, body)

    async def GetVersion(self, request: pb.GetVersionRequest, context: Context) -> pb.GetVersionResponse:
        async def body(_: Caller, deadline: float) -> pb.GetVersionResponse:
            version, now_ms, positions = await self._service.versions(
                request.realm, wire.issuer_of(request), request.subject or None, request.client_id or None, deadline
            )
            return pb.GetVersionResponse(version=version, now_ms=now_ms, position=stream.positions(positions))

        return await self._calls.run(context, "GetVersion", request.realm, body)

    async def GetStatus(self, request: pb.GetStatusRequest, context: Context) -> pb.GetStatusResponse:
        async def body(_: Caller, __: float) -> pb.GetStatusResponse:
            return self._status(request.realm)

        return await self._calls.run(context, "GetStatus", request.realm, body)

    async def ListMembers(self, request: pb.ListMembersRequest, context: Context) -> pb.ListMembersResponse:
        async def body(_: Caller, __: float) -> pb.ListMembersResponse:
            return pb.ListMembersResponse(
                members=[
                    pb.ListMembersResponse.Member(
                        id=name,
                        partition=partition,
                        active=member.active,
                        confirmed=confirmed,
                        last_seen_ms=member.beat_ms,
                    )
                    for partition, name, member, confirmed in self._node.members()
                ]
            )

        return await self._calls.run(context, "ListMembers", "", body)

    async def StrikeMember(self, request: pb.StrikeMemberRequest, context: Context) -> pb.StrikeMemberResponse:
        async def body(caller: Caller, __: float) -> pb.StrikeMemberResponse:
            member = wire.identifier("id", request.id)
            struck = await self._node.strike(member, caller)
            if not struck:
                raise InvalidField("id", "is no silent member of the registry; `members list` shows them")
            log.warning(
                "member_struck_by_operator", member=member, actor=caller.name, realm=INSTALLATION,
                audit=points_text((partition, point) for partition, point in struck if point.number),
            )  # fmt: skip
            return pb.StrikeMemberResponse()

        return await self._calls.run(context, "StrikeMember", "", body)

    async def AwaitApplied(self, request: pb.AwaitAppliedRequest, context: Context) -> pb.AwaitAppliedResponse:
        async def body(_: Caller, deadline: float) -> pb.AwaitAppliedResponse:
            wanted, until = landing.wanted(request), landing.until(request.timeout_ms, deadline)
            found = await self._node.subscribers.await_applied(
                request.realm, wanted, request.verifiers, deadline, until
            )
            return landing.response(found)

        return await self._calls.run(context, "AwaitApplied", request.realm, body)

    async def ListSubscribers(self, request: pb.ListSubscribersRequest, context: Context) -> pb.ListSubscribersResponse:
        async def body(_: Caller, deadline: float) -> pb.ListSubscribersResponse:
            size, after = landing.page(request)
            until = landing.until(limits.LIST_TIMEOUT_MS, deadline)
            return landing.listed(await self._node.subscribers.page(request.realm, after, size, until))

        return await self._calls.run(context, "ListSubscribers", request.realm, body)

    def _check_ack(self, wanted: int) -> None:
        """Neither of `replicated` and `fsynced` contains the other; both contain `memory`."""
        level, own = wire.ack_level(wanted), self._node.ack
        if level not in {"", "memory", own.level}:
            text = f"this service acknowledges at level {own}: ask for no more, or start it with --ack {level}"
            raise InvalidField("min_ack", text, reason="ACK_NOT_OFFERED")

    async def _admitted(
        self, operation: Operation, target: Target, caller: Caller, consent: Consent, deadline: float
    ) -> Operation:
        """Past the safety rails. What they hold back, and who approves of what, is in the audit log, too."""
        line: dict[str, str] = {"actor": caller.name, "realm": operation.realm, "kind": target.kind.name.lower()}
        try:
            admitted = await self._rails.admit(operation, target, caller, consent, deadline)
        except Guarded as error:
            audit("revocation_held", **line, why=error.reason, approval=error.metadata.get("approval", ""))
            raise
        if admitted.shared:
            audit("revocation_approved", **line, approval=consent.approval)
        return admitted

    def _record(self, operation: Operation, kind: Kind, count: int, receipt: Receipt, reason: str) -> None:
        """One line for every change: who, what kind, how many, where; identifiers do not reach the log (I7).

        The digest is that of the realm's chain there: lines and log vouch for each other.
        """
        if operation.realm == CANARY_REALM:
            return
        if receipt.stored and tracing.carried():
            self._node.subscribers.trace(operation.realm, receipt.positions, tracing.carried())
        last = max(receipt.positions, key=attrgetter("seq"), default=NOWHERE)
        audit(
            "revoked", actor=operation.caller, realm=operation.realm, kind=kind.name.lower(),
            count=count, stored=receipt.stored, reason_given=bool(reason),
            position=last.seq, digest=last.digest.hex(), role=operation.role, audit=points_text(receipt.audit),
        )  # fmt: skip

    def _status(self, realm_name: str) -> pb.GetStatusResponse:
        realm = self._service.realm(realm_name)
        hub = self._node.hub.realms[realm.name]
        return pb.GetStatusResponse(
            replica=self._node.replica_id,
            version=__version__,
            partitions=[
                pb.GetStatusResponse.Partition(
                    position=stream.position(replica.partition.realm(realm.name).position),
                    state=replica.state,
                    waiting_for=replica.waiting_for(),
                )
                for replica in self._node.replicas
            ],
            entries=sum(len(history.view) for history in hub.histories),
            subscribers=len(hub.subscribers),
            store_ms=self._node.store_ms(),
            clock_skew_ms=self._node.clock_skew_ms(),
            store=self._node.store_name,
            ack=_ACKS[self._node.ack.level],
            canary=_canary(self._node.canary),
            missing_secrets=self._node.lacking.kids,
            keys_not_refused=sum(history.orphans for history in hub.histories),
        )


def _canary(canary: Canary | None) -> pb.Canary | None:
    if canary is None or canary.last is None:
        return None
    last = canary.last
    ago = time.monotonic() - last.at
    return pb.Canary(microseconds=int(last.seconds * 1e6), ms_ago=int(ago * 1000), failure=last.failure)


def _method(request: pb.RevokeRequest) -> str:
    """The row of the table: one for each kind of target. Without a target it is refused in any case."""
    return f"Revoke:{request.WhichOneof('target') or 'token'}"
