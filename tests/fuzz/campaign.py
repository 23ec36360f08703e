"""One target, many inputs: the oracle of all targets, and what was seen."""

from __future__ import annotations

import gc
import itertools
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.answers import Answers, Arguments
from tests.fuzz.commands import Inspect
from tests.fuzz.files import BearerTokens, Environment, MasterSecrets, RealmsFile, RolesFile
from tests.fuzz.live import Calls, Follows, Pages, Watches
from tests.fuzz.requests import RefreshTokens, Requests
from tests.fuzz.streams import Failures, Positions, Rows, WatchStreams
from tests.fuzz.target import Target
from tests.fuzz.tokens import CheckedClaims, KeySets, RawTokens, SignedTokens

IN_MEMORY: tuple[type[Target], ...] = (
    RawTokens,
    SignedTokens,
    CheckedClaims,
    KeySets,
    BearerTokens,
    RefreshTokens,
    Rows,
    WatchStreams,
    Positions,
    Failures,
    Answers,
    Arguments,
    Requests,
    RealmsFile,
    RolesFile,
    Environment,
    MasterSecrets,
    Inspect,
)
LIVE: tuple[type[Target], ...] = (Calls, Watches, Follows, Pages)
TARGETS: dict[str, type[Target]] = {target.name: target for target in (*IN_MEMORY, *LIVE)}

SLOW_S = 1.0
"""Processor time that no input may take; the largest are 64 KiB."""
GROWTH_BYTES = 16 * 1024 * 1024
"""By how much memory may grow in the second half: caches that are bounded are full by then."""
MOST_FINDINGS = 20


@dataclass
class Report:
    """What became of the inputs of one target."""

    name: str
    inputs: int = 0
    seconds: float = 0.0
    worst_s: float = 0.0
    growth: int = 0
    words: Counter[str] = field(default_factory=Counter)
    findings: list[tuple[bytes, str]] = field(default_factory=list)


def run(name: str, inputs: int, seed: int = 0, until: Callable[[], bool] = lambda: False) -> Report:
    """Fuzzes one target with so many inputs, or until it is time to end."""
    logging.disable(logging.CRITICAL)
    target, report = TARGETS[name](), Report(name)
    memory = getattr(target, "memory", _memory)
    begun, half = time.monotonic(), 0
    try:
        for data in itertools.islice(target.inputs(seed), inputs):
            if until() or len(report.findings) >= MOST_FINDINGS:
                break
            _try(target, data, report)
            if report.inputs == inputs // 2:
                gc.collect()
                half = memory()
        gc.collect()
        report.growth = memory() - half if half else 0
        if report.growth > GROWTH_BYTES:
            report.findings.append((b"", f"memory grew by {report.growth} bytes in the second half"))
    finally:
        report.seconds = time.monotonic() - begun
        try:
            target.close()
        except AssertionError as error:
            report.findings.append((b"", str(error)))
        logging.disable(logging.NOTSET)
    return report


def _try(target: Target, data: bytes, report: Report) -> None:
    report.inputs += 1
    begun = time.thread_time()
    try:
        report.words[target.one(data)] += 1
    except Exception as error:  # whatever leaves a target is a finding
        report.findings.append((data, f"{type(error).__name__}: {error}"))
    took = time.thread_time() - begun
    report.worst_s = max(report.worst_s, took)
    if took > SLOW_S:
        report.findings.append((data, f"took {took:.1f} s"))


def _memory() -> int:
    """Bytes of this process in memory; 0 where that cannot be known."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
    except OSError:
        return 0
