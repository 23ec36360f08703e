"""`revocation status`, `members`, `watch` and `sessions`."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

import pytest

from revocation.cli.connection import Connection
from revocation.cli.findings import _keys_not_refused
from revocation.cli.output import Exit
from revocation_sdk.types import PartitionStatus, Receipt, ServiceStatus, SessionInfo, Subscribers
from tests.cli.conftest import Cli, Issuer
from tests.cli.running import Service, start


def test_status(ask: Cli) -> None:
    """The replica, its store, its partitions; integer seconds in JSON."""
    shown = ask("status", "--json").json
    assert [partition["state"] for partition in shown["partitions"]] == ["usable"]
    assert shown["ack"] == "fsynced"
    assert isinstance(shown["store_time"], int)
    assert abs(shown["store_time"] - time.time()) < 60
    assert "partition 0: usable" in ask("status").out.splitlines()


def test_members(ask: Cli, service: Service) -> None:
    """The replica lists itself, under the name that it keeps in its data directory."""
    name = (service.data_dir / "replica-id").read_text().strip()
    (member,) = ask("members", "list", "--json").json["members"]
    assert member["id"] == name
    assert member["active"] is True
    assert isinstance(member["last_seen"], int)
    assert ask("members", "list").out.splitlines()[1].startswith(f"{name}\t0\tyes\tyes\t")


def test_strike_asks_first(ask: Cli) -> None:
    """It can cost acknowledged revocations, so nothing happens by a pipe without --yes; strangers are refused."""
    result = ask("members", "strike", "somebody")
    assert result.code == Exit.USAGE
    assert "--yes" in result.err
    assert ask("members", "strike", "somebody", "--yes").code == Exit.USAGE


def test_watch_shows_changes_as_they_come(service: Service, cli: Cli, issuer: Issuer) -> None:
    """One JSON object a line, at once, with fingerprints and without identifiers."""
    words = ("watch", "--json", "--count", "3", "--address", service.address)
    process = start(*words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        events = (json.loads(line) for line in process.stdout)
        assert next(event for event in events if event["event"] == "following")["entries"] >= 0
        token = issuer.token(jti="planted-jti")
        for target in (("token", token), ("subject", "planted-sub"), ("key", "planted-kid")):
            assert cli("revoke", *target, "--address", service.address).code == Exit.OK
        rest = list(events)
    assert process.wait(30) == Exit.OK
    changes = [event for event in rest if event["event"] == "revoked"]
    assert [change["kind"] for change in changes] == ["token", "subject", "key"]
    assert changes[1]["version"] > 0
    assert changes[2]["forgotten_at"] is None
    assert all(len(change["fingerprint"]) == 16 for change in changes)
    assert "planted" not in json.dumps(rest)


def test_watch_ends_after_a_time(ask: Cli) -> None:
    """--for, for scripts that only want to know that a stream works."""
    result = ask("watch", "--for", "0.1")
    assert result.code == Exit.OK
    assert "following" in result.out


class FakeClient:
    """A client that knows what it is told."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            return self.answers.get(name)

        return call


def fake(monkeypatch: pytest.MonkeyPatch, **answers: Any) -> FakeClient:
    client = FakeClient(**answers)
    monkeypatch.setattr(Connection, "client", lambda self, **options: client)
    return client


def test_status_that_is_not_usable_is_exit_1(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the members that it waits for."""
    partition = PartitionStatus("", "healing", ("replica-b",))
    fake(
        monkeypatch,
        status=ServiceStatus("a", "1", (partition,), 0, 0, 0, 0, "valkey 9", "memory"),
        subscribers=Subscribers((), 0, ()),
    )
    result = cli("status")
    assert result.code == Exit.REVOKED
    assert "partition 0: healing (waits for replica-b)" in result.out


def test_keys_that_are_not_refused_any_more_are_shown_and_found(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the key ids of the secrets that are lacking, and what to do."""
    status = ServiceStatus(
        "a", "1", (PartitionStatus("", "usable", ()),), 0, 0, 0, 0, "valkey 9", "memory",
        missing_secrets=("k1",), keys_not_refused=3,
    )  # fmt: skip
    fake(monkeypatch, status=status, subscribers=Subscribers((), 0, ()))
    result = cli("status")
    assert result.code == Exit.OK
    assert "k1" in result.out
    assert "3 (see `revocation doctor`)" in result.out
    (finding,) = _keys_not_refused(status)
    assert (finding.result, finding.message.startswith("3 signing keys"), "k1" in finding.message) == (
        "warn",
        True,
        True,
    )
    assert "revocation revoke key" in finding.what_to_do


SESSION = SessionInfo("h1", "web", "Laptop\x1b[2J", "192.0.2.1", "Agent", 1, 2, 4_000_000_000, 4_100_000_000, False)


def test_sessions_list(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handles and devices; a device's name cannot write to the terminal."""
    client = fake(monkeypatch, list_sessions=[SESSION])
    shown = cli("sessions", "list", "alice", "--json").json["sessions"]
    assert shown[0]["handle"] == "h1"
    assert shown[0]["expires_at"] == 4_100_000_000
    line = cli("sessions", "list", "alice").out.splitlines()[1]
    assert line.startswith("h1\tweb\tLaptop\\x1b[2J\t192.0.2.1\t")
    assert client.calls[0] == ("list_sessions", ("alice",), {"issuer": None, "timeout": 10.0})


def test_sessions_of_issuers_that_nobody_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty table says what it may lack."""
    fake(monkeypatch, list_sessions=[])
    assert "--issuer" in cli("sessions", "list", "alice").out
    assert "--issuer" not in cli("sessions", "list", "alice", "--issuer", "https://id.example").out


def test_a_handle_is_no_sid(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    client = fake(monkeypatch, revoke_session=Receipt("pos", "op", True))
    result = cli("revoke", "session", "A" * 22)
    assert (result.code, "sessions end" in result.err, client.calls) == (Exit.USAGE, True, [])
    assert cli("revoke", "session", "A" * 22, "--issuer", "https://other.example").code == Exit.OK


def test_sessions_show_and_end(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """By sid, or by handle and subject."""
    client = fake(monkeypatch, get_session=SESSION, end_session=Receipt("pos", "op", True))
    assert "session: h1" in cli("sessions", "show", "h1", "--subject", "alice").out
    assert cli("sessions", "end", "h1", "--subject", "alice", "--json").json["op_id"] == "op"
    calls = [(name, arguments, options["subject"]) for name, arguments, options in client.calls if name != "close"]
    assert calls == [("get_session", ("h1",), "alice"), ("end_session", ("h1",), "alice")]
