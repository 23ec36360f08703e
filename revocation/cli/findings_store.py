"""What `doctor` looks at in the store: every server that holds a part of it, and who watches over them.

Asked directly, beside the service: what the service cannot reach, it cannot tell.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from revocation.cli.findings import Finding

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from revocation.config.settings import Config

_TIMEOUT_S = 5.0
_FEW_SENTINELS = 3
_SLOTS = 16_384
_CLOCK_WARN_S = 1.0


def store(config: Config) -> list[Finding]:
    """The store itself, asked directly where this machine reaches it."""
    from revocation.embedded.directory import socket_of

    url = config.store_url()
    if config.embedded:
        path = socket_of(config.data_dir)
        if path is None:
            return [Finding("store", "skip", f"no embedded store runs in {config.data_dir}")]
        url = f"unix://{quote(str(path))}"
    assert url is not None
    return asyncio.run(_gather(url, config))


async def _gather(url: str, config: Config) -> list[Finding]:
    import redis

    from revocation.store import StoreRefused

    found: list[Finding] = []
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            async for finding in _examine(url, config):
                found.append(finding)
    except StoreRefused as error:
        found.append(Finding("store", "fail", str(error), "see `revocation serve --help`, --redis-url"))
    except (redis.RedisError, OSError, TimeoutError) as error:
        found.append(
            Finding(
                "store",
                "fail",
                f"it does not answer: {type(error).__name__}",
                "check redis_url, its password and its TLS; an ACL user needs +info and +config|get",
            )
        )
    return found


async def _examine(url: str, config: Config) -> AsyncIterator[Finding]:
    from revocation.store.connect import nodes_of, sentinels_of

    nodes, sentinel = nodes_of(url), sentinels_of(url)
    try:
        if sentinel is not None:
            for finding in await _sentinels(*sentinel):
                yield finding
        servers = await nodes.everyone()
        if "+cluster" in url.partition("://")[0]:
            yield await _cluster(servers)
        for server in servers:
            where = _name(server) if len(servers) > 1 else ""
            async for finding in _server(server, config):
                yield Finding(finding.check, finding.result, where + finding.message, finding.what_to_do)
    finally:
        await nodes.aclose()


async def _sentinels(sentinels: list[Redis], service: str) -> list[Finding]:
    """Who decides about a failover: do they answer, do they agree, are they enough?"""
    import redis

    answers: list[dict[str, Any]] = []
    problems: list[str] = []
    for sentinel in sentinels:
        try:
            answers.append(await _done(sentinel.sentinel_master(service)))
            await _done(_command(sentinel)("SENTINEL CKQUORUM", service))
        except (redis.RedisError, OSError) as error:
            problems.append(f"{_name(sentinel)}{type(error).__name__}")
        finally:
            await sentinel.aclose()
    if not answers:
        return [
            Finding("sentinel", "fail", f"none knows {service}: {', '.join(problems)}", "check redis_url and Sentinels")
        ]
    if problems:
        text = "no failover without a quorum; see SENTINEL CKQUORUM and the Sentinels' logs"
        return [Finding("sentinel", "fail", f"trouble at {', '.join(problems)}", text)]
    known = 1 + max(int(answer["num-other-sentinels"]) for answer in answers)
    message = f"{known} Sentinels watch {service}, quorum {answers[0]['quorum']}, {answers[0]['num-slaves']} replicas"
    if known < _FEW_SENTINELS:
        return [Finding("sentinel", "warn", message, "run three or more, on hosts of their own")]
    return [Finding("sentinel", "ok", message)]


async def _cluster(servers: Any) -> Finding:
    info = await _done(_command(servers[0])("CLUSTER INFO"))
    if isinstance(info, bytes | str):
        text = info.decode() if isinstance(info, bytes) else info
        info = dict(line.split(":", 1) for line in text.split() if ":" in line)
    state, slots = info["cluster_state"], int(info["cluster_slots_ok"])
    message = f"cluster of {len(servers)} primaries, state {state}, {slots} of {_SLOTS} slots served"
    if state != "ok" or slots < _SLOTS:
        return Finding("cluster", "fail", message, "see CLUSTER INFO and CLUSTER NODES; every slot needs a primary")
    return Finding("cluster", "ok", message)


async def _server(client: Redis, config: Config) -> AsyncIterator[Finding]:
    sent = time.time()
    seconds, micros = await _done(client.time())
    offset_s = int(seconds) + int(micros) / 1e6 - (sent + time.time()) / 2
    info = await _done(client.info())
    appendfsync = await _setting(client, "appendfsync") if int(info.get("aof_enabled", 0)) else ""
    for finding in _version(info):
        yield finding
    yield _eviction(info, config)
    for finding in (*_memory(info), *_persistence(info, appendfsync, config), *_replication(info, config)):
        yield finding
    yield _clock(offset_s)


def _clock(offset_s: float) -> Finding:
    message = f"this machine and the store are {abs(offset_s):.2f} s apart"
    if abs(offset_s) > _CLOCK_WARN_S:
        return Finding("clock of the store", "warn", message, "synchronise the clocks (NTP)")
    return Finding("clock of the store", "ok", message)


def _version(info: dict[str, Any]) -> Iterator[Finding]:
    version = info.get("valkey_version") or info.get("redis_version")
    product = "valkey" if "valkey_version" in info else "redis"
    old = tuple(int(part) for part in str(version).split(".")[:2]) < ((8, 0) if product == "valkey" else (7, 0))
    yield Finding(
        "store", "fail" if old else "ok", f"{product} {version}", "Redis 7.0 or Valkey 8 is needed" if old else ""
    )


def _eviction(info: dict[str, Any], config: Config) -> Finding:
    policy = info.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        return Finding("eviction", "ok", "maxmemory-policy is noeviction")
    return Finding(
        "eviction",
        "warn" if config.allow_eviction else "fail",
        f"maxmemory-policy is {policy}: the store may forget revocations",
        "set `maxmemory-policy noeviction`",
    )


def _memory(info: dict[str, Any]) -> Iterator[Finding]:
    most, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    if most and used > 0.8 * most:
        yield Finding(
            "memory", "warn", f"{used / most:.0%} of maxmemory is used; when full, commits fail", "raise maxmemory"
        )


def _persistence(info: dict[str, Any], policy: str, config: Config) -> Iterator[Finding]:
    if int(info.get("aof_enabled", 0)):
        if info.get("aof_last_write_status") != "ok":
            yield Finding("persistence", "fail", "the last write to the append-only file failed", "is the disk full?")
        elif config.ack.level == "fsynced" or policy == "always":
            yield Finding("persistence", "ok", f"append-only file, appendfsync {policy}")
        else:
            yield Finding(
                "persistence",
                "ok",
                f"append-only file, appendfsync {policy}: a power cut loses about a second, which the replicas heal",
            )
    elif config.ack.level == "fsynced":
        yield Finding("persistence", "fail", "ack fsynced needs an append-only file", "set `appendonly yes`")
    else:
        yield Finding(
            "persistence",
            "warn",
            "no append-only file: after losing store and all replicas of the service at once, everything is forgotten",
            "set `appendonly yes`",
        )


def _replication(info: dict[str, Any], config: Config) -> Iterator[Finding]:
    role, replicas = info.get("role"), int(info.get("connected_slaves", 0))
    if role != "master":
        yield Finding("replication", "fail", f"redis_url leads to a {role}", "give the URL of the primary")
    elif config.ack.level == "replicated" and replicas < config.ack.copies:
        yield Finding(
            "replication",
            "fail",
            f"ack {config.ack} with {replicas} store replicas: nothing can be acknowledged",
            "connect more replicas, or lower --ack",
        )
    elif config.ack.level == "replicated" and replicas > config.ack.copies:
        yield Finding(
            "replication",
            "warn",
            f"ack {config.ack} with {replicas} store replicas: a promoted one may lack acknowledged changes",
            "wait for all, or for a quorum under the conditions of docs/guarantees.md",
        )
    else:
        yield Finding("replication", "ok", f"primary with {replicas} replicas, ack {config.ack}")


async def _setting(client: Redis, name: str) -> str:
    """A setting of the server; "unknown" where it may not be asked for."""
    import redis

    try:
        found = await _done(client.config_get(name))
    except redis.ResponseError:
        return "unknown"
    values = [value.decode() if isinstance(value, bytes) else str(value) for value in found.values()]
    return values[0] if values else "unknown"


def _name(client: Redis) -> str:
    """Where a client leads to, as a prefix of what is said about it."""
    where = client.connection_pool.connection_kwargs
    return f"{where['host']}:{where['port']}: " if "host" in where else ""


def _command(client: Any) -> Any:
    """For what redis-py has no method for, or no type."""
    return client.execute_command


async def _done(reply: Any) -> Any:
    """The reply; redis-py types what its asyncio client returns as if it might be there already."""
    return await cast(Awaitable[Any], reply)
