"""`revocation config`: the configuration that `serve` would run with."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from revocation.cli.output import Exit, Output
from revocation.cli.settings import settings_command
from revocation.config.settings import effective, load


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(config)


@settings_command
def config(
    flags: dict[str, Any], json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False
) -> int:
    """Show the effective configuration: each value and where it came from. Secrets are hidden.

    Takes the same options and variables as `serve`, and reports the same faults, all at once.
    """
    out = Output(as_json=json_)
    settings = load(flags)
    shown = effective(settings)
    rows = [(name, _text(item["value"]), item["source"]) for name, item in shown.items()]
    out.table(("setting", "value", "source"), rows, {"settings": shown, "warnings": list(settings.warnings)})
    for warning in settings.warnings:
        out.note(f"warning: {warning}")
    return Exit.OK


def _text(value: object) -> object:
    if isinstance(value, dict):
        return json.dumps(value)
    return value
