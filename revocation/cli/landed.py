"""What commands show of the verifiers: who lags behind a revocation, and who follows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from revocation.cli.output import printable, span
from revocation_sdk.types import Canary, Landed, Subscriber

if TYPE_CHECKING:
    from revocation_sdk.types import WaitFor

Wait = Annotated[
    str | None,
    typer.Option(
        metavar="all|N", help="Wait until all live verifiers, or N, have applied it. Exit 1 if they have not."
    ),
]
WaitTimeout = Annotated[float, typer.Option(min=0.1, max=58, help="With --wait: how many seconds at most.")]
_NAMED = 20


def wait_for(text: str | None) -> WaitFor | None:
    """The value of --wait. Raises BadParameter."""
    if text is None:
        return None
    if text == "all":
        return "all"
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**32):
        raise typer.BadParameter("write all, or a number of verifiers", param_hint="--wait")
    return int(text)


def shown(landed: Landed) -> dict[str, object]:
    """How far a revocation has come, for people."""
    facts: dict[str, object] = {"applied by": f"{landed.applied} of {landed.live} live verifiers"}
    if landed.failure:
        facts = {"applied by": f"unknown: {landed.failure.replace('_', ' ')}"}
    for number, laggard in enumerate(landed.laggards[:_NAMED], 1):
        facts[f"laggard {number}"] = described(laggard)
    more = len(landed.laggards[_NAMED:]) + landed.more_laggards
    if more:
        facts["more laggards"] = more
    if landed.silent_replicas:
        facts["silent replicas"] = landed.silent_replicas
    return facts


def machine(landed: Landed) -> dict[str, object]:
    """The same for machines."""
    return asdict(landed)


def described(subscriber: Subscriber) -> str:
    """One verifier in a line."""
    heard = (
        "never answered" if subscriber.answered_s_ago is None else f"last proof {span(subscriber.answered_s_ago)} ago"
    )
    state = "fresh" if subscriber.fresh else "not fresh"
    stream = "" if subscriber.connected else ", no stream"
    name = printable(subscriber.name) or subscriber.instance[:8]
    return f"{name} ({printable(subscriber.identity)}) at {subscriber.replica}: {state}, {heard}{stream}"


def rows(subscribers: Iterable[Subscriber]) -> list[tuple[object, ...]]:
    """A table of verifiers."""
    return [
        (
            subscriber.name or subscriber.instance[:8],
            subscriber.identity,
            subscriber.replica,
            "fresh" if subscriber.fresh else "stale",
            "?" if subscriber.lag < 0 else subscriber.lag,
            "-" if subscriber.answered_s_ago is None else f"{subscriber.answered_s_ago:.1f} s",
            subscriber.sdk_version,
            span(subscriber.connected_s_ago) if subscriber.connected else "gone",
        )
        for subscriber in subscribers
    ]


COLUMNS = ("verifier", "identity", "replica", "state", "lag", "last proof", "sdk", "connected for")


def canary(last: Canary) -> str:
    """What a replica measured last."""
    when = f"({span(last.s_ago)} ago)"
    if last.failure:
        return f"failed: {last.failure.replace('_', ' ')} {when}"
    return f"refused {last.seconds * 1000:.1f} ms after it was revoked {when}"
