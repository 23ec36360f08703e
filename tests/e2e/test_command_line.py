"""What the command line says of a secured service that it cannot use: exit codes, and what to do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from revocation.cli import main
from revocation.cli.output import Exit
from tests.e2e.installation import Installation
from tests.e2e.secured import Secured

pytestmark = pytest.mark.e2e

REVOKER, STRANGER = "spiffe://test/revoker", "spiffe://test/stranger"


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with Installation(tmp_path_factory.mktemp("command")) as installation:
        made = Secured(installation, [(REVOKER, "revoker", ["default"])], realms={"default": {}})
        made.embedded()
        yield made


@pytest.fixture
def other_ca(tmp_path: Path) -> Path:
    path = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(path))
    return path


def options(secured: Secured, identity: str, ca: Path | None = None) -> list[str]:
    own, cert, key = secured.files(identity)
    files = ["--ca", str(ca or own), "--cert", str(cert), "--cert-key", str(key)]
    return ["--address", secured.replica.address, "--timeout", "2", *files]


def findings(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    main(["doctor", *words, "--json"])
    return {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}


def test_who_may_not_watch_is_denied(secured: Secured, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", "--for", "1", *options(secured, REVOKER)]) == Exit.DENIED
    assert "roles file" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["watch", "--for", "1"], ["revoke", "session", "s"]])
def test_a_ca_that_does_not_fit_is_named(
    secured: Secured, other_ca: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """gRPC itself cannot tell it from a service that is not there."""
    assert main([*command, *options(secured, REVOKER, other_ca)]) == Exit.UNAVAILABLE
    assert f"does not fit the CA in {other_ca}" in capsys.readouterr().err


def test_the_doctor_tells_denied_from_silent(secured: Secured, capsys: pytest.CaptureFixture[str]) -> None:
    found = findings(options(secured, STRANGER), capsys)
    assert found["service"]["result"] == "fail"
    assert "refuses this caller" in found["service"]["message"]
    assert "roles file" in found["service"]["what_to_do"]
    assert "transport" not in found, "the CA fits"


def test_the_doctor_names_a_ca_that_does_not_fit(
    secured: Secured, other_ca: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = findings(options(secured, REVOKER, other_ca), capsys)
    assert found["transport"]["result"] == "fail"
    assert "does not fit" in found["transport"]["message"]


def test_the_doctor_judges_no_configuration_of_a_service_that_is_elsewhere(
    secured: Secured, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    found = findings(options(secured, REVOKER), capsys)
    assert (found["configuration"]["result"], found["store"]["result"]) == ("skip", "skip")
    monkeypatch.setenv("REVOCATION_PARTITIONS", "1")
    assert findings(options(secured, REVOKER), capsys)["configuration"]["result"] != "skip"
