"""`revocation sessions ...`: the live sessions of a subject."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from revocation.cli.connection import Connection, client_command
from revocation.cli.output import Exit, Output, in_words
from revocation.cli.revoke import OpId, Reason, show_receipt

if TYPE_CHECKING:
    from revocation_sdk.types import SessionInfo

Issuer = Annotated[
    str | None,
    typer.Option(help="The `iss` of the sessions. Default: none, and those whose sessions the replica has met."),
]
Subject = Annotated[str | None, typer.Option(help="With a handle: whose session it is.")]
SessionName = Annotated[str, typer.Argument(metavar="SESSION", help="Its sid, or its handle together with --subject.")]


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(help="The live sessions of a subject.", no_args_is_help=True)
    group.command("list")(list_of)
    group.command()(show)
    group.command()(end)
    app.add_typer(group, name="sessions")


@client_command
def list_of(
    connection: Connection,
    out: Output,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The `sub` of their tokens.")],
    issuer: Issuer = None,
) -> int:
    """List the sessions of a subject, newest first. They are named by handles, which log nobody in."""
    with closing(connection.client()) as client:
        sessions = client.list_sessions(subject, issuer=issuer, timeout=connection.timeout)
    columns = ("session", "client", "device", "address", "last seen", "ends", "issuer")
    rows = [
        (one.handle, one.client_id, one.device, one.address, in_words(one.last_seen_at), in_words(ends_at(one)),
         one.issuer)
        for one in sessions
    ]  # fmt: skip
    out.table(columns, rows, {"sessions": [asdict(one) for one in sessions]})
    if issuer is None and (out.terminal or not sessions):
        out.note("issuers whose sessions this replica has not met since its start are not among them: name --issuer")
    return Exit.OK


@client_command
def show(
    connection: Connection, out: Output, session: SessionName, subject: Subject = None, issuer: Issuer = None
) -> int:
    """Show one session."""
    with closing(connection.client()) as client:
        found = client.get_session(session, subject=subject, issuer=issuer, timeout=connection.timeout)
    shown: dict[str, object] = {
        "session": found.handle,
        "issuer": found.issuer,
        "client": found.client_id,
        "device": found.device,
        "address": found.address,
        "user agent": found.user_agent,
        "created": in_words(found.created_at),
        "last seen": in_words(found.last_seen_at),
        "ends unless used": in_words(found.idle_expires_at) if found.idle_expires_at else None,
        "ends": in_words(found.expires_at),
    }
    out.facts(shown, asdict(found))
    return Exit.OK


@client_command
def end(
    connection: Connection,
    out: Output,
    session: SessionName,
    *,
    subject: Subject = None,
    issuer: Issuer = None,
    reason: Reason = "",
    op_id: OpId = None,
) -> int:
    """End one session, with its refresh and access tokens, everywhere."""
    with closing(connection.client()) as client:
        receipt = client.end_session(
            session, subject=subject, issuer=issuer, reason=reason, op_id=op_id, timeout=connection.timeout
        )
    show_receipt(out, "session", receipt)
    return Exit.OK


def ends_at(session: SessionInfo) -> int:
    """When the session ends if nobody uses it again."""
    return min(session.idle_expires_at or session.expires_at, session.expires_at)
