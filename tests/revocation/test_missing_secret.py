"""A replica that lacks a master secret in use answers for nothing, and says so; keys revoked under it are told of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, cast

import pytest
import structlog

from revocation.app import _not_ready
from revocation.errors import ServiceError, Unavailable
from revocation.fanout.hub import RealmHub, Subscriber
from revocation.gauges import gauges
from revocation.model import Tokens
from revocation.replication.partition import RECENT_MS, Partition, chain
from revocation.replication.replica import SECRET_MISSING, NotReady
from revocation.store import ZERO, Heads, LogEntry, Registry
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._judge import Facts
from revocation_sdk._lattice import DENIAL, NEVER, Group, Kind, join_groups, parse_groups
from revocation_sdk._position import NOWHERE
from tests.revocation.session_nodes import ISSUER, Nodes, running
from tests.revocation.turning import eventually

OLD, NEW = "k1:" + "A" * 43, "k9:" + "B" * 43
REALM, LOG_ID, OTHER_ID = "default", "ab" * 16, "cd" * 16
FACTS = Facts(issuer=ISSUER, token_id="jti", subject="alice")


async def says_nothing(nodes: Nodes, number: int = 0) -> None:
    """Neither verdicts, versions, sessions nor proofs come from the node."""
    node, caller = nodes.nodes[number], nodes.caller(number)
    soon = asyncio.get_running_loop().time() + 5
    with pytest.raises(Unavailable, match="lacks a master secret"):
        await node.service.check(REALM, FACTS, (), soon)
    with pytest.raises(Unavailable, match="lacks a master secret"):
        await node.service.versions(REALM, ISSUER, "alice", None, soon)
    for barrier in node.barriers:
        if barrier._replica.state == SECRET_MISSING:
            with pytest.raises(NotReady):
                await barrier.prove()
    with pytest.raises(TimeoutError):  # it waits for better times until its deadline
        async with asyncio.timeout(0.3):
            await caller.open("bob")
    assert not node.ready


@pytest.mark.parametrize(
    ("kind", "value"), [(Kind.TOKEN, "jti"), (Kind.SUBJECT, "alice"), (Kind.KEY, "a-key"), (Kind.REALM, "")]
)
async def test_a_replica_that_lacks_a_secret_in_use_answers_for_nothing(redis_url: str, kind: Kind, value: str) -> None:
    """It cannot find what is revoked under that secret, so what it took for active would be a stale accept (I1)."""
    async with running(redis_url, count=2, secrets=(OLD, f"{NEW} {OLD}")) as nodes:
        lacking, other = nodes.nodes
        await nodes.caller(0).open("alice")
        with structlog.testing.capture_logs() as lines:
            await revoke(nodes, 1, kind, value)
            await says_nothing(nodes)
            await lacking.lacking.look()
            await lacking.lacking.look()
        (line,) = [line for line in lines if line["event"] == "secret_missing"]
        assert (line["kids"], line["log_level"]) == ("k9", "error")
        assert "A" * 8 not in str(lines)
        assert "B" * 8 not in str(lines)
        reason = _not_ready(lacking, asyncio.Event())
        assert reason is not None
        assert "secret_missing" in reason
        assert "k9" in reason
        assert other.ready
        verdict, *_ = await other.service.check(REALM, FACTS, (), asyncio.get_running_loop().time() + 5)
        assert (verdict is not None) == (kind is not Kind.KEY)


async def revoke(nodes: Nodes, number: int, kind: Kind, value: str) -> None:
    caller = nodes.caller(number)
    if kind is Kind.TOKEN:
        tokens = Tokens(ISSUER, (value,), (int(time.time()) + 600,))
        await caller.node.service.revoke_tokens(caller.operation("token"), tokens, caller.deadline)
    else:
        await caller.revoke(kind, value)


async def test_a_commit_that_the_replica_cannot_read_back_is_not_acknowledged(redis_url: str) -> None:
    async with running(redis_url, count=2, secrets=(OLD, f"{NEW} {OLD}")) as nodes:
        await nodes.caller(1).revoke(Kind.SUBJECT, "alice")
        for _ in range(1_000):
            if nodes.nodes[0].replicas[0].state == SECRET_MISSING:
                break
            await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="lacks a master secret"):
            await nodes.caller(0).revoke(Kind.SUBJECT, "bob")


async def test_keys_revoked_under_a_removed_secret_are_told_of_and_hold_nobody_up(redis_url: str) -> None:
    """They never expire and cannot be revoked anew by anybody but who knows them: an error, and no refusal."""
    async with running(redis_url, secrets=(OLD,)) as nodes:
        await nodes.caller().revoke(Kind.KEY, "a-key")
        await nodes.raw.xtrim("revocation:{p0}:log", maxlen=0)  # it is long ago
    with structlog.testing.capture_logs() as lines:
        async with running(redis_url, secrets=(NEW,)) as nodes:
            node = nodes.nodes[0]
            await node.lacking.look()
            await node.lacking.look()
            assert node.ready
            assert ("keys_not_refused", (REALM,), 1) in list(gauges(node))
            hub = node.hub.realms[REALM]
            beginning = hub.subscribe(Subscriber(), (NOWHERE,), may_snapshot=True)
            assert tags_sent(beginning.messages) <= {key.tag for key in node.realms[REALM].keys}
    (line,) = [line for line in lines if line["event"] == "keys_not_refused"]
    assert (line["kids"], line["count"], line["log_level"]) == ("k1", 1, "error")


async def test_a_store_that_is_emptied_is_healed_also_of_keys_revoked_under_a_removed_secret(redis_url: str) -> None:
    async with running(redis_url, secrets=(OLD,)) as nodes:
        await nodes.caller().revoke(Kind.KEY, "a-key")
        await nodes.raw.xtrim("revocation:{p0}:log", maxlen=0)  # it is long ago
    async with running(redis_url, secrets=(NEW, NEW)) as nodes:
        histories = [node.replicas[0].partition.log_id for node in nodes.nodes]
        await nodes.raw.flushall()
        await eventually(
            lambda: all(
                node.replicas[0].partition.log_id not in histories and not node.replicas[0].partition.ahead
                for node in nodes.nodes
            ),
            "both are in the new history, and have read what was put back",
        )
        await eventually(lambda: all(node.ready for node in nodes.nodes), "both answer again")
        assert all(("keys_not_refused", (REALM,), 1) in list(gauges(node)) for node in nodes.nodes)


async def test_a_key_revoked_a_moment_ago_under_another_secret_is_one_in_use(redis_url: str) -> None:
    """Also to a replica that has only begun: its log tells."""
    async with running(redis_url, secrets=(f"{NEW} {OLD}",)) as nodes:
        await nodes.caller().revoke(Kind.KEY, "a-key")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5), running(redis_url, secrets=(OLD,)):
            pass


@pytest.mark.parametrize("kind", [Kind.SUBJECT, Kind.REALM])
async def test_a_replica_that_starts_on_a_store_with_entries_that_it_cannot_read_is_not_ready(
    redis_url: str, kind: Kind
) -> None:
    async with running(redis_url, secrets=(f"{NEW} {OLD}",)) as nodes:
        await nodes.caller().revoke(kind, "alice" if kind is Kind.SUBJECT else "")
        await nodes.raw.xtrim("revocation:{p0}:log", maxlen=0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.5), running(redis_url, secrets=(OLD,)):
            pass


async def test_a_session_is_ended_under_the_key_that_it_was_opened_under_and_no_other(redis_url: str) -> None:
    """Else there would be entries under an old secret for as long as it is there, and it could never be removed."""
    async with running(redis_url, count=2, secrets=(OLD, f"{NEW} {OLD}")) as nodes:
        before = await nodes.caller(0).open("alice")
        node = nodes.nodes[1]
        tags = [key.tag for key in node.realms[REALM].keys]
        after = await nodes.caller(1).open("bob")
        await nodes.caller(1).revoke(Kind.SESSION, after.sid)
        assert set(node.replicas[0].partition.realm(REALM).view._tables) == {(Kind.SESSION, tags[0])}
        await nodes.caller(1).revoke(Kind.SESSION, before.sid)
        assert set(node.replicas[0].partition.realm(REALM).view._tables) == {(Kind.SESSION, tag) for tag in tags}
        for grant in (before, after):
            assert nodes.verdict(grant, 1) is not None
            with pytest.raises(ServiceError):
                await nodes.caller(1).refresh(grant)


def tags_sent(messages: Iterable[bytes]) -> set[int]:
    rows = [pb.WatchResponse.FromString(message).snapshot_chunk.rows for message in messages]
    return {group.key_tag for packed in rows for group in parse_groups(packed)}


# -- the pure core ----------------------------------------------------------------------------------------------------


def row(kind: Kind, tag: int, expires_at: int, fp: int = 1) -> bytes:
    return join_groups([Group(kind, tag, DENIAL.pack(fp, expires_at))])


def follower_of(*rows: bytes) -> Partition:
    """A partition with the key of tag 1 that has read these records."""
    partition = Partition(lambda _realm: {1})
    partition.adopt_heads(LOG_ID, Heads(0, ZERO, {}), {})
    for packed in rows:
        partition.apply(next_entry(partition, packed))
    return partition


def next_entry(partition: Partition, rows: bytes, at_ms: int = 1_000, ops: str = "aa:bb:0:0:1000") -> LogEntry:
    """A commit; without op records, rows that somebody put back."""
    position = partition.realm(REALM).position.advance(rows)
    entry = LogEntry(partition.seq + 1, REALM, position.seq, position.digest.hex(), "", at_ms, rows, ops)
    return replace(entry, digest=chain(partition.digest, entry))


def test_what_has_expired_under_a_key_that_is_not_there_does_not_count() -> None:
    partition = follower_of(row(Kind.TOKEN, 1, 50), row(Kind.TOKEN, 2, 100))
    assert partition.lacks_key(99)
    assert not partition.lacks_key(100)


def test_a_key_revoked_under_a_key_that_is_not_there_counts_if_it_came_just_now() -> None:
    partition = follower_of(row(Kind.KEY, 2, NEVER))
    assert partition.lacks_key(1e9)
    assert partition.realm(REALM).orphans == 1
    loaded = Partition(lambda _realm: {1})
    loaded.realm(REALM).view.merge(row(Kind.KEY, 2, NEVER))
    assert not loaded.lacks_key(1e9)
    assert loaded.realm(REALM).orphans == 1


def test_a_key_that_was_put_back_holds_nobody_up_and_is_sent_to_nobody() -> None:
    """Somebody who held it healed the store: that it was revoked is long ago, and clients could not read it."""
    partition = follower_of(row(Kind.TOKEN, 1, NEVER))
    before = partition.realm(REALM).position
    applied = partition.apply(next_entry(partition, row(Kind.KEY, 2, NEVER), ops=""))
    assert applied.step is None, "clients come again, for a snapshot without it"
    assert isinstance(partition.realm(REALM).resume(before), str)
    assert not partition.lacks_key(1e9)
    assert partition.realm(REALM).orphans == 1


@pytest.mark.parametrize("age_ms", [0, RECENT_MS + 1])
def test_a_ring_begins_behind_what_clients_could_not_read(age_ms: int) -> None:
    """They would refuse it, come again, and be sent it again, for ever (I3)."""
    source = Partition()
    source.adopt_heads(LOG_ID, Heads(0, ZERO, {}), {})
    entries = []
    for tag in (1, 2, 1, 1):
        entry = next_entry(source, row(Kind.KEY, tag, NEVER, tag))
        source.apply(entry)
        entries.append(entry)
    realms = {REALM: (entries[-1].realm_seq, entries[-1].realm_digest)}
    loaded = Partition(lambda _realm: {1})
    loaded.adopt_heads(LOG_ID, Heads(source.seq, source.digest, realms), {})
    registry = replace(
        Registry(cast(Any, None)), log_id=LOG_ID, seq=source.seq, base=0, previous=OTHER_ID, now_ms=1_000 + age_ms
    )
    loaded.remember(entries, registry)
    assert loaded.realm(REALM).remembered == 2
    assert loaded.lacks_key(0) == (age_ms == 0)


def test_the_past_is_forgotten_once_what_could_not_be_read_has_expired() -> None:
    partition = follower_of(row(Kind.TOKEN, 2, 100))
    assert not partition.lacks_key(100)
    assert [applied.step for applied in partition.forget_past()] == [None]
    assert partition.realm(REALM).remembered == 0
    hub = RealmHub([partition], REALM)
    assert hub.positions() == (partition.realm(REALM).position,)
