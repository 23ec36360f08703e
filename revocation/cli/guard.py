"""What `revoke` does before it revokes many: a dry run, and asking back where the service demands a confirmation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revocation.cli.connection import Connection
from revocation.cli.output import Exit, Output
from revocation_sdk.errors import ConfirmationRequired

if TYPE_CHECKING:
    from revocation_sdk import RevocationClient
    from revocation_sdk.types import Impact, Receipt

_COUNT_S = 30.0
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what it would end.")]
Confirm = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="The number of sessions that you know it ends, where a confirmation is due."),
]
Approval = Annotated[
    str | None, typer.Option(metavar="ID", help="What the first of two persons was told, where two are due.")
]


def dry_run(connection: Connection, out: Output, target: str, **what: Any) -> int:
    """Says what a revocation would end."""
    with closing(connection.client()) as client:
        found = client.impact(**what, timeout=max(connection.timeout, _COUNT_S))
    out.facts(
        {"would end": in_words(found)},
        {
            "target": target,
            "sessions": found.sessions,
            "subjects": found.subjects,
            "exact": found.exact,
            "at_most": found.at_most,
        },
    )
    return Exit.OK


def asking(client: RevocationClient, call: Callable[[RevocationClient, int | None], Receipt]) -> Receipt:
    """Calls; where a confirmation is due and somebody sits at a terminal, asks and calls again."""
    try:
        return call(client, None)
    except ConfirmationRequired as error:
        if not sys.stdin.isatty():
            raise
        typer.confirm(f"{error}. Go on?", abort=True)
        return call(client, error.sessions)


def in_words(found: Impact) -> str:
    """As people say it."""
    bound = "" if found.exact else "at most " if found.at_most else "at least "
    return f"{bound}{found.sessions:,} sessions of {found.subjects:,} users"
