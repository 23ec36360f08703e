"""What each row of the table of targets says about what was measured."""

from __future__ import annotations

from collections.abc import Callable

from bench import check, fanout, idle, introspect, memory, pauses, plots, profiles, records, revoke, state
from bench.lab import Lab
from bench.limits import LIMITS as _LIMITS
from bench.measure import Spread, number
from bench.report import Report
from bench.view import BUILDERS


def checks(report: Report, lab: Lab) -> None:
    found = check.measure(lab, report.quick)
    us, ratio = found.us, found.ratio
    server = lab.store().info("server")
    report.store = (
        f"Valkey {server['valkey_version']}" if "valkey_version" in server else f"Redis {server['redis_version']}"
    )
    on_top, cold = ratio("judge hot", "PyJWT HS256"), ratio("judge cold", "hashes")
    faster = ratio("PyJWT ES256", "verify seen")
    hot = us("judge hot")
    report.target(
        "full revocation check, hot (view of 1 M tokens, 100 k sessions, 100 k subjects)",
        "<= 2.5 us and <= 10 % on top of a PyJWT HS256 decode",
        f"{hot.text('us')}; {on_top.text('%', 100)}",
        hot.median <= 2.5 and on_top.median <= 0.1, _LIMITS["hot"], "verify() of a token seen before",
    )  # fmt: skip
    report.target(
        "the same, cold", "<= 4x the keyed hashes alone", f"{cold.text('x')}, {us('judge cold').text('us')}",
        cold.median <= 4, _LIMITS["cold"],
    )  # fmt: skip
    report.target(
        "verify() of a token seen before", ">= 8x faster than a PyJWT ES256 decode", faster.text("x"),
        faster.median >= 8, _LIMITS["seen"], "verify() of a token seen before",
    )  # fmt: skip
    names = {
        "judge hot": "our check, claims seen before",
        "judge changed": "the same, if the view has changed since they were seen",
        "check hot": "`client.check(claims)`: the same with lease, clocks and `exp`",
        "judge cold": "our check, claims never seen",
        "check cold": "`client.check(claims)`, claims never seen",
        "hashes": "the six keyed hashes of that",
        "set": "`str in set` of 1 M",
        "verify seen": "`verifier.verify(token)`, token seen before",
        "PyJWT HS256": "PyJWT decode, HS256",
        "PyJWT ES256": "PyJWT decode, ES256",
        "redis-py GET": "redis-py GET over loopback",
        "flask-jwt-extended": "flask-jwt-extended, no blocklist",
        "flask-jwt-extended with Redis": "flask-jwt-extended, blocklist in Redis, as its documentation has it",
    }
    body = [[text, us(name).text("us")] for name, text in names.items()]
    sizes = [10_000, 100_000, 1_000_000, *([] if report.quick else [10_000_000])]
    grown = check.by_entries(sizes, report.quick)
    shown = ""
    if report.draws:
        path, shown = report.plot("check", "check latency by entries")
        xs = list(grown)
        series = {
            "our check, all targets, claims seen before": (xs, [grown[x]["check"].median for x in xs]),
            "str in set": ([x for x in xs if x <= 1_000_000], [grown[x]["set"].median for x in xs if x <= 1_000_000]),
        }
        plots.lines(path, "Look-up by revoked tokens", "revoked tokens", "us", series)
    text = report.table(["a call", "took"], body)
    text += (
        "\n\nWhoever waits (Redis) is measured by the clock on the wall and suffers from what else runs.\n\n" + shown
    )
    report.section("Verification", text)


