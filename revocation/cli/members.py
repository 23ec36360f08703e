"""`revocation members ...`: the service replicas that the store knows, and striking off a lost one."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import typer

from revocation.cli.connection import Connection, client_command
from revocation.cli.output import Exit, Output, in_words


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(help="The replicas of the service, as the store knows them.", no_args_is_help=True)
    group.command("list")(show)
    group.command()(strike)
    app.add_typer(group, name="members")


@client_command
def show(connection: Connection, out: Output) -> int:
    """List the members of each partition."""
    with closing(connection.client()) as client:
        members = client.members(timeout=connection.timeout)
    rows = [
        (member.id, member.partition, member.active, member.confirmed, in_words(member.last_seen_ms / 1000))
        for member in members
    ]
    machine = [
        {name: value for name, value in asdict(member).items() if name != "last_seen_ms"}
        | {"last_seen": member.last_seen_ms // 1000}
        for member in members
    ]
    out.table(("member", "partition", "active", "confirmed", "last seen"), rows, {"members": machine})
    return Exit.OK


@client_command
def strike(
    connection: Connection,
    out: Output,
    member: Annotated[str, typer.Argument(metavar="MEMBER", help="Its id, as `members list` shows it.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Strike off a silent member that a history waits for.

    Only when it is certainly gone: what only its memory held is lost then (docs/guarantees.md says when that can be).
    """
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("is needed where nobody can be asked", param_hint="--yes")
        typer.confirm(f"Is {member} gone for good, and may what only it knew be lost?", abort=True)
    with closing(connection.client()) as client:
        client.strike_member(member, timeout=connection.timeout)
    out.facts({"status": f"{member} is struck off"}, {"member": member, "struck": True})
    return Exit.OK
