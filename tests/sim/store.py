"""The store as one process reaches it: late, in pieces, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from random import Random
from typing import TypeVar

from revocation.store import (
    NO_AUDIT,
    NO_WAIT,
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
from tests.sim.cluster import EVERYWHERE, Cluster, Node, swift_replace
from tests.sim.loop import Process

T = TypeVar("T")

CALL_TIMEOUT_S = 0.6


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
        self.astray_until = float("-inf")
        self.sticky = 0.5
        self._random = random
        self._delay_s = delay_s
        self._written: dict[str, int] = {}

    async def start(self) -> str:
        return "simulated"

    async def close(self) -> None:
        pass

    async def reconnect(self) -> None:
        self.retarget()

    def reaches(self, node: Node) -> bool:
        return node.up and not self.off and self.side in {EVERYWHERE, node.side}

    def late(self, seconds: float) -> None:
        """Notes that its process cannot do what it would for so long."""
        self.late_until = max(self.late_until, self.process.loop.time() + seconds)

    def retarget(self) -> None:
        """Asks who the primary is; in a split network the answer may be the old one."""
        if self.node is not self.cluster.cur:
            self.astray_until = self.process.loop.time()
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
            self.late(delay)
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
        self, partition: int, log_id: str, member: str, incarnation: int | None, caller_ms: int, known: Sequence[str],
        *, nonce: str = "",
    ) -> int | Closed:  # fmt: skip
        return await self._run(
            lambda m: m.confirm(partition, log_id, member, incarnation, caller_ms, known, nonce=nonce)
        )

    async def settle(self, partition: int, log_id: str, settle_ms: int) -> Closed | None:
        node = self.node
        closed = await self._call(lambda m: m.settle(partition, log_id, settle_ms))
        if closed is None:
            node.wrote()
            self.cluster.on_settle()
        await self._return(node)
        return closed

    async def strike(
        self, partition: int, log_id: str, member: str, mode: str, incarnation: int | None, silent_ms: int,
        *, durability: Durability = NO_WAIT,
    ) -> Closed | None:  # fmt: skip
        def script(memory: MemoryStore) -> Awaitable[Closed | None]:
            return self._strike(memory.strike(partition, log_id, member, mode, incarnation, silent_ms), member, mode)

        node = self.node
        closed = await self._call(script)
        if closed is None:
            node.wrote()
        if durability.replicas:
            await self._wait(node, durability.replicas, durability.timeout_ms, closed is None)
        await self._return(node)
        return closed

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

    async def agree_on_secret(self, commitments: dict[str, str]) -> tuple[str, ...]:
        return await self._run(lambda m: m.agree_on_secret(commitments))
