"""One service process, put together: its partitions, and all that stands on them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from revocation.audit.desk import AuditDesk
from revocation.audit.seal import INSTALLATION
from revocation.callers.roles import NOBODY, Caller
from revocation.commit import Committer
from revocation.config.settings import Ack, Config
from revocation.errors import OutcomeUnknown, Unavailable
from revocation.fairness.quotas import Quotas
from revocation.fanout.asks import Asks, Sealer
from revocation.fanout.hub import Hub
from revocation.fanout.subscribers import Subscribers
from revocation.keys.keyring import Keyring
from revocation.keys.signing import signing_keys
from revocation.limits import SILENCE_S
from revocation.observability import canary
from revocation.observability.canary import Canary
from revocation.observability.measured import measured
from revocation.observability.telemetry import Metrics
from revocation.rails.approvals import Approvals
from revocation.rails.consent import Rails
from revocation.replication.barrier import Barrier
from revocation.replication.comparison import Comparison
from revocation.replication.lacking import Lacking
from revocation.replication.membership import ReplicaOptions, Timing
from revocation.replication.partition import Applied
from revocation.replication.replica import Replica
from revocation.service import Realm, Revocations, store_clocks
from revocation.session.keys import SessionKeys
from revocation.session.service import Sessions
from revocation.store import Durability, Member, StoreUnavailable
from revocation.store.rails import FullStore
from revocation_sdk._audit import AuditPoint

_FORGET_S = 30.0


class Node:
    """The parts of one service process. Made before the store answers; `run` brings it to life."""

    def __init__(
        self,
        config: Config,
        keyring: Keyring,
        store: FullStore,
        metrics: Metrics,
        *,
        replica_id: str,
        alone: bool,
        keep_secret: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.replica_id = replica_id
        self.ack: Ack = config.ack
        self.metrics = metrics
        self.max_subscribers = config.max_subscribers
        self.quotas = Quotas(
            {name: settings.limits for name, settings in config.realms.items()},
            lambda realm, limit: metrics.limited.labels(realm, limit).inc(),
        )
        self.store_name = ""
        self._store = store = measured(store, metrics, self.store_ms)
        self.signing = signing_keys(keyring)[0][1]
        self._keyring, self._keep_secret = keyring, keep_secret
        options = _options(config, keyring, replica_id, alone)
        durability = _durability(config.ack)
        # A barrier at level replicated(n) waits too, or a cut-off primary could go on vouching (model 2).
        waits = Durability(replicas=config.ack.copies)
        self.replicas = [
            Replica(i, store, options, self._on_applied, self._on_confirmed) for i in range(config.partitions)
        ]
        self.lacking = Lacking(self.replicas, store, keyring.commitments())
        self.audit = AuditDesk(config, keyring, self.replicas, store)
        auditor = self.audit.auditor
        self.committers = [Committer(replica, store, durability, auditor) for replica in self.replicas]
        self.barriers = [Barrier(replica, store, waits) for replica in self.replicas]
        self.realms: dict[str, Realm] = {
            name: Realm(name, settings, tuple(keyring.realm_keys(name))) for name, settings in config.realms.items()
        }
        self.canary = Canary(config.canary_s, metrics.observe_canary) if config.canary_s else None
        if self.canary is not None:
            self.realms[canary.REALM] = Realm(canary.REALM, canary.SETTINGS, tuple(keyring.realm_keys(canary.REALM)))
            self.quotas.exempt(canary.REALM)
        self.service = Revocations(
            self.realms, self.replicas, self.committers, self.barriers, config.op_retention_s, auditor=auditor
        )
        self.sessions = Sessions(
            self.service,
            self.replicas,
            self.barriers,
            store,
            {name: SessionKeys(keyring, name, realm.keys) for name, realm in self.realms.items()},
            ends=durability,
            lives=_durability(config.session_ack),
            auditor=auditor,
            count=lambda event: metrics.session_events.labels(event).inc(),
        )
        self.rails = Rails(self.service, self.sessions, Approvals(self.replicas[0], store, auditor))
        self.hub = Hub([replica.partition for replica in self.replicas], self.barriers, list(self.realms))
        self.hub.observe = metrics.progress_seconds.observe
        self.asks = Asks(replica_id, store, Sealer(keyring))
        self.subscribers = Subscribers(replica_id, self.service, self.hub, self.asks, self._present)

    def _present(self) -> set[str]:
        return {name for replica in self.replicas for name in replica.registry.members}

    def _on_applied(self, index: int, applied: list[Applied]) -> None:
        self.hub.on_applied(index, applied)

    async def _on_confirmed(self, index: int) -> None:
        """A history was taken up: what the store must know besides it is put back (a wiped one has forgotten).

        Repeated until it succeeds. Raises StoreUnavailable, or StoreRefused for another secret.
        """
        if index == 0:
            if self._keep_secret is not None:
                await self._keep_secret()
            await self._store.agree_on_secret(self._keyring.commitments())
        await self.audit.keep(index, rounds=0)
        self.metrics.history_changes.labels(str(index)).inc()

    @property
    def loaded(self) -> bool:
        """Whether every partition has been loaded once: before, nothing is served."""
        return all(replica.partition.log_id for replica in self.replicas)

    @property
    def ready(self) -> bool:
        """Whether this replica may acknowledge and vouch in every partition now."""
        return all(replica.state == "usable" for replica in self.replicas)

    async def run(self) -> None:
        """Keeps the partitions until cancelled. The store has been started."""
        async with asyncio.TaskGroup() as group:
            for replica in self.replicas:
                group.create_task(replica.run(), name=f"replica-{replica.index}")
                comparison = Comparison(replica, self._store, self._count_put_back)
                group.create_task(comparison.run(), name=f"comparison-{replica.index}")
            group.create_task(self._forget(), name="forget-expired")
            group.create_task(self.lacking.watch(), name="lacking-secrets")
            group.create_task(self.asks.run(), name="asks")
            group.create_task(self.subscribers.tend(), name="subscribers")
            group.create_task(self.audit.keep_forever(), name="keep-audit")

    def _count_put_back(self, realm: str, rows: int) -> None:
        self.metrics.rows_put_back.labels(realm).inc(rows)

    async def _forget(self) -> None:
        while True:
            await asyncio.sleep(_FORGET_S)
            self.service.forget_expired()
            for name, hub in self.hub.realms.items():
                if name != canary.REALM:
                    self.metrics.view_entries.labels(name).set(sum(len(history.view) for history in hub.histories))
                hub.forget_snapshots()
                hub.end_silent(asyncio.get_running_loop().time() - SILENCE_S)

    async def leave(self) -> None:
        """Takes this replica off the registry, where that is safe."""
        await asyncio.gather(*(replica.leave() for replica in self.replicas))

    def store_ms(self) -> int:
        """The store's time, by the partition whose clock is behind; ours as long as it has not answered in any."""
        return min(store_clocks(self.replicas), default=self.replicas[0].clock.wall_ms())

    def clock_skew_ms(self) -> int:
        """This process's clock minus the store's."""
        return self.replicas[0].clock.wall_ms() - self.store_ms()

    def members(self) -> list[tuple[int, str, Member, bool]]:
        """The registry as last seen: partition, id, what it says, and whether it has confirmed the history."""
        return [
            (replica.index, name, member, member.log_id == replica.registry.log_id)
            for replica in self.replicas
            for name, member in sorted(replica.registry.members.items())
        ]

    async def strike(self, member: str, caller: Caller = NOBODY) -> list[tuple[int, AuditPoint]]:
        """Strikes a member off by an operator's order: in which partitions, and where the audit tells of it.

        Nowhere if it is not listed or was heard of just now. Raises Unavailable if nothing was done, or OutcomeUnknown.
        """
        struck: list[tuple[int, AuditPoint]] = []
        try:
            for replica in self.replicas:
                point = await self._strike(replica, member, caller)
                if point is not None:
                    struck.append((replica.index, point))
        except StoreUnavailable as error:
            if error.did_nothing and not struck:
                raise Unavailable("the store cannot be reached", reason="STORE_UNAVAILABLE") from None
            text = "the store went away; `members list` shows where the member is still listed, once the store is back"
            raise OutcomeUnknown(text) from None
        return struck

    async def _strike(self, replica: Replica, member: str, caller: Caller) -> AuditPoint | None:
        log_id = replica.registry.log_id
        audit = self.audit.striking(replica.index, log_id, member, caller)
        point = await self._store.strike_by_order(replica.index, log_id, member, replica.detect_ms, audit)
        replica.doubt()
        if not isinstance(point, AuditPoint):
            return None
        self.audit.auditor.note(replica.index, log_id, INSTALLATION, point)
        return point


def _durability(ack: Ack) -> Durability:
    return Durability(replicas=ack.copies, fsync=ack.level == "fsynced")


def _options(config: Config, keyring: Keyring, replica_id: str, alone: bool) -> ReplicaOptions:
    timing = Timing(
        # Nobody but this process ever holds what is in a store of our own: nobody needs to be waited for (H7).
        settle_ms=0 if alone else int(config.settle_s * 1000),
        detect_ms=int(config.detect_s * 1000),
        strike_after_ms=int(config.strike_after_s * 1000),
    )
    return ReplicaOptions(
        member=replica_id,
        heartbeat_s=config.heartbeat_s,
        timing=timing,
        log_retention_s=max(config.log_retention_s, config.op_record_s),  # op ids are healed from the log
        longest_log=config.log_max_entries,
        op_record_s=config.op_record_s,
        copies=config.ack.copies,
        tags=keyring.realm_tags,
    )