def view(report: Report, lab: Lab) -> None:
    sizes = [10_000, 100_000, 1_000_000, *([] if report.quick else [10_000_000])]
    ours = {size: memory.measured("view", size) for size in sizes}
    peers = [size for size in sizes if size <= (100_000 if report.quick else 1_000_000)]
    others = {kind: {size: memory.measured(kind, size) for size in peers} for kind in ("set", "dict")}
    for size in sizes[2:]:
        report.target(
            f"memory of the view at {size:,} entries", "<= 20 B an entry", f"{ours[size]:.1f} B", ours[size] <= 20
        )
    body = [
        [f"{size:,}", f"{ours[size]:.1f}", *(f"{others[kind][size]:.0f}" if size in peers else "-" for kind in others)]
        for size in sizes
    ]
    shown = ""
    if report.draws:
        path, shown = report.plot("memory", "memory by entries")
        series = {"view": (sizes, [ours[size] for size in sizes])}
        series |= {f"{kind} of UUIDs": (peers, list(found.values())) for kind, found in others.items()}
        plots.lines(path, "Memory an entry", "entries", "bytes", series)
    text = report.table(["entries", "view, B an entry", "`set` of UUIDs", "`dict` UUID -> expiry"], body)
    text += "\n\nGrowth of a process of its own, one entry in a hundred having come one by one.\n\n" + shown
    report.section("Memory of the view", text)
    _pauses(report)


def _pauses(report: Report) -> None:
    small = 50_000 if report.quick else 200_000  # plain Python takes its time
    sizes = {name: pauses.ENTRIES if name == "numpy" else small for name in BUILDERS}
    found = {name: pauses.of(name, size, 3 if report.quick else 5) for name, size in sizes.items()}
    works = [work for work in found["numpy"] if work != "nothing"]
    worst = max((found["numpy"][work] for work in works), key=lambda spread: spread.median)
    report.target(
        f"worst pause of a reader while {pauses.ENTRIES:,} entries come in or expire", "<= 5 ms", worst.text("ms"),
        worst.median <= 5, _LIMITS["pause"],
    )  # fmt: skip
    body = [[work, *(found[name][work].text("ms") for name in found)] for work in found["numpy"]]
    report.section(
        "Pauses of readers",
        "The longest that a thread which does nothing but look up was kept from it by its own process, in processor "
        "time of that process.\n\n"
        + report.table(["meanwhile", *(f"{name}, {sizes[name]:,} entries" for name in found)], body),
    )


def full_store(report: Report, lab: Lab) -> None:
    entries = 100_000 if report.quick else 1_000_000
    found = state.measure(lab, entries, 2.0 if report.quick else 10.0)
    rate, fresh = Spread.of(found.batched), Spread.of(found.fresh_s)
    per_core, lua = Spread.of(1e6 / value for value in found.cpu_us), Spread.of(found.lua)
    report.target(
        "Revoke in batches of 10,000", ">= 200 k revocations/s committed and logged",
        f"{rate.text('/s')}; {per_core.text('/s', 1)} for a core of the service", rate.median >= 200_000,
        _LIMITS["batches"], "commit, batches of 10,000",
    )  # fmt: skip
    report.target(
        f"snapshot of {entries:,} entries", "<= 13 B an entry; 1 M: connect to FRESH <= 3 s",
        f"{found.wire:.2f} B; {fresh.text('s')}", found.wire <= 13 and fresh.median <= 3,
    )  # fmt: skip
    total = {name: sum(parts.values()) for name, parts in found.redis.items()}
    report.target(
        "Redis per live revocation, log included", "<= 100 B",
        "; ".join(f"{name} {number(size)} B" for name, size in total.items()), max(total.values()) <= 100,
        _LIMITS["redis"],
    )  # fmt: skip
    report.target(
        "longest script of a batch of 10,000", "blocks the store for <= 5 ms", f"{number(found.longest_ms)} ms",
        found.longest_ms <= 5, _LIMITS["script"],
    )  # fmt: skip
    body = [
        [name, *(number(parts[part]) for part in parts), number(total[name]), number(_over_an_hour(parts))]
        for name, parts in found.redis.items()
    ]
    cpu, store = Spread.of(found.cpu_us), Spread.of(found.store_us)
    report.section(
        "Batches, snapshots and what the store holds",
        f"A row of a batch costs {cpu.text('us')} of the service's processor time and {store.text('us')} of the "
        f"store's. The store's scripts alone would take {lua.text('rows/s')}: the service is what saturates first.\n\n"
        + report.table(["committed by", "state, B", "log, B", "op records, B", "together", "over an hour"], body)
        + "\n\nThe state lives as long as the token, the log 15 minutes and an op record 13 minutes. The last column "
        "is the average over the life of a token that lives for an hour after it is revoked.",
    )


def _over_an_hour(parts: dict[str, float]) -> float:
    return parts["state"] + parts["log"] * 15 / 60 + parts["op records"] * 13 / 60


