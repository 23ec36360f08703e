"""What a replica holds of op records while histories change under it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from revocation.replication.partition import Partition, chain
from revocation.store import ZERO, Heads, LogEntry

REALM, OLD, NEW = "r", "ab" * 16, "cd" * 16
OP = f"{'1' * 8}:{'2' * 8}:7:9000:1000"


def record(partition: Partition, ops: str) -> LogEntry:
    position = partition.realm(REALM).position.advance(b"")
    entry = LogEntry(partition.seq + 1, REALM, position.seq, position.digest.hex(), "", 1_000, b"", ops)
    return replace(entry, digest=chain(partition.digest, entry))


def followed() -> Partition:
    partition = Partition()
    partition.adopt_heads(OLD, Heads(0, ZERO, {}), {})
    partition.apply(record(partition, OP))
    return partition


def test_an_op_record_survives_a_change_of_history_that_has_not_brought_it_again() -> None:
    partition = followed()
    for log_id in (NEW, OLD):  # and another one before the log was read
        partition.adopt_heads(log_id, Heads(5, hashlib.sha1(b"").hexdigest(), {}), {})
        assert partition.ops() == {OP: REALM}


def test_an_op_record_that_the_log_brings_again_is_held_once() -> None:
    partition = followed()
    partition.adopt_heads(NEW, Heads(0, ZERO, {}), {})
    partition.apply(record(partition, OP))
    assert partition.ops() == {OP: REALM}
    assert not partition._carried
