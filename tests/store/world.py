"""Both stores with time and faults in the hands of the test, and members that act on them."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from redis.asyncio import Redis

from revocation.store import Closed, Committed, Cutoffs, Denials, Durability, Op, Registry, Standing, Tail
from revocation.store.memory import MemoryStore
from revocation.store.rails import FullStore
from revocation.store.redis import RedisStore
from revocation_sdk._lattice import DENIAL, NEVER, Kind

LOG = "0a" * 16
OTHER_LOG = "0b" * 16
NO_COPIES = Durability()
TIME_KEY = "revocation:{test}:time"


class World(ABC):
    """A store whose time stands still until it is moved."""

    store: FullStore

    def __init__(self) -> None:
        self._now = time.time_ns() // 1_000_000

    @property
    def now(self) -> int:
        """The store's time, ms."""
        return self._now

    async def advance(self, ms: int) -> None:
        """Lets the store's time pass, or go back."""
        self._now += ms

    @abstractmethod
    async def new_identity(self, partition: int = 0) -> None:
        """Another process answers from now on, with the same data."""

    @abstractmethod
    async def lose(self, partition: int = 0) -> None:
        """The store forgets everything."""

    @abstractmethod
    async def due_of(self, partition: int, realm: str, name: str) -> int | None:
        """When a segment goes away by itself, in ms; None: never."""

    @abstractmethod
    async def expire(self, partition: int, realm: str, name: str) -> None:
        """Makes a segment's time be over."""

    async def close(self) -> None:
        await self.store.close()


class MemoryWorld(World):
    store: MemoryStore

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.store = MemoryStore(lambda: self.now, **options)

    async def new_identity(self, partition: int = 0) -> None:
        self.store.identity += "'"

    async def lose(self, partition: int = 0) -> None:
        self.store.wipe()

    async def due_of(self, partition: int, realm: str, name: str) -> int | None:
        due = self.store.data[partition].segments[realm, name].due
        return None if due == float("inf") else int(due) * 1000

    async def expire(self, partition: int, realm: str, name: str) -> None:
        self.store.data[partition].segments[realm, name].due = 1


class ServerWorld(World):
    """A real server. The scripts take the time from a key; what they let expire expires by the server's own clock."""

    store: RedisStore

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__()
        self.raw: Redis = Redis.from_url(url, decode_responses=True)
        self.store = RedisStore.from_url(url, **options)
        told = f"(function() local t = redis.call('GET', '{TIME_KEY}'); "
        told += "return {math.floor(t / 1000), t % 1000 * 1000} end)()"
        sources = self.store._sources
        assert all("redis.call('TIME')" in source for source in sources.values())
        self.store._sources = {name: source.replace("redis.call('TIME')", told) for name, source in sources.items()}

    async def begin(self) -> None:
        await self.advance(0)
        await self.store.start()

    async def advance(self, ms: int) -> None:
        await super().advance(ms)
        await self.raw.set(TIME_KEY, self.now)

    async def new_identity(self, partition: int = 0) -> None:
        # A process cannot change its own replication id; a history opened by another one looks the same.
        await self.raw.hset(self.key(partition, "meta"), "owner", "another")

    async def lose(self, partition: int = 0) -> None:
        for key in [key async for key in self.raw.scan_iter("revocation:*") if key != TIME_KEY]:
            await self.raw.delete(key)

    async def due_of(self, partition: int, realm: str, name: str) -> int | None:
        due = int(await self.raw.pexpiretime(self.key(partition, f"seg:{realm}:{name}")))
        assert due != -2, "there is no such segment"
        return None if due == -1 else due

    async def expire(self, partition: int, realm: str, name: str) -> None:
        await self.raw.delete(self.key(partition, f"seg:{realm}:{name}"))
        await self.raw.zadd(self.key(partition, f"segs:{realm}"), {name: 1})

    async def close(self) -> None:
        await super().close()
        await self.raw.aclose()

    @staticmethod
    def key(partition: int, name: str) -> str:
        return f"revocation:{{p{partition}}}:{name}"


