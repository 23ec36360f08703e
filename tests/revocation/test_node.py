"""Whole nodes on the store in memory: what the partitions of one process do together."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

from revocation.config.settings import load
from revocation.keys.keyring import Keyring, new_secret
from revocation.node import Node
from revocation.observability.telemetry import Metrics
from revocation.store import Registry, Standing
from revocation.store.memory import MemoryStore
from tests.revocation.turning import LIMIT_S, eventually


class Delayed(MemoryStore):
    """Counts heartbeats; a look at the registry of the second partition waits while `shown` is clear."""

    def __init__(self) -> None:
        super().__init__(lambda: time.time_ns() // 1_000_000, partitions=2)
        self.beats = Counter[tuple[int, str]]()
        self.shown = asyncio.Event()
        self.shown.set()

    async def beat(self, partition: int, who: Standing | None, member: str, *rest: Any, **more: Any) -> Registry:
        if who is None and partition == 1:
            await self.shown.wait()
        registry = await super().beat(partition, who, member, *rest, **more)
        self.beats[partition, member] += who is not None
        return registry


async def test_a_node_that_leaves_one_partition_after_the_other_is_listed_in_none_afterwards() -> None:
    """Else nobody is there for what the first one registers while the second is still leaving (H9)."""
    store, keyring = Delayed(), Keyring.parse(new_secret())
    nodes = []
    for name in ("goes", "stays"):
        config = load({"redis_url": "redis://127.0.0.1", "partitions": 2, "heartbeat_s": 0.05, "detect_s": 30.0})
        nodes.append(Node(config, keyring, store, Metrics(version="0", replica=name), replica_id=name, alone=True))
    tasks = [asyncio.create_task(node.run()) for node in nodes]
    try:
        for node in nodes:
            await asyncio.gather(*(replica.usable(LIMIT_S) for replica in node.replicas))
        store.shown.clear()
        leaving = asyncio.gather(*(replica.leave(LIMIT_S) for replica in nodes[0].replicas))
        await eventually(lambda: "goes" not in store.data[0].at.members, "it has left the first partition")
        beats = store.beats[0, "goes"]
        await eventually(lambda: store.beats[0, "goes"] > beats + 3, "its process goes on turning there")
        store.shown.set()
        await leaving
        assert [[*data.at.members] for data in store.data] == [["stays"], ["stays"]]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
