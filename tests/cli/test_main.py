"""What holds for every command: help, usage errors, exit codes, start-up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from revocation import __version__
from revocation.cli import _MODULES
from revocation.cli.output import Exit
from tests.cli.conftest import Cli, Issuer
from tests.cli.running import environment, execute, start


def test_version(cli: Cli) -> None:
    """One line, for bug reports."""
    assert cli("--version") == (result := cli("--version"))
    assert (result.code, result.out) == (0, f"revocation {__version__}\n")


def test_help_names_every_command(cli: Cli) -> None:
    """And each command has a help of its own."""
    shown = cli("--help").out
    for command in _MODULES:
        assert f"\n  {command} " in shown
        result = cli(command, "--help")
        assert result.code == 0
        assert f"Usage: revocation {command}" in result.out


@pytest.mark.parametrize("words", [(), ("revoke",), ("members",), ("sessions",)])
def test_no_command_shows_help_and_is_a_usage_error(cli: Cli, words: tuple[str, ...]) -> None:
    """A script that forgets the command notices."""
    result = cli(*words)
    assert result.code == Exit.USAGE
    assert "Usage: revocation" in result.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("revoek",), "No such command 'revoek'"),
        (("status", "--adress", "x"), "No such option: --adress"),
        (("check",), "Missing argument 'TOKEN'"),
        (("status", "--timeout", "soon"), "Invalid value for '--timeout'"),
        (("status", "--timeout", "0"), "Invalid value for '--timeout'"),
        (("status", "--address", "foo"), "'foo' has no port"),
        (("status", "--address", "a:1,::1"), "'::1' has no port"),
        (("revoke", "session", "s", "--address", "foo"), "'foo' has no port"),
    ],
)
def test_usage_errors(cli: Cli, words: tuple[str, ...], says: str) -> None:
    """On standard error, with where to look; exit 2."""
    result = cli(*words)
    assert result.code == Exit.USAGE
    assert result.out == ""
    assert says in result.err
    assert "--help`" in result.err


@pytest.mark.parametrize("option", ["--ca", "--token-file"])
@pytest.mark.parametrize("command", [("status",), ("watch", "--for", "1")])
def test_a_file_that_cannot_be_read_is_named(cli: Cli, option: str, command: tuple[str, ...]) -> None:
    result = cli(*command, option, "/nonexistent", "--address", "localhost:1")
    assert result.code == Exit.USAGE
    assert "cannot read /nonexistent" in result.err


def test_usage_errors_in_json(cli: Cli) -> None:
    """The same shape as every other error, on standard output, and nothing beside it."""
    result = cli("revoke", "token", "--jti", "x", "--json")
    assert result.code == Exit.USAGE
    assert result.err == ""
    error = result.json["error"]
    assert error["reason"] == "usage"
    assert "--expires-at" in error["message"]
    assert "field" in error


def test_a_fault_of_ours_is_not_taken_for_revoked(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1 means revoked; a crash has a code of its own, and its traceback shows no values."""

    def fails(token: str) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("revocation.cli.check.read_token", fails)
    result = cli("check", "planted-token")
    assert result.code == Exit.CRASH
    assert "ZeroDivisionError" in result.err
    assert "planted" not in result.err


def test_interrupt_is_not_an_outcome(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends a command as shells expect it."""

    def interrupted(token: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("revocation.cli.check.read_token", interrupted)
    assert cli("check", "x").code == 130


def test_as_module_and_as_script_are_the_same() -> None:
    """`python -m revocation` and `revocation`."""
    script = Path(sys.executable).with_name("revocation")
    by_script = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert execute("--version").out == by_script.stdout


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (("--version",), {"grpc", "redis", "pydantic", "cryptography", "structlog", "uvicorn", "rich"}),
        (("inspect", "TOKEN"), {"redis", "pydantic_settings", "structlog", "uvicorn", "rich"}),
        (
            ("status", "--address", "unix:/nowhere", "--timeout", "0.1"),
            {"redis", "pydantic_settings", "structlog", "uvicorn"},
        ),
    ],
)
def test_client_commands_load_no_server(words: tuple[str, ...], unwanted: set[str], issuer: Issuer) -> None:
    """What only `serve` needs must not slow down what a person waits for."""
    given = [issuer.token() if word == "TOKEN" else word for word in words]
    program = (
        "import sys; from revocation.cli import main; main(sys.argv[1:]);"
        f"sys.exit(repr(sorted(set({sorted(unwanted)!r}) & set(sys.modules))))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, *given], capture_output=True, text=True, check=False, env=environment()
    )
    assert result.stderr.splitlines()[-1] == "[]"


def test_a_reader_that_has_seen_enough_is_no_error(issuer: Issuer) -> None:
    """`revocation inspect ... | head -1`: no traceback."""
    read, write = os.pipe()
    os.close(read)
    process = start("inspect", issuer.token(), stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 141
    assert err == ""


@pytest.mark.parametrize("locale", ["C", "en_US.ISO-8859-1"])
def test_output_survives_any_locale(locale: str, issuer: Issuer) -> None:
    """A claim that the terminal's encoding lacks is escaped, not a crash."""
    env = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    result = execute("inspect", issuer.token(sub="żółw 🐢"), env=env)
    assert result.code == 0
    assert "claim sub: \\u017c" in result.out


def test_json_survives_lone_surrogates(cli: Cli, issuer: Issuer) -> None:
    """JSON can smuggle them into a claim; they come out as they went in."""
    result = cli("inspect", issuer.token(sub="a\ud800b"), "--json")
    assert json.loads(result.out)["claims"]["sub"] == "a\ud800b"
    assert "a\\ud800b" in cli("inspect", issuer.token(sub="a\ud800b")).out
