"""What a command prints: one JSON object, or text for people; and the exit code that goes with an outcome.

Text for people has tables and colours on a terminal only; elsewhere it is plain lines, for pipes. Whatever comes from
outside (claims, names, messages) passes `printable`, since a token may hold escape sequences that rewrite a terminal.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Exit codes of every command. Scripts rely on them."""

    OK = 0
    """Done, or active."""
    REVOKED = 1
    """Revoked, rejected, or a check failed."""
    USAGE = 2
    """The command line or the configuration is wrong."""
    UNAVAILABLE = 3
    """The service cannot be reached or cannot answer now; nothing was changed."""
    OUTCOME_UNKNOWN = 4
    """It may have been done; the same op id tells."""
    DENIED = 5
    """The service does not know the caller, or the caller may not do this."""
    CRASH = 70
    """A fault of this program (EX_SOFTWARE); not 1, which would say "revoked"."""


_GOOD, _BAD, _DOUBTFUL = "green", "red", "yellow"
_COLOURS = {
    **dict.fromkeys(("active", "fresh", "usable", "valid", "ok", "yes", "revoked now"), _GOOD),
    **dict.fromkeys(("revoked", "invalid", "expired", "fail", "unreachable", "closed"), _BAD),
    **dict.fromkeys(
        ("warn", "stale", "unknown", "loading", "healing", "joining", "connecting", "unchecked"), _DOUBTFUL
    ),
}


class Output:
    """Prints the results of one command."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.terminal = sys.stdout.isatty() and not as_json

    def facts(self, shown: Mapping[str, object], machine: Mapping[str, object]) -> None:
        """A handful of named values: `shown` to people, `machine` as the JSON object."""
        if self.as_json:
            self.record(machine)
        elif self.terminal:
            from rich.table import Table

            grid = Table.grid(padding=(0, 2))
            grid.add_column(style="bold", overflow="fold")
            grid.add_column(overflow="fold")
            for name, value in shown.items():
                grid.add_row(printable(name), _coloured(value))
            self._rich(grid)
        else:
            for name, value in shown.items():
                print(f"{printable(name)}: {printable(value)}")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]], machine: Mapping[str, object]) -> None:
        """Many values of one kind: a table for people, `machine` as the JSON object."""
        if self.as_json:
            self.record(machine)
        elif self.terminal:
            from rich.box import SIMPLE
            from rich.table import Table

            table = Table(box=SIMPLE)
            for column in columns:
                table.add_column(column, overflow="fold")  # never cut: a path or an id is there to be copied
            for row in rows:
                table.add_row(*(_coloured(value) for value in row))
            self._rich(table)
        else:
            # Tabs, as `cut` and `awk` like them.
            for line in (columns, *rows):
                print("\t".join(printable(value) for value in line))

    def note(self, text: str) -> None:
        """A line for people; nothing in JSON."""
        if not self.as_json:
            print(printable(text))

    def record(self, machine: Mapping[str, object]) -> None:
        """One JSON object on one line, at once: `watch` is read while it runs."""
        # ASCII: lone surrogates, which a claim can hold, have no other form.
        print(json.dumps(machine, default=str), flush=True)

    def failure(self, reason: str, message: str, field: str | None = None, **more: object) -> None:
        """An error: the JSON object `{"error": ...}`, or a line on standard error."""
        if self.as_json:
            self.record({"error": {"reason": reason, "message": message, "field": field or None, **more}})
        else:
            print(f"error: {printable(message, lines=True)}", file=sys.stderr)

    def _rich(self, what: Any) -> None:
        from rich.console import Console

        Console(highlight=False, markup=False, emoji=False).print(what)


def _coloured(value: object) -> Any:
    from rich.text import Text

    text = printable(value)
    return Text(text, style=_COLOURS.get(text.split(" ")[0].lower(), ""))


def printable(value: object, *, lines: bool = False) -> str:
    """`value` as text without control and direction characters; with `lines`, line ends may stay."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case str():
            text = value
        case list() | tuple():
            return ", ".join(printable(item) for item in value)
        case Mapping():
            text = json.dumps(value, ensure_ascii=False, default=str)
        case _:
            text = str(value)
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or (lines and one == "\n") else one.encode("unicode_escape", "replace").decode()
        for one in text
    )


def in_words(at: float, now: float | None = None) -> str:
    """A time as people say it: "in 12 minutes (2026-01-31 10:00:00 UTC)"."""
    now = time.time() if now is None else now
    try:
        moment = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{at} (no time of this calendar)"
    distance = span(abs(at - now))
    relation = f"in {distance}" if at > now else f"{distance} ago"
    return f"{'now' if abs(at - now) < 1 else relation} ({moment})"


def span(seconds: float) -> str:
    """A duration in the largest unit that fits, and the next one where it matters: "1 day 3 hours"."""
    whole = int(seconds)
    units = (("year", 31_536_000), ("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
    for place, (unit, size) in enumerate(units):
        count, rest = divmod(whole, size)
        if not count:
            continue
        text = _plural(count, unit)
        if count < 10 and place + 1 < len(units):
            smaller, step = units[place + 1]
            if rest // step:
                text += f" {_plural(rest // step, smaller)}"
        return text
    return "less than a second"


def _plural(count: int, unit: str) -> str:
    return f"{count} {unit}{'' if count == 1 else 's'}"
