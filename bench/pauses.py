"""Row "worst pause of a reader": see `bench.view`, whose measure it is."""

from __future__ import annotations

from functools import partial

from bench.measure import Spread
from bench.view import BUILDERS, loaded, snapshot, works, worst_pause

ENTRIES = 1_000_000


def of(builder: str, entries: int, runs: int) -> dict[str, Spread]:
    """Milliseconds by what went on meanwhile."""
    chunks = snapshot(entries)
    found: dict[str, list[float]] = {}
    for _ in range(runs):
        view = loaded(BUILDERS[builder](), chunks)
        for work, act in works(chunks).items():
            found.setdefault(work, []).append(worst_pause(view, partial(act, view)))
    return {work: Spread.of(times) for work, times in found.items()}
