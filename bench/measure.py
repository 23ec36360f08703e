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


def each(
    call: Callable[[Any], object], arguments: Sequence[Any], seconds: float = 0.04, *, waits: bool = False
) -> Callable[[], float]:
    """A job that calls with these arguments in turn for about so long; gives seconds a call, without the loop's own.

    Processor time, which other processes disturb least; wall time where a call waits for somebody (`waits`).
    """
    clock = time.perf_counter if waits else time.process_time

    def loop(body: Callable[[Any], object], passes: int) -> float:
        begun = clock()
        for _ in range(passes):
            for argument in arguments:
                body(argument)
        return (clock() - begun) / (passes * len(arguments))

    passes = 0

    def job() -> float:
        nonlocal passes
        gc.collect()
        gc.disable()
        try:
            if not passes:
                once = max(loop(call, 1), 1e-8)
                passes = max(1, int(seconds / once / len(arguments)))
            return max(loop(call, passes) - loop(_nothing, passes), 1e-9)
        finally:
            gc.enable()

    return job


def once(call: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """Seconds of processor time a call, each argument once."""
    gc.collect()
    gc.disable()
    try:
        begun = time.process_time()
        for argument in arguments:
            call(argument)
        return (time.process_time() - begun) / len(arguments)
    finally:
        gc.enable()


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
