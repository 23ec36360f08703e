"""Schedules that once broke an invariant, as the search shrank them."""

from __future__ import annotations

from tests.sim.schedule import Action, Schedule
from tests.sim.world import run


def holds(schedule: Schedule) -> None:
    assert run(schedule).violations == ()


def test_who_lacks_only_what_was_trimmed_does_not_wait_for_a_record_that_never_comes() -> None:
    """No next record shows the gap (D7): the replica called itself usable, and no barrier of its ever ended (I3)."""
    holds(
        Schedule(
            seed=28126,
            actions=(Action(1.095, "slow", 2, 1.114), Action(2.103, "cutoff", 0, 0.0), Action(2.335, "trim", 0, 0.087)),
            nodes=2, services=2, clients=2, copies=0, lag_s=1.0, delay_s=0.005, strike_after_s=1000.0,
        )
    )  # fmt: skip
    holds(
        Schedule(
            seed=38584,
            actions=(Action(0.904, "slow", 0, 0.943), Action(1.717, "cutoff", 1, 0.0), Action(1.89, "trim", 0, 1.086)),
            nodes=3, services=2, clients=1, copies=2, lag_s=0.02, delay_s=0.02, strike_after_s=1000.0,
        )
    )  # fmt: skip
