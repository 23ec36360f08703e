"""What only a real server can show: start-up, crashes, lost connections, rights, memory."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import structlog
from redis.asyncio import Redis

from revocation.replication.membership import Timing
from revocation.store import (
    Closed,
    Durability,
    OpState,
    Registry,
    Standing,
    StoreRefused,
    StoreUnavailable,
    Tail,
    redis_eviction,
)
from revocation.store.answers import PROMPT_S
from revocation.store.connect import connect
from revocation.store.hints import HINTS
from revocation.store.nodes import OneNode, client_with, options_of
from revocation.store.redis import RedisStore
from revocation.store.sessions import Look
from tests.chaos.proxy import Proxy
from tests.revocation.turning import eventually
from tests.servers import Server, Servers
from tests.store.test_contract import soon
from tests.store.world import LOG, OTHER_LOG, Actor, World, alone, opened, operation, subjects, tokens

NO_HANG_S = 60


class LiveWorld(World):
    """A server of our own, in real time."""

    store: RedisStore

    def __init__(self, server: Server, **options: Any) -> None:
        self.server = server
        self.store = RedisStore.from_url(server.url, **options)

    @property
    def now(self) -> int:
        return time.time_ns() // 1_000_000

    async def new_identity(self, partition: int = 0) -> None:
        self.server.kill()
        self.server.start()

    async def lose(self, partition: int = 0) -> None:
        self.server.call("FLUSHALL")

    async def due_of(self, partition: int, realm: str, name: str) -> int | None:
        raise NotImplementedError

    async def expire(self, partition: int, realm: str, name: str) -> None:
        raise NotImplementedError


@pytest.fixture
async def make_live() -> AsyncIterator[Any]:
    made: list[LiveWorld] = []

    async def make(server: Server, **options: Any) -> LiveWorld:
        made.append(LiveWorld(server, **options))
        await made[-1].store.start()
        return made[-1]

    yield make
    for world in made:
        await world.store.close()


# -- start-up ---------------------------------------------------------------------------------------------------------


async def test_it_says_what_it_is(redis_url: str) -> None:
    store = RedisStore.from_url(redis_url)
    name, _, version = (await store.start()).partition(" ")
    assert name in {"valkey", "redis"}
    assert all(part.isdigit() for part in version.split("."))
    await store.close()


async def test_a_policy_that_evicts_is_refused(servers: Servers) -> None:
    server = servers.start({"maxmemory": "64mb", "maxmemory-policy": "volatile-lru"})
    store = RedisStore.from_url(server.url)
    with pytest.raises(StoreRefused, match="maxmemory-policy noeviction") as refused:
        await store.start()
    assert "volatile-lru" in str(refused.value)
    await store.close()
    store = RedisStore.from_url(server.url, allow_eviction=True)
    assert await store.start()
    await store.close()


async def test_a_policy_that_evicts_from_now_on_is_told_and_counted(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whoever looks now and then; who accepted it hears nothing."""
    monkeypatch.setattr(redis_eviction, "LOOK_S", 0.01)
    server = servers.start()
    store, tolerant = RedisStore.from_url(server.url), RedisStore.from_url(server.url, allow_eviction=True)
    counted: list[str] = []
    with structlog.testing.capture_logs() as lines:
        for one in (tolerant, store):
            one.on_trouble = counted.append
            await one.start()
        async with asyncio.timeout(NO_HANG_S):
            watching = [asyncio.create_task(one.watch_eviction()) for one in (tolerant, store)]
            server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            await eventually(lambda: counted, "it is noticed")
            server.kill()
            server.config["maxmemory-policy"] = "allkeys-lfu"
            server.start()
            await eventually(lambda: lines[-1]["policy"] == "allkeys-lfu", "it looks on after a failure")
        for task in watching:
            task.cancel()
        await asyncio.wait(watching)
    assert {*counted} <= {"eviction", "unreachable"}
    for line in lines:
        assert (line["event"], line["kind"], line["hint"]) == ("store_may_evict", "eviction", HINTS["eviction"])
        assert line["log_level"] == "error"
    assert counted.count("eviction") == len(lines), "the one who accepted it said nothing"
    for one in (tolerant, store):
        await one.close()


