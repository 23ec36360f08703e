"""`revocation audit ...`: who took what back, when and why; and whether somebody has meddled with the record of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revocation.cli.connection import Connection, client_command
from revocation.cli.output import Exit, Output, in_words

if TYPE_CHECKING:
    from revocation_sdk.audit import AuditEntry, AuditPoint, AuditRecord, Report

After = Annotated[
    str, typer.Option(help="Go on behind this: PARTITION:NUMBER:DIGEST of an earlier entry; several with blanks.")
]


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(
        help="Who took what back, for auditors. `--realm '*'` is the installation.", no_args_is_help=True
    )
    group.command("list")(show)
    group.command()(follow)
    group.command()(verify)
    app.add_typer(group, name="audit")


@client_command
def show(
    connection: Connection,
    out: Output,
    after: After = "",
    last: Annotated[int, typer.Option(min=1, max=100_000, help="Show only so many records, the newest.")] = 1_000,
) -> int:
    """List the records, oldest first in each partition."""
    from collections import deque

    from revocation_sdk.audit import read

    with closing(connection.client()) as client:
        entries = read(client, after=_parse(after), timeout=connection.timeout)
        records = deque((row for entry in entries for row in _records(entry)), maxlen=last)
    rows = [tuple(record[name] for name in _COLUMNS) for record in map(_for_people, records)]
    out.table(tuple(name.replace("_", " ") for name in _COLUMNS), rows, {"records": list(records)})
    return Exit.OK


@client_command
def follow(connection: Connection, out: Output, after: After = "") -> int:
    """Print the records that are there, then those that come, until interrupted. With --json one object a line."""
    from revocation_sdk.audit import read

    with closing(connection.client()) as client, suppress(KeyboardInterrupt):
        for entry in read(client, after=_parse(after), follow=True, timeout=connection.timeout):
            for record in _records(entry):
                if out.as_json:
                    out.record(record)
                else:
                    out.note("  ".join(str(_for_people(record)[name]) for name in _COLUMNS))
    return Exit.OK


@client_command
def verify(
    connection: Connection,
    out: Output,
    log: Annotated[list[Path] | None, typer.Option(help="Log of the service, JSON lines; may be repeated.")] = None,
    after: Annotated[str, typer.Option(help="Heads that an earlier run printed; they must still be there.")] = "",
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Let pass what a store lost with its history, as a replica said.")
    ] = False,
) -> int:
    """Check the whole chain: that nothing was removed, altered, added or cut off. Exit code 1 if something was.

    A log kept elsewhere vouches for entries that only the store had.
    """
    from revocation_sdk.audit import points_text
    from revocation_sdk.audit import verify as check

    lines = [*_log_lines(log or []), {"realm": connection.realm, "audit": points_text(_parse(after).items())}]
    with closing(connection.client()) as client:
        report = check(client, lines, timeout=connection.timeout)
    failed = report.failed(accept_loss=accept_loss)
    _print(out, report, failed=failed)
    return Exit.REVOKED if failed else Exit.OK


def _print(out: Output, report: Report, *, failed: bool) -> None:
    heads = _text(report.heads)
    machine = {
        "ok": not failed,
        "entries": report.entries,
        "records": report.records,
        "log_lines": report.lines,
        "anchors": _text(report.anchors),
        "heads": heads,
        "findings": [
            {"fault": found.fault.value, "partition": found.partition, "number": found.number, "text": found.text}
            for found in report.findings
        ],
    }
    shown: dict[str, object] = {
        "status": "fail" if failed else "ok",
        "checked": f"{report.records} records in {report.entries} entries, {report.lines} log lines",
        "heads": heads or "none yet",
    }
    for place, found in enumerate(report.findings, 1):
        where = f"entry {found.number} of partition {found.partition}"
        shown[f"finding {place}"] = f"{found.fault.value}: {where} {found.text}"
    out.facts(shown, machine)


def _text(points: tuple[AuditPoint, ...]) -> str:
    from revocation_sdk.audit import points_text

    return points_text((partition, point) for partition, point in enumerate(points) if point.number)


def _parse(text: str) -> dict[int, AuditPoint]:
    from revocation_sdk.audit import parse_points

    try:
        return parse_points(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--after") from None


def _log_lines(files: list[Path]) -> Iterator[Mapping[str, object]]:
    """The lines that parse; a log has others."""
    for path in files:
        try:
            with path.expanduser().open("rb") as lines:
                for line in lines:
                    with suppress(ValueError):
                        parsed = json.loads(line)
                        if isinstance(parsed, dict):
                            yield parsed
        except OSError as error:
            raise typer.BadParameter(f"{path}: {error.strerror}", param_hint="--log") from None


_COLUMNS = ("time", "action", "kind", "target", "actor", "role", "reason", "count", "entry")


def _records(entry: AuditEntry) -> Iterator[dict[str, Any]]:
    """One object a record, and one for an entry that has none or cannot be read."""
    from revocation_sdk.audit import AuditRecord

    place: dict[str, Any] = {
        "time": entry.time_ms // 1000,
        "partition": entry.partition,
        "number": entry.number,
        "position": f"{entry.partition}:{entry.number}:{entry.digest}",
        "log": f"{entry.log_id}:{entry.log_seq}" if entry.log_seq else None,
    }
    if entry.unreadable:
        yield place | _described(AuditRecord(0)) | {"action": f"unreadable ({entry.unreadable})"}
    elif entry.loss is not None:
        lost = entry.loss.remembered.number
        yield place | _described(AuditRecord(0)) | {"action": "entries lost", "target": f"up to {lost}"}
    for record in entry.records:
        described = _described(record)
        if described["action"] == "sessions evicted" and entry.extra.isdecimal():
            described["sessions"] = int(entry.extra)
        yield place | described


def _described(record: AuditRecord) -> dict[str, Any]:
    from revocation_sdk._lattice import Kind
    from revocation_sdk.audit import Action

    actions = {action.value: action.name.lower().replace("_", " ") for action in Action}
    kinds = {kind.value: kind.name.lower() for kind in Kind}
    return {
        "action": actions.get(record.action, "other"),
        "kind": kinds.get(record.kind),
        "target": record.value or None,
        "issuer": record.issuer,
        "actor": record.actor or None,
        "role": record.role or None,
        "reason": record.reason or None,
        "request_id": record.request_id or None,
        "op_id": record.op_id or None,
        "asked": record.asked,
        "stored": record.stored,
        "sessions": record.sessions,
        "part": f"{record.part}/{record.parts}" if record.parts else None,
        "approval": record.approval or None,
        "repeated": record.repeated,
    }


def _for_people(record: dict[str, Any]) -> dict[str, Any]:
    return record | {
        "time": in_words(record["time"]),
        "entry": f"{record['partition']}:{record['number']}",
        "count": record["stored"] or record["sessions"] or "",
        **{name: record[name] or "" for name in ("kind", "target", "actor", "role", "reason")},
    }
