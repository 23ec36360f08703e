"""The world of the simulator: store nodes, service replicas and clients in virtual time, and what happens to them."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from revocation.errors import ServiceError
from revocation.model import Operation, Receipt, Target
from revocation.replication.membership import ReplicaOptions, Timing
from revocation_sdk._lattice import Group, Kind, join_groups
from revocation_sdk._view import View
from tests.sim.cluster import EPOCH_MS, Cluster, Node
from tests.sim.faults import Faults
from tests.sim.lean import lean
from tests.sim.loop import Livelock, Process, VirtualLoop
from tests.sim.oracle import Fact, Oracle, holds
from tests.sim.processes import KEY, REALM, Client, Service
from tests.sim.schedule import FAULTS, Action, Schedule
from tests.sim.store import SimStore

RECOVERY_S = 12.0
"""How long everything may take to be well again when faults have ended."""
TIMING = Timing(settle_ms=600, detect_ms=900)
LOG = "ab" * 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run has shown."""

    violations: tuple[str, ...]
    acknowledged: int
    excused: int
    checked: int
    """Claims of completeness: leases of clients and proofs of replicas, each held against all that was acknowledged."""
    delivered: int
    """Messages to clients, each held against the ones before it."""
    recovery_s: float
    done: Counter[str]
    """What happened, by kind of action."""

    @property
    def counts(self) -> bool:
        """Whether it tested anything: something was acknowledged, something went wrong, somebody claimed to know."""
        return bool(self.acknowledged and self.checked and self.done.keys() & FAULTS.keys())