async def test_a_server_that_comes_back_with_a_policy_that_evicts_is_told_at_once(
    servers: Servers, make_live: Any
) -> None:
    """By the first script that it does not know, without anybody who looks now and then."""
    world = await make_live(servers.start(aof=True))
    actor, counted = await alone(world), list[str]()
    world.store.on_trouble = counted.append
    world.server.kill()
    world.server.config["maxmemory-policy"] = "allkeys-lru"
    world.server.start()
    async with asyncio.timeout(NO_HANG_S):
        while "eviction" not in counted:
            with contextlib.suppress(StoreUnavailable):  # its connections have ended, too
                assert (await actor.look()).closed is Closed.REOPEN, "it is answered all the same"


@pytest.mark.parametrize(
    "server",
    [{"redis_version": "6.2.14"}, {"redis_version": "7.2.4", "valkey_version": "7.2.5", "server_name": "valkey"}],
)
async def test_a_server_that_is_too_old_is_refused(server: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    async def info(self: Redis, section: str) -> dict[str, str]:
        return server

    monkeypatch.setattr(Redis, "info", info)
    with pytest.raises(StoreRefused, match=r"(redis 6\.2\.14; redis 7\.0|valkey 7\.2\.5; valkey 8\.0) or newer"):
        await RedisStore.from_url("redis://localhost").start()


async def test_another_layout_is_refused(redis_url: str) -> None:
    two, four = RedisStore.from_url(redis_url, partitions=2), RedisStore.from_url(redis_url, partitions=4)
    await two.start()
    await four.start()
    assert await two.open_history(0, "", LOG, 0, ["a"]) is None
    with pytest.raises(StoreRefused, match="2 partitions"):
        await four.open_history(0, LOG, OTHER_LOG, 0, ["a"])
    await two.close()
    await four.close()


@pytest.mark.parametrize("credentials", ["", ":wrong-secret@", "nobody:wrong-secret@"])
async def test_wrong_credentials_are_refused_and_not_shown(servers: Servers, credentials: str) -> None:
    server = servers.start({"requirepass": "right-secret"})
    store = RedisStore.from_url(f"redis://{credentials}{server.address}")
    with pytest.raises(StoreRefused, match="user and password") as refused:
        await store.start()
    assert "secret" not in str(refused.value)
    await store.close()
    store = RedisStore.from_url(server.url)
    assert await store.start()
    await store.close()


async def test_a_user_with_few_rights_is_enough_and_one_with_fewer_is_told(servers: Servers) -> None:
    server = servers.start()
    rights = "+@read +@write +@connection +@scripting +info +time +wait -flushall -flushdb"
    server.call("ACL", "SETUSER", "service", "on", ">pw", "~revocation:*", *rights.split())
    store = RedisStore.from_url(f"redis://service:pw@{server.address}")
    assert await store.start()
    world = LiveWorld(server)
    world.store = store
    actor = await alone(world)
    assert await actor.commit(operation(1, subjects(7)))
    server.call("ACL", "SETUSER", "service", "-info")
    with pytest.raises(StoreRefused, match="rights"):
        await store.start()
    await store.close()


# -- crashes and lost connections -------------------------------------------------------------------------------------


async def test_scripts_come_back_by_themselves(servers: Servers, make_live: Any) -> None:
    world = await make_live(servers.start())
    actor = await alone(world)
    world.server.call("SCRIPT", "FLUSH")
    assert (await actor.commit(operation(1, subjects(7)))).results[0].state is OpState.DONE
    world.server.call("SCRIPT", "FLUSH")
    assert opened(await actor.barrier()).seq == 1


async def test_a_dead_server_is_noticed_at_once_and_a_restarted_one_keeps_everything(
    servers: Servers, make_live: Any
) -> None:
    world = await make_live(servers.start(aof=True))
    actor = await alone(world)
    op = operation(1, tokens(soon(world)), subjects(7))
    first = (await actor.commit(op)).results[0]
    before, log = await actor.load(), await world.store.read_log(0, 0, 10, 0)
    reading = asyncio.create_task(world.store.read_log(0, 1, 10, 60_000))
    await blocked(world.server)
    world.server.kill()
    async with asyncio.timeout(NO_HANG_S):
        with pytest.raises(StoreUnavailable):
            await reading
        for call in (actor.look, actor.load, lambda: actor.try_commit(op), lambda: world.store.read_log(0, 0, 1, 0)):
            with pytest.raises(StoreUnavailable):
                await call()
    world.server.start()
    assert await actor.barrier() is Closed.REOPEN, "a process that started anew may have lost something"
    assert (await actor.look()).closed is Closed.REOPEN
    assert await actor.open(OTHER_LOG) is None
    opened(await actor.confirm())
    assert await actor.load() == before
    assert await world.store.read_log(0, 0, 10, 0) == log
    again = (await actor.commit(op)).results[0]
    assert (again.state, again.version, again.seq) == (OpState.AGAIN, first.version, first.seq)


async def test_a_hung_server_is_given_up(servers: Servers) -> None:
    server, counted = servers.start(), list[str]()
    store = RedisStore.from_url(f"{server.url}?socket_timeout=2")
    await store.start()
    store.on_trouble = counted.append
    server.pause()
    async with asyncio.timeout(NO_HANG_S):
        with pytest.raises(StoreUnavailable) as failed:
            await store.beat(0, None, "a", 0, 0, 0)
    assert (failed.value.kind, failed.value.hint, counted) == ("timeout", HINTS["timeout"], ["timeout"])
    assert not failed.value.did_nothing, "nobody knows"
    server.resume()
    assert (await store.beat(0, None, "a", 0, 0, 0)).closed is Closed.REOPEN
    await store.close()


@pytest.mark.parametrize("call", ["beat", "read"])
async def test_after_one_dead_connection_the_others_that_wait_are_not_used(servers: Servers, call: str) -> None:
    """A firewall has forgotten all connections of a burst; new ones pass."""
    with Proxy(("127.0.0.1", servers.start().port)) as proxy:
        store = RedisStore.from_url(f"redis://{proxy.address}?socket_timeout=2")
        await store.start()

        async def ask() -> None:
            await (store.beat(0, None, "a", 0, 0, 0) if call == "beat" else store.read_log(0, 0, 1, 0))

        await asyncio.gather(*(ask() for _ in range(20)))
        proxy.set("hold", old_only=True)
        async with asyncio.timeout(NO_HANG_S):
            with pytest.raises(StoreUnavailable) as failed:
                await ask()
            assert failed.value.kind == "timeout"
            await asyncio.gather(*(ask() for _ in range(10)))
        await store.close()


async def test_heartbeats_and_barriers_are_given_up_before_their_sender_is(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert Timing().detect_ms >= 2 * 1000 * PROMPT_S
    monkeypatch.setattr("revocation.store.redis.PROMPT_S", 0.2)
    server = servers.start()
    store = RedisStore.from_url(f"{server.url}?socket_timeout=600")
    await store.start()
    await asyncio.gather(*(store.beat(0, None, "a", 0, 0, 0) for _ in range(2)))  # each finds a connection
    server.pause()
    asked = store.beat(0, None, "a", 0, 0, 0), store.barrier(0, Standing(LOG, "a", 1), 0, Durability())
    async with asyncio.timeout(NO_HANG_S):
        for failed in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(failed, StoreUnavailable)
            assert (failed.kind, failed.did_nothing) == ("timeout", False)
    server.resume()
    await store.close()


async def test_what_a_barrier_may_take_counts_neither_connecting_nor_waiting_for_copies(
    servers: Servers, make_live: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("revocation.store.redis.PROMPT_S", 1.0)
    primary = servers.start()
    replica = servers.start(replica_of=primary)
    actor = await alone(await make_live(primary))

    async def slowly(connection: Any) -> None:  # as Sentinels and a handshake of TLS may be
        await asyncio.sleep(1.2)
        await connection.on_connect()

    actor.store = RedisStore(OneNode(lambda: client_with(options_of(primary.url) | {"redis_connect_func": slowly})))
    replica.pause()
    assert opened(await actor.barrier(Durability(replicas=1, timeout_ms=1_500))).copies == 0
    await actor.store.close()


async def blocked(server: Server, clients: int = 1) -> None:
    """Waits until so many clients wait for the log."""
    async with asyncio.timeout(NO_HANG_S):
        while server.info("clients")["blocked_clients"] < clients:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


async def test_a_cancelled_read_leaves_no_stray_reply(servers: Servers, make_live: Any) -> None:
    world = await make_live(servers.start())
    actor = await alone(world)
    for number in range(1, 20):
        reading = asyncio.create_task(world.store.read_log(0, number - 1, 10, 60_000))
        await blocked(world.server)
        reading.cancel()
        committing = asyncio.create_task(actor.commit(operation(number, tokens(soon(world)))))
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert (await committing).seq == number
        assert opened(await actor.barrier()).seq == number
        assert opened(await world.store.heads(0, LOG)).seq == number
        assert [entry.seq for entry in await world.store.read_log(0, number - 1, 10, 0)] == [number]


async def test_no_cancellation_is_lost(servers: Servers, make_live: Any) -> None:
    world = await make_live(servers.start())
    for turns in range(40):
        reading = asyncio.create_task(world.store.read_log(0, 0, 10, 60_000))
        for _ in range(turns // 2):
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading


async def test_a_cancelled_commit_leaves_no_stray_reply(servers: Servers, make_live: Any) -> None:
    world = await make_live(servers.start())
    actor = await alone(world)
    done = 0
    for number in range(1, 40):
        committing = asyncio.create_task(actor.commit(operation(number, tokens(soon(world)))))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        committing.cancel()
        await asyncio.wait([committing])
        tail = opened(await actor.barrier()).seq
        assert done <= tail <= number
        assert opened(await world.store.heads(0, LOG)).seq >= tail
        done = tail
    assert await actor.commit(operation(99, tokens(soon(world))))


async def test_reconnecting_ends_what_is_under_way_and_nothing_else(servers: Servers, make_live: Any) -> None:
    world = await make_live(servers.start())
    actor = await alone(world)
    reading = asyncio.create_task(world.store.read_log(0, 0, 10, 60_000))
    await blocked(world.server)
    await world.store.reconnect()
    async with asyncio.timeout(NO_HANG_S):
        with pytest.raises(StoreUnavailable):
            await reading
    assert await actor.commit(operation(1, subjects(7)))


async def test_reconnecting_while_connections_are_being_made_is_no_fault_of_ours(
    servers: Servers, make_live: Any
) -> None:
    """redis-py loses a connection that is closed at that moment, with an error of its own making."""
    world = await make_live(servers.start())
    actor = await alone(world)
    for turns in range(60):
        looking = [asyncio.create_task(actor.look()) for _ in range(10)]
        for _ in range(turns % 12):
            await asyncio.sleep(0)
        await world.store.reconnect()
        ended = await asyncio.gather(*looking, return_exceptions=True)
        assert all(isinstance(end, Registry | StoreUnavailable) for end in ended), ended
    assert await actor.commit(operation(1, subjects(7)))


# -- replicas of the store --------------------------------------------------------------------------------------------


async def test_a_replica_of_the_store_is_no_store(servers: Servers, make_live: Any) -> None:
    primary = servers.start()
    actor = await alone(await make_live(primary))
    await actor.commit(operation(1, subjects(7)), durability=Durability(replicas=0))
    replica = servers.start(replica_of=primary)
    world = await make_live(replica)
    stray = Actor(world)
    stray.incarnation = actor.incarnation
    assert await stray.barrier() is Closed.DEMOTED
    assert await stray.try_commit(operation(2, subjects(7))) is Closed.DEMOTED
    assert (await stray.beat()).closed is Closed.DEMOTED
    assert await stray.confirm() is Closed.DEMOTED
    assert await world.store.open_history(0, LOG, OTHER_LOG, 0, []) is Closed.DEMOTED
    assert await world.store.heads(0, LOG) is Closed.DEMOTED
    with pytest.raises(StoreUnavailable, match="ReadOnlyError"):
        await world.store.agree_on_secret({"k": "c"})


async def reached(copies: int, ask: Callable[[], Awaitable[Any]]) -> Any:
    """The first answer with so many copies: each waits for them for a while only."""
    async with asyncio.timeout(NO_HANG_S):
        while (answer := await ask()).copies != copies:
            pass
    return answer


async def test_copies_count_only_if_they_hold_what_was_asked_about(servers: Servers, make_live: Any) -> None:
    primary = servers.start()
    replica = servers.start(replica_of=primary)
    world = await make_live(primary)
    actor = await alone(world)
    assert (await actor.look()).replicas == 1
    patient, hurried = Durability(replicas=1, timeout_ms=2_000), Durability(replicas=1, timeout_ms=50)
    op = operation(1, subjects(7))

    async def barrier() -> Tail:
        tail: Tail = opened(await actor.barrier(patient))
        return tail

    await reached(1, lambda: actor.commit(op, durability=patient))
    await reached(1, barrier)
    replica.pause()
    # H12: on a connection that has written nothing a WAIT has nothing to wait for. So a retry and a barrier write.
    await world.store.reconnect()
    assert (await actor.commit(op, durability=hurried)).copies == 0
    await world.store.reconnect()
    assert opened(await actor.barrier(hurried)).copies == 0
    replica.resume()
    await reached(1, barrier)


@pytest.mark.parametrize("durability", [Durability(replicas=1, timeout_ms=50), Durability(fsync=True, timeout_ms=50)])
async def test_a_look_that_waits_writes_first(servers: Servers, make_live: Any, durability: Durability) -> None:
    """H12 for looks at sessions: who repeats what was done before hears so only if it is where it should be."""
    world = await make_live(servers.start(aof=True))
    actor = await alone(world)

    async def looked(durability: Durability) -> str:
        await world.store.look_sessions(0, actor.who, actor.own_ms, Look("r"), durability)
        return str(world.server.call("HGET", "revocation:{p0}:meta", "high"))

    before = await looked(durability)
    assert await looked(Durability()) == before, "one that waits for nothing costs no write"
    async with asyncio.timeout(NO_HANG_S):
        while await looked(durability) == before:
            pass


async def test_who_leaves_waits_until_the_copies_know(servers: Servers, make_live: Any) -> None:
    """Else a copy that is promoted right after lists it again, and everybody waits for who has gone."""
    primary = servers.start()
    servers.start(replica_of=primary)
    world = await make_live(primary)
    actor = await alone(world)
    assert actor.incarnation is not None
    told = Durability(replicas=1, timeout_ms=2_000)
    assert await world.store.strike(0, LOG, "a", "leave", actor.incarnation, 0, durability=told) is None
    assert primary.info("commandstats")["cmdstat_wait"]["calls"] == 1


@pytest.mark.parametrize("can_wait", [True, False], ids=["WAITAOF", "without"])
async def test_on_disk_means_on_disk(
    servers: Servers, make_live: Any, can_wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not can_wait:
        monkeypatch.setattr("revocation.store.redis._has_waitaof", lambda name, version: False)
    server = servers.start(aof=True)
    actor = await alone(await make_live(server))
    committed = await actor.commit(operation(1, subjects(7)), durability=Durability(fsync=True))
    assert committed.copies == 1
    async with Redis.from_url(server.url) as raw:
        await raw.config_set("appendonly", "no")  # as on another server after a failover
    with contextlib.suppress(StoreUnavailable):  # by WAITAOF, which says so itself
        committed = await actor.commit(operation(2, subjects(8)), durability=Durability(fsync=True))
        assert committed.copies == 0
    never = await make_live(servers.start())
    actor = await alone(never)
    committed = await actor.commit(operation(1, subjects(7)), durability=Durability(fsync=True))
    assert committed.copies == 0


# -- limits -----------------------------------------------------------------------------------------------------------


async def test_a_store_without_room_refuses_commits_and_goes_on(servers: Servers, make_live: Any) -> None:
    world = await make_live(servers.start())
    actor = await alone(world)
    await actor.commit(operation(1, subjects(7)))
    before = await actor.look(), await actor.load()
    world.server.call("CONFIG", "SET", "maxmemory", 100_000)
    assert await actor.try_commit(operation(2, subjects(8))) is Closed.MEMORY
    assert (await actor.beat(trim_below=1)).closed is None
    assert opened(await actor.barrier(Durability(replicas=0))).seq == 1
    after = await actor.look(), await actor.load()
    assert (after[0].seq, after[0].clock, after[1]) == (before[0].seq, before[0].clock, before[1])
    world.server.call("CONFIG", "SET", "maxmemory", 0)
    assert (await actor.commit(operation(2, subjects(8)))).seq == 2


async def test_every_partition_finds_a_connection(servers: Servers) -> None:
    """On one server each has a reader, which holds one, and all may beat and prove at the same time."""
    server, most = servers.start(), 64
    store = connect(server.url, partitions=most)
    await store.start()
    reading = [asyncio.create_task(store.read_log(partition, 0, 1, 60_000)) for partition in range(most)]
    await blocked(server, most)
    who = Standing(LOG, "a", 1)
    await asyncio.gather(
        *(store.beat(partition, None, "a", 0, 0, 0) for partition in range(most)),
        *(store.barrier(partition, who, 0, Durability()) for partition in range(most)),
    )
    await asyncio.gather(*reading)
    await store.close()


async def test_errors_tell_no_names_and_no_values(servers: Servers, make_live: Any) -> None:
    world = await make_live(servers.start())
    actor = await alone(world)
    world.server.call("SET", "revocation:{p0}:op:" + f"{1:032x}", "x")
    world.server.call("SET", "revocation:{p0}:segs:secret-realm", "x")
    with pytest.raises(StoreUnavailable) as failed:
        await actor.commit(
            operation(1, subjects(7), realm="secret-realm", content=1), operation(2, subjects(7), realm="secret-realm")
        )
    assert str(failed.value) == "WRONGTYPE"
    world.server.call("DEL", "revocation:{p0}:members")
    world.server.call("SET", "revocation:{p0}:members", "secret-member")
    with pytest.raises(StoreUnavailable) as failed:
        await actor.barrier()
    assert "secret" not in str(failed.value)


async def test_a_revocation_takes_little_memory(servers: Servers, make_live: Any) -> None:
    world = await make_live(servers.start())
    actor = await alone(world)
    before, batches, size = world.server.info("memory")["used_memory"], 40, 500
    for number in range(batches):
        expiries = [soon(world) + 60 * (n % 50) for n in range(size)]
        await actor.commit(operation(number, tokens(*expiries, first=number * size)))
    each = (world.server.info("memory")["used_memory"] - before) / (batches * size)
    assert each <= 100, "the target of DESIGN section 10, log included"
