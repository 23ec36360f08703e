"""`make sim`: searches for schedules that break an invariant.

    python -m tests.sim [--schedules N] [--seed S] [--seconds T] [--replay SEED] [--mutant NAME] [--processes P]

Schedule number i is made from seed S + i, so a failing one is replayed by its number alone. It is shrunk and printed as
a test to be kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from tests.sim.mutants import MUTANTS, planted
from tests.sim.schedule import Schedule, make
from tests.sim.shrink import shrink, sort_of
from tests.sim.world import Outcome, run

_CHUNK = 50


@dataclass(frozen=True, slots=True)
class Tally:
    """What some schedules have shown together."""

    runs: int = 0
    acknowledged: int = 0
    excused: int = 0
    checked: int = 0
    slowest_s: float = 0.0

    def add(self, outcome: Outcome) -> Tally:
        return self.plus(Tally(1, outcome.acknowledged, outcome.excused, outcome.checked, outcome.recovery_s))

    def plus(self, other: Tally) -> Tally:
        return Tally(
            self.runs + other.runs,
            self.acknowledged + other.acknowledged,
            self.excused + other.excused,
            self.checked + other.checked,
            max(self.slowest_s, other.slowest_s),
        )


def search(first: int, count: int, mutant: str | None = None) -> tuple[Tally, list[tuple[int, tuple[str, ...]]]]:
    """Runs schedules until one fails; returns what they showed, and the failing one."""
    tally = Tally()
    for seed in range(first, first + count):
        outcome = run_with(made(seed, mutant), mutant)
        tally = tally.add(outcome)
        if outcome.violations:
            return tally, [(seed, outcome.violations)]
    return tally, []


def made(seed: int, mutant: str | None) -> Schedule:
    """The schedule of a number; the search for a mistake looks where it can show."""
    return make(seed, MUTANTS[mutant].focus, MUTANTS[mutant].copies) if mutant else make(seed)


def run_with(schedule: Schedule, mutant: str | None) -> Outcome:
    """One run, with a planted mistake or without."""
    with planted(mutant):
        return run(schedule)


def explain(seed: int, violations: tuple[str, ...], mutant: str | None) -> str:
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


def _chunks(first: int, count: int) -> Iterator[tuple[int, int]]:
    for start in range(first, first + count, _CHUNK):
        yield start, min(_CHUNK, first + count - start)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.replay is not None:
        outcome = run_with(made(options.replay, options.mutant), options.mutant)
        print(made(options.replay, options.mutant))
        print(*(outcome.violations or ["holds"]), sep="\n")
        return bool(outcome.violations)
    began, tally, failing = time.monotonic(), Tally(), list[tuple[int, tuple[str, ...]]]()
    print(f"{options.schedules} schedules from seed {options.seed}, {options.processes} processes", flush=True)
    with ProcessPoolExecutor(options.processes) as pool:
        pending = [
            pool.submit(search, start, count, options.mutant)
            for start, count in _chunks(options.seed, options.schedules)
        ]
        for number, future in enumerate(pending, 1):
            part, found = future.result()
            tally, failing = tally.plus(part), failing + found
            if number % 20 == 0:
                print(f"  {tally.runs} schedules, {len(failing)} failing", flush=True)
            if len(failing) >= options.failures or time.monotonic() - began > options.seconds:
                pool.shutdown(cancel_futures=True)
                break
    took = time.monotonic() - began
    print(
        f"{tally.runs} schedules in {took:.0f} s ({tally.runs / took:.0f}/s): {tally.acknowledged} acknowledged, "
        f"{tally.checked} claims of completeness checked, {tally.excused} excused, "
        f"recovery at most {tally.slowest_s:.1f} s, {len(failing)} failing"
    )
    for seed, violations in failing:
        print("\n" + explain(seed, violations, options.mutant))
    return bool(failing)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--schedules", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--failures", type=int, default=3, help="stop after so many")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one schedule and show it")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant a mistake, which must be found")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
