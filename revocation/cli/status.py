"""`revocation status`: how the replica that answers is doing."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from revocation.cli import landed
from revocation.cli.connection import Connection, client_command
from revocation.cli.output import Exit, Output, in_words

if TYPE_CHECKING:
    from revocation_sdk import RevocationClient
    from revocation_sdk.types import Subscribers


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(status)


Most = Annotated[int, typer.Option("--verifiers", min=0, max=100_000, help="How many verifiers to list at most.")]


@client_command
def status(connection: Connection, out: Output, *, verifiers: Most = 100) -> int:
    """Show the state of the service: its store, its partitions, whom they wait for, and the verifiers of all replicas.

    Exit 1 if a partition is not usable.
    """
    with closing(connection.client()) as client:
        answer = client.status(timeout=connection.timeout)
        following, unknown = _following(client, verifiers, connection.timeout)
    machine = asdict(answer) | {
        "verifiers": None if unknown else [asdict(one) for one in following.subscribers],
        "verifiers_total": None if unknown else following.total,
        "silent_replicas": list(following.silent_replicas),
    }
    machine["store_time"] = machine.pop("store_ms") // 1000
    shown: dict[str, object] = {
        "replica": answer.replica,
        "version": answer.version,
        "store": answer.store,
        "acknowledged when": answer.ack,
        "entries": answer.entries,
        "subscribers": answer.subscribers,
        "store time": in_words(answer.store_ms / 1000),
        "clock skew": f"{answer.clock_skew_ms} ms (service minus store)",
    }
    if answer.canary is not None:
        shown["canary"] = landed.canary(answer.canary)
    for number, partition in enumerate(answer.partitions):
        waiting = f" (waits for {', '.join(partition.waiting_for)})" if partition.waiting_for else ""
        shown[f"partition {number}"] = f"{partition.state}{waiting}"
    if answer.missing_secrets:
        shown["missing master secrets"] = ", ".join(answer.missing_secrets)
    if answer.keys_not_refused:
        shown["revoked keys not refused"] = f"{answer.keys_not_refused} (see `revocation doctor`)"
    if unknown:
        shown["verifiers"] = f"unknown: {unknown.replace('_', ' ')}"
    if following.silent_replicas:
        shown["silent replicas"] = following.silent_replicas
    out.facts(shown, machine)
    if following.subscribers and not out.as_json:
        out.note("")
        out.table(landed.COLUMNS, landed.rows(following.subscribers), {})
        if following.total > len(following.subscribers):
            out.note(f"and {following.total - len(following.subscribers)} more")
    usable = answer.partitions and all(partition.state == "usable" for partition in answer.partitions)
    return Exit.OK if usable else Exit.REVOKED


def _following(client: RevocationClient, most: int, timeout: float) -> tuple[Subscribers, str]:
    """The verifiers, or why they are not told: an older service cannot, one without its store cannot now."""
    from revocation_sdk.errors import ServiceError
    from revocation_sdk.types import Subscribers

    try:
        return (client.subscribers(limit=most, timeout=timeout) if most else Subscribers((), 0, ())), ""
    except ServiceError as error:
        return Subscribers((), 0, ()), error.reason
