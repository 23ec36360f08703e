"""How members go: silent ones are struck off (rules H10, H11), and a process that ends takes itself off (H9)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import structlog

from revocation.replication.membership import ReplicaOptions, Strike, strikes
from revocation.replication.refusals import Fenced, NotReady
from revocation.store import Closed, Durability, Registry, Standing, Store, StoreUnavailable

if TYPE_CHECKING:
    from revocation.replication.replica import Replica

log = structlog.get_logger("revocation.replica")
_RETRY_S = 0.1
_CATCH_UP_S = 1.0


class Departures:
    """Of one partition, as one replica sees to them."""

    def __init__(self, replica: Replica, store: Store, options: ReplicaOptions) -> None:
        self._replica, self._store, self._options = replica, store, options
        self.left = False
        """This replica is off the registry, or may be: whatever it hears now, it must not come back."""

    # -- of others ----------------------------------------------------------------------------------------------

    async def strike_off(self, registry: Registry, who: Standing | None) -> None:
        """Strikes off whom it is time to, as a member in good standing."""
        due = strikes(registry, self._options.member, self._options.timing)
        for strike in due:
            if strike.forced:
                await self._strike(registry, strike)
        quiet = [strike for strike in due if not strike.forced]
        # Proven once for all of them: with a store replica that hangs it takes seconds, without a heartbeat.
        if quiet and await self._held_everywhere(registry, who):
            for strike in quiet:
                await self._strike(registry, strike)

    async def _strike(self, registry: Registry, strike: Strike) -> None:
        timing, index = self._options.timing, self._replica.index
        mode, silent_ms = ("forced", timing.strike_after_ms) if strike.forced else ("quiet", timing.detect_ms)
        if await self._store.strike(index, registry.log_id, strike.member, mode, None, silent_ms) is None:
            level = log.warning if strike.forced else log.info
            level("member_struck_off", partition=index, member=strike.member, forced=strike.forced)
            self._replica.doubt()

    async def _held_everywhere(self, registry: Registry, who: Standing | None) -> bool:
        """H10: a quiet strike needs all store nodes, and the one who strikes, to hold everything."""
        replicas = max(self._options.copies, registry.nodes)
        if who is None or registry.replicas < replicas:
            return False
        now_ms, durability = self._replica.clock.wall_ms(), Durability(replicas=replicas)
        tail = await self._store.barrier(self._replica.index, who, now_ms, durability, newcomer=True)
        if isinstance(tail, Closed) or tail.copies < replicas:
            return False
        try:
            async with asyncio.timeout(_CATCH_UP_S):
                await self._replica.applied(who.log_id, tail.seq)
        except (Fenced, TimeoutError):
            return False
        return True

    # -- one's own ----------------------------------------------------------------------------------------------

    async def leave(self, timeout_s: float) -> None:
        """See `Replica.leave`."""
        partition = self._replica.partition
        with contextlib.suppress(StoreUnavailable, NotReady, TimeoutError):
            async with asyncio.timeout(timeout_s):
                held = partition.log_id, partition.seq
                while not await self._leave(*held):
                    await asyncio.sleep(_RETRY_S)
                    if partition.log_id != held[0]:
                        held = partition.log_id, partition.seq

    async def _leave(self, log_id: str, seq: int) -> bool:
        """Leaves if another member holds the log up to `seq`; what others commit from then on, they hold themselves."""
        replica = self._replica
        who = replica.standing()
        registry = await self._store.beat(replica.index, None, who.member, replica.clock.wall_ms(), 0, 0)
        if registry.log_id != log_id or not registry.usable or replica.standing() != who:
            return False
        others = [member for name, member in registry.members.items() if name != who.member]
        # What this one has put back and not read again, its own position does not tell of.
        handed_over = not replica.partition.ahead and any(m.active and m.applied >= seq for m in others)
        if others and not handed_over:
            return False
        # Before it is asked for: a heartbeat that the strike overtakes is told to heal, and would register anew.
        self.left = True
        closed = await self._store.strike(
            replica.index, who.log_id, who.member, "leave", who.incarnation, 0,
            # A copy that is promoted now would list it again, and everybody would wait for who has gone.
            durability=Durability(replicas=registry.replicas),
        )  # fmt: skip
        self.left = closed in {None, Closed.GONE}
        return self.left
