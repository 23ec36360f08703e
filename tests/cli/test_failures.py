"""Every error of the SDK has its exit code and its JSON shape."""

from __future__ import annotations

import json

import pytest

from revocation.cli.failures import explain
from revocation.cli.output import Exit, Output
from revocation_sdk import errors


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.TokenInvalid(), Exit.USAGE),
        (errors.TokenExpired(), Exit.REVOKED),
        (errors.TokenRevoked(), Exit.REVOKED),
        (errors.StatusUnknown(), Exit.UNAVAILABLE),
        (errors.NotFresh(), Exit.UNAVAILABLE),
        (errors.NotFresh(reason="unavailable"), Exit.UNAVAILABLE),
        (errors.NotFresh(reason="permission_denied"), Exit.DENIED),
        (errors.NotFresh(reason="credentials"), Exit.DENIED),
        (errors.Unavailable(), Exit.UNAVAILABLE),
        (errors.OutcomeUnknown(op_id="o"), Exit.OUTCOME_UNKNOWN),
        (errors.PermissionDenied(), Exit.DENIED),
        (errors.InvalidRequest(field="f"), Exit.USAGE),
        (errors.SessionLimit(), Exit.REVOKED),
        (errors.SessionEnded(), Exit.REVOKED),
        (errors.RefreshReused(), Exit.REVOKED),
        (errors.ConfigError(), Exit.USAGE),
        (errors.ServiceError(), Exit.UNAVAILABLE),
    ],
)
def test_exit_codes(error: errors.RevocationError, code: Exit, capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts rely on the code, programs on the reason."""
    assert explain(error, Output(as_json=True)) == code
    shown = json.loads(capsys.readouterr().out)["error"]
    assert shown["reason"] == error.reason
    assert shown["message"]
    assert explain(error, Output(as_json=False)) == code
    assert capsys.readouterr().err.startswith("error: ")


def test_unknown_outcome_says_how_to_find_out(capsys: pytest.CaptureFixture[str]) -> None:
    """The op id, for people in a sentence and for programs as a field."""
    explain(errors.OutcomeUnknown(op_id="the-op-id"), Output(as_json=False))
    assert "--op-id the-op-id" in capsys.readouterr().err
    explain(errors.OutcomeUnknown(op_id="the-op-id"), Output(as_json=True))
    assert json.loads(capsys.readouterr().out)["error"]["op_id"] == "the-op-id"


@pytest.mark.parametrize(
    ("reason", "hint"),
    [("unavailable", "--address"), ("permission_denied", "roles file"), ("unauthenticated", "--cert")],
)
def test_a_view_that_does_not_become_fresh_says_what_to_do(
    reason: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(errors.NotFresh(reason=reason), Output(as_json=False))
    assert hint in capsys.readouterr().err
