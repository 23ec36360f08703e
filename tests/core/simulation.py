"""Random schedules against the follower and the view, with a service and a network that misbehave.

The service, the clocks and their faults are modelled; `RealmHistory`, `Follower` and `View` are the real ones. After
every step three things must hold:

    I1        whatever was acknowledged before `now - lease.age` is refused, unless the token has expired by itself;
    D11       so is whatever a verification, interrupted between its steps, lets pass as fresh;
    honesty   the view contains everything that lies before the positions that the follower names.

    python -m tests.core.simulation --schedules 1000000 --seed 1
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from unittest import mock

from revocation.replication import history
from revocation_sdk._follower import Follower, Lease, Resync
from revocation_sdk._lattice import Cutoff, Kind, MalformedRows
from revocation_sdk._messages import Changes, Goodbye, Message
from revocation_sdk._packed import PureBuilder
from revocation_sdk._position import NOWHERE, Position
from revocation_sdk._view import View
from tests.core.service_model import KEY, LEEWAY, SKEW, Fact, Log, Replica, Stream

STEPS = 40


class Violation(AssertionError):
    """A schedule broke an invariant."""


class FlakyView(View):
    """A view whose next merge may fail, before anything was changed."""

    fails = False

    def merge(self, *parts: bytes) -> None:
        if self.fails:
            self.fails = False
            raise MalformedRows("planted")
        super().merge(*parts)


class SmallView(View):
    def __init__(self) -> None:
        super().__init__(PureBuilder())


class Client:
    """A verifier's process. Mutants override the follower, the order of reads, or the clock of expiry."""

    follower_type: type[Follower] = Follower
    reads: tuple[str, ...] = ("lease", "view", "clock")
    stream_type: type[Stream] = Stream

    def __init__(self, world: World) -> None:
        self.world = world
        tiny = world.rng.random() < 0.1
        self.follower = self.follower_type("r", FlakyView(PureBuilder(4, 1) if tiny else PureBuilder()))
        self.stream: Stream | None = None

    def drop_expired(self) -> None:
        lease = self.follower.lease
        if lease is not None:
            self.follower.view.drop_expired(self.keep_until(lease))

    def keep_until(self, lease: Lease) -> float:
        """Entries are dropped by the smaller clock, tokens judged by the larger."""
        return min(self.world.wall, lease.store_time_at_least(self.world.mono))

    def judge_by(self, lease: Lease) -> float:
        return max(self.world.wall, lease.store_time_at_most(self.world.mono))

    def disconnect(self) -> None:
        if self.stream is not None:
            if self.stream.tell in self.stream.replica.told:
                self.stream.replica.told.remove(self.stream.tell)
            self.stream = None
            self.follower.disconnected()

    def receive(self, message: Message) -> None:
        lease = self.follower.lease
        try:
            self.follower.receive(message, self.world.mono)
        except Resync as resync:
            self.world.counts[resync.reason] += 1
            self.disconnect()
        if self.follower.lease is not None and self.follower.lease is not lease:
            self.world.counts["lease"] += 1


@dataclass
class Verification:
    """verify(), interrupted wherever it can be."""

    fact: Fact
    max_staleness: float
    todo: list[str]
    lease: Lease | None = None
    entry: Cutoff | None = None
    mono: float = 0.0
    wall: float = 0.0
    judge_at: float = 0.0


