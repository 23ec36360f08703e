"""A failing schedule made small: actions are dropped as long as it still fails in the same way."""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.schedule import Schedule


def sort_of(violation: str) -> str:
    """What a violation is about, without the particulars: `I1`, `I3`, `delivery`, ..."""
    return violation.split(" ", 2)[1].rstrip(":")


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], budget: int = 200) -> Schedule:
    """The smallest schedule found with so many runs."""
    size = max(1, len(schedule.actions) // 2)
    while size:
        start = 0
        while start < len(schedule.actions) and budget > 0:
            smaller = schedule.without(start, size)
            budget -= 1
            if fails(smaller):
                schedule = smaller
            else:
                start += size
        size //= 2
    return schedule
