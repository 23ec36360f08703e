"""Measures the view: bytes an entry, look-ups, loading, and how long a reader is kept waiting while it changes.

    python -m bench.view              10 k, 100 k and 1 M entries
    python -m bench.view --large      and 10 M

A shared machine interrupts threads by itself: each pause is the median of several runs, beside the pause of a reader
whom nobody disturbs.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from revocation_sdk._lattice import Group, Kind, join_groups
from revocation_sdk._packed import Builder, PureBuilder
from revocation_sdk._packed_fast import NumpyBuilder
from revocation_sdk._view import View

BUILDERS: dict[str, Callable[[], Builder]] = {"numpy": NumpyBuilder, "pure Python": PureBuilder}
EXPIRES = 2_000_000_000
CHUNK_ROWS = 10_000
ROW = np.dtype([("fp", "<u8"), ("expires_at", "<u4")])


def fingerprints(count: int, seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def snapshot(count: int, seed: int = 1) -> list[bytes]:
    """As it comes over the wire. The expiries are spread over a day."""
    rows = np.empty(count, ROW)
    rows["fp"] = fingerprints(count, seed)
    rows["expires_at"] = EXPIRES + np.random.default_rng(seed).integers(0, 86_400, count)
    starts = range(0, count, CHUNK_ROWS)
    return [join_groups([Group(Kind.TOKEN, 1, rows[at : at + CHUNK_ROWS].tobytes())]) for at in starts]


def names(count: int) -> Iterator[str]:
    """Identifiers as they stand in tokens, which a set would hold."""
    return (f"{number:032x}"[:8] + "-0000-7000-8000-" + f"{number:012x}" for number in range(count))


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def bytes_taken(make: Callable[[], object]) -> int:
    """How much a fresh process grows by what `make` returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        gc.collect()
        loaded(NumpyBuilder(), snapshot(1000))  # what the first of all takes does not grow with the entries
        before = resident()
        kept = make()
        gc.collect()
        os.write(writer, str(resident() - before).encode())
        os._exit(0 if kept is not None else 1)
    os.close(writer)
    with os.fdopen(reader) as answer:
        taken = int(answer.read())
    os.waitpid(child, 0)
    return taken


def loaded(builder: Builder, chunks: Sequence[bytes]) -> View:
    view = View(builder)
    view.merge(*chunks)
    return view


def trickled(builder: Builder, chunks: Sequence[bytes], more: Sequence[bytes]) -> View:
    """Loaded, and then more in small batches, so that the deltas are as full as they are in service."""
    view = loaded(builder, chunks)
    for chunk in more:
        for at in range(7, len(chunk), 1200):
            view.merge(join_groups([Group(Kind.TOKEN, 1, chunk[at : at + 1200])]))
    return view


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def nanoseconds(ways: Sequence[tuple[Callable[[Any], object], Sequence[Any]]], rounds: int = 20) -> list[float]:
    """A look-up by each way, at best of some rounds, which take turns; the loop's own cost is in it."""
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for number, (find, keys) in enumerate(ways):
            begin = time.perf_counter()
            for key in keys:
                find(key)
            best[number] = min(best[number], (time.perf_counter() - begin) / len(keys) * 1e9)
    return best


def worst_pause(view: View, work: Callable[[], object]) -> float:
    """The longest that a thread that does nothing but look up was kept from it by this process, in milliseconds.

    In processor time of the process: what its other threads did while the reader did not come to it. What the rest of
    the machine takes away is nobody's fault.
    """
    keys = [int(fp) for fp in fingerprints(20, 9)]
    ended, pauses = threading.Event(), [0.0]

    def read() -> None:
        last = time.process_time()
        while not ended.is_set():
            for fp in keys:
                view.denied(Kind.TOKEN, 1, fp, 0)
            now = time.process_time()
            pauses[0] = max(pauses[0], now - last)
            last = now

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.05)
    pauses[0] = 0.0
    work()
    ended.set()
    reader.join()
    return pauses[0] * 1e3


def table(title: str, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    print(f"\n### {title}\n")
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(f"{cell:.1f}" if isinstance(cell, float) else str(cell) for cell in row) + " |")