class World:
    """Everything. Its steps are what schedules are made of."""

    def __init__(self, rng: random.Random, client: type[Client] = Client) -> None:
        self.rng = rng
        self.counts: Counter[str] = Counter()
        self.now = 1_000_000.0
        self.lost_suspend = 0.0  # what a monotonic clock that does not count suspend has missed
        self.sleepy = rng.random() < 0.2
        self.wall_error = 0.0
        self.store_error = 0.0
        self.versions = 0
        self.acked: list[Fact] = []
        self.logs = [Log() for _ in range(rng.choice((1, 2)))]
        self.replicas = [Replica(self.logs) for _ in range(2)]
        self.lives = [self.now + rng.choice((1, 10, 60, 600)) for _ in range(6)]
        self.client = client(self)
        self.checking: Verification | None = None
        self.seen: object = None

    @property
    def mono(self) -> float:
        return self.now - 900_000.0 - self.lost_suspend

    @property
    def wall(self) -> float:
        return self.now + self.wall_error

    def store_ms(self) -> int:
        return int((self.now + self.store_error) * 1000)

    # Steps. Each takes a moment, so that no two things happen at the same time.

    def revoke(self) -> None:
        number = self.rng.randrange(len(self.lives))
        index = number % len(self.logs)
        log = self.logs[index]
        kind = Kind.SUBJECT if number < 2 else Kind.TOKEN
        life = self.now + 3600 if kind is Kind.SUBJECT else self.lives[number]
        self.versions += kind is Kind.SUBJECT
        version = self.versions if kind is Kind.SUBJECT else 0
        fact = Fact(self.now, kind, (number + 1) * 0x1357_9BDF_0246_8ACE % 2**64, version, life)
        log.facts.append(fact)
        log.commit(len(log.facts) - 1)
        self.acked.append(fact)

    def replicate(self) -> None:
        self.rng.choice(self.replicas).read(self.partition(), self.rng.randint(1, 3))

    def ping(self) -> None:
        if self.client.stream is not None:
            self.client.stream.up.append(self.client.follower.ping(self.mono, self.wall))

    def serve(self) -> None:
        if (stream := self.client.stream) is None:
            return
        for _ in range(self.rng.randint(0, len(stream.up))):
            stream.arrived.append(stream.up.popleft().nonce)
        if self.rng.random() < 0.6:
            stream.barrier()
        if self.rng.random() < 0.8:
            stream.send(self.rng.randint(1, 3))

    def deliver(self) -> None:
        for _ in range(self.rng.randint(1, 4)):
            if (stream := self.client.stream) is not None and stream.down:
                self.client.receive(stream.down.popleft())

    def exchange(self) -> None:
        """Everything works for once."""
        if self.client.stream is None:
            self.connect()
        stream = self.client.stream
        assert stream is not None
        for index in range(len(self.logs)):
            stream.replica.read(index, 100)
        self.ping()
        stream.arrived += [ping.nonce for ping in stream.up]
        stream.up.clear()
        stream.barrier()
        while any(stream.pending):
            stream.send(3)
        stream.send(1)
        if self.rng.random() < 0.2:
            self.disturb()
        while self.client.stream is stream and stream.down:
            self.client.receive(stream.down.popleft())

    def pause(self) -> None:
        """Time passes: somebody is slow, stopped or suspended, with messages waiting."""
        passed = self.rng.choice((0.05, 0.5, 3.0, 3.0, 30.0))
        self.now += passed
        if self.sleepy and self.rng.random() < 0.5:
            self.lost_suspend += passed

    def connect(self) -> None:
        self.client.disconnect()
        stream = self.client.stream_type(self, self.rng.choice(self.replicas))
        stream.answer(self.client.follower.hello().resume)
        self.client.stream = stream

    def disconnect(self) -> None:
        self.client.disconnect()

    def restart_replica(self) -> None:
        """A replica starts anew and has not caught up yet; the streams that it had end."""
        self.put_replica(self.rng.randrange(len(self.replicas)), [0] * len(self.logs))

    def fail_over(self) -> None:
        """The store goes on in another history."""
        self.logs[self.partition()].open()
        self.store_error = self.rng.uniform(-SKEW, SKEW)

    def rewind(self) -> None:
        """The store loses the end of its log under the same identity; what was lost is put back behind other things."""
        index = self.partition()
        log = self.logs[index]
        length = self.rng.randrange(len(log.places))
        lost = log.rewind(length)
        self.revoke_in(index)
        if lost:
            log.commit(*lost)
        for number in range(len(self.replicas)):
            self.put_replica(number, [length if other == index else 0 for other in range(len(self.logs))])

    def invalidate(self) -> None:
        self.client.follower.invalidate()

    def fail_apply(self) -> None:
        view = self.client.follower.view
        if isinstance(view, FlakyView):
            view.fails = True

    def expire(self) -> None:
        self.client.drop_expired()

    def jump(self) -> None:
        """The wall clock is set. Backwards only where the monotonic clock counts suspend."""
        error = self.rng.choice((0.0, 1.5, 3600.0, -1.5, -3600.0))
        self.wall_error = max(error, self.wall_error) if self.sleepy else error

    def disturb(self) -> None:
        """What a network or a server that is broken could do to what is on its way."""
        if (stream := self.client.stream) is None or not stream.down:
            return
        index = self.rng.randrange(len(stream.down))
        message = stream.down[index]
        what = self.rng.randrange(5)
        if what == 0:
            stream.down.insert(index, message)
        elif what == 1:
            del stream.down[index]
        elif what == 2:
            del stream.down[index]
            stream.down.insert(self.rng.randrange(len(stream.down) + 1), message)
        elif what == 3 and isinstance(message, Changes):
            stream.down[index] = replace(message, records=(*message.records[:-1], message.records[-1][:-1] + b"?"))
        elif what == 4:
            stream.down.append(Goodbye("drain", 100))

    def verify(self) -> None:
        """The next step of a verification."""
        check = self.checking
        if check is None:
            if self.acked or self.lives:
                self.checking = self.begin()
            return
        follower, what = self.client.follower, check.todo.pop(0)
        if what == "lease":
            check.lease = follower.lease
        elif what == "view":
            now = self.wall if check.lease is None else self.client.keep_until(check.lease)
            check.entry = follower.view.cutoff(check.fact.kind, KEY.tag, check.fact.fp, now)
        else:
            check.mono, check.wall = self.mono, self.wall
            check.judge_at = self.wall if check.lease is None else self.client.judge_by(check.lease)
        if not check.todo:
            self.checking = None
            self.decide(check)

    # Its parts

    def partition(self) -> int:
        return self.rng.randrange(len(self.logs))

    def revoke_in(self, index: int) -> None:
        before = len(self.logs[index].facts)
        while len(self.logs[index].facts) == before:
            self.revoke()

    def put_replica(self, number: int, at_least: list[int]) -> None:
        replica = Replica(self.logs)
        for index, log in enumerate(self.logs):
            last = self.rng.randrange(at_least[index], len(log.places))
            first = self.rng.randint(0, last)
            replica.histories[index] = Replica.load(log, first, last)
        if self.client.stream is not None and self.client.stream.replica is self.replicas[number]:
            self.client.disconnect()
        self.replicas[number] = replica

    def begin(self) -> Verification:
        number = self.rng.randrange(2, len(self.lives))
        fp = (number + 1) * 0x1357_9BDF_0246_8ACE % 2**64
        fact = Fact(self.now, Kind.TOKEN, fp, 0, self.lives[number])
        return Verification(fact, self.rng.choice((0.2, 2.0, 10.0)), list(self.client.reads))

    def decide(self, check: Verification) -> None:
        fresh = check.lease is not None and check.lease.age(check.mono, check.wall) <= check.max_staleness
        if not fresh or check.entry is not None or check.judge_at > check.fact.token_exp + LEEWAY:
            return
        self.counts["accepted"] += 1
        horizon = self.now - check.max_staleness - 1e-6
        if any(fact.fp == check.fact.fp and fact.at < horizon for fact in self.acked):
            raise Violation("D11: a verification let a revoked token pass as fresh")

    # What must hold

    def check(self) -> None:
        self.check_lease()
        positions = self.client.follower.positions
        if positions is not self.seen:
            self.seen = positions
            self.check_positions(positions)

    def check_lease(self) -> None:
        lease = self.client.follower.lease
        if lease is None:
            return
        view = self.client.follower.view
        horizon = self.now - lease.age(self.mono, self.wall) - 1e-6
        keep, judge = self.client.keep_until(lease), self.client.judge_by(lease)
        for fact in self.acked:
            if fact.at >= horizon:
                break
            if judge <= fact.token_exp + LEEWAY and not fact.in_force(view, keep):
                raise Violation("I1: revoked and acknowledged, and accepted as fresh")

    def check_positions(self, positions: Iterable[Position]) -> None:
        view = self.client.follower.view
        for log, position in zip(self.logs, positions, strict=False):
            if position == NOWHERE:
                continue
            covered = log.covers.get(position)
            if covered is None:
                raise Violation("honesty: a position that never was")
            for number, fact in enumerate(log.facts):
                due = fact.expires_at <= self.now + SKEW
                if covered >> number & 1 and not due and not fact.in_force(view, 0.0):
                    raise Violation("honesty: a position beyond what was applied")


