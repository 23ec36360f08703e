"""SessionService: parses, asks `session/service.py`, answers."""

from __future__ import annotations

from revocation import limits
from revocation.callers.roles import Caller
from revocation.node import Node
from revocation.rpc import session_wire, wire
from revocation.rpc.calls import Calls, Context
from revocation_api.v1 import revocation_pb2
from revocation_api.v1 import session_pb2 as pb


class SessionServicer:
    """Every method of SessionService."""

    def __init__(self, calls: Calls, node: Node) -> None:
        self._calls = calls
        self._sessions = node.sessions

    async def OpenSession(self, request: pb.OpenSessionRequest, context: Context) -> pb.SessionGrant:
        async def body(caller: Caller, deadline: float) -> pb.SessionGrant:
            opening = session_wire.opening(request, caller)
            return session_wire.grant(await self._sessions.open(opening, deadline))

        return await self._calls.run(context, "OpenSession", request.realm, body)

    async def RefreshSession(self, request: pb.RefreshSessionRequest, context: Context) -> pb.SessionGrant:
        async def body(caller: Caller, deadline: float) -> pb.SessionGrant:
            return session_wire.grant(await self._sessions.refresh(session_wire.renewal(request), deadline, caller))

        return await self._calls.run(context, "RefreshSession", request.realm, body)

    async def GetSession(self, request: pb.GetSessionRequest, context: Context) -> pb.Session:
        async def body(_: Caller, deadline: float) -> pb.Session:
            sid = wire.identifier("sid", request.sid)
            return session_wire.session(await self._sessions.get(session_wire.owner(request), sid, deadline))

        return await self._calls.run(context, "GetSession", request.realm, body)

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        async def body(_: Caller, deadline: float) -> pb.ListSessionsResponse:
            wire.identifier("subject", request.subject)
            current = wire.bounded("current", request.current, limits.ID_BYTES)
            size, token = session_wire.page_size(request), request.page_token
            owner = session_wire.owner(request)
            return session_wire.page(*await self._sessions.page(owner, current, size, token, deadline))

        return await self._calls.run(context, "ListSessions", request.realm, body)

    async def EndSession(self, request: pb.EndSessionRequest, context: Context) -> revocation_pb2.RevokeResponse:
        async def body(caller: Caller, deadline: float) -> revocation_pb2.RevokeResponse:
            wire.bounded("reason", request.reason, limits.REASON_BYTES)
            sid, operation = wire.identifier("sid", request.sid), session_wire.operation(request, caller)
            receipt = await self._sessions.end(operation, session_wire.owner(request), sid, deadline)
            return wire.receipt(request.op_id, receipt)

        return await self._calls.run(context, "EndSession", request.realm, body)

    async def EndOtherSessions(self, request: pb.EndOtherSessionsRequest, context: Context) -> pb.SessionGrant:
        async def body(caller: Caller, deadline: float) -> pb.SessionGrant:
            wire.identifier("subject", request.subject)
            keep, operation = wire.identifier("keep", request.keep), session_wire.operation(request, caller)
            owner, life_s = session_wire.owner(request), request.access_token_life_s
            return session_wire.grant(await self._sessions.end_others(operation, owner, keep, life_s, deadline))

        return await self._calls.run(context, "EndOtherSessions", request.realm, body)

    async def TouchSession(self, request: pb.TouchSessionRequest, context: Context) -> pb.Session:
        async def body(_: Caller, deadline: float) -> pb.Session:
            sid = wire.identifier("sid", request.sid)
            return session_wire.session(await self._sessions.touch(request.realm, sid, deadline))

        return await self._calls.run(context, "TouchSession", request.realm, body)

    async def SetClientSettings(self, request: pb.SetClientSettingsRequest, context: Context) -> pb.ClientSettings:
        async def body(caller: Caller, deadline: float) -> pb.ClientSettings:
            client_id, wanted = wire.identifier("client_id", request.client_id), session_wire.settings(request.settings)
            held = await self._sessions.set_client_settings(request.realm, client_id, wanted, deadline, caller)
            return session_wire.settings_answer(held)

        return await self._calls.run(context, "SetClientSettings", request.realm, body)

    async def GetClientSettings(self, request: pb.GetClientSettingsRequest, context: Context) -> pb.ClientSettings:
        async def body(_: Caller, deadline: float) -> pb.ClientSettings:
            client_id = wire.identifier("client_id", request.client_id)
            held = await self._sessions.client_settings(request.realm, client_id, deadline)
            return session_wire.settings_answer(held)

        return await self._calls.run(context, "GetClientSettings", request.realm, body)
