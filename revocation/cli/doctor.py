"""`revocation doctor`: looks at everything that revoking depends on, and says what to do about what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer

from revocation.cli.connection import Connection, client_command
from revocation.cli.findings import Finding, certificates, configuration, service, transport
from revocation.cli.findings_store import store
from revocation.cli.output import Exit, Output


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(doctor)


@client_command
def doctor(
    connection: Connection,
    out: Output,
    *,
    redis_url: Annotated[
        str | None, typer.Option(metavar="URL", help="The store, to look at it directly; as for `serve`.")
    ] = None,
    data_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Of the embedded store; as for `serve`.")] = None,
) -> int:
    """Check configuration, service, store, clocks, certificates and freshness. Exit 1 if something failed.

    Run it where the service runs, with the same environment, to have its configuration and store checked too.
    """
    findings = list(_examine(connection, {"redis_url": redis_url, "data_dir": data_dir}))
    rows = [(finding.result, finding.check, finding.message, finding.what_to_do or None) for finding in findings]
    failed = any(finding.result == "fail" for finding in findings)
    machine = {"ok": not failed, "findings": [finding.machine() for finding in findings]}
    out.table(("result", "check", "finding", "what to do"), rows, machine)
    return Exit.REVOKED if failed else Exit.OK


def _examine(connection: Connection, flags: dict[str, Any]) -> Iterator[Finding]:
    config, findings = configuration(flags)
    yield from findings
    if config is not None:
        yield from certificates(config)
        yield from store(config)
    else:
        yield Finding("store", "skip", "needs the configuration of the service")
    yield from transport(connection)
    yield from service(connection, config)