class World(Faults):
    """One run."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule
        self.random = Random(schedule.seed * 2 + 1)
        self.loop = VirtualLoop()
        self.cluster = Cluster(self.loop, schedule.nodes, self.random, schedule.lag_s)
        self.cluster.on_loss = self._copies_vanished
        self.cluster.on_settle = self._settled
        self.cluster.on_leave = self._has_left
        self.wiped = False
        self.oracle = Oracle(self.loop.time, self._memories, self._stored, tag=KEY.tag)
        self.services: dict[str, Service] = {}
        self.left: set[str] = set()
        self.overtaken: set[tuple[str, str]] = set()
        """Replicas that could not confirm in time when another history settled, and the one in which each was then."""
        self.clients: list[Client] = []
        self.skews: dict[str, int] = {}
        self.calm = False
        self.done: Counter[str] = Counter()
        self._ops = 0
        self._held: dict[str, View] = {}
        self._working: set[asyncio.Task[None]] = set()

    # -- what the oracle sees -----------------------------------------------------------------------------------

    def _memories(self) -> Iterator[View]:
        return (service.view for service in self.services.values() if service.alive)

    def _stored(self) -> View:
        return self._held_by(self.cluster.cur)

    def _held_by(self, node: Node) -> View:
        """What a node holds; made once for each digest, since that tells all that was ever written."""
        digest = node.memory.data[0].at.digest
        if digest not in self._held:
            self._held[digest] = view_of(node)
        return self._held[digest]

    def _copies_vanished(self) -> None:
        self.oracle.excuses = self.schedule.copies == 0 or self.wiped
        self.oracle.copies_vanished()
        self._knowledge_vanished()

    def _knowledge_vanished(self) -> None:
        """A member whom neither the primary nor another member knows cannot be waited for (see docs/guarantees.md)."""
        living = [service for service in self.services.values() if service.alive]
        listed = set(self.cluster.cur.memory.data[0].at.members)
        known = [s for s in living if s.name in listed or any(s.name in o.replica._known for o in living if o is not s)]
        if len(known) < len(living):
            self.oracle.hide([service.view for service in known])

    def _settled(self) -> None:
        """H7 assumes that whoever is up and holds something has confirmed by now; the model does, too.

        Not of whom a member that has confirmed knows: it had to say so (H4).
        """
        at = self.cluster.cur.memory.data[0].at
        living = [service for service in self.services.values() if service.alive]
        told = set(at.members)
        for service in living:
            if service.name in at.members and at.members[service.name].log_id == at.log_id:
                told |= service.replica.knew
        outside = [s for s in living if s.name not in told]
        self.oracle.apart = self.oracle.apart or any(s.astray for s in outside)
        if any(s.hindered for s in outside):
            self.oracle.hide([s.view for s in living if s.name in told or not s.hindered])
            # What it committed before, it may acknowledge when it goes on, before it hears of the other history.
            self.overtaken |= {(s.name, s.replica.partition.log_id) for s in outside if s.hindered}

    def _has_left(self, name: str) -> None:
        """H9: what the one that leaves holds, somebody who stays holds, too; unless that one has died since."""
        if not self.done["crash"] and self.cluster.cur.memory.data[0].at.members:
            staying = [service.view for service in self.services.values() if service.alive and service.name != name]
            self.oracle.handed_over(name, self.services[name].view, staying)

    # -- the run ------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        with lean(Random(self.schedule.seed * 2)):
            try:
                took = self.loop.run_until_complete(self._run())
            except Livelock as stuck:
                self.oracle.fail(f"I3: {stuck}")
                took = 0.0
            finally:
                self.loop.end()
        violations = self.oracle.violations + [f"error: {text}" for text in self.loop.errors]
        oracle = self.oracle
        delivered = sum(client.delivery.messages for client in self.clients)
        return Outcome(tuple(violations), len(oracle.facts), oracle.excused, oracle.checked, delivered, took, self.done)

    async def _run(self) -> float:
        await self._begin()
        for action in self.schedule.actions:
            await self._until(action.at)
            if self.oracle.violations:
                return 0.0
            self._do(action)
        await self._until(max(self.loop.time(), self.schedule.actions[-1].at if self.schedule.actions else 0) + 0.2)
        return await self._recover()

    async def _until(self, when: float) -> None:
        if when > self.loop.time():
            await asyncio.sleep(when - self.loop.time())

    async def _begin(self) -> None:
        names = [f"s{number}" for number in range(self.schedule.services)]
        await self.cluster.cur.memory.open_history(0, "", LOG, 0, names)
        self.cluster.cur.wrote()
        for node in self.cluster.nodes[1:]:
            node.copy_from(self.cluster.cur)
        for name in names:
            self._start(name)
        for number in range(self.schedule.clients):
            process = Process(self.loop, f"c{number}")
            self.clients.append(
                Client(
                    process,
                    self.oracle,
                    Random(self.random.random()),
                    self.schedule.delay_s,
                    self._skew(process.name),
                    self._choose,
                )
            )

    def _spawn(self, work: Any) -> None:
        task = self.loop.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self.loop.errors.append(f"world: {task.exception()!r}")

    def _skew(self, name: str) -> Callable[[], int]:
        return lambda: self.skews.get(name, 0)

    def _start(self, name: str) -> None:
        process = Process(self.loop, name)
        store = SimStore(process, self.cluster, Random(self.random.random()), self.schedule.delay_s)
        timing = Timing(TIMING.settle_ms, TIMING.detect_ms, int(self.schedule.strike_after_s * 1000))
        options = ReplicaOptions(member=name, heartbeat_s=0.25, timing=timing, copies=self.schedule.copies)
        self.services[name] = Service(process, store, options, self.oracle, self._skew(name))

    def _choose(self) -> Service | None:
        able = [service for service in self.services.values() if service.alive and service.name not in self.left]
        return self.random.choice(able) if able else None

    def _do(self, action: Action) -> None:
        if getattr(self, f"_{action.kind}")(action.which, action.value) is not False:
            self.done[action.kind] += 1

    # -- what is asked ------------------------------------------------------------------------------------------

    def _revoke(self, which: int, value: float) -> None:
        fp = KEY.fingerprint(Kind.TOKEN, None, f"t{self._ops}")
        expires_at = EPOCH_MS // 1000 + 3600
        self._spawn(self._ask(Target(Kind.TOKEN, None, f"t{self._ops}", expires_at), fp, which))

    def _cutoff(self, which: int, value: float) -> None:
        subject = f"u{which % 2}"
        self._spawn(self._ask(Target(Kind.SUBJECT, None, subject), KEY.fingerprint(Kind.SUBJECT, None, subject), which))

    async def _ask(self, target: Target, fp: int, which: int) -> None:
        """A caller with one op id: again and again until it is done, and now and then once more."""
        self._ops += 1
        floor = self.oracle.ask(target.kind, fp)
        op_ms = EPOCH_MS + round(self.loop.time() * 1000)
        op_id = uuid.UUID(int=op_ms << 80 | 7 << 76 | 2 << 62 | self._ops)
        operation = Operation(REALM, "caller", op_id, f"{self._ops:032x}")
        more = 1 if self.random.random() < 0.3 else 0
        for attempt in range(40):
            service = self._service(which + attempt) if attempt else self._service(which)
            receipt = await self._call(service, operation, target)
            if receipt is None:
                await asyncio.sleep(self.random.uniform(0.05, 0.4))
                continue
            version = receipt.cutoff.version if receipt.cutoff else 0
            fact = Fact(target.kind, KEY.tag, fp, version, self.loop.time(), service.name)
            fact.hidden = (service.name, receipt.positions[0].log_id.hex()) in self.overtaken
            self.oracle.acknowledge(op_id.hex[-8:], floor, fact, self._short(service, fact))
            if not more:
                return
            more -= 1
            await asyncio.sleep(self.random.uniform(0.0, 2.0))

    def _short(self, service: Service, fact: Fact) -> str:
        """Where an acknowledged fact is missing although the level says that it is there."""
        if service.alive and not holds(service.view, fact):
            return "which does not hold it itself"
        if not self.schedule.copies or self.wiped:
            return ""
        copies = sum(holds(self._held_by(node), fact) for node in self.cluster.nodes)
        return f"with {copies} copies" if copies <= self.schedule.copies else ""

    async def _call(self, service: Service, operation: Operation, target: Target) -> Receipt | None:
        """One call over the network: asked in the process of the service, and the answer may be lost."""
        if not service.alive or service.draining:
            return None
        answer: asyncio.Future[Receipt | None] = self.loop.create_future()

        def settle(receipt: Receipt | None) -> None:
            if not answer.done():
                answer.set_result(receipt)

        async def work() -> None:
            try:
                deadline = self.loop.time() + 1.5
                receipt = await service.revocations.revoke(operation, target, deadline)
            except ServiceError:
                settle(None)
            else:
                settle(receipt)

        service.asked.append(service.process.spawn(work()))
        with suppress(TimeoutError):
            async with asyncio.timeout(2.5):
                return await answer
        return None

    def _prove(self, which: int, value: float) -> None:
        service = self._service(which)
        if service.alive:
            service.process.spawn(service.prove())

    # -- the end ------------------------------------------------------------------------------------------------

    async def _recover(self) -> float:
        """Faults end; then all must be well soon (I3), and nothing may be missing (I2, I4)."""
        self.calm = True
        self._end_faults()
        began = self.loop.time()
        while not self._well():
            if self.oracle.violations:
                return 0.0
            if self._too_long(began):
                return 0.0
            self._bring_back()
            await asyncio.sleep(0.1)
        self.oracle.apart = False
        await asyncio.sleep(0.3)
        await self._judge()
        return self.loop.time() - began

    def _too_long(self, began: float) -> bool:
        if self.loop.time() - began > RECOVERY_S:
            self.oracle.fail(f"I3: not well {RECOVERY_S:g} s after faults ended: {self._state()}")
        return bool(self.oracle.violations)

    def _end_faults(self) -> None:
        self.skews.clear()
        self.cluster.lag_s = min(self.cluster.lag_s, 0.05)
        self._thaw()
        for node in self.cluster.nodes:
            node.skew_ms, node.stalled_until = 0, 0.0
            self.cluster.start(node)
        self._whole()
        for name, service in list(self.services.items()):
            service.process.resume()
            service.store.off = False
            service.store.slow_replies = service.store.slow_reads = service.store.slow_commits = 0
            self._again(name)
        for client in self.clients:
            client.process.resume()

    def _bring_back(self) -> None:
        """A replica that left, but not in time for somebody who waits for it now: an operator starts it again."""
        waited = {name for s in self.services.values() if s.alive for name in s.replica.waiting_for()}
        for name in sorted(waited & self.left):
            if not self.services[name].alive:
                self.left.discard(name)
                self._again(name)

    def _well(self) -> bool:
        living = [s for s in self.services.values() if s.name not in self.left]
        usable = all(s.alive and s.replica.state == "usable" for s in living)
        # Who was slow may not have noticed yet that the others are in another history; what it holds, they get then.
        together = {s.replica.partition.log_id for s in living} == {self.cluster.cur.memory.data[0].at.log_id}
        return usable and together and all(client.age() < 2.0 for client in self.clients)

    def _state(self) -> str:
        replicas = ", ".join(
            f"{s.name} {s.replica.state} waits for {s.replica.waiting_for()}" for s in self.services.values()
        )
        clients = ", ".join(f"{client.name} {client.age():.1f}" for client in self.clients)
        at = self.cluster.cur.memory.data[0].at
        return f"{replicas}; ages {clients}; members {sorted(at.members)} usable {at.usable}"

    async def _judge(self) -> None:
        oracle = self.oracle
        began = self.loop.time()
        for service in self.services.values():
            if service.alive and service.name not in self.left:
                while not await service.process.spawn(service.prove()):
                    if self._too_long(began):
                        return
                    self._bring_back()
                    await asyncio.sleep(0.1)
                oracle.survived(f"replica {service.name}", service.view, began)
                oracle.exact(f"replica {service.name}", service.view)
        oracle.survived("the store", self._stored(), began)
        while any(client.age() > self.loop.time() - began for client in self.clients):
            if self._too_long(began):
                return
            await asyncio.sleep(0.1)
        for client in self.clients:
            oracle.survived(client.name, client.follower.view, began)
            oracle.exact(client.name, client.follower.view)


def view_of(node: Node) -> View:
    """What a node holds."""
    view = View()
    for (_, name), segment in node.memory.data[0].segments.items():
        kind, tag, _ = name.split("-")
        view.merge(join_groups([Group(int(kind), int(tag), bytes(segment.rows))]))
    return view


def run(schedule: Schedule) -> Outcome:
    """Runs one schedule."""
    return World(schedule).run()
