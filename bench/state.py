"""Rows "Revoke in batches", "snapshot" and "Redis per live revocation": one service that is filled, then looked at."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

import grpc
import redis
import uvloop

from bench.bare import SERVICE
from bench.fanout import HELLO
from bench.lab import Lab
from bench.measure import cpu_seconds
from bench.revoke import Load, batches, drive, single
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub
from revocation_sdk import RevocationClient
from tests.e2e.installation import Replica
from tests.servers import Server

BATCH = 10_000


@dataclass
class State:
    """What was measured while a service was filled, and of it when it was full."""

    entries: int = 0
    batched: list[float] = field(default_factory=list)
    """Rows a second, round by round."""
    cpu_us: list[float] = field(default_factory=list)
    """Processor time of the service for each row."""
    store_us: list[float] = field(default_factory=list)
    lua: list[float] = field(default_factory=list)
    """Rows a second that the store would take if it did nothing but the service's scripts."""
    wire: float = 0.0
    fresh_s: list[float] = field(default_factory=list)
    longest_ms: float = 0.0
    """The longest script, by the store's own clock."""
    redis: dict[str, dict[str, float]] = field(default_factory=dict)
    """Bytes a live revocation by part, for single calls and for batches."""


def measure(lab: Lab, entries: int, singles_s: float) -> State:
    found = State()
    store = lab.store()
    service = lab.service(store, canary_s=0)  # whose tokens would be counted
    slow = redis.Redis.from_url(store.url)  # raw: the log of slow commands cuts arguments off in the middle
    slow.config_set("slowlog-log-slower-than", 0)
    slow.config_set("slowlog-max-len", 20_000)
    while found.entries < entries:
        _fill(found, store, service, min(entries - found.entries, 100_000))
    scripts = [one for one in slow.slowlog_get(20_000) if one["command"].startswith(b"EVALSHA")]
    found.longest_ms = max(one["duration"] for one in scripts) / 1e3
    slow.config_set("slowlog-log-slower-than", -1)
    found.redis["batches"] = _bytes(store, found.entries)
    size, count = uvloop.run(_snapshot(service.address))
    found.wire = size / count
    for _ in range(3):
        with RevocationClient(service.address) as client:
            begun = time.perf_counter()
            client.wait_until_fresh(60)
            found.fresh_s.append(time.perf_counter() - begun)
            assert len(client.follower.view) == found.entries
    other = lab.store()
    load = drive((one := lab.service(other, canary_s=0)).address, one.pid, single, 64, singles_s)
    found.redis["single calls"] = _bytes(other, int(load.per_second * singles_s))
    return found


def _fill(found: State, store: Server, service: Replica, entries: int) -> None:
    count = max(1, entries // BATCH)
    store.call("CONFIG", "RESETSTAT")
    used = cpu_seconds(store.pid)
    load = _all(service, count)
    rows = count * BATCH
    found.entries += rows
    found.batched.append(load.per_second * BATCH)
    found.cpu_us.append(load.cpu_us / BATCH)
    found.store_us.append((cpu_seconds(store.pid) - used) / rows * 1e6)
    scripts = store.info("commandstats")["cmdstat_evalsha"]
    found.lua.append(rows / (scripts["usec"] / 1e6))


def _all(service: Replica, count: int) -> Load:
    """So many batches, three in flight."""
    call = batches(BATCH, count)

    async def run() -> float:
        left = iter(range(count))
        async with grpc.aio.insecure_channel(service.address) as channel:
            stub: Any = RevocationServiceStub(channel)
            await stub.GetStatus(pb.GetStatusRequest(realm="default"))
            begun = time.perf_counter()

            async def one() -> None:
                for _ in left:
                    await call(stub)

            await asyncio.gather(*(one() for _ in range(3)))
            return time.perf_counter() - begun

    before = cpu_seconds(service.pid)
    took = uvloop.run(run())
    return Load(count / took, (cpu_seconds(service.pid) - before) / count * 1e6)


async def _snapshot(address: str) -> tuple[int, int]:
    """Bytes and entries of a snapshot as it comes over the wire."""
    size = 0
    async with grpc.aio.insecure_channel(address) as channel:
        call: Any = channel.stream_stream(f"/{SERVICE}/Watch")()
        await call.write(HELLO)
        while True:
            message = await call.read()
            size += len(message) + 5 + 9  # and the frames of gRPC and HTTP/2
            answer = pb.WatchResponse.FromString(message)
            if answer.WhichOneof("kind") == "snapshot_end":
                call.cancel()
                return size, answer.snapshot_end.count


def _bytes(store: Server, entries: int) -> dict[str, float]:
    parts = {"state": "revocation:{p0}:seg*", "log": "revocation:{p0}:log", "op records": "revocation:{p0}:op:*"}
    found = {}
    for name, pattern in parts.items():
        keys, cursor = [], "0"
        while True:
            cursor, some = store.call("SCAN", cursor, "MATCH", pattern, "COUNT", 5_000)
            keys += some
            if str(cursor) == "0":
                break
        looked = keys[:: max(1, len(keys) // 200)]
        size = sum(int(store.call("MEMORY", "USAGE", key, "SAMPLES", 0)) for key in looked)
        found[name] = size * len(keys) / max(1, len(looked)) / entries
    return found