def single(report: Report, lab: Lab) -> None:
    rounds = revoke.measure(lab, 3 if report.quick else 9, 1.0 if report.quick else 3.0)
    ratio = Spread.of(ours.per_second / bare.per_second for bare, ours in rounds)
    cost = Spread.of(bare.cpu_us / ours.cpu_us for bare, ours in rounds)
    report.target(
        "Revoke, single calls, 64 in flight",
        ">= 0.6x of a bare grpc.aio echo",
        f"{ratio.text('x')}; {cost.text('x')} by the server's processor time",
        ratio.median >= 0.6,
        _LIMITS["single"],
        "commit, single calls",
    )
    body = [
        [
            name,
            Spread.of(one.per_second for one in loads).text("/s"),
            Spread.of(one.cpu_us for one in loads).text("us"),
            Spread.of(one.p50_ms for one in loads).text("ms"),
            Spread.of(one.p99_ms for one in loads).text("ms"),
        ]
        for name, loads in (("bare echo", [bare for bare, _ in rounds]), ("Revoke", [ours for _, ours in rounds]))
    ]
    grown = revoke.by_concurrency(
        lab, [1, 16, 64, 256] if report.quick else [1, 4, 16, 64, 256], 0.5 if report.quick else 2
    )
    shown = ""
    if report.draws:
        path, shown = report.plot("throughput", "throughput by calls in flight")
        series = {
            name: (list(grown), [pair[index].per_second for pair in grown.values()])
            for index, name in enumerate(("bare echo", "Revoke"))
        }
        plots.lines(path, "Calls by concurrency", "calls in flight", "calls/s", series)
    report.section(
        "Single revocations",
        report.table(["server", "calls", "its processor time a call", "p50", "p99"], body)
        + f"\n\nBy the server's processor time the ratio is {cost.text('x')}. The client, the server and, for Revoke "
        "alone, the store share the cores, so that the ratio of the throughputs depends on how many are free.\n\n"
        + shown,
    )


def propagation(report: Report, lab: Lab) -> None:
    _propagation(report, lab, [1, 100] if report.quick else [1, 100, 1_000])


def crowd(report: Report, lab: Lab) -> None:
    """Far more streams; a row of its own, so that its failure would not cost the others."""
    _propagation(report, lab, [1_000] if report.quick else [5_000], few=True)


def _propagation(report: Report, lab: Lab, counts: list[int], *, few: bool = False) -> None:
    found = fanout.measure(lab, counts, report.quick or few)
    body, series = [], {}
    for count, rounds in found.items():
        from_ack = [Spread.of(ours.both()[i] for ours, _ in rounds) for i in (0, 1)]
        from_call = [Spread.of(ours.both("from_call")[i] for ours, _ in rounds) for i in (0, 1)]
        bare = [Spread.of(other.both()[i] for _, other in rounds) for i in (0, 1)]
        bare_call = [Spread.of(other.both("from_call")[i] for _, other in rounds) for i in (0, 1)]
        reached = all(ours.median <= 1.5 * other.median for ours, other in zip(from_ack, bare, strict=True))
        report.target(
            f"ack to refused, {count:,} subscriber{'s' if count > 1 else ''}", "p50 and p99 <= 1.5x of a bare fan-out",
            f"p50 {number(from_ack[0].median)} ms, p99 {number(from_ack[1].median)} ms; "
            f"bare {number(bare[0].median)} and {number(bare[1].median)} ms", reached, _LIMITS["propagation"],
            "fan-out to 100 subscribers",
        )  # fmt: skip
        for name, one in (
            ("from the acknowledgement", from_ack), ("from the call", from_call),
            ("bare, from the answer to XADD", bare), ("bare, from XADD", bare_call),
        ):  # fmt: skip
            body.append([f"{count:,}", name, one[0].text("ms"), one[1].text("ms")])
        series[f"{count:,}, from the call"] = [at for ours, _ in rounds for at in ours.from_call]
        series[f"{count:,}, bare, from XADD"] = [at for _, other in rounds for at in other.from_call]
    shown = ""
    if report.draws:
        name = "crowd" if few else "propagation"
        path, shown = report.plot(name, "propagation by subscribers")
        plots.cdf(path, "From the call to the verifier", "ms", series)
    report.section(
        "Propagation to a crowd" if few else "Propagation",
        report.table(["subscribers", "", "p50", "p99"], body)
        + "\n\nA revocation is acknowledged only when the replica has read it back from the log (rule H5), and what it "
        "reads it sends on in the same breath. So verifiers mostly know before the caller does: 0 means that the "
        "change had arrived when the acknowledgement did. The rows from the call include the commit.\n\n" + shown,
    )


