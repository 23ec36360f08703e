"""`revocation serve`: runs the service until SIGTERM or SIGINT."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any

import typer

from revocation.cli.settings import settings_command


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(serve)


@settings_command
def serve(flags: dict[str, Any]) -> int:
    """Run the service. Without --redis-url it runs a Valkey of its own.

    Every option is also the variable REVOCATION_<OPTION>, and options win. The master secret comes from
    REVOCATION_SECRET or --secret-file. See the result with `revocation config`.
    """
    # Process 1 of a container ignores what it does not handle, and the imports take a moment.
    signal.signal(signal.SIGTERM, _end)

    import structlog

    from revocation.app import run
    from revocation.config.settings import load
    from revocation.observability.telemetry import configure_logging

    config = load(flags)
    configure_logging(config.log_level)
    log = structlog.get_logger("revocation")
    for warning in config.warnings:
        log.warning("configuration", warning=warning)
    return run(config)


def _end(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM before the service runs: nothing is under way, so it ends at once."""
    raise SystemExit(0)