def memory(sizes: Sequence[int]) -> None:
    def of(count: int) -> list[object]:
        chunks, more = snapshot(count), snapshot(count // 10, seed=2)
        ways: list[Callable[[], object]] = [
            lambda: loaded(NumpyBuilder(), chunks),
            lambda: trickled(NumpyBuilder(), chunks, more),
            lambda: loaded(PureBuilder(), chunks),
            lambda: set(names(count)),
            lambda: dict.fromkeys(names(count), EXPIRES),
            lambda: {name: EXPIRES + number for number, name in enumerate(names(count))},
        ]
        taken = [bytes_taken(way) / count for way in ways]
        taken[1] /= 1.1
        return [f"{count:,}", *taken]

    head = ("entries", "view", "after +10 %", "view, pure", "set of jti", "dict, one value", "dict of exp")
    table("Bytes an entry (resident memory)", head, map(of, sizes))


def look_ups(sizes: Sequence[int]) -> None:
    def of(count: int) -> list[object]:
        chunks, wanted = snapshot(count), random.Random(3).choices(range(count), k=20_000)
        hits = [int(fp) for fp in fingerprints(count, 1)[wanted]]
        misses = [int(fp) for fp in fingerprints(20_000, 4)]
        ways: list[tuple[Callable[[Any], object], Sequence[Any]]] = []
        for builder in BUILDERS.values():
            find = loaded(builder(), chunks).tables()[Kind.TOKEN, 1].find
            ways += [(find, misses), (find, hits)]
        there = list(names(count))
        known = set(there)
        ways += [(known.__contains__, [f"{fp:x}" for fp in misses])]
        ways += [(known.__contains__, [there[number][:4] + there[number][4:] for number in wanted])]
        return [f"{count:,}", *nanoseconds(ways)]

    head = ("entries", "numpy, miss", "hit", "pure, miss", "hit", "`str in set`, miss", "hit")
    table("Look-ups, ns", head, map(of, sizes))


STEPS: dict[str, Callable[[View, Sequence[bytes]], object]] = {
    "load": lambda view, chunks: view.merge(*chunks),
    "merge again": lambda view, chunks: view.merge(*chunks),
    "chunks": lambda view, chunks: list(view.chunks()),
    "half expires": lambda view, chunks: view.drop_expired(EXPIRES + 43_200),
    "nothing is due": lambda view, chunks: view.drop_expired(EXPIRES),
}


def loading(sizes: Sequence[int]) -> None:
    def of(count: int) -> list[list[object]]:
        chunks = snapshot(count)
        rows: list[list[object]] = []
        for name, builder in BUILDERS.items():
            view = View(builder())
            rows.append([f"{count:,}", name, *(1e3 * seconds(partial(act, view, chunks)) for act in STEPS.values())])
        return rows

    table("A snapshot, ms", ("entries", "builder", *STEPS), [row for count in sizes for row in of(count)])


def works(chunks: Sequence[bytes]) -> dict[str, Callable[[View], object]]:
    """What a view goes through, one after the other."""
    more = snapshot(CHUNK_ROWS, 2)[0]
    small = [join_groups([Group(Kind.TOKEN, 1, more[at : at + 1200])]) for at in range(7, len(more), 1200)]

    def trickle(view: View) -> None:
        for batch in small:
            view.merge(batch)
            time.sleep(0.001)  # as a thread that waits for the network does

    return {
        "nothing": lambda view: time.sleep(0.5),
        "a snapshot comes in": lambda view: view.merge(*chunks),
        "10,000 in batches of 100": trickle,
        "a snapshot is made": lambda view: list(view.chunks()),
        "half of it expires": lambda view: view.drop_expired(EXPIRES + 43_200),
        "the rest expires": lambda view: view.drop_expired(EXPIRES + 86_400),
    }


def pauses(count: int, runs: int) -> None:
    chunks = snapshot(count)

    def of(name: str) -> list[list[object]]:
        found: dict[str, list[float]] = {}
        for _ in range(runs):
            view = loaded(BUILDERS[name](), chunks)
            for work, act in works(chunks).items():
                found.setdefault(work, []).append(worst_pause(view, partial(act, view)))
        return [[name, work, statistics.median(times), min(times), max(times)] for work, times in found.items()]

    head = ("builder", "meanwhile", "median", "least", "most")
    rows = [row for name in BUILDERS for row in of(name)]
    table(f"Worst pause of a reader, {count:,} entries, {runs} runs, ms", head, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="also 10 million entries")
    parser.add_argument("--runs", type=int, default=5, help="how often each pause is measured")
    arguments = parser.parse_args()
    sizes = [10_000, 100_000, 1_000_000, *([10_000_000] if arguments.large else [])]
    memory(sizes)
    look_ups(sizes)
    loading(sizes)
    pauses(1_000_000, arguments.runs)


if __name__ == "__main__":
    main()
