"""Sentinel, Cluster, unix sockets, TLS: one URL each, and what a failover does to it."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from redis.crc import key_slot

from revocation.store import Closed, Durability, OpState, Registry, StoreRefused, StoreUnavailable
from revocation.store.connect import connect, nodes_of
from revocation.store.nodes import ClusterNodes, OneNode, client_of, options_of
from revocation.store.redis import RedisStore
from tests.servers import NoServer, Server, Servers, find_tls_binary, free_port, until
from tests.store.test_contract import soon
from tests.store.test_redis import NO_HANG_S, LiveWorld, reached
from tests.store.world import OTHER_LOG, Actor, alone, opened, operation, subjects, tokens

Connect = Callable[..., Awaitable[LiveWorld]]


@pytest.fixture
async def connected() -> AsyncIterator[Connect]:
    stores: list[RedisStore] = []

    async def make(url: str, server: Server, **options: Any) -> LiveWorld:
        world = LiveWorld(server)
        await world.store.close()
        world.store = connect(url, **options)
        stores.append(world.store)
        await world.store.start()
        return world

    yield make
    for store in stores:
        await store.close()


async def eventually(look: Callable[[], Awaitable[Registry]], closed: Closed | None) -> Registry:
    """Looks until the registry says `closed`; meanwhile the store may be away."""
    last: object = None
    async with asyncio.timeout(NO_HANG_S):
        while True:
            try:
                last = registry = await look()
                if registry.closed is closed:
                    return registry
            except StoreUnavailable as error:
                last = error
            await asyncio.sleep(0.02)
    raise AssertionError(last)


async def heal(actor: Actor) -> None:
    """What a replica does when it meets "reopen"; nothing is lost here, so that there is nothing to propose."""
    await eventually(actor.look, Closed.REOPEN)
    assert await actor.open(OTHER_LOG) is None
    opened(await actor.confirm())


# -- Sentinel ---------------------------------------------------------------------------------------------------------


def sentinel_setup(servers: Servers) -> tuple[Server, list[Server], str]:
    config = {"requirepass": "s3cret/@:", "masterauth": "s3cret/@:"}
    primary = servers.start(config)
    replicas = [servers.start(config, replica_of=primary) for _ in range(2)]
    sentinels = servers.sentinels(primary)
    hosts = ",".join(sentinel.address for sentinel in sentinels)
    return primary, replicas, f"redis+sentinel://:{quote('s3cret/@:', safe='')}@{hosts}/main"


@pytest.mark.slow
async def test_commits_go_on_after_a_failover_by_sentinel(servers: Servers, connected: Connect) -> None:
    primary, replicas, url = sentinel_setup(servers)
    world = await connected(url, primary)
    actor = await alone(world)
    op = operation(1, tokens(soon(world)), subjects(7))
    first = await reached(2, lambda: actor.commit(op, durability=Durability(replicas=2, timeout_ms=2_000)))
    reading = asyncio.create_task(world.store.read_log(0, 1, 10, 60_000))
    primary.kill()
    with pytest.raises(StoreUnavailable):
        await reading
    await heal(actor)
    again = (await actor.commit(op)).results[0]
    assert (again.state, again.version) == (OpState.AGAIN, first.results[0].version)
    assert (await actor.commit(operation(2, subjects(8)))).seq == 2
    roles = [replica.info("replication")["role"] for replica in replicas]
    assert sorted(roles) == ["master", "slave"]


def lock_sentinels_out(primary: Server) -> None:
    """They can neither watch the primary any more nor demote it; everybody else stays connected."""
    primary.call("CONFIG", "SET", "requirepass", "another one")
    primary.config["requirepass"] = "another one"
    watching = [client["id"] for client in primary.call("CLIENT LIST") if client["name"].startswith("sentinel-")]
    assert watching
    for number in watching:
        primary.call("CLIENT", "KILL", "ID", number)


@pytest.mark.slow
async def test_a_primary_that_goes_on_beside_the_one_that_sentinels_name_is_left(
    servers: Servers, connected: Connect
) -> None:
    primary, _, url = sentinel_setup(servers)
    actor = await alone(await connected(url, primary))
    await actor.commit(operation(1, subjects(7)))
    lock_sentinels_out(primary)
    await heal(actor)
    assert primary.info("replication")["role"] == "master", "it does not know that it was replaced"


@pytest.mark.slow
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
async def test_a_sentinel_that_was_left_behind_is_not_believed(servers: Servers, order: tuple[int, ...]) -> None:
    """It is asked first, or last, and still names the primary from before."""
    before, now = servers.start(), servers.start()
    asked = [*servers.sentinels(before, count=1, epoch=1), *servers.sentinels(now, count=2, epoch=2)]
    nodes = nodes_of(f"redis+sentinel://{','.join(asked[number].address for number in order)}/main")
    await (await nodes.serving("a key")).set("here", "1")
    await nodes.aclose()
    assert (before.call("GET", "here"), now.call("GET", "here")) == (None, "1")


@pytest.mark.slow
async def test_sentinels_keep_no_connection_of_a_client_that_was_dropped(servers: Servers) -> None:
    sentinels = servers.sentinels(servers.start(), count=2)
    nodes = nodes_of(f"redis+sentinel://{','.join(one.address for one in sentinels)}/main")

    def only_we_look() -> bool:
        """Sentinels give their connections names."""
        connected = [[client for client in one.call("CLIENT LIST") if not client["name"]] for one in sentinels]
        return [len(clients) for clients in connected] == [1, 1]

    gc.disable()
    try:
        for _ in range(10):
            await (await nodes.serving("a key")).ping()
            assert not await nodes.moved()
            await nodes.forget()
        await nodes.aclose()
        await asyncio.to_thread(until, only_we_look, "nothing is left")
    finally:
        gc.enable()


async def test_a_primary_that_was_demoted_is_left_by_itself(servers: Servers) -> None:
    primary = servers.start()
    other = servers.start(replica_of=primary)
    asked = [primary]
    # As with Sentinel: whoever connects anew is told the new primary, but no connection is dropped.
    world = LiveWorld(primary)
    await world.store.close()
    world.store = RedisStore(OneNode(lambda: client_of(asked[-1].url)))
    await world.store.start()
    actor = await alone(world)
    first, durability = operation(1, subjects(7)), Durability(replicas=1, timeout_ms=2_000)
    await reached(1, lambda: actor.commit(first, durability=durability))
    asked.append(other)
    other.call("REPLICAOF", "NO", "ONE")
    assert opened(await actor.barrier()), "nobody can know yet"
    primary.call("REPLICAOF", "127.0.0.1", other.port)
    assert await actor.barrier() is Closed.DEMOTED
    assert await actor.barrier() is Closed.REOPEN, "the other one answers"
    await heal(actor)
    assert (await actor.commit(operation(2, subjects(8)))).seq == 2
    await world.store.close()


# -- Cluster ----------------------------------------------------------------------------------------------------------


def node_of(nodes: list[Server], partition: int) -> int:
    """Which of the evenly cut shares of the slots a partition lies in."""
    return key_slot(f"p{partition}".encode()) * len(nodes) // 16_384


@pytest.mark.slow
async def test_partitions_spread_over_a_cluster_and_survive_a_failover(servers: Servers, connected: Connect) -> None:
    nodes = servers.cluster(3)
    victim = nodes[node_of(nodes, 0)]
    replica = servers.cluster_replica(victim)
    # One address is enough to find the others.
    world = await connected(f"redis+cluster://{nodes[0].address}", nodes[0], partitions=4)
    assert len({node_of(nodes, partition) for partition in range(4)}) == 3, "else this test shows less than it says"
    actors = [await alone(world, partition) for partition in range(4)]
    for actor in actors:
        for number in range(1, 4):
            await actor.commit(operation(number, subjects(7), tokens(soon(world))))
        assert [entry.seq for entry in await world.store.read_log(actor.partition, 0, 10, 0)] == [1, 2, 3]
        assert opened(await actor.barrier()).seq == 3
        # WAIT counts on the connection that wrote, on its node: only the first one's has a replica.
        durability = Durability(replicas=1, timeout_ms=3_000)
        copies = int(nodes[node_of(nodes, actor.partition)] is victim)
        await reached(copies, partial(actor.commit, operation(9, subjects(8)), durability=durability))
        assert opened(await actor.barrier(durability)).copies == copies
    for node in nodes:
        keys = node.call("KEYS", "*")
        assert {key.split("}")[0] for key in keys} == {
            f"revocation:{{p{p}" for p in range(4) if nodes[node_of(nodes, p)] is node
        }
    victim.kill()
    for actor in actors:
        if nodes[node_of(nodes, actor.partition)] is victim:
            await heal(actor)
        assert (await actor.commit(operation(20, subjects(7)))).seq == 5
    assert replica.info("replication")["role"] == "master"


async def test_a_slot_that_moved_is_followed(servers: Servers, connected: Connect) -> None:
    nodes = servers.cluster(3)
    world = await connected("redis+cluster://" + ",".join(node.address for node in nodes), nodes[0], partitions=2)
    actors = [await alone(world, partition) for partition in range(2)]
    known = world.store._nodes
    assert isinstance(known, ClusterNodes)
    wrong = known._ranges[1:] + known._ranges[:1]
    known._ranges = [(first, last, other) for (first, last, _), (_, _, other) in zip(known._ranges, wrong, strict=True)]
    for actor in actors:
        assert (await actor.commit(operation(1, subjects(7)))).seq == 1
    await world.store.reconnect()
    for actor in actors:
        assert opened(await actor.barrier()).seq == 1


def in_order(monkeypatch: pytest.MonkeyPatch, *last: Server) -> None:
    """Nodes are asked in no certain order: these ones last."""
    ports = [server.port for server in last]
    monkeypatch.setattr(random, "shuffle", lambda known: known.sort(key=lambda address: address[1] in ports))


async def test_nodes_that_are_gone_are_asked_no_more(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold the answer of another one up no longer than a moment each, and it ends what is left of them."""
    (node,) = servers.cluster(1)
    monkeypatch.setattr("revocation.store.nodes._NEXT_S", 0.01)
    in_order(monkeypatch, node)
    here = ("127.0.0.1", node.port)
    cluster = ClusterNodes([here], options_of("redis://?socket_timeout=600&socket_connect_timeout=600"))
    gone = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]  # connects, and nobody is there
    for listener in gone:
        cluster._client(listener.getsockname())
    cluster.doubt()
    async with asyncio.timeout(NO_HANG_S):
        assert len(await cluster.everyone()) == 1
    assert list(cluster._clients) == [here]
    await cluster.aclose()
    for listener in gone:
        listener.close()


