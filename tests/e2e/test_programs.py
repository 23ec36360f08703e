"""The command line and a preforking server, against a service that is broken on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation
from tests.e2e.processes import LIMIT_S, Process, until
from tests.e2e.tokens import AUDIENCE, ISSUER
from tests.servers import free_port

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("programs")) as made:
        made.add_embedded()
        made.add_verifier("thread")
        yield made


def run(installed: Installation, *words: str) -> tuple[int, dict[str, Any]]:
    """One command; its exit code, and the object that it printed."""
    command = [sys.executable, "-m", "revocation", *words, "--address", installed.addresses, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * LIMIT_S, check=False)
    assert done.stdout.count("\n") == 1, (done.stdout, done.stderr)
    answer: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, answer


def test_commands_say_by_exit_code_and_in_json_what_verifiers_see(installed: Installation) -> None:
    (replica,) = installed.replicas
    token, other = installed.signer.sign(), installed.signer.sign()
    watching = Process(
        "watch", ["-m", "revocation", "watch", "--json", "--count", "2", "--address", installed.addresses],
        installed.folder,
    )  # fmt: skip
    installed.processes.append(watching)
    watching.start()
    lines = watching.pipes.stdout
    assert lines is not None
    while json.loads(lines.readline())["event"] != "following":
        pass
    code, verdict = run(installed, "check", token)
    assert (code, verdict["status"]) == (0, "active")
    code, receipt = run(installed, "revoke", "token", token)
    assert (code, receipt["stored"]) == (0, True)
    assert run(installed, "revoke", "token", token, "--op-id", receipt["op_id"])[1]["position"] == receipt["position"]
    code, verdict = run(installed, "check", token)
    assert (code, verdict["status"], verdict["target"]) == (1, "revoked", "token")
    installed.refused_everywhere([token])
    installed.accepted_everywhere(other)
    code, status = run(installed, "status")
    assert (code, status["replica"]) == (0, replica.id)
    assert [partition["state"] for partition in status["partitions"]] == ["usable"]

    # The one who watches goes on when the service comes back.
    break_and_mend(installed, other)
    assert watching.wait() == 0
    seen = [json.loads(line) for line in lines]
    assert [event["kind"] for event in seen if event["event"] == "revoked"] == ["token", "subject"], seen


def break_and_mend(installed: Installation, token: str) -> None:
    (replica,) = installed.replicas
    replica.kill()
    code, error = run(installed, "revoke", "token", token, "--timeout", "1")
    assert (code, error["error"]["reason"]) == (3, "unavailable")
    replica.start()
    replica.wait_ready()
    code, receipt = run(installed, "revoke", "subject", "somebody")
    assert code == 0
    assert receipt["cutoff"]["version"] > 0


def test_an_outcome_that_nobody_knows_has_its_own_exit_code_and_an_op_id_to_repeat(installed: Installation) -> None:
    (replica,) = installed.replicas
    # A first call, so that the next one finds a connection: what never left would be exit code 3.
    replica.stop()
    try:
        code, error = run(installed, "revoke", "subject", "doubtful", "--timeout", "1.5")
    finally:
        replica.resume()
    assert code in {3, 4}, error
    if code == 4:
        code, _ = run(installed, "revoke", "subject", "doubtful", "--op-id", error["error"]["op_id"])
        assert code == 0


def test_workers_of_a_preforking_server_follow_by_themselves(installed: Installation, tmp_path: Path) -> None:
    port = free_port()
    server = Process(
        "gunicorn",
        [
            "-m", "gunicorn", "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}",
            "--log-level", "warning", "tests.e2e.preload_app:application",
        ],
        tmp_path,
        {
            "ADDRESSES": installed.addresses, "JWKS": json.dumps(installed.signer.jwks()), "ISSUER": ISSUER,
            "AUDIENCE": AUDIENCE,
        },
    )  # fmt: skip
    installed.processes.append(server)
    server.start()
    token = installed.signer.sign()

    def ask() -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{token}", timeout=LIMIT_S) as response:
            answer: dict[str, Any] = json.loads(response.read())
            return answer

    accepted: dict[int, str] = {}

    def all_accept() -> bool:
        answer = ask()
        assert answer["pid"] != answer["parent"]
        accepted[answer["pid"]] = answer["why"]
        return len(accepted) == 2 and set(accepted.values()) == {"accepted"}

    until(all_accept, "both workers accept the token")
    client = installed.client()
    client.wait_until_fresh(30)
    client.revoke_token(token)
    until(lambda: ask()["why"] == "revoked" and all(ask()["why"] == "revoked" for _ in range(20)), "all refuse it")
    server.terminate()
    assert server.wait() == 0
