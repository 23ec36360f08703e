"""Store nodes that replicate asynchronously, fail over, split, lose their data; and the way to them.

A node is the reference store with a role, an identity and a network. Replication copies the primary's data of some
moment, so that a replica can hold any earlier state: that is "loss of a suffix".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from random import Random
from typing import Any, TypeVar

from revocation.store import (
    NO_AUDIT,
    Closed,
    Committed,
    Durability,
    Heads,
    LogEntry,
    Op,
    OpState,
    Registry,
    Standing,
    StoreUnavailable,
    Tail,
)
from revocation.store.memory import MemoryStore
from revocation.store.memory_data import Data
from tests.sim.loop import Process, VirtualLoop

T = TypeVar("T")

EPOCH_MS = 1_700_000_000_000
CALL_TIMEOUT_S = 0.6
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


def copy_data(data: Data) -> Data:
    """A deep copy, as cheap as it can be had: there is one after nearly every write."""
    return swift_replace(
        data,
        at=swift_replace(data.at, members=data.at.members.copy()),
        own_ms=data.own_ms.copy(),
        log=data.log.copy(),
        realms=data.realms.copy(),
        segments={name: type(kept)(kept.due, kept.rows[:]) for name, kept in data.segments.items()},
        ops=data.ops.copy(),
    )


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


class SimStore:
    """The store as one process reaches it: late, in pieces, or not at all."""

    partitions = 1

    def __init__(self, process: Process, cluster: Cluster, random: Random, delay_s: float) -> None:
        self.process = process
        self.cluster = cluster
        self.node = cluster.cur
        self.side = EVERYWHERE
        self.off = False
        self.slow_replies = 0
        self.slow_reads = 0
        self.slow_commits = 0
        """How many of its next replies, to scripts, to reads of the log and to commits, take their time."""
        self.late_until = 0.0
        self.sticky = 0.5
        self._random = random
        self._delay_s = delay_s
        self._written: dict[str, int] = {}

    async def start(self) -> str:
        return "simulated"

    async def close(self) -> None:
        pass

    def reaches(self, node: Node) -> bool:
        return node.up and not self.off and self.side in {EVERYWHERE, node.side}

    def retarget(self) -> None:
        """Asks who the primary is; in a split network the answer may be the old one."""
        able = [node for node in self.cluster.nodes if node.memory.primary and self.reaches(node)]
        if able:
            self.node = self._random.choice(able)

    # -- the way there and back ---------------------------------------------------------------------------------

    def _delay(self) -> float:
        return self._random.uniform(0.1, 1.0) * self._delay_s

    async def _call(self, script: Callable[[MemoryStore], Awaitable[T]]) -> T:
        node = self.node
        await self._arrive(node)
        reply = await script(node.memory)
        if reply is Closed.DEMOTED:
            self.retarget()
        return reply

    async def _arrive(self, node: Node) -> None:
        await node.loop.sleep(self._delay())
        if node.stalled_until > node.loop.time():
            await node.loop.sleep(node.stalled_until - node.loop.time())
        if not self.reaches(node):
            await self._lost()

    async def _return(self, node: Node, kind: str = "slow_replies") -> None:
        """The reply's way back. What was sent arrives, also from a node that has died since."""
        if slow := getattr(self, kind):
            setattr(self, kind, slow - 1)
            delay = self._random.uniform(0.2, 2.0)
            self.late_until = max(self.late_until, node.loop.time() + delay)
            await node.loop.sleep(delay)
            return
        await node.loop.sleep(self._delay())
        if self.off or self.side not in {EVERYWHERE, node.side}:
            await self._lost()

    async def _lost(self) -> None:
        await asyncio.sleep(CALL_TIMEOUT_S * self._random.uniform(0.5, 1.0))
        self.retarget()
        raise StoreUnavailable("simulated")

    async def _run(self, script: Callable[[MemoryStore], Awaitable[T]], writes: bool = True) -> T:
        node = self.node
        reply = await self._call(script)
        if writes and not isinstance(reply, Closed):
            node.wrote()
        await self._return(node)
        return reply

    async def _wait(self, node: Node, copies: int, timeout_ms: int, wrote: bool) -> int:
        """WAIT: how many replicas hold what this connection wrote last."""
        if wrote:
            self._written[node.memory.identity] = node.offset
        identity, offset = node.memory.identity, self._written.get(node.memory.identity, 0)
        end = node.loop.time() + timeout_ms / 1000

        def reached() -> int:
            return sum(t.offset >= offset for t in self.cluster.nodes if t.follows is node)

        while reached() < copies and node.loop.time() < end:
            if not node.primary or node.memory.identity != identity:
                await self._lost()
            await node.change(end)
        return reached()

    # -- the protocol -------------------------------------------------------------------------------------------

    async def commit(
        self,
        partition: int,
        who: Standing,
        caller_ms: int,
        ops: Sequence[Op],
        durability: Durability,
        audits: Mapping[str, bytes] = NO_AUDIT,
    ) -> Committed | Closed:
        node = self.node
        reply = await self._call(lambda m: m.commit(partition, who, caller_ms, ops, Durability(), audits))
        if isinstance(reply, Closed):
            await self._return(node)
            return reply
        wrote = self.retry_writes or any(result.state is OpState.DONE for result in reply.results)
        if wrote:
            node.wrote()
        copies = 0
        if durability.replicas:
            copies = await self._wait(node, durability.replicas, durability.timeout_ms, wrote)
        await self._return(node, "slow_commits")
        return swift_replace(reply, copies=copies)

    retry_writes = True

    async def barrier(
        self, partition: int, who: Standing, caller_ms: int, durability: Durability, *, newcomer: bool = False
    ) -> Tail | Closed:
        node = self.node
        reply = await self._call(lambda m: m.barrier(partition, who, caller_ms, durability, newcomer=newcomer))
        copies = 0
        if not isinstance(reply, Closed):
            if durability.replicas:
                node.wrote()
                copies = await self._wait(node, durability.replicas, durability.timeout_ms, True)
            reply = swift_replace(reply, copies=copies)
        await self._return(node)
        return reply

    async def beat(
        self,
        partition: int,
        who: Standing | None,
        member: str,
        caller_ms: int,
        read: int,
        trim_below: int,
        *,
        applied: int = 0,
    ) -> Registry:
        registry = await self._run(
            lambda m: m.beat(partition, who, member, caller_ms, read, trim_below, applied=applied)
        )
        if registry.closed is Closed.DEMOTED:
            self.retarget()
        return registry

    async def open_history(
        self, partition: int, seen: str, log_id: str, settle_ms: int, members: Sequence[str], epoch: int = 0
    ) -> Closed | None:
        return await self._run(lambda m: m.open_history(partition, seen, log_id, settle_ms, members, epoch))

    async def confirm(
        self, partition: int, log_id: str, member: str, incarnation: int | None, caller_ms: int, known: Sequence[str]
    ) -> int | Closed:
        return await self._run(lambda m: m.confirm(partition, log_id, member, incarnation, caller_ms, known))

    async def settle(self, partition: int, log_id: str, settle_ms: int) -> Closed | None:
        node = self.node
        closed = await self._call(lambda m: m.settle(partition, log_id, settle_ms))
        if closed is None:
            node.wrote()
            self.cluster.on_settle()
        await self._return(node)
        return closed

    async def strike(
        self, partition: int, log_id: str, member: str, mode: str, incarnation: int | None, silent_ms: int
    ) -> Closed | None:
        def script(memory: MemoryStore) -> Awaitable[Closed | None]:
            return self._strike(memory.strike(partition, log_id, member, mode, incarnation, silent_ms), member, mode)

        return await self._run(script)

    async def _strike(self, strike: Awaitable[Closed | None], member: str, mode: str) -> Closed | None:
        closed = await strike
        if mode == "leave" and closed is None:
            self.cluster.on_leave(member)
        return closed

    async def propose(
        self, partition: int, log_id: str, clock: int, realm: str, rows: bytes, ops: str
    ) -> Closed | None:
        return await self._run(lambda m: m.propose(partition, log_id, clock, realm, rows, ops))

    async def heads(self, partition: int, log_id: str) -> Heads | Closed:
        return await self._run(lambda m: m.heads(partition, log_id), writes=False)

    async def segment_names(self, partition: int, log_id: str, realm: str, start: int, stop: int) -> list[str] | Closed:
        return await self._run(lambda m: m.segment_names(partition, log_id, realm, start, stop), writes=False)

    async def segment_rows(
        self, partition: int, log_id: str, realm: str, wanted: Sequence[tuple[str, int]], size: int
    ) -> list[bytes] | Closed:
        return await self._run(lambda m: m.segment_rows(partition, log_id, realm, wanted, size), writes=False)

    async def read_log(self, partition: int, after: int, count: int, block_ms: int) -> list[LogEntry]:
        node = self.node
        await self._arrive(node)
        end = node.loop.time() + block_ms / 1000
        while True:
            if not self.reaches(node):
                await self._lost()
            found = await node.memory.read_log(partition, after, count, 0)
            if found or node.loop.time() >= end or not block_ms:
                break
            await node.record(end)
        await self._return(node, "slow_reads")
        return found

    async def agree_on_secret(self, commitments: dict[str, str]) -> None:
        await self._run(lambda m: m.agree_on_secret(commitments))
