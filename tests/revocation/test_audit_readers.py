"""Readers of the audit, as the service serves them on one real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from revocation import limits
from revocation.callers.roles import Caller
from revocation.config.settings import load
from revocation.rpc.server import Server
from revocation_api.v1 import audit_pb2, audit_pb2_grpc
from tests.revocation.session_nodes import running


class Everybody:
    """Lets everybody in everywhere."""

    generation = 0

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        return Caller("auditor", None, ("auditor",), "auditor")


@pytest.fixture
async def stub(redis_url: str, tmp_path: Path) -> AsyncIterator[Any]:
    address = f"unix:{tmp_path / 'door'}"
    async with running(redis_url) as nodes:
        server = Server(load({"listen": address, "redis_url": redis_url}), nodes.nodes[0], Everybody())
        await server.start()
        async with grpc.aio.insecure_channel(address) as channel:
            yield audit_pb2_grpc.AuditServiceStub(channel)
        await server.drain(0)


async def test_one_realm_leaves_places_for_the_readers_of_another(stub: Any) -> None:
    """A realm whose auditors are many keeps those of another out of no place (I6)."""
    async with AsyncExitStack() as stack:

        async def follow(realm: str) -> None:
            """Returns once it is being read."""
            call = stub.Follow(audit_pb2.FollowRequest(realm=realm, follow=True))
            stack.callback(call.cancel)
            assert (await call.read()).WhichOneof("kind") == "start"

        for _ in range(limits.AUDIT_FOLLOWERS // 2):
            await follow("default")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await follow("default")
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await follow("other")
        await follow("*")
