"""What is done to the world: faults of the store, of service replicas, of clients and of what lies between them.

A fault is called with the two numbers of its action. It returns False if there was nothing that it could be done to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

from tests.sim.cluster import EVERYWHERE, Cluster
from tests.sim.loop import Process, VirtualLoop
from tests.sim.processes import Client, Service
from tests.sim.schedule import Schedule


class Faults:
    """Faults by the names that schedules use, with an underscore in front."""

    schedule: Schedule
    random: Random
    loop: VirtualLoop
    cluster: Cluster
    services: dict[str, Service]
    clients: list[Client]
    left: set[str]
    skews: dict[str, int]
    calm: bool
    wiped: bool

    def _start(self, name: str) -> None:
        raise NotImplementedError

    def _copies_vanished(self) -> None:
        raise NotImplementedError

    def _service(self, which: int) -> Service:
        return list(self.services.values())[which % len(self.services)]

    # -- the store ------------------------------------------------------------------------------------------------

    def _later(self, after: float, call: Callable[[], object]) -> None:
        """A consequence. When faults have ended, all of them have."""
        self.loop.call_later(after, lambda: None if self.calm else call())

    def _failover(self, which: int, value: float) -> bool:
        """The primary dies; another takes over, and the dead one follows it when it comes back."""
        old = self.cluster.cur
        if not old.up or len(self.cluster.nodes) == 1:
            return False
        self.cluster.down()

        def promote() -> None:
            if not old.up and not self.cluster.promote(best=self.schedule.copies > 0):
                self.cluster.start(old)

        self._later(min(value, 0.6), promote)
        self._later(value + 0.7, lambda: self.cluster.start(old))
        return True

    def _lose(self, which: int, value: float) -> None:
        """A failover that loses what was written for a while before it."""
        self.cluster.frozen = True
        self._later(value * 0.5, lambda: self._failover(which, value))
        self._later(value * 0.5 + 0.6, self._thaw)

    def _restart(self, which: int, value: float) -> None:
        """The primary dies and comes back with its disk."""
        old = self.cluster.cur
        self.cluster.down()
        self._later(value * 0.3, lambda: self.cluster.start(old))

    def _wipe(self, which: int, value: float) -> bool:
        return self._emptied(new_process=False)

    def _wipe_restart(self, which: int, value: float) -> bool:
        return self._emptied(new_process=True)

    def _emptied(self, new_process: bool) -> bool:
        if not self.cluster.cur.up:
            return False
        self.wiped = True
        self.cluster.wipe(new_process=new_process)
        return True

    def _split(self, which: int, value: float) -> bool:
        """The primary, and some with it, are cut off and go on; the majority chooses another."""
        nodes = self.cluster.nodes
        if len(nodes) == 1 or any(node.side for node in nodes) or not self.cluster.cur.up:
            return False
        self.cluster.split([])
        sides = Random(which * 1000 + value)
        for service in self.services.values():
            service.store.side = sides.choice((0, 1, EVERYWHERE))
            service.store.late(value + 1.5)
        self._later(min(value, 0.5), lambda: self.cluster.promote(best=self.schedule.copies > 0))
        self._later(value + 1.0, self._whole)
        return True

    def _flap(self, which: int, value: float) -> bool:
        """A split in which everybody reaches both sides, and is led to either again and again."""
        if len(self.cluster.nodes) == 1 or any(node.side for node in self.cluster.nodes) or not self.cluster.cur.up:
            return False
        self.cluster.split([])
        self._later(0.1, lambda: self.cluster.promote(best=self.schedule.copies > 0))
        sides = Random(which * 1000 + value)
        for service in self.services.values():
            for _ in range(3):
                self._later(sides.uniform(0.1, value + 0.5), service.store.retarget)
        self._later(value + 0.6, self._whole)
        return True

    def _wipe_late(self, which: int, value: float) -> bool:
        """A store that was emptied, and somebody new who finds it first."""
        if not self._wipe_restart(which, value):
            return False
        for service in self.services.values():
            service.store.slow_replies += which % 2
        self._late(0, 0.0)
        if value > 0.8:
            self._later(0.3, lambda: self._restart(0, 0.1))
        return True

    def _whole(self) -> None:
        for service in self.services.values():
            service.store.side = EVERYWHERE
        if self.random.random() < 0.5 and not self.calm:
            # The old primary hears of the new one a little later.
            for node in self.cluster.nodes:
                node.side = 0
            self._later(self.random.uniform(0.0, 0.5), self.cluster.whole)
        else:
            self.cluster.whole()

    def _freeze(self, which: int, value: float) -> None:
        """Replication stands still."""
        self.cluster.frozen = True
        self._later(value, self._thaw)

    def _thaw(self) -> None:
        self.cluster.frozen = False
        self.cluster.replicate()

    def _stall(self, which: int, value: float) -> None:
        """The primary is stopped (SIGSTOP) and answers later."""
        self.cluster.cur.stalled_until = self.loop.time() + value

    def _trim(self, which: int, value: float) -> None:
        data = self.cluster.cur.memory.data[0]
        del data.log[: max(0, len(data.log) - which)]
        self.cluster.cur.wrote()

    def _skew_node(self, which: int, value: float) -> bool:
        """The clock of a node jumps, and back later. Not while a service's clock is wrong, too: see the assumptions."""
        if self.skews.keys() & self.services.keys():
            return False
        node = self.cluster.nodes[which % len(self.cluster.nodes)]
        # Between a second and the margin a clock that went back is waited for: see docs/operations.
        node.skew_ms = (
            round((value - 1) * 50_000 + (40_000 if value > 1 else -40_000)) if which % 2 else round((value - 1) * 900)
        )
        self._later(value, lambda: setattr(node, "skew_ms", 0))
        return True

    # -- service replicas -----------------------------------------------------------------------------------------

    def _crash(self, which: int, value: float) -> bool:
        """SIGKILL; a new process under the same id follows."""
        service = self._service(which)
        if not service.alive or service.name in self.left:
            return False
        service.end()
        self._copies_vanished()
        self._later(value * 0.7, lambda: self._again(service.name))
        return True

    def _again(self, name: str) -> None:
        if not self.services[name].alive and name not in self.left:
            side = self.services[name].store.side
            self._start(name)
            self.services[name].store.side = side
            self.services[name].store.retarget()

    def _pause(self, which: int, value: float) -> None:
        service = self._service(which)
        service.store.late(value * 1.5)
        self._stop(service.process, value)

    def _pause_client(self, which: int, value: float) -> None:
        self._stop(self.clients[which % len(self.clients)].process, value)

    def _stop(self, process: Process, value: float) -> None:
        process.pause()
        self._later(value * 1.5, process.resume)

    def _off(self, which: int, value: float) -> None:
        """A replica is cut from every store."""
        store = self._service(which).store
        store.off = True
        store.late(value)
        self._later(value, lambda: setattr(store, "off", False))

    def _slow(self, which: int, value: float) -> None:
        """Its next replies take their time."""
        self._slow_scripts(which, value)
        self._slow_reads(which, value)

    def _slow_scripts(self, which: int, value: float) -> None:
        self._service(which).store.slow_replies += 1 + round(value)

    def _slow_commits(self, which: int, value: float) -> None:
        self._service(which).store.slow_commits += 1 + round(value)

    def _slow_reads(self, which: int, value: float) -> None:
        self._service(which).store.slow_reads += 1 + round(value)

    def _retarget(self, which: int, value: float) -> None:
        self._service(which).store.retarget()

    def _late(self, which: int, value: float) -> bool:
        """One more replica joins."""
        name = f"s{len(self.services)}"
        if len(self.services) >= 5:
            return False
        self._start(name)
        self.services[name].store.side = which % 3 if any(node.side for node in self.cluster.nodes) else EVERYWHERE
        self.services[name].store.retarget()
        return True

    def _leave(self, which: int, value: float) -> bool:
        """A replica drains, leaves and is gone."""
        service = self._service(which)
        staying = [s for s in self.services.values() if s.alive and s.name not in self.left]
        if len(staying) < 2 or service not in staying:
            return False
        self.left.add(service.name)
        service.draining = True
        service.process.spawn(self._drain(service))
        return True

    async def _drain(self, service: Service) -> None:
        await asyncio.sleep(0.05)
        await asyncio.gather(*service.asked, return_exceptions=True)
        await service.replica.leave()
        self.loop.call_soon(self._gone, service)

    def _gone(self, service: Service) -> None:
        service.end()
        self._copies_vanished()

    def _skew_service(self, which: int, value: float) -> bool:
        if any(node.skew_ms for node in self.cluster.nodes):
            return False
        name = self._service(which).name
        self.skews[name] = round((value - 1) * 50_000) if which % 2 else round((value - 1) * 2_000)
        self._later(value, lambda: self.skews.pop(name, None))
        return True

    # -- clients --------------------------------------------------------------------------------------------------

    def _cut(self, which: int, value: float) -> bool:
        link = self.clients[which % len(self.clients)].link
        if link is not None:
            link.cut()
        return link is not None

    def _hold(self, which: int, value: float) -> bool:
        """The network between a client and its replica keeps everything back for a while."""
        link = self.clients[which % len(self.clients)].link
        if link is not None:
            for wire in (link.up, link.down) if which % 2 else (link.down,):
                wire.hold()
                self._later(value, wire.release)
        return link is not None

    def _jam(self, which: int, value: float) -> bool:
        """A client's connection takes nothing for a while."""
        link = self.clients[which % len(self.clients)].link
        if link is not None:
            link.jammed_until = self.loop.time() + value
        return link is not None

    def _fail_apply(self, which: int, value: float) -> None:
        """A client cannot apply what comes next."""
        self.clients[which % len(self.clients)].view.fails = True

    def _skew_client(self, which: int, value: float) -> None:
        name = self.clients[which % len(self.clients)].name
        self.skews[name] = round((value - 1) * 50_000)
        self._later(value, lambda: self.skews.pop(name, None))
