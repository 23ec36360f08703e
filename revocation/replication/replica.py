"""A replica's hold on one partition: it loads, follows the log, keeps its membership, and heals the store.

A thin shell around `partition.py` and `membership.py`. One task turns: heartbeat, look at the registry, take the next
step. Another reads the log. Whoever commits or proves freshness asks `standing()` first, and afterwards waits in
`applied()` until this replica's own view has what the store answered; a change of history in between fails the wait,
so that nothing is acknowledged from another past (rule H5).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import structlog

from revocation.clock import Clock, system_clock
from revocation.replication import healing
from revocation.replication.departures import Departures
from revocation.replication.membership import ReplicaOptions, Step, may_vouch, next_step, waiting_for
from revocation.replication.partition import Applied, Diverged, Partition
from revocation.replication.refusals import Fenced, NotReady, Superseded
from revocation.replication.retention import Retention
from revocation.replication.waiting import Waiters
from revocation.store import (
    HOLD_MS,
    LOADING,
    LOG_PAGE,
    Closed,
    LogEntry,
    Registry,
    Standing,
    Store,
    StoreRefused,
    StoreUnavailable,
)
from revocation.store.hints import HINTS

__all__ = ["LACKING", "SECRET_MISSING", "Fenced", "NotReady", "Replica", "Superseded"]

log = structlog.get_logger("revocation.replica")

READ_BLOCK_MS = 1_000
_RETRY_S = 0.1
SECRET_MISSING = "secret_missing"  # the state in which the view holds what this replica has no key for
LACKING = "this replica lacks a master secret that is in use; another one may have it"


class Replica:
    """One partition in one service process."""

    def __init__(
        self,
        index: int,
        store: Store,
        options: ReplicaOptions,
        on_applied: Callable[[int, list[Applied]], None],
        on_confirmed: Callable[[int], Awaitable[None]],
        clock: Clock | None = None,
    ) -> None:
        self.index = index
        self.clock = clock or system_clock()
        self.partition = Partition(options.tags, int(options.op_record_s * 1000))
        self.registry = Registry(Closed.REOPEN)
        self.state, self.healing = "starting", False
        self.heard: float | None = None
        """When the store answered last, by the monotonic clock."""
        self._store, self._options = store, options
        self._on_applied, self._on_confirmed = on_applied, on_confirmed
        self._departures = Departures(self, store, options)
        self._nonce = os.urandom(8).hex()
        """Tells the store that a first confirmation which it executes twice is the same process's."""
        self._incarnation: int | None = None
        self._known: set[str] = {options.member}
        self._read_version, self._held = 0, 0
        self._reload, self._forked, self._remembered = False, False, False
        self._settled_in = True  # whether the store was given what it must know besides, in the latest history
        self._latest = (0, "")
        """Epoch and id of the latest history that this replica has confirmed, or has tried to."""
        self._reader: asyncio.Task[None] | None = None
        self._kick = asyncio.Event()
        self._waiters = Waiters()
        self._retention = Retention(options.log_retention_s, options.longest_log)
        self._usable = asyncio.Event()
        self._store_offset = 0.0
        self._saw_past = self._unreadable = False  # unreadable: the view holds what this replica lacks the key for
        self._trouble = ""
        """The kind of failure of the store that was logged last."""

    # -- what others ask ----------------------------------------------------------------------------------------

    def standing(self) -> Standing:
        """In whose name to commit or prove; NotReady while this replica may not."""
        if self.state != "usable" or self._incarnation is None:
            raise NotReady(self.state)
        return Standing(self.partition.log_id, self._options.member, self._incarnation)

    async def usable(self, timeout_s: float) -> None:
        """Waits until `standing()` would succeed. Raises NotReady when the time is over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._usable.wait()
        except TimeoutError:
            raise NotReady(self.state) from None

    async def applied(self, log_id: str, seq: int) -> None:
        """Waits until the own view holds the log up to `seq` of this history. Raises Fenced if that changes."""
        if self.healing or self._unreadable or self.partition.log_id != log_id:
            raise Fenced
        if self.partition.seq < seq:
            await self._waiters.wait(seq)

    def waiting_for(self) -> list[str]:
        """The members that the history waits for."""
        return [] if self.state == "usable" else waiting_for(self.registry)

    @property
    def detect_ms(self) -> int:
        """Silence after which a member is suspected."""
        return self._options.timing.detect_ms

    def doubt(self) -> None:
        """Something was refused or failed: look at the registry now, not at the next heartbeat."""
        self._kick.set()

    def store_ms(self) -> int:
        """The store's time, carried on by the monotonic clock since the last heartbeat."""
        return int(self.clock.mono() * 1000 + self._store_offset)

    # -- the turning task ---------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keeps the partition usable until cancelled. Raises Superseded when another process has taken over."""
        try:
            while True:
                delay = await self._turn()
                with contextlib.suppress(TimeoutError):
                    # Not wait_for: in Python 3.11 it can swallow a cancellation.
                    async with asyncio.timeout(delay):
                        await self._kick.wait()
                self._kick.clear()
        finally:
            await self._stop_reading()
            self._begin_healing("stopped")

    async def _turn(self) -> float:
        """One look and one step; returns how long to wait for the next."""
        try:
            registry = await self._beat()
            return await self._act(registry)
        except StoreUnavailable as error:
            if self.state != "unreachable" or self._trouble != error.kind:
                self._trouble = error.kind
                log.warning(
                    "store_unreachable", partition=self.index, error=str(error), kind=error.kind, hint=error.hint
                )
            self._not_usable("unreachable")
            return _RETRY_S
        except (Superseded, StoreRefused):
            raise
        except Exception:
            # Whatever it was: what this process holds in memory may be the last copy (I2), so it does not end by it.
            log.exception("turn_failed", partition=self.index)
            self._not_usable("unreachable")
            return _RETRY_S

    async def _beat(self) -> Registry:
        # What was held when the beat was sent: while it was under way, the reader may have gone beyond its answer.
        sent, self._held = self.clock.mono(), self.partition.seq
        registry = await self._store.beat(
            self.index,
            self._who(),
            self._options.member,
            self.clock.wall_ms(),
            self._read_version,
            self._retention.trim_below(self.store_ms(), self.partition.seq),
            applied=self._held,
        )
        if registry.now_ms:
            # Half the way there and back: good enough for a clock that only judges with a margin.
            half = (self.clock.mono() + sent) / 2
            self._store_offset = registry.now_ms - half * 1000
            self.heard = half
        self.registry = registry
        return registry

    def _who(self) -> Standing | None:
        if self._incarnation is None:
            return None
        return Standing(self.partition.log_id, self._options.member, self._incarnation)

    async def _act(self, registry: Registry) -> float:
        if self._departures.left:
            self._not_usable("stopped")
            return self._options.heartbeat_s
        if registry.closed in {None, Closed.HEAL} and self._is_past(registry):
            return await self._leave_past(registry)
        self._saw_past = False
        match next_step(registry, self._options.timing):
            case Step.OPEN:
                return await self._open(registry)
            case Step.HEAL:
                return await self._heal(registry)
            case Step.RECONNECT:
                raise StoreUnavailable("the node is no primary", kind="read_only", hint=HINTS["read_only"])
            case Step.STOP:
                raise Superseded(self._options.member)
            case Step.SETTLE:
                await self._store.settle(self.index, registry.log_id, self._options.timing.settle_ms)
                return 0.0
            case Step.WAIT:
                return await self._keep(registry)

    async def _keep(self, registry: Registry) -> float:
        """In good standing, or waiting: note what the registry says, strike off whom it is time to."""
        if registry.closed is not None:
            self._not_usable(registry.closed.value)
            return _RETRY_S
        if self._reload or self.healing:  # or healing was interrupted after the store had confirmed us
            return await self._heal(registry)
        if not self._settled_in:
            await self._on_confirmed(self.index)  # and again, until it succeeds: what a wiped store forgot goes back
            self._settled_in = True
        self.partition.cover(registry.log_id, registry.seq)
        self._known = set(registry.members) | {self._options.member}
        self._read_version = registry.version
        delay = self._take_up(registry)
        # Not before: it may take as long as a store replica hangs, and what this replica may do does not depend on it.
        await self._departures.strike_off(registry, self._who())
        return delay

    def _take_up(self, registry: Registry) -> float:
        """Whether this replica may vouch now, by what the registry says."""
        if may_vouch(registry, self._options.member):
            if not self._unreadable or self._readable():
                self._now_usable()
            else:
                self._not_usable(SECRET_MISSING)
            return self._options.heartbeat_s
        waited = waiting_for(registry)
        self._not_usable("healing" if waited or not registry.settled else "joining")
        return _RETRY_S

    # -- histories ----------------------------------------------------------------------------------------------

    def _is_past(self, registry: Registry) -> bool:
        """Whether the store shows a past: a history before the latest one, or a log that it has read beyond.

        The first is an old primary that nobody told. Who went back to it would leave its confirmation behind in the
        later one, and two histories could be usable at once, each with half of the members. The second is a server
        that was rolled back without a restart.
        """
        if (registry.epoch, registry.log_id) < self._latest:
            return True
        same = registry.closed is None and registry.log_id == self.partition.log_id
        return same and (self._forked or registry.seq < self._held)

    async def _leave_past(self, registry: Registry) -> float:
        """Opens a history only if new connections lead there, too: else old and new primary would be opened in turn."""
        if self._saw_past:
            return await self._open(registry, self._latest[0] + 1)
        log.warning("old_history", partition=self.index, hint="the store shows a past that this replica has left")
        self._saw_past = True
        self._begin_healing("healing")
        await self._store.reconnect()
        return _RETRY_S

    async def _open(self, registry: Registry, epoch: int = 0) -> float:
        self._begin_healing("healing")
        settle_ms = self._options.timing.settle_ms
        log_id = secrets.token_hex(16)
        known, epoch = sorted(self._known), max(epoch, self._latest[0])
        closed = await self._store.open_history(self.index, registry.log_id, log_id, settle_ms, known, epoch)
        if closed is None:
            log.info("history_opened", partition=self.index, base=registry.seq)
        return 0.0 if closed in (None, Closed.LATE) else _RETRY_S

    async def _heal(self, registry: Registry) -> float:
        """Puts back what the store lacks, confirms, goes on in the new history (H3)."""
        self._begin_healing("healing" if self.partition.log_id else "loading")
        await self._stop_reading()
        self._settled_in = False
        self.partition.forget_ops(min(self.clock.wall_ms(), self.store_ms()))
        try:
            async with self._heartbeats():
                plan = await healing.prepare(
                    self.index, self._store, self.partition, registry, self._reload,
                    lambda applied: self._on_applied(self.index, applied),
                )  # fmt: skip
            incarnation = await self._confirm(registry)
        except healing.Moved:
            return _RETRY_S  # also if the store has no room for what it lacks: no use in asking all the time
        if incarnation is Closed.FENCED:
            raise Superseded(self._options.member)
        if isinstance(incarnation, Closed):
            return _RETRY_S
        self._incarnation, self._read_version, self._reload, self._forked = incarnation, 0, False, False
        self._known |= set(registry.members)
        self._on_applied(self.index, plan.adopt())
        self._retention.back_to(self.partition.seq)
        self.healing = False
        if not self._remembered:
            try:
                async with self._heartbeats():  # this reads much, too
                    await healing.remember(self.index, self._store, self.partition, registry)
            except Exception:
                self._load_again()
                raise
            self._remembered = True
        self._start_reading()
        self._readable()
        log.info("history_confirmed", partition=self.index, proposed=plan.proposed, learned=plan.learned)
        return 0.0

    @contextlib.asynccontextmanager
    async def _heartbeats(self) -> AsyncIterator[None]:
        """Shows that this member lives while it does something long, or it would be struck off by force (H11).

        And that it loads: from before it notes where the log ends, so that nothing behind that is trimmed meanwhile.
        """

        async def beat() -> None:
            with contextlib.suppress(StoreUnavailable):
                await self._store.beat(
                    self.index, self._who(), self._options.member, self.clock.wall_ms(), self._read_version, 0,
                    applied=LOADING,
                )  # fmt: skip

        async def beat_on() -> None:
            while True:
                await asyncio.sleep(min(self._options.heartbeat_s, HOLD_MS / 4000))
                await beat()

        await beat()
        task = asyncio.create_task(beat_on(), name=f"heartbeat-{self.index}")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _confirm(self, registry: Registry) -> int | Closed:
        # Where the registry is the one of our own history it knows better than we do: who is not listed, left.
        known = [] if registry.log_id == self.partition.log_id else sorted(self._known)
        # From now on there is no way back, also if the answer gets lost: the others may take us to have confirmed.
        self._latest = registry.epoch, registry.log_id
        return await self._store.confirm(
            self.index, registry.log_id, self._options.member, self._incarnation, self.clock.wall_ms(), known,
            nonce=self._nonce,
        )  # fmt: skip

    async def leave(self, timeout_s: float = 2.0) -> None:
        """Takes oneself off the registry, once another active member holds all that this one holds (H9).

        To be called when nothing more is committed here. Does nothing if that takes too long: then the others will
        strike this member off as a silent one.
        """
        await self._departures.leave(timeout_s)

    def _begin_healing(self, state: str) -> None:
        self.healing = True
        self._not_usable(state)
        self._waiters.fail(Fenced())

    def _not_usable(self, state: str) -> None:
        self.state = state
        self._usable.clear()

    def _readable(self) -> bool:
        """Looks whether this replica has the keys to all that it holds now."""
        before, self._unreadable = self._unreadable, self._lacks_key()
        if before and not self._unreadable:  # it has expired
            self._on_applied(self.index, self.partition.forget_past())
        return not self._unreadable

    def _lacks_key(self, realms: Iterable[str] | None = None) -> bool:
        return self.partition.lacks_key(min(self.clock.wall_ms(), self.store_ms()) / 1000, realms)

    def _now_usable(self) -> None:
        if self.state != "usable":
            log.info("partition_usable", partition=self.index, seq=self.partition.seq)
        self.state = "usable"
        self._usable.set()

    # -- the reading task ---------------------------------------------------------------------------------------

    def _start_reading(self) -> None:
        self._reader = asyncio.create_task(self._read_forever(), name=f"log-{self.index}")

    async def _stop_reading(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader})  # not the reader itself: our own cancellation must not look like its

    async def _read_forever(self) -> None:
        while True:
            try:
                tail = self._tail_told()
                entries = await self._store.read_log(self.index, self.partition.seq, LOG_PAGE, READ_BLOCK_MS)
                if not entries and self.partition.seq < tail:
                    # D7 without a next record that would show the gap: all that we lack has been trimmed.
                    raise Diverged("trimmed")
                self._apply(entries)
            except StoreUnavailable:
                self.doubt()
                await asyncio.sleep(_RETRY_S)
            except Diverged as error:
                # D7: a gap or another past is never skipped.
                log.warning("log_diverged", partition=self.index, why=str(error))
                self._forked = error.fork
                self._load_again()
                return
            except Exception:
                # Whatever it was, a replica that no longer reads must not look as if it did.
                log.exception("log_reader_failed", partition=self.index)
                self._load_again()
                return

    def _tail_told(self) -> int:
        """Up to where the log of our history is known to reach."""
        told = self.registry
        return told.seq if told.closed is None and told.log_id == self.partition.log_id else 0

    def _load_again(self) -> None:
        self._reload = True
        self._begin_healing("loading")
        self.doubt()

    def _apply(self, entries: list[LogEntry]) -> None:
        applied = []
        try:
            for entry in entries:
                applied.append(self.partition.apply(entry))
        finally:
            if applied:
                self._on_applied(self.index, applied)
                last = entries[len(applied) - 1]
                self._retention.note(last.at_ms, last.seq)
                if not self._unreadable and self._lacks_key({item.realm for item in applied}):
                    self._lose_sight()
                self._waiters.reached(self.partition.seq)

    def _lose_sight(self) -> None:
        """Something came that nobody here could find again: from now on this replica answers for nothing (I1)."""
        self._unreadable = True
        if self.state == "usable":
            self._not_usable(SECRET_MISSING)
        self._waiters.fail(Fenced())
        self.doubt()
