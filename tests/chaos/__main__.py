"""`make chaos`: breaks a live cluster in seeded ways, and compares what verifiers decided with what was promised.

All processes share CLOCK_MONOTONIC, so that "acknowledged at t" and "accepted, fresh, at t" can be compared exactly.
Ends with 1 if an invariant was violated that docs/guarantees.md promises at this ack level.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from revocation_sdk import RevocationClient
from revocation_sdk._position import decode_positions
from tests.chaos.cluster import MAX_STALENESS_S, PING_S, Cluster
from tests.chaos.excuse import lost_at
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.load import Work
from tests.e2e.installation import Verifier
from tests.e2e.load import Findings, Wanted, judge
from tests.e2e.processes import until

RECOVERY_S = 45.0
"""After it: not recovered (I3). The goal is ten seconds, on a machine of its own."""

SLOW_S = 6.0
"""After it the services write down what they wait for."""

GOAL_S = 10.0
"""What is aimed at; how often it was missed is in the table."""

BOUNDS_MB = {"replica": 256, "verifier": 192, "store": 128}
"""Resident memory of a process, by the first part of its name. More is a violation (I8)."""

NEVER = float("inf")

HARNESS_KB = 4
"""What the harness itself keeps in a verifier's process for each token that it judges."""


class Run:
    """One run of chaos."""

    def __init__(self, cluster: Cluster, seed: int, ack: str, only: str = "") -> None:
        self.cluster, self.ack = cluster, ack
        self.kinds = [fault for fault in FAULTS if not only or fault.__name__ in only.split(",")]
        self.chance = random.Random(seed)
        self.faults: list[Fault] = []
        self.to_fresh: dict[str, list[float]] = {}
        self.not_recovered: list[str] = []
        self.most_kb: dict[str, int] = {}
        self.client = RevocationClient(
            ",".join(service.address for service in cluster.services),
            ping_interval=PING_S, max_staleness=MAX_STALENESS_S, insecure=cluster.network is not None,
        )  # fmt: skip
        self.work = Work(self.client, cluster.installation.signer)

    def go(self, seconds: float) -> None:
        for verifier in self.cluster.verifiers:
            verifier.wait_fresh()
        self.client.wait_until_fresh(RECOVERY_S)
        self.work.start(self.cluster.verifiers)
        end = time.monotonic() + seconds
        while time.monotonic() < end and not self.not_recovered:
            time.sleep(self.chance.uniform(0.3, 1.5))
            self.one()
        self.work.stop()
        time.sleep(MAX_STALENESS_S)  # I1: only then may nobody accept any more what was acknowledged last

    def one(self) -> None:
        """One fault, now and then two at once; then everything is mended, and everybody gets fresh."""
        count = 2 if self.chance.random() < 0.25 else 1
        faults = []
        for _ in range(count):
            faults.append(self.begin())
            time.sleep(self.chance.uniform(0, 0.5) if count > 1 else 0)
        for fault in sorted(faults, key=lambda fault: fault.seconds):
            time.sleep(max(0.0, fault.begun + fault.seconds - time.monotonic()))
            fault.mend()
            fault.ended = time.monotonic()
        for process in self.cluster.installation.processes:
            if process.stopped:
                process.resume()
        self.recover(" + ".join(fault.kind for fault in faults), time.monotonic())

    def begin(self) -> Fault:
        while True:
            try:
                fault = self.chance.choice(self.kinds)(self.cluster, self.chance)
            except IndexError:  # nothing left to break in this way
                continue
            fault.begun = time.monotonic()
            self.faults.append(fault)
            print(f"{time.strftime('%H:%M:%S')}  {fault.kind}: {fault.what}, {fault.seconds:.1f} s", flush=True)
            return fault

    def recover(self, what: str, mended: float) -> None:
        """Waits until every verifier has accepted something by a view that was fresh after the mending."""
        late, told = list(self.cluster.verifiers), False
        while late and time.monotonic() < mended + RECOVERY_S:
            late = [one for one in late if one.ask(RECOVERY_S + 10, do="state")["fresh_at"] <= mended]
            if not told and time.monotonic() > mended + SLOW_S:
                told = True
                for service in self.cluster.services:
                    service.signal(signal.SIGUSR1)
            time.sleep(0.02)
        took = time.monotonic() - mended
        self.to_fresh.setdefault(what, []).append(took)
        if late:
            self.not_recovered.append(f"after {what}: {', '.join(one.name for one in late)}")
        self.cluster.primary()
        self.watch_memory()
        for service in self.cluster.services:
            if not service.running:
                self.not_recovered.append(f"after {what}: {service.name} ended with {service.wait()}")
                service.start()

    def watch_memory(self) -> None:
        """Notes the highest memory of every process that there is."""
        for name, kilobytes in self.cluster.memory_kb().items():
            self.most_kb[name] = max(self.most_kb.get(name, 0), kilobytes)

    def bound_mb(self, name: str) -> float:
        """The bound of a process."""
        kind = name.partition("-")[0]
        return BOUNDS_MB[kind] + (len(self.work.all) * HARNESS_KB / 1024 if kind == "verifier" else 0)

    # -- what came of it ----------------------------------------------------------------------------------------

    def judge(self) -> tuple[dict[str, list[str]], int, int]:
        """Violations by invariant, how many were excused, and the number of decisions."""
        tokens, patience_s = {wanted.name: wanted.token for wanted in self.work.all}, self.patience_s
        self.cluster.add_verifier("thread")
        found, decisions, gone = Findings(), 0, dict[str, float]()
        for verifier in self.cluster.verifiers:
            verifier.ask(patience_s, do="sample", tokens=tokens)
            self.settle(verifier)
            report = verifier.ask(patience_s, do="report")
            decisions += report["decisions"]
            one = judge(self.work.all, verifier, report, whole=True)
            gone |= self.gone(_name(text) for text in one.lost if _name(text) not in gone)
            accepted = report["accepted_at"]
            found.stale += [text for text in one.stale if accepted[_name(text)] < gone.get(_name(text), NEVER)]
            found.lost += one.lost
            found.false += one.false
        self.watch_memory()
        grown = [
            f"{name}: {kilobytes / 1024:.0f} MB"
            for name, kilobytes in self.most_kb.items()
            if kilobytes / 1024 > self.bound_mb(name)
        ]
        violations = {
            "I1 stale accept": found.stale,
            "I1 stale answer of Check": _before(self.work.wrong_checks, gone),
            "I2 lost": [text for text in found.lost if _name(text) not in gone],
            "op id answered differently": _before(self.work.different_answers, gone),
            "I3 not recovered": self.not_recovered,
            "I4 false refusal": found.false,
            "I8 memory above its bound": grown,
        }
        return violations, len(gone), decisions

    def note(self, folder: Path) -> None:
        """Writes down what was promised and broken when, to be read beside the logs."""
        shift = time.time() - time.monotonic()

        def at(mono: float | None) -> str | None:
            return (
                None if mono is None or mono == float("inf") else f"{datetime.fromtimestamp(mono + shift, UTC):%T.%f}"
            )

        lines = [
            {
                "name": one.name,
                "asked": at(one.asked_at),
                "acknowledged": at(one.acknowledged_at),
                "failures": one.failures,
            }
            for one in self.work.all
        ] + [
            {"fault": fault.kind, "of": fault.what, "from": at(fault.begun), "to": at(fault.ended)}
            for fault in self.faults
        ]
        (folder / "record.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def settle(self, verifier: Verifier) -> None:
        patience_s = self.patience_s
        verifier.wait_fresh(patience_s)
        asked: int = verifier.ask(patience_s, do="settle")["asked"]

        def done() -> bool:
            return bool(verifier.ask(patience_s, do="state")["all_judged"] >= asked)

        until(done, "all was judged once more", patience_s)

    @property
    def patience_s(self) -> float:
        """For a look at everything: half an hour of load is tens of thousands of tokens."""
        return RECOVERY_S + 0.02 * len(self.work.all)

    def gone(self, names: Iterable[str]) -> dict[str, float]:
        """Which of these docs/guarantees.md allows to be lost, and since when they may be (excuse.py)."""
        lost = set(names)
        told = self.acknowledgers() if lost else {}
        since = {one.name: self.lost_at(one, told) for one in self.work.all if one.name in lost}
        return {name: at for name, at in since.items() if at is not None}

    def lost_at(self, wanted: Wanted, told: dict[str, set[str]]) -> float | None:
        assert wanted.acknowledged_at is not None
        assert wanted.receipt is not None
        where = decode_positions(wanted.receipt.position) if wanted.receipt.position else ()
        by = set[str]().union(*(told.get(one.digest.hex(), ()) for one in where if one.seq))
        return lost_at(self.ack, wanted.acknowledged_at, self.faults, by)

    def acknowledgers(self) -> dict[str, set[str]]:
        """Who says in its log that it acknowledged what, by digest. The last lines of a killed one may be missing."""
        told: dict[str, set[str]] = {}
        for service in self.cluster.services:
            for line in service.events("revoked"):
                told.setdefault(line["digest"], set()).add(service.name)
        return told

    def table(self, violations: dict[str, list[str]], excused: int, decisions: int, before: dict[str, int]) -> None:
        acknowledged = self.work.acknowledged
        print("\nfaults")
        if self.cluster.left_out:
            print(f"   left out: partitions of network namespaces ({self.cluster.left_out})")
        for kind, count in sorted(Counter(fault.kind for fault in self.faults).items()):
            print(f"  {count:5}  {kind}")
        print("\nload")
        print(f"  {len(acknowledged):5}  revocations acknowledged, {_retried(acknowledged)} of them after retries")
        print(f"  {decisions:5}  decisions of verifiers")
        for what, count in sorted(self.work.counts.items()):
            print(f"  {count:5}  {what}")
        print("\nseconds until everybody is fresh, after a fault ended        p50     max")
        every = [took for all_of_kind in self.to_fresh.values() for took in all_of_kind]
        for kind, took in [*sorted(self.to_fresh.items()), ("all", every)]:
            print(f"  {kind:56} {statistics.median(took):6.2f}  {max(took):6.2f}")
        print(f"  {sum(took > GOAL_S for took in every)} of {len(every)} took longer than {GOAL_S:g} s")
        print("\nresident memory, MB                          at first      most     bound")
        for name, kilobytes in self.most_kb.items():
            first = before.get(name, 0) / 1024
            print(f"  {name:42} {first:8.0f}  {kilobytes / 1024:8.0f}  {self.bound_mb(name):8.0f}")
        print("\nviolations")
        for what, found in violations.items():
            print(f"  {len(found):5}  {what}")
            for text in found[:8]:
                print(f"         {text}")
        print(f"  {excused:5}  lost and excused by docs/guarantees.md (the store and who acknowledged, at once)")


def _name(finding: str) -> str:
    return finding.split(": ")[1].split(" ")[0]


def _before(observed: list[tuple[str, float, str]], gone: dict[str, float]) -> list[str]:
    """What was seen before it may have been lost."""
    return [f"{name} {how}" for name, at, how in observed if at < gone.get(name, NEVER)]


def _retried(acknowledged: list[Wanted]) -> int:
    return sum(bool(wanted.failures) for wanted in acknowledged)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--ack", default="memory", help="memory, replicated (all store replicas) or replicated:N")
    parser.add_argument("--keep", type=Path, default=None, help="folder for the logs; else they go when all is well")
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--verifiers", type=int, default=6)
    parser.add_argument("--only", default="", help="these faults only, by the names of their functions, with commas")
    given = parser.parse_args()
    seed = random.randrange(1 << 32) if given.seed is None else given.seed
    ack = "replicated:2" if given.ack == "replicated" else given.ack
    folder = Path(tempfile.mkdtemp(prefix="revocation-chaos-")) if given.keep is None else given.keep / f"{seed}-{ack}"
    shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {seed}, ack {ack}, {given.minutes:g} minutes; logs in {folder}", flush=True)
    cluster = Cluster(folder, ack=ack, partitions=given.partitions, verifiers=given.verifiers)
    try:
        run = Run(cluster, seed, ack, given.only)
        before = cluster.memory_kb()
        run.go(given.minutes * 60)
        violations, excused, decisions = run.judge()
        run.table(violations, excused, decisions, before)
        run.note(folder)
    finally:
        cluster.close()
    failed = any(violations.values())
    if not failed and given.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"\n{'VIOLATED' if failed else 'all held'} (seed {seed})")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
