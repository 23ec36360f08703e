"""What the service does, free of gRPC and of Redis: decide, commit, answer from memory behind a barrier."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from revocation.audit.seal import Auditor
from revocation.commit import Committer
from revocation.errors import InvalidField, OutcomeUnknown, ServiceError, Unavailable
from revocation.limits import FUTURE_OP_ID_MS
from revocation.model import Operation, Receipt, Target, Tokens, op_id_ms
from revocation.realms import RealmSettings
from revocation.replication.barrier import Barrier, Proof
from revocation.replication.replica import LACKING, SECRET_MISSING, NotReady, Replica
from revocation.session.refresh import partition_of as partition_of_sid
from revocation.store import Cutoffs, Denials, Op, OpResult, StoreUnavailable
from revocation_sdk._audit import AuditPoint, AuditRecord
from revocation_sdk._judge import Facts, Revoked, Versions, judge, versions_for
from revocation_sdk._lattice import CUTOFF, DENIAL, NEVER, Cutoff, Group, Kind, RealmKey, join_groups
from revocation_sdk._position import NOWHERE, Position

CHUNK_ROWS = 500
"""Rows of one operation of a batch. Every release divides in the same way, or a retry of `op/k` would mean others."""

_DENIAL = np.dtype([("fp", "<u8"), ("expires_at", "<u4")])
_CUTOFF_KINDS = (Kind.SUBJECT, Kind.CLIENT, Kind.REALM)


@dataclass(frozen=True, slots=True)
class Realm:
    """A realm as configured, with its fingerprint keys; the first is the one new entries are made under."""

    name: str
    settings: RealmSettings
    keys: tuple[RealmKey, ...]

    @property
    def slack_s(self) -> int:
        """How much longer than `exp` an entry lives."""
        return self.settings.max_leeway_s + self.settings.margin_s

    @property
    def horizon_s(self) -> int:
        """How long a cutoff lives: until no session opened before it can still be refreshed."""
        longest = max(self.settings.absolute_timeout_s, self.settings.max_token_life_s + self.slack_s)
        return longest + 2 * self.settings.margin_s


class Revocations:
    """Commits revocations and answers questions about tokens."""

    def __init__(
        self,
        realms: Mapping[str, Realm],
        replicas: Sequence[Replica],
        committers: Sequence[Committer],
        barriers: Sequence[Barrier],
        op_retention_s: int = 600,
        *,
        auditor: Auditor | None = None,
    ) -> None:
        self._realms = realms
        self._replicas = replicas
        self._clock = replicas[0].clock
        self._committers = committers
        self._barriers = barriers
        self._op_retention_ms = op_retention_s * 1000
        self._auditor = auditor

    def realm(self, name: str) -> Realm:
        """The realm of this name. Raises InvalidField."""
        realm = self._realms.get(name)
        if realm is None:
            raise InvalidField("realm", "is not a realm of this service", reason="UNKNOWN_REALM")
        return realm

    def partition_of(self, realm: Realm, target: Target) -> int:
        """Where a target's entries and version clock live.

        Subjects by value alone, whatever the issuer: the version in a token is one number, which must come from one
        clock. Clients, keys and the realm lie in the first.
        """
        own = partition_of_sid(target.value) if target.kind is Kind.SESSION else None
        if own is not None and own < len(self._replicas):
            return own  # with its subject, and its record
        if target.kind in (Kind.TOKEN, Kind.SESSION, Kind.SUBJECT):
            return realm.keys[0].fingerprint(target.kind, None, target.value) % len(self._replicas)
        return 0

    # -- revoking -----------------------------------------------------------------------------------------------

    async def revoke(self, operation: Operation, target: Target, deadline: float) -> Receipt:
        """Commits one revocation. `deadline` is in event-loop time. Raises ServiceError."""
        realm = self.realm(operation.realm)
        self.check_op_id(operation)
        if target.kind is Kind.TOKEN:
            return await self._deny_one(realm, operation, target, deadline)
        if target.kind in _CUTOFF_KINDS:
            return await self._cut_off(realm, operation, target, deadline)
        if target.kind is Kind.SESSION:
            return await self._end_session(realm, operation, target, deadline)
        fp = realm.keys[0].fingerprint(target.kind, target.issuer, target.value)
        chunk = (self.partition_of(realm, target), DENIAL.pack(fp, NEVER))
        return await self._commit_chunks(realm, operation, target, 1, [chunk], deadline)

    async def _end_session(self, realm: Realm, operation: Operation, target: Target, deadline: float) -> Receipt:
        """All tokens of a session; of ours also its record, which the script finds by the fingerprint.

        A session of ours is named without an issuer. Its record is ended under whichever key it was opened, and only
        there is a row under that key: else an old master secret could never be removed.
        """
        expires_at = self._latest_s() + realm.settings.max_token_life_s + realm.slack_s
        ours = partition_of_sid(target.value) is not None
        keys, issuer = (realm.keys, None) if ours else (realm.keys[:1], target.issuer)
        rows = [DENIAL.pack(key.fingerprint(Kind.SESSION, issuer, target.value), expires_at) for key in keys]
        groups = tuple(
            Denials(Kind.SESSION, key.tag, row, if_session=key is not keys[0])
            for key, row in zip(keys, rows, strict=True)
        )
        op = Op(
            realm.name, operation.key(), operation.digest, groups, audit=self._record(operation, target, 1, 1)
        )  # fmt: skip
        results = await self._commit_all([(self.partition_of(realm, target), op)], deadline)
        told = join_groups([Group(Kind.SESSION, keys[0].tag, rows[0])])
        return Receipt(self._positions(results), True, None, told, _audit_of(results))

    async def revoke_tokens(self, operation: Operation, tokens: Tokens, deadline: float) -> Receipt:
        """Commits many tokens, validated whole, in as many scripts as it takes. Raises ServiceError."""
        realm = self.realm(operation.realm)
        self.check_op_id(operation)
        now = self._now_s()
        expires_at = np.array(tokens.expires_at, np.int64)
        beyond = np.flatnonzero(expires_at > self._horizon(realm, now))
        if len(beyond):
            raise _beyond(f"items[{beyond[0]}].")
        key = realm.keys[0]
        rows = np.empty(len(expires_at), _DENIAL)
        rows["fp"] = np.frombuffer(b"".join(key.fingerprints(Kind.TOKEN, tokens.issuer, tokens.values)), "<u8")
        rows["expires_at"] = until = expires_at + realm.slack_s
        # Judged by the smaller clock: what might still be accepted somewhere is stored. What is not leaves its
        # place empty, so that a retry, to which more has expired, divides the rest as the first try did.
        stays = until >= now
        chunks = [
            (partition, rows[places][stays[places]].tobytes()) for partition, places in self._divided(realm, tokens)
        ]
        target = Target(Kind.TOKEN, tokens.issuer, tokens.values[0])
        return await self._commit_chunks(realm, operation, target, len(tokens.values), chunks, deadline)

    def _divided(self, realm: Realm, tokens: Tokens) -> Iterator[tuple[int, Any]]:
        """The places of a batch's tokens, by partition and then in pieces for one operation each."""
        count = len(self._replicas)
        found = [np.arange(len(tokens.values))]
        if count > 1:
            homes = b"".join(realm.keys[0].fingerprints(Kind.TOKEN, None, tokens.values))  # as `partition_of`
            partitions = np.frombuffer(homes, "<u8") % np.uint64(count)
            found = [np.flatnonzero(partitions == partition) for partition in range(count)]
        for partition, places in enumerate(found):
            for start in range(0, len(places), CHUNK_ROWS):
                yield partition, places[start : start + CHUNK_ROWS]

    async def _deny_one(self, realm: Realm, operation: Operation, target: Target, deadline: float) -> Receipt:
        """As `revoke_tokens`, for one."""
        now = self._now_s()
        if target.expires_at > self._horizon(realm, now):
            raise _beyond("token.")
        until = target.expires_at + realm.slack_s
        fp = realm.keys[0].fingerprint(Kind.TOKEN, target.issuer, target.value)
        row = DENIAL.pack(fp, until) if until >= now else b""
        chunk = (self.partition_of(realm, target) if len(self._replicas) > 1 else 0, row)
        return await self._commit_chunks(realm, operation, target, 1, [chunk], deadline)

    def _horizon(self, realm: Realm, now: int) -> int:
        return now + realm.settings.max_token_life_s + realm.slack_s

    async def _commit_chunks(
        self,
        realm: Realm,
        operation: Operation,
        target: Target,
        asked: int,
        divided: Sequence[tuple[int, bytes]],
        deadline: float,
    ) -> Receipt:
        """Commits rows of one kind, each piece under its number; those that are empty have nothing to commit.

        `target` is what was asked for, or the first of so many (`asked`).
        """
        kind, tag = target.kind, realm.keys[0].tag
        chunks = [(number, partition, chunk) for number, (partition, chunk) in enumerate(divided) if chunk]
        if not chunks:
            return Receipt((NOWHERE,) * len(self._replicas), stored=False, cutoff=None, rows=b"")
        ops = []
        for part, (number, partition, chunk) in enumerate(chunks, 1):
            size, whole = len(chunk) // DENIAL.size, len(chunks) == 1
            of = (0, 0) if whole else (part, len(chunks))
            audit = self._record(operation, target, asked, size, of)
            groups = (Denials(kind, tag, chunk),)
            ops.append((partition, Op(realm.name, operation.key(number), operation.digest, groups, audit=audit)))
        results = await self._commit_all(ops, deadline)
        committed = join_groups(Group(kind, tag, chunk) for _, _, chunk in chunks)
        return Receipt(self._positions(results), True, None, committed, _audit_of(results))

    async def _cut_off(self, realm: Realm, operation: Operation, target: Target, deadline: float) -> Receipt:
        key = realm.keys[0]
        fp = key.fingerprint(target.kind, target.issuer, target.value)
        group = Cutoffs(target.kind, key.tag, realm.horizon_s, fp.to_bytes(8, "little"))
        partition = self.partition_of(realm, target)
        above = await self.drawn_elsewhere(realm, deadline)
        audit = self._record(operation, target, 1, 1)
        op = Op(realm.name, operation.key(), operation.digest, (group,), above, audit)
        results = await self._commit_all([(partition, op)], deadline)
        result = results[0][1]
        row = CUTOFF.pack(fp, result.expires_at, result.version, result.at_ms)
        cutoff = Cutoff(result.expires_at, result.version, result.at_ms)
        rows = join_groups([Group(target.kind, key.tag, row)])
        return Receipt(self._positions(results), True, cutoff, rows, _audit_of(results))

    def _record(
        self, operation: Operation, target: Target, asked: int, stored: int, part: tuple[int, int] = (0, 0)
    ) -> AuditRecord | None:
        if self._auditor is None:
            return None
        return self._auditor.revoked(operation, target, asked, stored, part)

    async def drawn_elsewhere(self, realm: Realm, deadline: float) -> int:
        """The version that a cutoff must exceed.

        The version in a token is one number from one clock, that of its subject's partition. While the master secret is
        being rotated, a subject may have had its cutoffs in another partition, whose clock may be ahead.
        """
        if len(self._replicas) == 1 or len(realm.keys) == 1:
            return 0
        return max(proof.clock for proof in await self.prove(deadline))

    async def _commit_all(self, ops: Sequence[tuple[int, Op]], deadline: float) -> list[tuple[int, OpResult]]:
        if len(ops) == 1:  # without a task of its own
            partition, op = ops[0]
            return [(partition, await self._committers[partition].commit(op, deadline))]
        outcomes = await asyncio.gather(
            *(self._committers[partition].commit(op, deadline) for partition, op in ops), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        if failures:
            raise _failure(failures, whole=len(failures) == len(outcomes))
        done = [outcome for outcome in outcomes if isinstance(outcome, OpResult)]
        return [(partition, result) for (partition, _), result in zip(ops, done, strict=True)]

    def _positions(self, results: Sequence[tuple[int, OpResult]]) -> tuple[Position, ...]:
        """Where the last record of each partition stands, in the history in which it was acknowledged.

        Of several histories the one in force counts: healing has brought along what was acknowledged before it.
        """
        positions = [NOWHERE] * len(self._replicas)
        for partition, result in results:
            before, log_id = positions[partition], bytes.fromhex(result.log_id)
            if before.log_id == log_id:
                later = result.realm_seq >= before.seq
            else:
                later = before is NOWHERE or result.log_id == self._replicas[partition].partition.log_id
            if later:
                positions[partition] = Position(log_id, result.realm_seq, result.realm_digest)
        return tuple(positions)

    def check_op_id(self, operation: Operation) -> None:
        """Refuses an op id that is too old to be known, or from the future. Raises InvalidField."""
        age_ms = self._clock.wall_ms() - op_id_ms(operation.op_id)
        if age_ms > self._op_retention_ms:
            text = "is older than the retention: whether it ran cannot be known any more"
            raise InvalidField("op_id", text, reason="OP_ID_EXPIRED")
        if age_ms < -FUTURE_OP_ID_MS:
            raise InvalidField("op_id", "comes from the future: check the caller's clock", reason="OP_ID_EXPIRED")

    # -- answering ----------------------------------------------------------------------------------------------

    async def check(
        self, realm_name: str, facts: Facts, not_older_than: Sequence[Position], deadline: float
    ) -> tuple[Revoked | None, tuple[Position, ...], int]:
        """The verdict on a token, complete as of a moment after this call, and the store's time. Raises Unavailable."""
        realm = self.realm(realm_name)
        store_ms = max(proof.store_ms for proof in await self.prove(deadline))
        self._require(realm, not_older_than)
        now = self._now_s()
        verdicts = [
            judge(replica.partition.realm(realm.name).view, realm.keys, facts, now, realm.settings.margin_s)
            for replica in self._replicas
        ]
        found = [verdict for verdict in verdicts if verdict is not None]
        narrowest = min(found, key=lambda verdict: verdict.target) if found else None
        return narrowest, self._realm_positions(realm), store_ms

    async def versions(
        self, realm_name: str, issuer: str | None, subject: str | None, client_id: str | None, deadline: float
    ) -> tuple[Versions, int, tuple[Position, ...]]:
        """The versions to mint now, and the store's time in milliseconds. Raises Unavailable."""
        realm = self.realm(realm_name)
        now_ms = min(proof.store_ms for proof in await self.prove(deadline))
        return self.cutoffs(realm, issuer, subject, client_id, now_ms), now_ms, self._realm_positions(realm)

    def cutoffs(
        self, realm: Realm, issuer: str | None, subject: str | None, client_id: str | None, now_ms: int
    ) -> Versions:
        """The highest cutoffs of [subject, client, realm] that this replica knows; proves nothing about them."""
        found = [
            versions_for(
                replica.partition.realm(realm.name).view, realm.keys, issuer, subject, client_id, now_ms / 1000
            )
            for replica in self._replicas
        ]
        return max(v[0] for v in found), max(v[1] for v in found), max(v[2] for v in found)

    async def current(self, realm_name: str, deadline: float) -> tuple[Position, ...]:
        """Where the realm stands, proven by barriers that begin now. Raises Unavailable."""
        realm = self.realm(realm_name)
        await self.prove(deadline)
        return self._realm_positions(realm)

    async def prove(self, deadline: float) -> list[Proof]:
        """Barriers in all partitions that begin now."""
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    try:
                        return await asyncio.gather(*(barrier.prove() for barrier in self._barriers))
                    except NotReady:
                        if any(replica.state == "unreachable" for replica in self._replicas):
                            raise StoreUnavailable from None
                        if any(replica.state == SECRET_MISSING for replica in self._replicas):
                            raise Unavailable(LACKING) from None
                        await asyncio.gather(
                            *(replica.usable(1.0) for replica in self._replicas), return_exceptions=True
                        )
        except StoreUnavailable:
            raise Unavailable("the store cannot be reached", reason="STORE_UNAVAILABLE") from None
        except TimeoutError:
            states = ", ".join(sorted({replica.state for replica in self._replicas} - {"usable"}))
            raise Unavailable(f"this replica cannot prove that it is current ({states or 'too slow'})") from None

    def _require(self, realm: Realm, wanted: Sequence[Position]) -> None:
        """That the realm stands at or behind `wanted`; asked after a barrier, which makes it so.

        The barrier proved that this replica is in the current history. A position of another one is then of an older
        one, and what was acknowledged there, healing has brought along.
        """
        for own, position in zip(self._realm_positions(realm), wanted, strict=False):
            if position.log_id == own.log_id and position.seq > own.seq:
                raise Unavailable("not_older_than is ahead of the log", reason="POSITION_NOT_REACHED")

    def _realm_positions(self, realm: Realm) -> tuple[Position, ...]:
        return tuple(replica.partition.realm(realm.name).position for replica in self._replicas)

    def _now_s(self) -> int:
        """The smallest of the clocks known: nothing is taken for expired that might not be."""
        return min(self._clock.wall_ms(), *store_clocks(self._replicas)) // 1000

    def _latest_s(self) -> int:
        """The largest of the clocks known: nothing that is made lives too short."""
        return max(self._clock.wall_ms(), *store_clocks(self._replicas)) // 1000

    def forget_expired(self) -> None:
        """Drops what has expired by every clock. Called now and then."""
        for replica in self._replicas:
            now_ms = min(self._clock.wall_ms(), replica.store_ms())
            for history in replica.partition.realms.values():
                history.view.drop_expired(now_ms / 1000)
            replica.partition.forget_ops(now_ms)


def _failure(failures: Sequence[BaseException], *, whole: bool) -> BaseException:
    """What a batch fails by. That nothing was committed can be said only if `whole` of it has certainly failed."""
    for failure in failures:
        if not isinstance(failure, ServiceError):
            return failure
    for failure in failures:
        if isinstance(failure, OutcomeUnknown):
            return failure
    if whole:
        return failures[0]
    return OutcomeUnknown("a part of the batch was committed; retry with the same op id to complete it")


def store_clocks(replicas: Sequence[Replica]) -> list[int]:
    """The store's time in ms by each partition that has heard of it."""
    return [replica.store_ms() for replica in replicas if replica.heard is not None]


def _beyond(prefix: str) -> InvalidField:
    text = "is beyond now + max_token_life + max_leeway: no verifier accepts such a token"
    return InvalidField(f"{prefix}expires_at", text, reason="BEYOND_HORIZON")


def _audit_of(results: Sequence[tuple[int, OpResult]]) -> tuple[tuple[int, AuditPoint], ...]:
    return tuple((partition, result.audit) for partition, result in results if result.audit is not None)
