"""The command line: `revocation COMMAND ...`. One file for each group of commands; this one finds and runs it.

Only the module of the command that was asked for is imported: `revocation check` must not wait for what `serve` needs.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated, cast

import typer

from revocation import __version__
from revocation.cli.output import Exit, Output

_MODULES = {
    "serve": "serve",
    "config": "config",
    "revoke": "revoke",
    "check": "check",
    "inspect": "inspect",
    "watch": "watch",
    "sessions": "sessions",
    "members": "members",
    "audit": "audit",
    "signing-key": "signing_key",
    "status": "status",
    "doctor": "doctor",
}
"""Command -> the module in this package that registers it."""

_ClickException: type[Exception] = cast(type[Exception], typer.BadParameter.__mro__[2])
"""click's, which newer versions of typer carry under another name."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (default: of this process) and returns the exit code; see `Exit`."""
    if arguments is None:
        arguments = sys.argv[1:]
        threading.excepthook = _not_of_closed_channels
    words = list(arguments)
    out = Output(as_json="--json" in words)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # whatever the locale, output never fails
    try:
        code = _build(words)(words, prog_name="revocation", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except _ClickException as error:
        return _usage(error, out)
    except (KeyboardInterrupt, typer.Abort):
        return 130  # as shells say it: 128 + SIGINT
    except SystemExit as end:  # click's answer to a broken pipe, with a code that would say "revoked"
        return _reader_gone() if end.code == 1 else Exit.OK
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:
        from revocation.cli.failures import explain

        return explain(error, out)


def _not_of_closed_channels(failed: threading.ExceptHookArgs) -> None:
    """Shows what ended a thread, except gRPC's complaint that its channel was closed while it waited to connect."""
    if not (failed.exc_type is ValueError and "Channel closed" in str(failed.exc_value)):
        threading.__excepthook__(failed)


def _reader_gone() -> int:
    """Whoever read us has seen enough. Keeps the interpreter from complaining at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141  # 128 + SIGPIPE


def _build(words: Sequence[str]) -> typer.Typer:
    app = typer.Typer(
        help="Takes JWTs back: runs the service, and asks it.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # they print local variables, tokens among them
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    command = next((word for word in words if not word.startswith("-")), None)
    modules = [_MODULES[command]] if command in _MODULES else dict.fromkeys(_MODULES.values())
    for module in [] if words[:1] == ["--version"] else modules:
        import_module(f"revocation.cli.{module}").register(app)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"revocation {__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def _usage(error: BaseException, out: Output) -> int:
    message: str = error.format_message()  # type: ignore[attr-defined]
    parameter = getattr(error, "param", None)
    field = getattr(parameter, "name", None)
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help
        print(message)
        return Exit.USAGE
    out.failure("usage", message, field)
    if context is not None and not out.as_json:
        print(f"Try `{context.command_path} --help`.", file=sys.stderr)
    return Exit.USAGE
