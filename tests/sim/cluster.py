"""Store nodes that replicate asynchronously, fail over, split, lose their data.

A node is the reference store with a role, an identity and a network. Replication copies the primary's data of some
moment, so that a replica can hold any earlier state: that is "loss of a suffix".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import fields
from operator import attrgetter
from random import Random
from typing import Any, TypeVar

from revocation.store.memory import MemoryStore
from revocation.store.memory_data import Data
from tests.sim.loop import VirtualLoop

T = TypeVar("T")

EPOCH_MS = 1_700_000_000_000
EVERYWHERE = 2
"""The side of a process that reaches both parts of a split network."""


_FIELDS: dict[type, tuple[Callable[[Any], tuple[Any, ...]], dict[str, int]]] = {}


def swift_replace(value: T, /, **changes: Any) -> T:
    """What dataclasses.replace does for classes of plain fields, in a fraction of the time."""
    kind: Any = type(value)
    if kind not in _FIELDS:
        names = [item.name for item in fields(kind)]
        _FIELDS[kind] = attrgetter(*names), {name: number for number, name in enumerate(names)}
    getter, places = _FIELDS[kind]
    values = [*getter(value)]
    for name, changed in changes.items():
        values[places[name]] = changed
    made: T = kind(*values)
    return made


class Memory(MemoryStore):
    """The reference store. What expires lives for minutes here, so it looks for it once a second."""

    _looked_ms = 0

    def _enter(self, partition: int) -> tuple[Data, int]:
        now = self.clock()
        if abs(now - self._looked_ms) < 1_000:
            return self.data[partition], now
        self._looked_ms = now
        return super()._enter(partition)


class Node:
    """One store server."""

    def __init__(self, loop: VirtualLoop, name: str) -> None:
        self.loop = loop
        self.name = name
        self.skew_ms = 0
        self.memory = Memory(self.clock)
        self.memory.primary = False
        self.side = 0
        self.up = True
        self.stalled_until = 0.0
        self.offset = 0
        """How much of the primary's writing it holds; of the primary: has written."""
        self.follows: Node | None = None
        self.copying = False
        self.on_write: Callable[[Node], None] = lambda _: None
        self._tail = 0
        self._waiting: list[asyncio.Future[None]] = []
        self._reading: list[asyncio.Future[None]] = []

    def clock(self) -> int:
        return EPOCH_MS + round(self.loop.time() * 1000) + self.skew_ms

    @property
    def primary(self) -> bool:
        return self.memory.primary and self.up

    def note(self) -> None:
        """Wakes whoever waits for this node to change."""
        _wake(self._waiting)
        seq = self.memory.data[0].at.seq
        if seq != self._tail:
            self._tail = seq
            _wake(self._reading)

    def wrote(self) -> None:
        if not self.memory.primary:
            return
        self.offset += 1
        self.note()
        self.on_write(self)

    async def change(self, until: float) -> None:
        """Waits for a change of any kind."""
        await self._any(self._waiting, until)

    async def record(self, until: float) -> None:
        """Waits for the log to change."""
        await self._any(self._reading, until)

    async def _any(self, waiting: list[asyncio.Future[None]], until: float) -> None:
        future = self.loop.create_future()
        waiting.append(future)
        timer = self.loop.call_at(until, _wake, [future])
        try:
            await future
        finally:
            timer.cancel()

    def become(self, identity: str) -> None:
        """A new process, or a new role: answers as a primary from now on."""
        self.memory.identity, self.memory.primary, self.follows = identity, True, None
        self.note()

    def follow(self, primary: Node) -> None:
        """Forgets what it has and takes over what the primary has."""
        self.memory.primary, self.follows, self.memory.identity = False, primary, ""
        self.offset = -1
        self.note()

    def copy_from(self, primary: Node) -> None:
        if self.offset != primary.offset:
            self.memory.data = [copy_data(data) for data in primary.memory.data]
            self.offset = primary.offset
        self.note()
        primary.note()


def _wake(waiting: list[asyncio.Future[None]]) -> None:
    for future in waiting:
        if not future.done():
            future.set_result(None)
    waiting.clear()


_DATA = fields(Data)


