"""Which server holds which keys: one server, the primary that Sentinel names, or the nodes of a cluster.

redis-py's own cluster client is not used: it sends WAIT to all primaries and adds the answers up, while a WAIT proves
something only on the connection that wrote, and on its server. Every node has a plain client here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError

from revocation.store.answers import SILENT, answer
from revocation.store.trouble import kind_of

Address = tuple[str, int]
Range = tuple[int, int, Address]
"""First and last slot, and the primary that has them."""
T = TypeVar("T")

_SOCKET_TIMEOUT_S = 3.0
"""Silence after which a connection counts as dead. The longest wait in a server (XREAD, WAIT) is half of it, and the
largest answer has 20 MB; what hangs on a dead connection hangs for so long after a partition has ended (I3)."""

_CONNECT_TIMEOUT_S = 2.0

_CONNECTIONS = 128
"""Connections to one server at the most, besides those of partitions: 32 for sessions, 64 for readers of the audit."""

_CONNECTIONS_OF_PARTITION = 4
"""Its reader holds one as long as it lives; heartbeat, barrier and commit take one each. Who finds none fails."""

_SLOTS_S = 1.0
"""How long one node of a cluster may take to say who has which slots."""

_NEXT_S = 0.25
"""Silence after which another node of a cluster is asked, too: far longer than an answer takes, and short enough that
there is one after a good second, also if five are silent."""


class Nodes(ABC):
    """The servers of a store. Calls raise redis-py's errors."""

    @abstractmethod
    async def serving(self, key: str) -> Redis:
        """The client of the server that holds a key."""

    @abstractmethod
    async def everyone(self) -> Sequence[Redis]:
        """The clients of all servers."""

    @abstractmethod
    def doubt(self, client: Redis | None = None) -> None:
        """Something failed, at this server or somewhere: finds out anew who holds what.

        Who needs what this server holds waits until that is known; the others go on with what was known before.
        """

    @abstractmethod
    async def moved(self) -> bool:
        """Whether other servers serve by now than those in use, which would not tell."""

    @abstractmethod
    async def forget(self) -> None:
        """Drops all connections, and doubts."""

    @abstractmethod
    async def aclose(self) -> None:
        """Drops all connections."""

    async def asked(self, client: Redis, ask: Callable[[], Awaitable[T]], within_s: float | None = None) -> T:
        """What a server answers, in this time. If it does not answer, it is doubted."""
        try:
            return await answer(client, ask, within_s)
        except Exception as error:
            if kind_of(error) in SILENT:
                self.doubt(client)
            raise


class OneNode(Nodes):
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

    def doubt(self, client: Redis | None = None) -> None:
        """Nothing to find out."""

    async def moved(self) -> bool:
        """Never: there is one."""
        return False

    async def forget(self) -> None:
        """Begins anew with another client; commands under way on the old one fail."""
        old, self._client = self._client, self._make()
        await self._drop(old)

    async def aclose(self) -> None:
        """Drops all connections."""
        await self._drop(self._client)

    async def _drop(self, client: Redis) -> None:
        await client.aclose()


