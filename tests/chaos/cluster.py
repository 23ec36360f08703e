"""The live cluster: a primary with two store replicas and three Sentinels, service replicas, verifiers, proxies.

Every store node is reached through its proxy, by everybody: services, Sentinels and the other nodes; it announces the
proxy's port as its own. So is every service, by the verifiers.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import redis

from revocation.keys.keyring import new_secret
from tests.chaos.network import Network, NoNamespaces
from tests.chaos.proxy import Proxy
from tests.e2e.installation import Installation, Replica, Verifier
from tests.e2e.processes import until
from tests.e2e.tokens import Signer
from tests.servers import HERE, Place, Server, resident_kb

PING_S = 0.5
MAX_STALENESS_S = 2.0
TIMING = {"settle_s": 1.0, "heartbeat_s": 0.2, "detect_s": 1.5, "strike_after_s": 30.0, "drain_s": 2.0}


class Node:
    """A store server behind its proxy."""

    def __init__(self, server: Server, proxy: Proxy, name: str) -> None:
        self.server, self.proxy, self.name = server, proxy, name

    @property
    def is_primary(self) -> bool:
        """Whether it takes itself for one."""
        return bool(self.server.info("replication")["role"] == "master")


class Cluster:
    """Everything that chaos breaks."""

    def __init__(self, folder: Path, *, ack: str, services: int = 3, verifiers: int = 6, partitions: int = 1) -> None:
        self.installation = Installation(folder)
        self.network, self.left_out = _network()
        secret = folder / "secret"
        secret.write_text(new_secret())
        self.installation.signer = Signer("k1")
        self.proxies: list[Proxy] = []
        self.nodes = self._start_nodes(3)
        first = self.nodes[0]
        front = SimpleNamespace(port=first.proxy.port, config={}, info=first.server.info, place=Place(self.host))
        self.sentinels = self.installation.servers.sentinels(cast(Server, front), down_after_ms=800)
        hosts = ",".join(sentinel.address for sentinel in self.sentinels)
        flags: dict[str, Any] = {**TIMING, "ack": ack, "secret_file": secret, "partitions": partitions, "canary_s": 2.0}
        if self.network is not None:
            flags |= {"insecure": True, "allow_anonymous": True}
        self.services = [
            Replica(
                f"replica-{number}", folder, module="tests.chaos.serve", place=self._place(),
                redis_url=f"redis+sentinel://{hosts}/main", **flags,
            )
            for number in range(services)
        ]  # fmt: skip
        self.installation._start(self.services)
        self.fronts = [self._proxy((service.place.host, service.port)) for service in self.services]
        for number in range(verifiers):
            # Each knows all services and begins at one of its own choice.
            self.add_verifier(("thread", "asyncio")[number % 2])

    def _start_nodes(self, count: int) -> list[Node]:
        nodes: list[Node] = []
        for number in range(count):
            proxy = self._proxy(("127.0.0.1", 1), self.host)
            config = {"replica-announce-ip": self.host, "replica-announce-port": str(proxy.port)}
            if nodes:
                config["replicaof"] = f"{self.host} {nodes[0].proxy.port}"
            server = self.installation.servers.start(config, aof=True, place=self._place())
            server.keeps_config = True  # Sentinel has it say there whom it follows
            proxy.retarget((server.place.host, server.port))
            nodes.append(Node(server, proxy, f"store-{number}"))
        for node in nodes[1:]:
            until(
                lambda node=node: node.server.info("replication").get("master_link_status") == "up",  # type: ignore[misc]
                f"{node.name} is in step",
            )
        return nodes

    def _proxy(self, target: tuple[str, int], host: str = "127.0.0.1") -> Proxy:
        proxy = Proxy(target, host=host)
        self.proxies.append(proxy)
        return proxy

    @property
    def host(self) -> str:
        """Where proxies of the store and Sentinels listen: an address that every place reaches."""
        return self.network.host if self.network is not None else HERE.host

    def _place(self) -> Place:
        return self.network.add() if self.network is not None else HERE

    @property
    def addresses(self) -> str:
        return ",".join(front.address for front in self.fronts)

    @property
    def verifiers(self) -> list[Verifier]:
        return self.installation.verifiers

    def add_verifier(self, kind: str) -> Verifier:
        return self.installation.add_verifier(
            kind, addresses=self.addresses, ping_interval=PING_S, max_staleness=MAX_STALENESS_S
        )

    def primary(self) -> Node:
        """The node that Sentinel names; waits for a failover that is under way."""

        def look() -> Node | None:
            for sentinel in self.sentinels:
                with suppress(redis.RedisError):  # one that has been started again may not listen yet
                    reply = sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
                    found = [node for node in self.nodes if reply and node.proxy.port == int(reply[1])]
                    if found and found[0].server.running:
                        return found[0]
            return None

        found = until(look, "there is a primary")
        assert found is not None
        return found

    def memory_kb(self) -> dict[str, int]:
        """Resident memory by process."""
        found = {process.name: process.memory_kb() for process in self.installation.processes if process.running}
        for node in self.nodes:
            if node.server.running:
                found[node.name] = resident_kb(node.server.pid)
        return found

    def close(self) -> None:
        self.installation.close()
        for proxy in self.proxies:
            proxy.close()
        if self.network is not None:
            self.network.close()


def _network() -> tuple[Network | None, str]:
    """The network, or why partitions of namespaces are left out."""
    try:
        return Network(), ""
    except NoNamespaces as error:
        return None, str(error)


__all__ = ["Cluster", "Node", "Replica"]