def subscribers(report: Report, lab: Lab) -> None:
    count = 300 if report.quick else 5_000
    bare = idle.measure(lab, count, 4 if report.quick else 10, "bare")
    ours = idle.measure(lab, count, 4 if report.quick else 10)
    cores = ours.cores * 5_000 / count
    report.target(
        f"idle subscribers ({count:,}) at the default ping interval", "5,000: <= 40 kB each, <= half a core",
        f"{ours.kilobytes:.0f} kB each; {ours.cores:.2f} cores, which is {cores:.2f} for 5,000",
        ours.kilobytes <= 40 and cores <= 0.5,
        _LIMITS["idle"].format(
            extra=ours.kilobytes - bare.kilobytes, bare=bare.kilobytes, cores=bare.cores * 5_000 / count
        ),
    )  # fmt: skip
    body = [
        [name, f"{one.kilobytes:.1f} kB", f"{one.cores:.3f}", f"{one.answered:.0%}"]
        for name, one in (("bare grpc.aio that answers each message", bare), ("the service", ours))
    ]
    report.section(
        "Idle subscribers",
        f"{count:,} streams with a connection each, a ping every {idle.PING_S:g} s.\n\n"
        + report.table(["server", "memory a stream", "cores", "pings answered"], body),
    )


def log_records(report: Report, lab: Lab) -> None:
    found = records.measure(3 if report.quick else 9)
    body = [
        ["a replica: both chains, view, ring", found.replica.text("us"), "-"],
        ["a verifier, a message each", found.verifier.text("us"), f"{found.message_b:.0f} B"],
        [f"a verifier, {records.JOINED} in a message", found.verifier_joined.text("us"), f"{found.joined_b:.0f} B"],
    ]
    report.section(
        "Following the log",
        "What a record of one revocation costs whoever follows: every replica and every verifier of the realm.\n\n"
        + report.table(["who", "processor time", "on the wire"], body),
    )


def introspection(report: Report, lab: Lab) -> None:
    found, missing = introspect.measure(lab, report.quick)
    names = {"Check": "our `Check`, behind a barrier", "introspection": "node-oidc-provider, RFC 7662 over HTTP"}
    text = report.table(["one question after the other", "took"], [[names[n], s.text("ms")] for n, s in found.items()])
    if missing:
        text += f"\n\nRFC 7662 introspection was not measured: {missing}."
    text += (
        "\n\nBoth ask somebody for each request. The peer answers from its own memory on a kept connection; `Check` "
        "proves in the store that its answer is current. `verify()` asks nobody."
    )
    report.section("Asking for each request", text)


def profile(report: Report, lab: Lab) -> None:
    found = profiles.measure(lab, 2 if report.quick else 10)
    for path, owners in found.items():
        report.profiles[path] = ", ".join(f"{owner} {share:.0%}" for owner, share in owners[:5])
    body = [
        [path, *(f"{owner}: {share:.0%}" for owner, share in (*owners, ("-", 0.0), ("-", 0.0), ("-", 0.0))[:3])]
        for path, owners in found.items()
    ]
    report.section(
        "Where the time goes",
        "Samples of py-spy while the interpreter's lock was held; each belongs to the innermost part of ours that is "
        "in its stack.\n\n" + report.table(["path", "largest", "second", "third"], body),
    )


ALL: dict[str, Callable[[Report, Lab], None]] = {
    "check": checks,
    "view": view,
    "state": full_store,
    "revoke": single,
    "propagation": propagation,
    "records": log_records,
    "introspection": introspection,
    "profile": profile,
    # Thousands of streams come last: whoever has no time for them interrupts the run.
    "subscribers": subscribers,
    "crowd": crowd,
}