class ClusterNodes(Nodes):
    """The primaries of a cluster, found through any node that answers."""

    def __init__(self, seeds: Sequence[Address], options: dict[str, Any]) -> None:
        self._seeds = list(seeds)
        self._options = options
        self._clients: dict[Address, Redis] = {}
        self._ranges: list[Range] = []
        self._doubted = False
        self._suspects: set[Address] = set()
        """Where something failed since the nodes were asked last."""
        self._asking: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    async def serving(self, key: str) -> Redis:
        """The client of the primary that has the key's slot."""
        slot = key_slot(key.encode())
        address = self._holder(slot)
        if address is None or address in self._suspects:
            await self._found()
            address = self._holder(slot)
        elif self._doubted:
            self._look()  # one node that fails must not hold up the partitions of the others
        if address is None:
            raise ConnectionError("no node of the cluster serves this slot")
        return self._client(address)

    async def everyone(self) -> Sequence[Redis]:
        """The clients of all primaries."""
        if self._doubted or not self._ranges:
            await self._found()
        return [self._client(address) for address in sorted({address for _, _, address in self._ranges})]

    def doubt(self, client: Redis | None = None) -> None:
        """The next call asks for the slots again."""
        self._doubted = True
        self._suspects |= {address for address, known in self._clients.items() if known is client}

    async def moved(self) -> bool:
        """Never: nodes of a cluster know of each other, and one that is cut off from most refuses."""
        return False

    async def forget(self) -> None:
        """Drops all connections; commands under way fail."""
        self._ranges, self._doubted = [], True
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def aclose(self) -> None:
        """Drops all connections."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking})
        await self.forget()
        if self._closing:
            await asyncio.wait(self._closing)

    def _client(self, address: Address) -> Redis:
        if address not in self._clients:
            self._clients[address] = client_with(self._options | {"host": address[0], "port": address[1]})
        return self._clients[address]

    def _holder(self, slot: int) -> Address | None:
        return next((address for first, last, address in self._ranges if first <= slot <= last), None)

    async def _found(self) -> None:
        """Waits until a node has said who has which slots."""
        asking = self._look()
        await asyncio.wait({asking})  # not the task itself: who gives up must not end it for the others
        if asking.cancelled():
            raise ConnectionError("the connections were closed")
        asking.result()

    def _look(self) -> asyncio.Task[None]:
        if self._asking is None:
            self._asking = asyncio.create_task(self._renew(), name="cluster-slots")
            # If nobody waits for it, its failure is nobody's concern: who needs an answer asks again.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._asking

    async def _renew(self) -> None:
        self._doubted, suspects = False, set(self._suspects)  # what fails from now on, the answer need not know of
        try:
            self._ranges = await self._ask()
        except BaseException:
            self._doubted = True
            raise
        finally:
            self._asking = None
        known = {*self._seeds, *(address for _, _, address in self._ranges)}
        self._suspects = (self._suspects - suspects) & known
        for address in self._clients.keys() - known:  # or there would be more and more of them, asked again and again
            closing = asyncio.create_task(_close(self._clients.pop(address)), name="close-node")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _ask(self) -> list[Range]:
        """The first answer. One node is asked after the other, and the next one before the last one has given up."""
        shuffled = list({*self._clients, *self._seeds})
        random.shuffle(shuffled)  # one that is cut off must not be asked again and again
        waiting = deque(shuffled)
        failure: BaseException = ConnectionError("no node of the cluster answers")
        running: set[asyncio.Task[list[Range]]] = set()
        try:
            while waiting or running:
                if waiting:
                    running.add(asyncio.create_task(self._slots(waiting.popleft()), name="slots-of-node"))
                patience = _NEXT_S if waiting else None
                done, running = await asyncio.wait(running, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
                errors = {task: task.exception() for task in done}  # all of them, or asyncio complains of the rest
                for task, error in errors.items():
                    if error is None:
                        return task.result()
                    failure = error
            raise failure
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def _slots(self, address: Address) -> list[Range]:
        """Who has which slots, in the words of one node."""
        client: Any = self._client(address)
        reply = await answer(client, lambda: client.execute_command("CLUSTER", "SLOTS"), _SLOTS_S)
        found = [(int(first), int(last), _address(primary, address)) for first, last, primary, *_ in _ranges(reply)]
        if not found:
            raise ConnectionError("this node is in no cluster any more")
        return found


async def _close(client: Redis) -> None:
    with contextlib.suppress(Exception):  # it is out of use; what its server says to that does not matter
        await client.aclose()


def _ranges(reply: Any) -> list[Any]:
    """CLUSTER SLOTS as the server says it, or as redis-py turns it around."""
    if isinstance(reply, dict):
        return [(first, last, nodes["primary"]) for (first, last), nodes in reply.items()]
    return list(reply)


def _address(node: Sequence[Any], asked: Address) -> Address:
    """A node that does not know its own name is the one that was asked."""
    host = node[0].decode() if isinstance(node[0], bytes) else node[0]
    return (host if host and host != "?" else asked[0]), int(node[1])


def room_for(partitions: int) -> dict[str, Any]:
    """The option that bounds the connections to one server, which may hold all partitions."""
    return {"max_connections": _CONNECTIONS + _CONNECTIONS_OF_PARTITION * partitions}


def options_of(url: str) -> dict[str, Any]:
    """Connection options of a redis://, rediss:// or unix:// URL. Raises ValueError."""
    defaults = {"socket_timeout": _SOCKET_TIMEOUT_S, "socket_connect_timeout": _CONNECT_TIMEOUT_S}
    # redis-py's retries would run a script twice. Replies are bytes, and have one form, in every version of redis-py.
    fixed = {"retry": Retry(NoBackoff(), 0), "decode_responses": False, "protocol": 2}
    return defaults | dict(parse_url(url)) | fixed


def client_with(options: dict[str, Any]) -> Redis:
    """A client with its own connections."""
    return Redis.from_pool(ConnectionPool(**options))


def client_of(url: str, partitions: int = 1) -> Redis:
    """A client for one server."""
    return client_with(room_for(partitions) | options_of(url))
