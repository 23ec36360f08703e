"""Runs many schedules and counts what they have shown. Schedule number i is made from seed i alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from tests.sim.mutants import MUTANTS, planted
from tests.sim.schedule import FAULTS, Schedule, make
from tests.sim.shrink import shrink, sort_of
from tests.sim.world import Outcome, run


@dataclass
class Tally:
    """What some schedules have shown together."""

    runs: int = 0
    counted: int = 0
    """Runs that tested something: see `Outcome.counts`."""
    numbers: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    """What happened, by kind of action."""
    slowest_s: float = 0.0
    failing: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    """Seeds and what was violated."""

    def note(self, seed: int, outcome: Outcome) -> None:
        """Adds one run."""
        self.runs += 1
        self.counted += outcome.counts
        self.numbers.update(
            acknowledged=outcome.acknowledged,
            checked=outcome.checked,
            delivered=outcome.delivered,
            excused=outcome.excused,
        )
        self.done += outcome.done
        self.slowest_s = max(self.slowest_s, outcome.recovery_s)
        if outcome.violations:
            self.failing.append((seed, outcome.violations))

    def add(self, other: Tally) -> None:
        """Adds the runs of another one."""
        self.runs += other.runs
        self.counted += other.counted
        self.numbers += other.numbers
        self.done += other.done
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.failing += other.failing

    def __str__(self) -> str:
        numbers, faults = self.numbers, Counter({kind: self.done[kind] for kind in FAULTS})
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in faults.most_common())
        return (
            f"{self.runs:,} schedules, {self.counted:,} of which tested something; {faults.total():,} faults, "
            f"{numbers['acknowledged']:,} acknowledged, {numbers['checked']:,} claims of completeness and "
            f"{numbers['delivered']:,} messages checked, {numbers['excused']:,} excused (no copy was left), "
            f"well again {self.slowest_s:.1f} s after the faults at most; {len(self.failing)} failing\nfaults: {kinds}"
        )


def search(first: int, count: int, mutant: str | None = None, enough: int | None = None) -> Tally:
    """Runs up to `count` schedules, until one fails or `enough` of them have tested something."""
    tally = Tally()
    for seed in range(first, first + count):
        tally.note(seed, run_with(made(seed, mutant), mutant))
        if tally.failing or tally.counted == enough:
            break
    return tally


def made(seed: int, mutant: str | None) -> Schedule:
    """The schedule of a number; the search for a mistake looks where it can show."""
    return make(seed, MUTANTS[mutant].focus, MUTANTS[mutant].copies) if mutant else make(seed)


def run_with(schedule: Schedule, mutant: str | None) -> Outcome:
    """One run, with a planted mistake or without."""
    with planted(mutant):
        return run(schedule)


def explain(seed: int, violations: tuple[str, ...], mutant: str | None = None) -> str:
    """A failing schedule, shrunk, as a test that can be kept."""
    kind = sort_of(violations[0])

    def fails(schedule: Schedule) -> bool:
        found = run_with(schedule, mutant).violations
        return bool(found) and sort_of(found[0]) == kind

    small = shrink(made(seed, mutant), fails)
    found = run_with(small, mutant).violations
    body = str(small).replace("\n", "\n    ")
    return "\n".join(
        [
            f"seed {seed}: {violations[0]}",
            f"shrunk: {found[0]}",
            "",
            f"def test_seed_{seed}() -> None:",
            f"    holds({body})",
            "",
        ]
    )