class Actor:
    """A member of one partition. `clock_error` is how far its own clock is ahead of the store's."""

    def __init__(self, world: World, name: str = "a", partition: int = 0) -> None:
        self.world = world
        self.store = world.store
        self.name = name
        self.partition = partition
        self.log_id = LOG
        self.incarnation: int | None = None
        self.clock_error = 0
        self.read = 0

    @property
    def own_ms(self) -> int:
        return self.world.now + self.clock_error

    @property
    def who(self) -> Standing:
        return Standing(self.log_id, self.name, self.incarnation if self.incarnation is not None else 1)

    async def look(self) -> Registry:
        return await self.store.beat(self.partition, None, self.name, self.own_ms, 0, 0)

    async def open(self, log_id: str = LOG, settle_ms: int = 0, *known: str) -> Closed | None:
        seen = (await self.look()).log_id
        self.log_id = log_id
        been_in_one = int(self.incarnation is not None)
        return await self.store.open_history(self.partition, seen, log_id, settle_ms, [self.name, *known], been_in_one)

    async def confirm(self, *known: str, log_id: str | None = None) -> int | Closed:
        self.log_id = log_id or self.log_id
        answer = await self.store.confirm(
            self.partition, self.log_id, self.name, self.incarnation, self.own_ms, [self.name, *known]
        )
        if isinstance(answer, int):
            self.incarnation = answer
            self.read = 0
        return answer

    async def beat(self, trim_below: int = 0, *, applied: int | None = None) -> Registry:
        """Says that it lives, that it has read what it trims, and takes in the registry."""
        registry = await self.store.beat(
            self.partition, self.who, self.name, self.own_ms, self.read, trim_below,
            applied=trim_below if applied is None else applied,
        )  # fmt: skip
        if registry.closed is None:
            self.read = registry.version
        return registry

    async def commit(self, *ops: Op, durability: Durability = NO_COPIES) -> Committed:
        answer = await self.try_commit(*ops, durability=durability)
        assert isinstance(answer, Committed), answer
        return answer

    async def try_commit(self, *ops: Op, durability: Durability = NO_COPIES) -> Committed | Closed:
        return await self.store.commit(self.partition, self.who, self.own_ms, ops, durability)

    async def barrier(self, durability: Durability = NO_COPIES) -> Tail | Closed:
        return await self.store.barrier(self.partition, self.who, self.own_ms, durability)

    async def propose(self, rows: bytes = b"", ops: str = "", clock: int = 0, realm: str = "r") -> Closed | None:
        return await self.store.propose(self.partition, self.log_id, clock, realm, rows, ops)

    async def strike(self, name: str, mode: str = "quiet", incarnation: int | None = None, silent: int = 0) -> Any:
        return await self.store.strike(self.partition, self.log_id, name, mode, incarnation, silent)

    async def load(self, realm: str = "r") -> dict[str, bytes]:
        """All segments of a realm by name, in pages of two and pieces of 24 bytes."""
        names: list[str] = []
        while page := opened(
            await self.store.segment_names(self.partition, self.log_id, realm, len(names), len(names) + 1)
        ):
            names += page
        segments = {}
        for name in names:
            rows = b""
            while piece := opened(
                await self.store.segment_rows(self.partition, self.log_id, realm, [(name, len(rows))], 24)
            )[0]:
                rows += piece
            segments[name] = rows
        return segments


def opened(answer: Any) -> Any:
    """An answer that is no refusal."""
    assert not isinstance(answer, Closed), answer
    return answer


async def joined(world: World, *names: str, partition: int = 0) -> list[Actor]:
    """Members in good standing, all active, in a fresh store."""
    actors = [Actor(world, name, partition) for name in names]
    assert await actors[0].open() is None
    for actor in actors:
        opened(await actor.confirm())
    for _ in range(3):  # read the registry, let the others read, become active
        registries = [await actor.beat() for actor in actors]
    assert all(registry.closed is None for registry in registries)
    assert all(member.active for member in registries[-1].members.values())
    return actors


async def alone(world: World, partition: int = 0) -> Actor:
    """The one member of a fresh store."""
    return (await joined(world, "a", partition=partition))[0]


def tokens(*expiries: int, first: int = 1, kind: int = Kind.TOKEN) -> Denials:
    return Denials(kind, 0, b"".join(DENIAL.pack(first + i, expiry) for i, expiry in enumerate(expiries)))


def key_for_ever(fingerprint: int = 1) -> Denials:
    return tokens(NEVER, first=fingerprint, kind=Kind.KEY)


def subjects(*fingerprints: int, horizon_s: int = 3600) -> Cutoffs:
    return Cutoffs(Kind.SUBJECT, 0, horizon_s, b"".join(fp.to_bytes(8, "little") for fp in fingerprints))


def operation(number: int, *groups: Denials | Cutoffs, realm: str = "r", content: int = 0) -> Op:
    return Op(realm, f"{number:032x}", f"{content:032x}", groups)
