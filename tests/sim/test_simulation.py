"""Random schedules: nothing that may go wrong breaks an invariant. `make sim` runs more of them."""

from __future__ import annotations

import pytest

from tests.sim.schedule import FAULTS
from tests.sim.search import explain, made, run_with, search

SCHEDULES = 20_000
SHARE = 400
"""Schedules of one test: small enough for two processes to share them evenly."""


@pytest.mark.timeout(600)  # a few seconds, on a machine that has nothing else to do
@pytest.mark.parametrize("first", range(0, 2 * SCHEDULES, 2 * SHARE))
def test_no_schedule_breaks_an_invariant(first: int) -> None:
    """I1-I4, and ordered, unique, gapless and resumable delivery. Seeds from `first` on, as many as test something."""
    tally = search(first, 2 * SHARE, enough=SHARE)
    print(f"seeds from {first}: {tally}")
    for seed, violations in tally.failing:
        pytest.fail(explain(seed, violations))
    assert tally.counted == SHARE
    # Whatever can go wrong, went wrong; and mostly it did not.
    assert not [kind for kind in FAULTS if not tally.done[kind]]
    assert tally.numbers["acknowledged"] > 5 * SHARE
    assert tally.numbers["checked"] > 5 * SHARE
    assert tally.numbers["delivered"] > 10 * SHARE
    assert tally.numbers["excused"] < tally.numbers["acknowledged"] / 50


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_tells_all_that_happens(seed: int) -> None:
    schedule = made(seed, None)
    assert run_with(schedule, None) == run_with(schedule, None)
