"""The faults: each breaks something of a cluster, and mends it again."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol

import redis

from tests.chaos.cluster import Cluster, Node
from tests.chaos.proxy import Proxy
from tests.e2e.installation import Replica, Verifier
from tests.servers import Place, Server

Loss = Literal["", "suffix", "all"]
"""What the store may lack afterwards: nothing, the last commits (a failover), or everything, on every node."""

NO_FAILOVER_S = 0.4
"""Half of what Sentinel waits for. A primary that is away for a shorter time stays the primary."""

SLOW_S = 1.0
"""An answer that takes so long makes Sentinel think that the primary is down."""


@dataclass
class Fault:
    """Something broken. `store` and `kills`: what it may take with it, for the rules of guarantees.md."""

    kind: str
    what: str
    mend: Callable[[], None]
    seconds: float
    store: Loss = ""
    kills: bool = False
    """`what` is a service replica, whose memory is gone. One that is asked to end hands over what it holds first."""
    begun: float = 0.0
    ended: float = field(default=float("inf"))


class Maker(Protocol):
    """Breaks something now."""

    __name__: str

    def __call__(self, cluster: Cluster, chance: random.Random) -> Fault: ...


def _seconds(chance: random.Random) -> float:
    return chance.choice((0.2, 0.8, 2.0, 4.0, 7.0)) * chance.uniform(0.7, 1.3)


# -- services -------------------------------------------------------------------------------------------------------


def _service(cluster: Cluster, chance: random.Random) -> Replica:
    return chance.choice([service for service in cluster.services if service.running and not service.stopped])


def service_killed(cluster: Cluster, chance: random.Random) -> Fault:
    service = _service(cluster, chance)
    service.kill()
    return Fault("service SIGKILL", service.name, service.start, _seconds(chance), kills=True)


def service_stopped(cluster: Cluster, chance: random.Random) -> Fault:
    service = _service(cluster, chance)
    service.stop()
    return Fault("service SIGSTOP", service.name, service.resume, _seconds(chance))


def service_restarted(cluster: Cluster, chance: random.Random) -> Fault:
    service = _service(cluster, chance)
    service.terminate()

    def mend() -> None:
        service.wait()
        service.start()

    return Fault("service SIGTERM", service.name, mend, _seconds(chance))


# -- the store ------------------------------------------------------------------------------------------------------


def primary_killed(cluster: Cluster, chance: random.Random) -> Fault:
    node = cluster.primary()
    node.server.kill()
    return Fault("primary SIGKILL", node.name, lambda: _start(node), _seconds(chance), store="suffix")


def primary_stopped(cluster: Cluster, chance: random.Random) -> Fault:
    node = cluster.primary()
    node.server.pause()
    seconds = _seconds(chance)
    return Fault("primary SIGSTOP", node.name, node.server.resume, seconds, store=_away(seconds))


def primary_emptied(cluster: Cluster, chance: random.Random) -> Fault:
    """Killed and at once there again, without its data: before Sentinel notices, its replicas copy the emptiness."""
    node = cluster.primary()
    node.server.kill()
    node.server.wipe()
    _start(node)
    return Fault("primary restarted empty", node.name, lambda: None, 0.5, store="all")


def flushed(cluster: Cluster, chance: random.Random) -> Fault:
    node = cluster.primary()
    with suppress(redis.RedisError):
        node.server.call("FLUSHALL")
    return Fault("FLUSHALL", node.name, lambda: None, 0.5, store="all")


def _away(seconds: float) -> Loss:
    """What a primary loses that nobody reaches for so long: another one may be promoted."""
    return "suffix" if seconds > NO_FAILOVER_S else ""


def _replica(cluster: Cluster, chance: random.Random) -> Node:
    primary = cluster.primary()
    return chance.choice([node for node in cluster.nodes if node is not primary and node.server.running])


def store_replica_killed(cluster: Cluster, chance: random.Random) -> Fault:
    node = _replica(cluster, chance)
    node.server.kill()
    return Fault("store replica SIGKILL", node.name, lambda: _start(node), _seconds(chance))


def store_replica_stopped(cluster: Cluster, chance: random.Random) -> Fault:
    node = _replica(cluster, chance)
    node.server.pause()
    return Fault("store replica SIGSTOP", node.name, node.server.resume, _seconds(chance))


def _start(node: Node) -> None:
    _start_server(node.server)


def _start_server(server: Server) -> None:
    if not server.running:
        server.start(wait=False)  # another fault may cut it off just now


def sentinel_killed(cluster: Cluster, chance: random.Random) -> Fault:
    sentinel = chance.choice(cluster.sentinels)
    sentinel.kill()
    return Fault("Sentinel SIGKILL", str(sentinel.port), lambda: _start_server(sentinel), _seconds(chance))


# -- verifiers ------------------------------------------------------------------------------------------------------


def _verifier(cluster: Cluster, chance: random.Random) -> Verifier:
    return chance.choice([one for one in cluster.verifiers if one.running and not one.stopped])


def verifier_stopped(cluster: Cluster, chance: random.Random) -> Fault:
    verifiers = chance.sample(cluster.verifiers, chance.choice((1, 1, 2, len(cluster.verifiers))))
    for verifier in verifiers:
        verifier.stop()

    def mend() -> None:
        for verifier in verifiers:
            verifier.resume()

    return Fault("verifier SIGSTOP", ", ".join(one.name for one in verifiers), mend, _seconds(chance))


# -- the network ----------------------------------------------------------------------------------------------------


def _network(proxy: Proxy, what: str, kind: str, chance: random.Random, where: str, *, primary: bool = False) -> Fault:
    delay_s = chance.choice((0.01, 0.3, 3.0)) if kind == "delay" else 0.0
    share = chance.choice((1.0, 1.0, 0.5)) if where == "store" else chance.choice((1.0, 0.6))
    proxy.set(kind, old_only=kind == "hold" and chance.random() < 0.4, delay_s=delay_s, share=share)
    seconds = _seconds(chance)
    silent = primary and (kind != "delay" or delay_s > SLOW_S)
    return Fault(f"{where} network {kind}", what, proxy.heal, seconds, store=_away(seconds) if silent else "")


def service_network(kind: str) -> Maker:
    def make(cluster: Cluster, chance: random.Random) -> Fault:
        number = chance.randrange(len(cluster.fronts))
        return _network(cluster.fronts[number], cluster.services[number].name, kind, chance, "service")

    make.__name__ = f"service_{kind}"
    return make


def store_network(kind: str) -> Maker:
    def make(cluster: Cluster, chance: random.Random) -> Fault:
        node, primary = _any_node(cluster, chance)
        return _network(node.proxy, node.name, kind, chance, "store", primary=primary)

    make.__name__ = f"store_{kind}"
    return make


def _any_node(cluster: Cluster, chance: random.Random) -> tuple[Node, bool]:
    """A store node, and whether it is the primary, which it mostly is."""
    primary = chance.random() < 0.7
    return cluster.primary() if primary else _replica(cluster, chance), primary


def store_partitioned(cluster: Cluster, chance: random.Random) -> Fault:
    """Packets of a store node are lost. IndexError where there are no namespaces."""
    node, primary = _any_node(cluster, chance)
    fault = _partition(cluster, node.server.place, "store node partitioned", node.name, chance)
    fault.store = _away(fault.seconds) if primary else ""
    return fault


def service_partitioned(cluster: Cluster, chance: random.Random) -> Fault:
    """A service replica, cut off from store and verifiers alike."""
    service = _service(cluster, chance)
    return _partition(cluster, service.place, "service partitioned", service.name, chance)


def _partition(cluster: Cluster, place: Place, kind: str, what: str, chance: random.Random) -> Fault:
    network = cluster.network
    if network is None:
        raise IndexError
    network.cut(place)
    return Fault(kind, what, lambda: network.join(place), _seconds(chance))


KINDS = ("hold", "drop_up", "drop_down", "half_open", "cut", "delay")
FAULTS: tuple[Maker, ...] = (
    service_killed, service_stopped, service_restarted,
    primary_killed, primary_stopped, primary_emptied, flushed,
    store_replica_killed, store_replica_stopped, sentinel_killed,
    verifier_stopped, verifier_stopped,
    *(service_network(kind) for kind in KINDS),
    *(store_network(kind) for kind in KINDS),
    store_partitioned, store_partitioned, service_partitioned,
)  # fmt: skip
