"""Schedules that once broke an invariant, as the search shrank them."""

from __future__ import annotations

from tests.sim.schedule import Action, Schedule
from tests.sim.world import World, run


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


def test_a_split_whose_new_primary_is_emptied_and_found_first_by_a_newcomer_is_the_limit_and_heals() -> None:
    """The newcomer cannot know of those whom the split leads to the old primary, and these cannot know of it: I1 is
    excused (docs/guarantees.md, what is not survived). When the split ends, all of it is everywhere (I2)."""
    schedule = Schedule(
        seed=20008203,
        actions=(
            Action(1.598, "revoke", 1, 0.0), Action(1.943, "prove", 4, 0.0), Action(2.493, "flap", 0, 0.638),
            Action(2.594, "wipe_late", 2, 0.677), Action(2.608, "cutoff", 3, 0.0), Action(3.091, "revoke", 2, 0.0),
            Action(3.268, "cutoff", 7, 0.0), Action(3.338, "revoke", 3, 0.0),
        ),
        nodes=3, services=2, clients=1, copies=0, lag_s=0.2, delay_s=0.02, strike_after_s=1000.0,
    )  # fmt: skip
    world, noted = World(schedule), list[bool]()

    def settled() -> None:
        world._settled()
        noted.append(world.oracle.apart)

    world.cluster.on_settle = settled
    assert world.run().violations == ()
    assert True in noted


def test_a_client_whom_a_mark_took_past_the_place_of_another_replica_gets_a_snapshot_there() -> None:
    """The replica is behind, and cannot know that the client was never where it is. No gap, and no wrong resume."""
    holds(
        Schedule(
            seed=20016518,
            actions=(
                Action(1.045, "revoke", 0, 0.0), Action(1.177, "revoke", 5, 0.0), Action(1.193, "revoke", 0, 0.0),
                Action(1.206, "revoke", 5, 0.0), Action(1.373, "trim", 0, 1.142), Action(1.425, "split", 3, 1.243),
                Action(1.515, "cutoff", 3, 0.0), Action(2.161, "revoke", 0, 0.0),
            ),
            nodes=2, services=3, clients=2, copies=0, lag_s=1.0, delay_s=0.1, strike_after_s=1000.0,
        )
    )  # fmt: skip


def test_what_a_replica_that_was_not_asked_in_time_reads_later_is_everywhere_in_the_end() -> None:
    """Nobody who holds anything confirms within `settle_s`: one is slow, one is stopped, which the assumptions exclude.
    What the second had committed it acknowledges when it goes on. I1 is excused for that; the rest holds (I2)."""
    schedule = Schedule(
        seed=1,
        actions=(
            Action(0.4, "revoke", 0, 0.0), Action(0.564, "revoke", 1, 0.0), Action(0.577, "pause", 1, 0.83),
            Action(0.627, "wipe_late", 1, 0.138), Action(1.906, "prove", 2, 0.0),
        ),
        nodes=1, services=2, clients=1, copies=0, lag_s=0.05, delay_s=0.02, strike_after_s=1000.0,
    )  # fmt: skip
    holds(schedule)


def test_what_only_a_slow_replica_holds_is_everywhere_when_it_has_come_into_the_history_of_the_others() -> None:
    """It still called itself usable, in the history before, when the others were looked at: not the end yet."""
    holds(
        Schedule(
            seed=5,
            actions=(
                Action(1.244, "revoke", 4, 0.0), Action(1.767, "slow_scripts", 3, 0.284),
                Action(1.933, "crash", 2, 0.418), Action(2.1, "wipe_late", 0, 0.871),
            ),
            nodes=3, services=2, clients=2, copies=0, lag_s=1.0, delay_s=0.02, strike_after_s=1000.0,
        )
    )  # fmt: skip
