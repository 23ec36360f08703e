"""What a replica holds of op records while histories change under it."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import hypothesis.strategies as st
import pytest
from hypothesis import given

from revocation.replication import partition as partition_module
from revocation.replication.ops import OpRecords
from revocation.replication.partition import Partition, chain, record_bytes
from revocation.store import ZERO, Heads, LogEntry, Registry

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
        assert list(partition.ops(10)) == [(REALM, [OP])]


def known(ops: OpRecords, most: int = 500) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for realm, batch in ops.batches(most):
        assert 0 < len(batch) <= most
        found.setdefault(realm, []).extend(batch)
    return found


def op(number: int, at_ms: int) -> str:
    return f"{number:032x}:{number:032x}:0:0:{at_ms}"


@given(
    records=st.lists(st.tuples(st.integers(0, 50), st.sampled_from("rst"), st.integers(0, 30)), max_size=60),
    before_ms=st.integers(0, 60), most_bytes=st.integers(0, 100_000), at_once=st.integers(1, 40),
)  # fmt: skip
def test_op_records_are_bounded_by_bytes_and_age_and_the_oldest_go_first(
    records: list[tuple[int, str, int]], before_ms: int, most_bytes: int, at_once: int
) -> None:
    """What is offered for healing is a gapless end of what was read, without what nobody may repeat any more."""
    ops, numbers = OpRecords(most_bytes), iter(range(10_000))
    read: list[tuple[str, str, int]] = []
    for at_ms, realm, count in sorted(records):
        several = [op(next(numbers), max(0, at_ms - index % 3)) for index in range(count)]
        ops.add(at_ms, realm, " ".join(several))
        read += [(realm, one, int(one.rpartition(":")[2])) for one in several]
        assert ops._bytes <= most_bytes
    ops.forget(before_ms)
    held = [one for several in known(ops, at_once).values() for one in several]
    expected = [one for _, one, made_ms in read if made_ms >= before_ms]
    assert sorted(held) == sorted(expected[len(expected) - len(held) :])
    assert {realm: set(several) for realm, several in known(ops).items()} == {
        realm: {one for of, one, _ in read if of == realm and one in held}
        for realm in {r for r, o, _ in read if o in held}
    }
    if not known(ops):
        assert not ops._records or most_bytes
    assert bool(ops._bytes) == bool(ops._records)


def test_an_op_record_that_was_put_back_is_no_younger_for_it() -> None:
    ops = OpRecords()
    for at_ms in (1_000, 500_000):  # and again, as healing brings it
        ops.add(at_ms, REALM, op(1, 1_000))
    ops.add(500_000, REALM, op(2, 500_000))
    ops.forget(2_000)
    assert known(ops) == {REALM: [op(2, 500_000)]}


def test_the_records_for_a_failover_are_bounded_by_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is larger than what is kept is healed by comparing everything, and no suffix is made up."""
    monkeypatch.setattr(partition_module, "SUFFIX_BYTES", 10_000)
    partition = Partition()
    partition.adopt_heads(OLD, Heads(0, ZERO, {}), {})
    digests = [ZERO]
    for number in range(100):
        partition.apply(record(partition, " ".join(op(number * 10 + index, 1_000) for index in range(10))))
        digests.append(partition.digest)
        assert partition._recent_bytes == sum(map(record_bytes, partition.recent())) <= 10_000
    partition.cover(OLD, 100)
    kept = len(partition.recent())
    assert 0 < kept < 10
    assert sum(map(len, known(partition._ops).values())) == 1_000
    for base in range(101):
        registry = Registry(None, log_id=NEW, base=base, base_digest=digests[base])
        suffix = partition.suffix(registry)
        assert (suffix is not None) == (base >= 100 - kept)
    registry = Registry(None, log_id=NEW, base=98, base_digest=digests[98])
    suffix = partition.suffix(registry)
    assert suffix is not None
    partition.adopt_suffix(registry, suffix)
    assert partition._recent_bytes == sum(map(record_bytes, partition.recent()))
    partition.adopt_heads(OLD, Heads(0, ZERO, {}), {})
    assert (partition._recent_bytes, partition.recent()) == (0, ())
    assert sum(map(len, known(partition._ops).values())) == 1_000
