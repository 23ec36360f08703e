"""A hostile client: as many calls as it can send, on several connections, heeding no hint.

python -m tests.e2e.flood ADDRESS CA CERT KEY
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import grpc

from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub
from revocation_sdk._requests import make_op_id

CONNECTIONS, CALLS = 4, 64
REALM = "flooded"


async def flood(address: str, credentials: grpc.ChannelCredentials) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            channel = grpc.aio.secure_channel(address, credentials, [("grpc.use_local_subchannel_pool", 1)])
            stub: Any = RevocationServiceStub(channel)
            for number in range(CALLS):
                group.create_task(_without_end(stub, number))


async def _without_end(stub: Any, number: int) -> None:
    expires_at = int(time.time()) + 3_600
    items = [pb.BatchRevokeTokensRequest.Item(jti=f"token-{item}", expires_at=expires_at) for item in range(100)]
    while True:
        op_id = make_op_id(time.time())
        try:
            if number % 4 == 0:
                await stub.BatchRevokeTokens(pb.BatchRevokeTokensRequest(realm=REALM, op_id=op_id, items=items))
            elif number % 4 == 1:
                await stub.Check(pb.CheckRequest(realm=REALM, jti="a-token"))
            else:
                subject = pb.SubjectTarget(subject=f"subject-{number}")
                await stub.Revoke(pb.RevokeRequest(realm=REALM, op_id=op_id, subject=subject))
        except grpc.aio.AioRpcError:
            continue


if __name__ == "__main__":
    os.nice(5)  # a hostile client has a machine of its own: this one must not take the service's time
    where, ca, cert, key = sys.argv[1:]
    files = (Path(name).read_bytes() for name in (ca, key, cert))
    asyncio.run(flood(where, grpc.ssl_channel_credentials(*files)))
