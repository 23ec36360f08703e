"""`revocation revoke` and `revocation check`, against a running service."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import typer

from revocation.cli.output import Exit
from revocation.cli.revoke import read_time
from revocation_sdk._requests import make_op_id
from tests.cli.conftest import ISSUER, Cli, Issuer
from tests.cli.running import Service, execute

BY: dict[str, tuple[str, ...]] = {
    "session": ("session", "sid-1"),
    "subject": ("subject", "dave"),
    "client": ("client", "app-1"),
    "key": ("key", "kid-1"),
}


def test_token(ask: Cli, issuer: Issuer) -> None:
    """Active before, revoked after, another one untouched."""
    token, other = issuer.token(), issuer.token()
    assert ask("check", token).code == Exit.OK
    receipt = ask("revoke", "token", token, "--reason", "test", "--json").json
    assert receipt["target"] == "token"
    assert receipt["stored"] is True
    assert receipt["cutoff"] is None
    result = ask("check", token)
    assert result.code == Exit.REVOKED
    assert result.out == "status: revoked\nbecause of: its token\n"
    assert ask("check", other).code == Exit.OK


@pytest.mark.parametrize("target", BY)
@pytest.mark.parametrize("issuer_option", [(), ("--issuer", ISSUER)])
def test_every_target(
    ask: Cli, issuer: Issuer, target: str, issuer_option: tuple[str, ...], request: pytest.FixtureRequest
) -> None:
    """With and without the issuer; what belongs to somebody else stays active."""
    names = {name: f"{name}-{request.node.name}" for name in ("sid", "sub", "client_id", "kid")}
    value = {"session": names["sid"], "subject": names["sub"], "client": names["client_id"], "key": names["kid"]}
    token = issuer.token(sid=names["sid"], sub=names["sub"], client_id=names["client_id"])
    key = ("--key-id", names["kid"])
    assert ask("check", token, *key).code == Exit.OK
    receipt = ask("revoke", target, value[target], *issuer_option, "--json").json
    assert (receipt["cutoff"] is not None) == (target in {"subject", "client"})
    answer = ask("check", token, *key, "--json")
    assert answer.code == Exit.REVOKED
    assert (answer.json["status"], answer.json["target"]) == ("revoked", target)
    if receipt["cutoff"] is not None:
        assert answer.json["since"] == receipt["cutoff"]["at"]
    assert ask("check", issuer.token(sub="somebody else")).code == Exit.OK


def test_a_subject_of_another_issuer_is_another(ask: Cli, issuer: Issuer) -> None:
    """Two issuers may both have a user `1`."""
    assert ask("revoke", "subject", "1", "--issuer", "https://other.example").code == 0
    assert ask("check", issuer.token(sub="1")).code == Exit.OK


def test_token_by_jti_and_expiry(ask: Cli, issuer: Issuer) -> None:
    """Without having the token; and whichever issuer when none is named."""
    token = issuer.token(jti="known-jti")
    end = str(int(time.time()) + 600)
    assert ask("revoke", "token", "--jti", "known-jti", "--expires-at", end).code == Exit.OK
    assert ask("check", token).code == Exit.REVOKED


def test_token_without_jti(ask: Cli, issuer: Issuer) -> None:
    """It is named by the hash of what was signed."""
    token, other = issuer.token(jti=None, n=1), issuer.token(jti=None, n=2)
    assert ask("revoke", "token", token).code == Exit.OK
    assert ask("check", token).code == Exit.REVOKED
    assert ask("check", other).code == Exit.OK


def test_standard_input(service: Service, issuer: Issuer) -> None:
    """A token on the command line is visible to all users of the machine; `-` is not."""
    token = issuer.token()
    address = ("--address", service.address)
    assert execute("revoke", "token", "-", *address, stdin=f"{token}\n").code == Exit.OK
    assert execute("check", "-", *address, stdin=token).code == Exit.REVOKED


def test_expired_tokens_need_no_entry(ask: Cli, issuer: Issuer) -> None:
    """Nothing is stored, the answer says so, and the token is not active either."""
    token = issuer.token(lifetime=-7200)
    result = ask("revoke", "token", token, "--json")
    assert (result.code, result.json["stored"]) == (Exit.OK, False)
    assert "nothing to store" in ask("revoke", "token", token).out
    answer = ask("check", token, "--json")
    assert (answer.code, answer.json["status"]) == (Exit.REVOKED, "expired")


def test_same_op_id_is_the_same_operation(ask: Cli) -> None:
    """Repeating an unknown outcome is safe; another content under that id is refused."""
    op_id = make_op_id(time.time())
    first = ask("revoke", "subject", "erin", "--op-id", op_id, "--json").json
    again = ask("revoke", "subject", "erin", "--op-id", op_id, "--json").json
    assert first["op_id"] == again["op_id"] == op_id
    assert first["cutoff"] == again["cutoff"]
    other = ask("revoke", "subject", "frank", "--op-id", op_id, "--json")
    assert other.code == Exit.USAGE
    assert other.json["error"]["reason"] == "op_id_reused"


def test_old_op_ids_are_refused(ask: Cli) -> None:
    """Nobody could tell any more whether it ran."""
    result = ask("revoke", "session", "s", "--op-id", make_op_id(time.time() - 3600), "--json")
    assert result.code != Exit.OK
    assert result.json["error"]["reason"] == "op_id_expired"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (("session", "s" * 257), "session.sid"),
        (("session", "s", "--reason", "r" * 257), "reason"),
        (("session", "s", "--op-id", "nonsense"), "op_id"),
        (("token", "--jti", "x", "--expires-at", "2099-01-01T00:00:00Z"), "token.expires_at"),
        (("key", "--thumbprint", "short"), "key.thumbprint"),
    ],
)
def test_the_service_names_the_field_at_fault(ask: Cli, words: tuple[str, ...], field: str) -> None:
    """Exit 2, and nothing was changed."""
    result = ask("revoke", *words, "--json")
    assert result.code == Exit.USAGE
    assert result.json["error"]["field"] == field


@pytest.mark.parametrize(
    "words",
    [
        ("token",),
        ("token", "x.y.z", "--jti", "x"),
        ("token", "x.y.z", "--issuer", "x"),
        ("token", "--jti", "x"),
        ("token", "--jti", "x", "--expires-at", "tomorrow"),
        ("token", "not a token"),
        ("key",),
        ("key", "k", "--thumbprint", "t"),
        ("key", "--thumbprint", "t", "--issuer", "i"),
        ("session",),
    ],
)
def test_contradictions_are_refused_before_anything_is_sent(cli: Cli, words: tuple[str, ...]) -> None:
    """No service is needed to say so."""
    result = cli("revoke", *words, "--address", "unix:/nowhere", "--json")
    assert result.code == Exit.USAGE
    assert result.json["error"]["message"]


def test_realm(ask: Cli, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything until now. A person is asked first; --yes and pipes are not."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)

    def refuse(text: str, *, abort: bool) -> None:
        raise typer.Abort

    monkeypatch.setattr("typer.confirm", refuse)
    token = issuer.token()
    assert ask("revoke", "realm").code == 130
    assert ask("check", token).code == Exit.OK
    assert ask("revoke", "realm", "--yes").code == Exit.OK
    result = ask("check", token, "--json")
    assert (result.code, result.json["target"]) == (Exit.REVOKED, "realm")


@pytest.mark.parametrize(
    "words", [("revoke", "session", "s"), ("check", "TOKEN"), ("status",), ("members", "list"), ("watch",)]
)
def test_no_service(cli: Cli, issuer: Issuer, words: tuple[str, ...]) -> None:
    """Exit 3 within the timeout, with what to look at."""
    given = [issuer.token() if word == "TOKEN" else word for word in words]
    result = cli(*given, "--address", "unix:/nowhere", "--timeout", "0.2")
    assert result.code == Exit.UNAVAILABLE
    assert result.err.startswith("error: ")


def test_another_realm_is_denied(ask: Cli) -> None:
    """Without identities there is realm `default` only: exit 5."""
    result = ask("status", "--realm", "shop", "--json")
    assert result.code == Exit.DENIED
    assert result.json["error"]["reason"] == "permission_denied"


def test_address_and_realm_come_from_the_environment(service: Service) -> None:
    """As INTERFACE.md says; options win."""
    env = {"REVOCATION_ADDRESS": service.address, "REVOCATION_REALM": "shop"}
    assert execute("status", env=env).code == Exit.DENIED
    assert execute("status", "--realm", "default", env=env).code == Exit.OK


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1700000000", 1_700_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000),
        ("2023-11-14 22:13:20", 1_700_000_000),
    ],
)
def test_read_time(text: str, seconds: int) -> None:
    """Seconds, or ISO 8601; without an offset UTC, so that it means the same everywhere."""
    assert read_time(text) == seconds


def test_identifiers_stay_out_of_the_log(service: Service, issuer: Issuer, cli: Cli) -> None:
    """What was revoked and who asked is not in the service's log."""
    token = issuer.token(sub="planted-subject", sid="planted-sid", jti="planted-jti")
    commands: list[Callable[[], object]] = [
        lambda: cli("revoke", "token", token, "--address", service.address),
        lambda: cli("revoke", "subject", "planted-subject", "--address", service.address),
        lambda: cli("check", token, "--address", service.address),
    ]
    for command in commands:
        command()
    log = service.log.read_text()
    assert "planted" not in log
    assert token.split(".")[1] not in log


def test_a_dry_run_says_what_would_end_and_changes_nothing(ask: Cli, service: Service) -> None:
    from revocation_sdk import RevocationClient

    with RevocationClient(service.address) as client:
        before = client.impact().sessions
        for number in range(3):
            client.open_session("dry-run", client_id=f"dry-{number}", access_token_life=60)
        said = ask("revoke", "subject", "dry-run", "--dry-run")
        assert (said.code, said.out) == (Exit.OK, "would end: 3 sessions of 1 users\n")
        found = ask("revoke", "realm", "--dry-run", "--json").json
        assert found == {
            "target": "realm", "sessions": before + 3, "subjects": found["subjects"], "exact": True, "at_most": False,
        }  # fmt: skip
        assert ask("revoke", "client", "dry-1", "--dry-run", "--json").json["sessions"] == 1
        assert ask("revoke", "key", "some-kid", "--dry-run").out.startswith("would end: at most ")
        assert len(client.list_sessions("dry-run")) == 3