def copy_data(data: Data) -> Data:
    """A deep copy, as cheap as it can be had: there is one after nearly every write."""
    values = {item.name: getattr(data, item.name) for item in _DATA}
    made = Data(**{name: value.copy() if type(value) in {dict, list} else value for name, value in values.items()})
    made.at = swift_replace(data.at, members=data.at.members.copy())
    made.segments = {name: type(kept)(kept.due, kept.rows[:]) for name, kept in data.segments.items()}
    return made


class Cluster:
    """The nodes, and who is the primary according to the majority of the Sentinels."""

    def __init__(self, loop: VirtualLoop, count: int, random: Random, lag_s: float) -> None:
        self.loop = loop
        self.nodes = [Node(loop, f"n{number}") for number in range(count)]
        self.cur = self.nodes[0]
        self.random = random
        self.lag_s = lag_s
        self.frozen = False
        self.on_loss: Callable[[], None] = lambda: None
        self.on_settle: Callable[[], None] = lambda: None
        self.on_leave: Callable[[str], None] = lambda _: None
        self._identities = 0
        self.cur.become(self.identity())
        for node in self.nodes:
            node.on_write = self._written
        for node in self.nodes[1:]:
            node.follow(self.cur)
            node.copy_from(self.cur)
        self.connect()

    def identity(self) -> str:
        self._identities += 1
        return f"i{self._identities}"

    def linked(self, a: Node, b: Node) -> bool:
        return a.up and b.up and a.side == b.side

    def followers(self, node: Node) -> list[Node]:
        return [t for t in self.nodes if t.follows is node and self.linked(node, t)]

    def connect(self) -> None:
        """What each primary knows of its replicas."""
        for node in self.nodes:
            node.memory.replicas = len(self.followers(node))

    def _written(self, primary: Node) -> None:
        """Each replica follows in its own time."""
        for node in self.nodes:
            if node.follows is primary and not node.copying:
                node.copying = True
                self.loop.call_later(self.random.uniform(0.1, 1.0) * self.lag_s, self._copy, node)

    def _copy(self, node: Node) -> None:
        node.copying = False
        primary = node.follows
        if primary is not None and not self.frozen and primary.primary and self.linked(node, primary):
            node.copy_from(primary)

    def replicate(self) -> None:
        """Whoever was kept from it follows now."""
        for node in self.nodes:
            if node.primary:
                self._written(node)

    # -- faults -------------------------------------------------------------------------------------------------

    def down(self) -> None:
        """The primary dies; its disk stays."""
        self.cur.up = False
        self.connect()
        self.cur.note()

    def promote(self, best: bool) -> bool:
        """The Sentinels choose another primary among those that the majority reaches."""
        able = [t for t in self.nodes if t.up and t.side == 0 and not t.memory.primary]
        if not able:
            return False
        if best:
            most = max(t.offset for t in able)
            able = [t for t in able if t.offset == most]
        self.cur = self.random.choice(able)
        self.cur.become(self.identity())
        self.refollow()
        self.on_loss()
        return True

    def refollow(self) -> None:
        """Whoever can be reached follows the primary, and so forgets what only it had."""
        for node in self.nodes:
            if node is not self.cur and self.linked(node, self.cur) and node.follows is not self.cur:
                node.follow(self.cur)
        self.connect()
        self.replicate()
        self.on_loss()

    def start(self, node: Node) -> None:
        """A dead node comes back with its data."""
        if node.up:
            return
        node.up = True
        if node is self.cur:
            node.become(self.identity())
        self.refollow()

    def wipe(self, new_process: bool) -> None:
        """FLUSHALL, or a restart without a disk; what follows is emptied with it."""
        identity = self.identity() if new_process else self.cur.memory.identity
        self.cur.memory.wipe(identity)
        self.cur.wrote()
        for node in self.followers(self.cur):
            node.copy_from(self.cur)
        self.on_loss()

    def split(self, others: Sequence[Node]) -> None:
        """The primary and some others are cut off from the rest, and go on."""
        for node in (self.cur, *others):
            node.side = 1
        self.connect()

    def whole(self) -> None:
        """The network is one again."""
        for node in self.nodes:
            node.side = 0
        self.refollow()
