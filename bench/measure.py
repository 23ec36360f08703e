"""How things are measured here.

A shared machine is never quiet, so nothing is measured alone: what is compared takes turns, round by round, and what
is reported is the median of the rounds with the smallest and the largest. A ratio is made in each round, from two
neighbours, before the median is taken.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some rounds, with the smallest and the largest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))

    def text(self, unit: str = "", scale: float = 1.0) -> str:
        """`12.3 (11.0-14.2) us`."""
        middle, low, high = (number(value * scale) for value in (self.median, self.low, self.high))
        return f"{middle} ({low} to {high}){' ' if unit else ''}{unit}"


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    if value >= 1000:
        return f"{value:,.0f}"
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.3g}" if value >= 0.001 or value == 0 else f"{value:.2g}"


def ratios(one: Sequence[float], other: Sequence[float]) -> Spread:
    """Round by round, `one` by `other`."""
    return Spread.of(a / b for a, b in zip(one, other, strict=True))


def turns(rounds: int, jobs: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Runs all jobs in turn, so many times; each returns what it measured."""
    found: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            found[name].append(job())
    return found


def each(call: Callable[[Any], object], arguments: Sequence[Any], count: int) -> Callable[[], float]:
    """A job that makes `count` calls with these arguments in turn; gives seconds a call, the loop's own time taken off."""

    def loop(body: Callable[[Any], object]) -> float:
        done = 0
        begun = time.perf_counter()
        while done < count:
            for argument in arguments:
                body(argument)
            done += len(arguments)
        return (time.perf_counter() - begun) / done

    def job() -> float:
        gc.collect()
        gc.disable()
        try:
            return max(loop(call) - loop(_nothing), 1e-9)
        finally:
            gc.enable()

    return job


def _nothing(argument: object) -> None:
    pass


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in user and in kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_bytes(pid: int | str = "self") -> int:
    """Memory that a process alone would give back: what it shares with nobody."""
    return sum(
        int(line.split()[1]) * 1024
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        if line.startswith(("Private_Clean:", "Private_Dirty:"))
    )
