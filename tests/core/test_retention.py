"""Trimming by age, and by count long before the hard cap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from revocation.replication.retention import Retention

steps = st.lists(st.tuples(st.integers(0, 5_000), st.integers(1, 50)), max_size=100)


@given(steps, st.integers(0, 20_000), st.integers(2, 2_000))
def test_nothing_that_is_young_is_trimmed_unless_the_log_is_long(
    gaps: list[tuple[int, int]], later_ms: int, longest: int
) -> None:
    retention, now, seq, records = Retention(10.0, longest), 0, 0, list[tuple[int, int]]()
    for gap_ms, count in gaps:
        now, seq = now + gap_ms, seq + count
        records.append((now, seq))
        retention.note(now, seq)
    now += later_ms
    below = retention.trim_below(now, seq)
    young = [number for at, number in records if at >= now - 10_000]
    assert below <= max(min(young, default=seq), seq - longest // 2)
    assert below >= seq - longest // 2


def test_what_is_old_goes_and_a_history_that_begins_earlier_takes_back() -> None:
    retention = Retention(10.0, 1_000_000)
    for second in range(30):
        retention.note(second * 1_000, second)
    assert retention.trim_below(30_000, 29) == 19
    retention.back_to(22)
    assert retention.trim_below(60_000, 22) == 22
