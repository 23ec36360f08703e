"""Measures every row of the table of targets, and writes docs/performance.md with its plots.

    python -m bench [--quick] [--only ROW ...] [--dry-run]

All of it takes some twenty minutes on an idle machine. --quick takes about two, with smaller sizes and fewer rounds.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from pathlib import Path

from bench import rows
from bench.lab import lab
from bench.report import Report

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, smaller sizes")
    parser.add_argument("--only", action="append", choices=list(rows.ALL), help="only this one; nothing is written")
    parser.add_argument("--dry-run", action="store_true", help="print, and write nothing")
    given = parser.parse_args()
    # gRPC's poller goes on telling event loops of rows that have ended; that would bury the progress.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    writes = not given.only and not given.dry_run
    report = Report(DOCS, how="quick" if given.quick else "full", draws=writes)
    for name in given.only or rows.ALL:
        row: Callable[..., None] = rows.ALL[name]
        begun = time.monotonic()
        print(f"{name} ...", flush=True)
        with lab() as made:
            try:
                row(report, made)
            except Exception as error:  # one that fails must not cost the others
                report.failed(name, error)
        print(f"  {time.monotonic() - begun:.0f} s", flush=True)
        if writes:
            report.write()  # whoever interrupts a long run keeps what it found
    print(report.text())


if __name__ == "__main__":
    main()
