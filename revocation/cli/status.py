"""`revocation status`: how the replica that answers is doing."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict

import typer

from revocation.cli.connection import Connection, client_command
from revocation.cli.output import Exit, Output, in_words


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(status)


@client_command
def status(connection: Connection, out: Output) -> int:
    """Show the state of the service: its store, its partitions, and whom they wait for. Exit 1 if one is not usable."""
    with closing(connection.client()) as client:
        answer = client.status(timeout=connection.timeout)
    machine = asdict(answer)
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
    for number, partition in enumerate(answer.partitions):
        waiting = f" (waits for {', '.join(partition.waiting_for)})" if partition.waiting_for else ""
        shown[f"partition {number}"] = f"{partition.state}{waiting}"
    out.facts(shown, machine)
    usable = answer.partitions and all(partition.state == "usable" for partition in answer.partitions)
    return Exit.OK if usable else Exit.REVOKED