WEIGHTS: dict[Callable[[World], None], int] = {
    World.revoke: 14,
    World.exchange: 12,
    World.serve: 12,
    World.deliver: 12,
    World.verify: 14,
    World.replicate: 8,
    World.ping: 8,
    World.pause: 8,
    World.connect: 6,
    World.disturb: 6,
    World.fail_over: 3,
    World.expire: 3,
    World.jump: 3,
    World.disconnect: 2,
    World.fail_apply: 2,
    World.rewind: 2,
    World.restart_replica: 2,
    World.invalidate: 1,
}


def run(seed: int, client: type[Client] = Client, steps: int = STEPS) -> Counter[str]:
    """One schedule. Raises Violation, with the seed and the steps that led to it."""
    rng = random.Random(seed)
    done: list[str] = []
    # Rings that reach back far or hardly; and builders that are at home with few entries.
    with mock.patch.multiple(history, RING_ITEMS=rng.choice((2, 5, 1000)), View=SmallView):
        world = World(rng, client)
        for step in rng.choices(list(WEIGHTS), list(WEIGHTS.values()), k=steps):
            done.append(step.__name__)
            world.now += 0.001
            try:
                step(world)
                world.check()
            except Violation as violation:
                raise Violation(f"{violation}; seed {seed}, steps: {' '.join(done)}") from None
    return world.counts


def search(seeds: Iterable[int], client: type[Client] = Client) -> Counter[str]:
    """Many schedules; what happened in them, all told."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        counts += run(seed, client)
        counts["schedules"] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description="Searches for schedules that break an invariant.")
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    arguments = parser.parse_args()
    total: Counter[str] = Counter()
    began, block = time.monotonic(), 5_000
    print(f"{arguments.schedules} schedules from seed {arguments.seed}", flush=True)
    for start in range(0, arguments.schedules, block):
        stop = min(start + block, arguments.schedules)
        total += search(range(arguments.seed + start, arguments.seed + stop))
        print(f"{stop} schedules, {time.monotonic() - began:.0f} s, no violation", flush=True)
    print(", ".join(f"{name}: {count}" for name, count in sorted(total.items())))


if __name__ == "__main__":
    main()
