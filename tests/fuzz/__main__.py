"""`python -m tests.fuzz`: the long campaign; every target gets its share of the inputs."""

from __future__ import annotations

import argparse
import base64
import logging
import subprocess
import sys
import time
from pathlib import Path

import structlog

from tests.fuzz.campaign import TARGETS, Report, run

SHARES = {
    "inspect": 0.05,
    "rows": 0.3,
    "realms-file": 0.1,
    "environment": 0.1,
    "grpc-watch": 0.2,
    "grpc-audit": 0.02,
    "grpc": 0.6,
    "http": 0.4,
}
"""Of the inputs of a target, where the others get one: each of these costs more."""
FOUND = Path(".cache/fuzz")


def main() -> int:
    """Prints one row for each target. 1 if anything was found; the inputs are then in .cache/fuzz."""
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument("--minutes", type=float, default=0, help="end after so long, whatever the inputs")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    names = given.targets or list(TARGETS)
    whole = sum(SHARES.get(name, 1.0) for name in names)
    end = time.monotonic() + given.minutes * 60 if given.minutes else float("inf")
    print(f"commit {_commit()}, seed {given.seed}\n")
    print("| target | inputs | inputs/s | worst, ms | growth, MiB | findings | what became of them |")
    print("|" + "---|" * 7)
    reports = []
    for number, name in enumerate(names):
        share = (end - time.monotonic()) / (len(names) - number)
        stop = time.monotonic() + share
        inputs = round(given.inputs * SHARES.get(name, 1.0) / whole) + 1
        reports.append(run(name, inputs, given.seed, lambda stop=stop: time.monotonic() > stop))  # type: ignore[misc]
        print(_row(reports[-1]), flush=True)
    print(f"\n{sum(report.inputs for report in reports)} inputs")
    return _keep(reports)


def _row(report: Report) -> str:
    words = ", ".join(f"{word} {count}" for word, count in report.words.most_common(6))
    speed = report.inputs / max(report.seconds, 0.001)
    return (
        f"| {report.name} | {report.inputs} | {speed:.0f} | {report.worst_s * 1000:.0f} | {report.growth / 2**20:.1f} "
        f"| {len(report.findings)} | {words} |"
    )


def _keep(reports: list[Report]) -> int:
    findings = [(report.name, data, why) for report in reports for data, why in report.findings]
    FOUND.mkdir(parents=True, exist_ok=True)
    for name, data, why in findings:
        print(f"{name}: {why[:500]}", file=sys.stderr)
        with (FOUND / f"{name}.txt").open("a") as file:
            file.write(f"{base64.b64encode(data).decode()}  # {why[:100]!r}\n")
    return bool(findings)


def _commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
