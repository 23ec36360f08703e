"""Rows "Revoke, single calls" and "Revoke in batches": the commit path beside a bare echo and a bare Lua script."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import uvloop

from bench.lab import Lab
from bench.measure import cpu_seconds
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub
from revocation_sdk._requests import make_op_id

LIFE_S = 3600


@dataclass(frozen=True, slots=True)
class Load:
    """What a load did to a server."""

    per_second: float
    cpu_us: float
    """Processor time of the server for each call, in microseconds."""
    p50_ms: float = 0.0
    p99_ms: float = 0.0


def revocation() -> pb.RevokeRequest:
    now = time.time()
    token = pb.TokenTarget(jti=secrets.token_hex(16), expires_at=int(now) + LIFE_S)
    return pb.RevokeRequest(realm="default", op_id=make_op_id(now), token=token)


def batch(size: int) -> pb.BatchRevokeTokensRequest:
    now = time.time()
    names = secrets.token_hex(16 * size)
    expires_at = int(now) + LIFE_S
    items = [
        pb.BatchRevokeTokensRequest.Item(jti=names[at : at + 32], expires_at=expires_at)
        for at in range(0, 32 * size, 32)
    ]
    return pb.BatchRevokeTokensRequest(realm="default", op_id=make_op_id(now), items=items)


Stub: TypeAlias = Any  # of grpc.aio; the generated types say this less than clearly
Call = Callable[[Stub], Awaitable[object]]


async def _load(address: str, call: Call, flying: int, seconds: float) -> tuple[int, float, list[float]]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Stub = RevocationServiceStub(channel)
        await call(stub)
        took: list[float] = []
        begun = time.perf_counter()
        end = begun + seconds

        async def one() -> None:
            while (at := time.perf_counter()) < end:
                await call(stub)
                took.append(time.perf_counter() - at)

        await asyncio.gather(*(one() for _ in range(flying)))
        return len(took), time.perf_counter() - begun, took


def drive(address: str, pid: int, call: Call, flying: int, seconds: float) -> Load:
    """Keeps so many calls in flight for so long."""
    before = cpu_seconds(pid)
    count, took, each = uvloop.run(_load(address, call, flying, seconds))
    each.sort()
    used = cpu_seconds(pid) - before
    return Load(count / took, used / count * 1e6, each[count // 2] * 1e3, each[int(count * 0.99)] * 1e3)


async def single(stub: Stub) -> object:
    return await stub.Revoke(revocation(), timeout=20)


def batches(size: int, count: int = 4) -> Call:
    # Made beforehand: what the client spends on it is not the service's. Each is sent once.
    ready = [batch(size) for _ in range(count)]

    async def call(stub: Stub) -> object:
        request = ready.pop() if ready else batch(size)
        return await stub.BatchRevokeTokens(request, timeout=20)

    return call


def measure(lab: Lab, rounds: int, seconds: float, flying: int = 64) -> list[tuple[Load, Load]]:
    """Rounds of (the echo, Revoke)."""
    service = lab.service(lab.store())
    echo, address = lab.bare("echo")
    return [
        (
            drive(address, echo.pid, single, flying, seconds),
            drive(service.address, service.pid, single, flying, seconds),
        )
        for _ in range(rounds)
    ]


def by_concurrency(lab: Lab, flying: list[int], seconds: float) -> dict[int, tuple[Load, Load]]:
    """(The echo, Revoke) by calls in flight."""
    service = lab.service(lab.store())
    echo, address = lab.bare("echo")
    return {
        count: (
            drive(address, echo.pid, single, count, seconds),
            drive(service.address, service.pid, single, count, seconds),
        )
        for count in flying
    }
