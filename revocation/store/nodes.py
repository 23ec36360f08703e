"""Which server holds which keys: one server, the primary that Sentinel names, or the nodes of a cluster.

redis-py's own cluster client is not used: it sends WAIT to all primaries and adds the answers up, while a WAIT proves
something only on the connection that wrote, and on its server. Every node has a plain client here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError

Address = tuple[str, int]

_SOCKET_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 2.0


class Nodes(Protocol):
    """The servers of a store. Calls raise redis-py's errors."""

    async def serving(self, key: str) -> Redis:
        """The client of the server that holds a key."""

    async def everyone(self) -> Sequence[Redis]:
        """The clients of all servers."""

    def doubt(self) -> None:
        """Something failed: the next call finds out anew who holds what."""

    async def moved(self) -> bool:
        """Whether other servers serve by now than those in use, which would not tell."""

    async def forget(self) -> None:
        """Drops all connections, and doubts."""

    async def aclose(self) -> None:
        """Drops all connections."""


class OneNode:
    """One server. `make` makes its client."""

    def __init__(self, make: Callable[[], Redis]) -> None:
        self._make = make
        self._client = make()

    async def serving(self, key: str) -> Redis:
        """The one client."""
        return self._client

    async def everyone(self) -> Sequence[Redis]:
        """The one client."""
        return [self._client]

    def doubt(self) -> None:
        """Nothing to find out."""

    async def moved(self) -> bool:
        """Never: there is one."""
        return False

    async def forget(self) -> None:
        """Begins anew with another client; commands under way on the old one fail."""
        old, self._client = self._client, self._make()
        await old.aclose()

    async def aclose(self) -> None:
        """Drops all connections."""
        await self._client.aclose()


class ClusterNodes:
    """The primaries of a cluster, found through any node that answers."""

    def __init__(self, seeds: Sequence[Address], options: dict[str, Any]) -> None:
        self._seeds = list(seeds)
        self._options = options
        self._clients: dict[Address, Redis] = {}
        self._ranges: list[tuple[int, int, Address]] = []
        self._lock = asyncio.Lock()

    async def serving(self, key: str) -> Redis:
        """The client of the primary that has the key's slot."""
        slot = key_slot(key.encode())
        for first, last, address in await self._found():
            if first <= slot <= last:
                return self._client(address)
        raise ConnectionError("no node of the cluster serves this slot")

    async def everyone(self) -> Sequence[Redis]:
        """The clients of all primaries."""
        return [self._client(address) for address in sorted({found[2] for found in await self._found()})]

    def doubt(self) -> None:
        """The next call asks for the slots again."""
        self._ranges = []

    async def moved(self) -> bool:
        """Never: nodes of a cluster know of each other, and one that is cut off from most refuses."""
        return False

    async def forget(self) -> None:
        """Drops all connections; commands under way fail."""
        self.doubt()
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def aclose(self) -> None:
        """Drops all connections."""
        await self.forget()

    def _client(self, address: Address) -> Redis:
        if address not in self._clients:
            self._clients[address] = client_with(self._options | {"host": address[0], "port": address[1]})
        return self._clients[address]

    async def _found(self) -> list[tuple[int, int, Address]]:
        async with self._lock:
            if not self._ranges:
                self._ranges = await self._ask()
            return self._ranges

    async def _ask(self) -> list[tuple[int, int, Address]]:
        known = list({*self._clients, *self._seeds})
        random.shuffle(known)  # one that is cut off must not be asked again and again
        failure: Exception = ConnectionError("no node of the cluster answers")
        for address in known:
            try:
                client: Any = self._client(address)
                reply = await client.execute_command("CLUSTER", "SLOTS")
            except (RedisError, OSError) as error:
                failure = error
                continue
            return [(int(first), int(last), _address(primary, address)) for first, last, primary, *_ in _ranges(reply)]
        raise failure


def _ranges(reply: Any) -> list[Any]:
    """CLUSTER SLOTS as the server says it, or as redis-py turns it around."""
    if isinstance(reply, dict):
        return [(first, last, nodes["primary"]) for (first, last), nodes in reply.items()]
    return list(reply)


def _address(node: Sequence[Any], asked: Address) -> Address:
    """A node that does not know its own name is the one that was asked."""
    host = node[0].decode() if isinstance(node[0], bytes) else node[0]
    return (host if host and host != "?" else asked[0]), int(node[1])


def options_of(url: str) -> dict[str, Any]:
    """Connection options of a redis://, rediss:// or unix:// URL. Raises ValueError."""
    defaults = {"socket_timeout": _SOCKET_TIMEOUT_S, "socket_connect_timeout": _CONNECT_TIMEOUT_S}
    # redis-py's retries would run a script twice. Replies are bytes, and have one form, in every version of redis-py.
    fixed = {"retry": Retry(NoBackoff(), 0), "decode_responses": False, "protocol": 2}
    return defaults | dict(parse_url(url)) | fixed


def client_with(options: dict[str, Any]) -> Redis:
    """A client with its own connections."""
    return Redis.from_pool(ConnectionPool(**options))


def client_of(url: str) -> Redis:
    """A client for one server."""
    return client_with(options_of(url))