async def test_a_node_that_left_the_cluster_is_not_believed(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    stays, left = servers.cluster(1)[0], servers.cluster(1)[0]
    left.call("CLUSTER", "RESET", "HARD")
    in_order(monkeypatch, stays)
    cluster = ClusterNodes([("127.0.0.1", node.port) for node in (left, stays)], options_of("redis://"))
    assert await cluster.serving("any")
    await cluster.aclose()


async def test_a_node_that_hangs_holds_up_its_own_partitions_only(
    servers: Servers, connected: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = servers.cluster(3)
    url = f"redis+cluster://{nodes[0].address}?socket_timeout=600"
    world = await connected(url, nodes[0], partitions=4)
    node = nodes[node_of(nodes, 0)]
    elsewhere = next(partition for partition in range(4) if nodes[node_of(nodes, partition)] is not node)
    hung, other = await alone(world, 0), await alone(world, elsewhere)
    # Whoever is asked who has which slots is the one that hangs, and nobody else is asked.
    in_order(monkeypatch, *(one for one in nodes if one is not node))
    for name in ("_NEXT_S", "_SLOTS_S"):
        monkeypatch.setattr(f"revocation.store.nodes.{name}", 600)
    node.pause()
    async with asyncio.timeout(NO_HANG_S):
        with monkeypatch.context() as hurried:
            hurried.setattr("revocation.store.redis.PROMPT_S", 0.2)
            with pytest.raises(StoreUnavailable):
                await hung.look()
        waiting = asyncio.create_task(hung.look())
        for _ in range(10):
            assert opened(await other.barrier()).seq == 0
        assert not waiting.done()
        node.resume()
        assert (await waiting).log_id == hung.log_id


# -- sockets and TLS --------------------------------------------------------------------------------------------------


async def test_a_unix_socket(servers: Servers, connected: Connect, tmp_path: Path) -> None:
    path = tmp_path / "store"
    server = servers.start({"unixsocket": str(path)})
    actor = await alone(await connected(f"unix://{quote(str(path))}", server))
    assert await actor.commit(operation(1, subjects(7)))


async def test_an_acl_user_over_mutual_tls(servers: Servers, connected: Connect, tmp_path: Path) -> None:
    files = certificates(tmp_path)
    port = free_port()
    config = {
        "tls-port": str(port),
        "tls-cert-file": files["server"],
        "tls-key-file": files["server_key"],
        "tls-ca-cert-file": files["ca"],
        "tls-auth-clients": "yes",
    }
    try:
        servers.binary = find_tls_binary()
    except NoServer as error:
        if os.environ.get("REVOCATION_TEST_TLS") == "required":
            raise
        pytest.skip(str(error))
    server = servers.start(config)
    server.call("ACL", "SETUSER", "service", "on", ">p@ss/word", "~revocation:*", "+@all", "-@dangerous", "+info")
    server.call("CONFIG", "SET", "port", "0")  # from here on TLS only
    query = f"ssl_ca_certs={files['ca']}&ssl_certfile={files['client']}&ssl_keyfile={files['client_key']}"
    user = f"rediss://service:{quote('p@ss/word', safe='')}@localhost:{port}"
    actor = await alone(await connected(f"{user}?{query}", server))
    assert await actor.commit(operation(1, subjects(7)))
    with pytest.raises(StoreRefused, match="user and password"):
        await connected(f"rediss://service:wrong@localhost:{port}?{query}", server)
    for part in (f"ssl_ca_certs={files['ca']}", query.replace(files["ca"], files["other_ca"])):
        with pytest.raises(StoreUnavailable):
            await connected(f"{user}?{part}", server)


def certificates(folder: Path) -> dict[str, str]:
    """Paths of a CA, a certificate and key each for server and client, and of a CA that nobody asked."""
    ca, paths = trustme.CA(), {name: str(folder / name) for name in ("ca", "other_ca")}
    ca.cert_pem.write_to_path(paths["ca"])
    trustme.CA().cert_pem.write_to_path(paths["other_ca"])
    for name in ("server", "client"):
        issued = ca.issue_cert("localhost")
        paths |= {name: str(folder / name), f"{name}_key": str(folder / f"{name}.key")}
        issued.cert_chain_pems[0].write_to_path(paths[name])
        issued.private_key_pem.write_to_path(paths[f"{name}_key"])
    return paths


# -- URLs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://127.0.0.1:1",
        "redis+sentinel://127.0.0.1:1/main/0/more",
        "redis+sentinel://127.0.0.1:1/main/notanumber",
        "redis+sentinel://:s3cret@/main",
        "redis+cluster://127.0.0.1:1/0",
        "redis+cluster://:s3cret@127.0.0.1:x",
        "redis+cluster://127.0.0.1:1?sentinel_password=s3cret",
        "redis+other://127.0.0.1:1/x",
        "http://:s3cret@127.0.0.1",
        "redis://:s3cret@127.0.0.1:port/0",
        "s3cret",
        "",
    ],
)
def test_what_is_no_url_of_a_store(url: str) -> None:
    with pytest.raises(StoreRefused, match=r"redis\+sentinel://") as refused:
        connect(url)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["redis://", "redis+sentinel://127.0.0.1:1,[::1]:1/main", "redis+cluster://127.0.0.1:1"]
)
async def test_a_store_that_is_not_there(url: str) -> None:
    store = connect(url.replace("redis://", "redis://127.0.0.1:1"))
    async with asyncio.timeout(NO_HANG_S):
        with pytest.raises(StoreUnavailable):
            await store.start()
        with pytest.raises(StoreUnavailable):
            await store.beat(0, None, "a", 0, 0, 0)
        with pytest.raises(StoreUnavailable):
            await store.read_log(0, 0, 1, 0)
    await store.close()
