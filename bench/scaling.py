"""What many users need: the arithmetic of docs/scaling.md, with its inputs on top. Writes the tables into it.

python -m bench.scaling [--dry-run]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

DOC = Path(__file__).parent.parent / "docs" / "scaling.md"
BEGIN, END = "<!-- bench/scaling.py writes from here -->", "<!-- to here -->"
DAY = 86_400


@dataclass(frozen=True, slots=True)
class Habits:
    """What users and operators do. Guesses: change them."""

    logouts_per_user_day: float = 0.5
    """Sessions ended early: logout, eviction by a limit."""
    refreshes_per_user_day: float = 20.0
    cutoffs_per_user_day: float = 0.01
    """Password changes, "log out everywhere"."""
    token_life_s: float = 3_600.0
    peak: float = 4.0
    """The busiest minute by the average one."""
    users_per_verifier: float = 50_000.0
    """Of all users, for each verifying process (workers count)."""
    ping_s: float = 2.0
    horizon_s: float = 30 * DAY
    """How long the store keeps a cutoff; a view keeps it for the life of a token."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Unit costs as measured, see docs/performance.md; rounded to the careful side."""

    single_per_core_s: float = 2_000.0
    """Single revocations a second and core of the service."""
    batched_per_core_s: float = 200_000.0
    refresh_per_core_s: float = 1_000.0
    """Assumed from single revocations: one script more."""
    store_single_per_core_s: float = 10_000.0
    store_batched_per_core_s: float = 800_000.0
    write_us: float = 35.0
    """Of the service, to hand one message to one stream."""
    ping_us: float = 140.0
    stream_kb: float = 47.0
    view_b: float = 15.5
    state_b: float = 22.0
    single_log_b: float = 199.0
    op_record_b: float = 214.0
    cutoff_b: float = 34.0
    log_s: float = 900.0
    op_s: float = 600.0
    snapshot_b: float = 12.0
    apply_us: float = 40.0
    """Of every replica, for a record of the log."""
    hear_us: float = 13.0
    """Of every verifier, for a record that comes with others."""
    record_b: float = 25.0
    """A record of one revocation on the wire, among others."""
    message_b: float = 90.0
    """What a message has besides, with frames."""
    progress_b: float = 90.0
    session_b: float = 600.0
    flush_per_s: float = 200.0
    """Messages a second into each stream at most: what is busier is joined."""


@dataclass(frozen=True, slots=True)
class Need:
    """The answer."""

    revocations_s: float
    peak_s: float
    live: float
    verifiers: float
    commit_cores: float
    fan_out_cores: float
    ping_cores: float
    log_share: float
    replicas: int
    store_cores: float
    store_gb: float
    sessions_gb: float
    view_mb: float
    snapshot_mb: float
    verifier_kb_s: float
    verifier_share: float
    replica_mb_s: float


def need(users: float, habits: Habits, costs: Costs) -> Need:
    """What so many users need."""
    ends = users * habits.logouts_per_user_day / DAY
    cutoffs = users * habits.cutoffs_per_user_day / DAY
    rate = ends + cutoffs
    peak = rate * habits.peak
    refreshes = users * habits.refreshes_per_user_day / DAY * habits.peak
    live = ends * habits.token_life_s
    live_cutoffs = cutoffs * habits.token_life_s
    verifiers = max(1.0, users / habits.users_per_verifier)
    messages = min(peak, costs.flush_per_s)
    commit_cores = peak / costs.single_per_core_s + refreshes / costs.refresh_per_core_s
    fan_out = verifiers * messages * costs.write_us / 1e6
    pings = verifiers / habits.ping_s * costs.ping_us / 1e6
    stored = (
        live * costs.state_b + cutoffs * habits.horizon_s * costs.cutoff_b
        + rate * (costs.log_s * costs.single_log_b + costs.op_s * costs.op_record_b)
    )  # fmt: skip
    view = (live + live_cutoffs) * costs.view_b
    # What every replica spends on the log is missing from its core for everything else.
    log_share = peak * costs.apply_us / 1e6
    left = max(0.05, 1 - log_share)
    replicas = max(2, round((commit_cores + fan_out + pings) / left + 0.5), round(verifiers / 5_000 + 0.5))
    verifier_b_s = messages * costs.message_b + peak * costs.record_b + costs.progress_b / habits.ping_s
    return Need(
        revocations_s=rate, peak_s=peak, live=live + live_cutoffs, verifiers=verifiers, commit_cores=commit_cores,
        fan_out_cores=fan_out, ping_cores=pings, log_share=log_share,
        replicas=replicas, verifier_share=peak * costs.hear_us / 1e6,
        store_cores=peak / costs.store_single_per_core_s + refreshes / costs.store_single_per_core_s,
        store_gb=stored / 1e9, sessions_gb=users * costs.session_b / 1e9, view_mb=view / 1e6,
        snapshot_mb=(live + live_cutoffs) * costs.snapshot_b / 1e6, verifier_kb_s=verifier_b_s / 1e3,
        replica_mb_s=verifier_b_s * verifiers / replicas / 1e6,
    )  # fmt: skip


_ROWS: tuple[tuple[str, str, str], ...] = (
    ("revocations a second, on average", "revocations_s", ",.0f"),
    ("revocations a second, at the peak", "peak_s", ",.0f"),
    ("live entries in every view", "live", ",.0f"),
    ("verifying processes", "verifiers", ",.0f"),
    ("memory of a view, MB", "view_mb", ",.0f"),
    ("snapshot for a new verifier, MB", "snapshot_mb", ",.0f"),
    ("into each verifier at the peak, kB/s", "verifier_kb_s", ",.0f"),
    ("cores: calls (revocations and refreshes)", "commit_cores", ",.1f"),
    ("cores: fan-out", "fan_out_cores", ",.1f"),
    ("cores: pings", "ping_cores", ",.1f"),
    ("of each service process's core: following the log", "log_share", ".0%"),
    ("of each verifier's core: hearing of it", "verifier_share", ".0%"),
    ("service processes, one core each", "replicas", ",d"),
    ("out of each service process at the peak, MB/s", "replica_mb_s", ",.0f"),
    ("cores of the store", "store_cores", ",.1f"),
    ("memory of the store without sessions, GB", "store_gb", ",.1f"),
    ("memory of the store for sessions, one a user, GB", "sessions_gb", ",.0f"),
)


def tables() -> str:
    """Inputs and answers, as Markdown."""
    habits, costs = Habits(), Costs()
    cases = {
        "10^6 users": need(1e6, habits, costs),
        "10^8 users": need(1e8, habits, costs),
        "10^9 users": need(1e9, habits, costs),
        "10^9, tokens of 5 min": need(1e9, replace(habits, token_life_s=300), costs),
    }
    lines = ["| assumed habits | |", "| --- | --- |"]
    lines += [f"| {name} | {getattr(habits, name):,g} |" for name in habits.__dataclass_fields__]
    lines += ["", "| unit costs | |", "| --- | --- |"]
    lines += [f"| {name} | {getattr(costs, name):,g} |" for name in costs.__dataclass_fields__]
    lines += ["", f"| | {' | '.join(cases)} |", "| --- |" + " ---: |" * len(cases)]
    for text, name, form in _ROWS:
        lines.append(f"| {text} | {' | '.join(format(getattr(case, name), form) for case in cases.values())} |")
    return "\n".join(lines)


def main() -> None:
    made = tables()
    print(made)
    if "--dry-run" not in sys.argv:
        before, _, rest = DOC.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        DOC.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}")


if __name__ == "__main__":
    main()
