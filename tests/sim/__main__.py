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

from tests.sim.mutants import MUTANTS
from tests.sim.search import Tally, explain, made, run_with, search

_CHUNK = 100
_REPORT_S = 10.0


def _chunks(first: int, count: int) -> Iterator[tuple[int, int]]:
    for start in range(first, first + count, _CHUNK):
        yield start, min(_CHUNK, first + count - start)


def _search_all(options: argparse.Namespace) -> Tally:
    began, tally = time.monotonic(), Tally()
    reported = began
    with ProcessPoolExecutor(options.processes) as pool:
        pending = [
            pool.submit(search, start, count, options.mutant)
            for start, count in _chunks(options.seed, options.schedules)
        ]
        for future in pending:
            tally.add(future.result())
            now = time.monotonic()
            if now - reported > _REPORT_S:
                reported = now
                rate = tally.runs / (now - began)
                left_s = (options.schedules - tally.runs) / rate
                failing = f"{len(tally.failing)} failing, {rate:.0f}/s, {left_s / 60:.0f} min to go"
                print(f"  {tally.runs:,} schedules, {failing}", flush=True)
            if len(tally.failing) >= options.failures or now - began > options.seconds:
                pool.shutdown(cancel_futures=True)
                break
    took = time.monotonic() - began
    print(f"{tally}\n{took:.0f} s, {tally.runs / took:.0f} schedules/s")
    return tally


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.replay is not None:
        schedule = made(options.replay, options.mutant)
        outcome = run_with(schedule, options.mutant)
        print(schedule)
        print(*(outcome.violations or ["holds"]), sep="\n")
        return bool(outcome.violations)
    print(f"{options.schedules:,} schedules from seed {options.seed}, {options.processes} processes", flush=True)
    tally = _search_all(options)
    for seed, violations in tally.failing:
        print("\n" + explain(seed, violations, options.mutant))
    return bool(tally.failing)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    parser.add_argument("--failures", type=int, default=3, help="stop after so many")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one schedule and show it")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plant a mistake, which must be found")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
