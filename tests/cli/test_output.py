"""Printing: for terminals, for pipes, for programs; and nothing that a token could do to a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
from contextlib import suppress
from typing import Any

import pytest

from revocation.cli.output import Output, in_words, printable, span
from tests.cli.conftest import Issuer
from tests.cli.running import execute, start

HOSTILE = "\x1b[2Jboo\x07 \u202egnp\r\n\x9b31m"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (["a", "b"], "a, b"),
        ({"a": 1}, '{"a": 1}'),
        ("żółw 🐢", "żółw 🐢"),
        ("a\tb", "a\\tb"),
        (HOSTILE, "\\x1b[2Jboo\\x07 \\u202egnp\\r\\n\\x9b31m"),
        ("\ud800", "\\ud800"),
    ],
)
def test_printable(value: object, text: str) -> None:
    """Readable text stays; what could move the cursor or turn the line around is shown as an escape."""
    assert printable(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "less than a second"),
        (1, "1 second"),
        (61, "1 minute 1 second"),
        (600, "10 minutes"),
        (601, "10 minutes"),
        (3 * 3600 + 5, "3 hours"),
        (86_400 + 3600, "1 day 1 hour"),
        (400 * 86_400, "1 year 35 days"),
    ],
)
def test_span(seconds: float, text: str) -> None:
    """As a person says it."""
    assert span(seconds) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (1_700_000_060, "in 1 minute (2023-11-14 22:14:20 UTC)"),
        (1_700_000_000.2, "now (2023-11-14 22:13:20 UTC)"),
        (1_699_996_400, "1 hour ago (2023-11-14 22:13:20 UTC)".replace("22:13", "21:13")),
        (1e300, "1e+300 (no time of this calendar)"),
        (-1e18, "-1e+18 (no time of this calendar)"),
        (float("nan"), "nan (no time of this calendar)"),
    ],
)
def test_in_words(at: float, text: str) -> None:
    """Relation first, then the time itself; whatever a token claims."""
    assert in_words(at, now=1_700_000_000) == text


def test_tables_are_tab_separated_in_pipes(capsys: pytest.CaptureFixture[str]) -> None:
    """For cut and awk; a tab in a value does not add a column."""
    Output(as_json=False).table(("a", "b"), [(1, "x\ty"), (None, True)], {})
    assert capsys.readouterr().out == "a\tb\n1\tx\\ty\n-\tyes\n"


def terminal(*arguments: str, env: dict[str, str] | None = None) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    process = start(*arguments, env={"TERM": "xterm-256color", **(env or {})}, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    written = b""
    with suppress(OSError):  # the end of a terminal is an error
        while part := os.read(ours, 65_536):
            written += part
    os.close(ours)
    process.communicate(timeout=60)
    return written.decode()


def test_colours_on_a_terminal_only(issuer: Issuer) -> None:
    """A pipe, NO_COLOR and --json get none."""
    token = issuer.token()
    assert "\x1b[" in terminal("inspect", token)
    assert "\x1b[" not in execute("inspect", token).out
    assert "\x1b[" not in terminal("inspect", token, "--json")
    assert "\x1b[3" not in terminal("inspect", token, env={"NO_COLOR": "1"})


def test_a_token_cannot_write_to_the_terminal(issuer: Issuer) -> None:
    """Escape sequences and markup in claims, and in their names, arrive as text."""
    claims: dict[str, Any] = {"sub": HOSTILE, HOSTILE: "x", "name": "[red]not red[/red] :smile:"}
    token = issuer.token(**claims)
    shown = terminal("inspect", token)
    for sequence in ("\x1b[2J", "\x07", "\u202e", "\x9b"):
        assert sequence not in shown
    assert "[red]not red[/red] :smile:" in shown


def test_a_claim_cannot_look_like_a_verdict(issuer: Issuer) -> None:
    """A token that claims `"status": "active"` does not get the line of the service."""
    lines = execute("inspect", issuer.token(status="active", signature="valid")).out.splitlines()
    assert "claim status: active" in lines
    assert "status: unchecked (give --address)" in lines
    assert not any(line.startswith("signature: valid") for line in lines)
