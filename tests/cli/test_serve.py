"""`revocation serve` and `revocation config`: starting, refusing to start, ending, coming back."""

from __future__ import annotations

import json
import signal
import socket
import tempfile
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from revocation.cli.output import Exit
from revocation.config.settings import FLAG_FIELDS, Config
from revocation.keys.keyring import new_secret
from tests.cli.conftest import Cli, Issuer
from tests.cli.running import execute, serving
from tests.revocation.eventually import LIMIT_S, eventually
from tests.servers import free_port


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_restart_forgets_nothing(tmp_path: Path, cli: Cli, issuer: Issuer, how: signal.Signals) -> None:
    """What was acknowledged before the service was killed is refused after it has come back."""
    token, other = issuer.token(), issuer.token()
    with serving(tmp_path / "data") as service:
        assert cli("revoke", "token", token, "--address", service.address).code == Exit.OK
        assert service.stop(how) == (0 if how is signal.SIGTERM else -how)
    with serving(tmp_path / "data") as service:
        assert cli("check", token, "--address", service.address).code == Exit.REVOKED
        assert cli("check", other, "--address", service.address).code == Exit.OK


def test_second_service_on_a_data_dir_is_refused(tmp_path: Path) -> None:
    """It exits with the directory in its message; the first goes on."""
    with serving(tmp_path / "data") as service:
        second = execute("serve", "--data-dir", str(tmp_path / "data"), "--listen", "127.0.0.1:0")
        assert second.code == Exit.USAGE
        assert str(tmp_path / "data") in second.err
        assert execute("status", "--address", service.address).code == Exit.OK


def test_address_in_use_is_a_message(tmp_path: Path) -> None:
    """Exit 2 with the address, and no store stays behind: the directory is free again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = execute("serve", "--data-dir", str(tmp_path / "data"), "--listen", address)
    assert refused.code == Exit.USAGE
    assert address in refused.err
    with serving(tmp_path / "data"):
        pass


def test_logs_are_json_lines_with_the_warnings(tmp_path: Path) -> None:
    """Everything on standard error is JSON; the warning about anonymous callers is among it."""
    with serving(tmp_path / "data") as service:
        service.stop()
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    assert any("no roles" in line.get("warning", "") for line in lines)
    assert {"event", "level", "logger", "timestamp"} <= set(lines[0])


def test_http_pages(tmp_path: Path) -> None:
    """/livez, /readyz and /metrics where --http-listen says."""
    port = free_port()
    fetch = build_opener(ProxyHandler({}))

    def ready() -> bool:
        try:
            with fetch.open(f"http://127.0.0.1:{port}/readyz", timeout=LIMIT_S) as answer:
                return bool(answer.status == 200)
        except OSError:  # it does not listen yet, or says no
            return False

    with serving(tmp_path / "data", "--http-listen", f"127.0.0.1:{port}"):
        eventually(ready, "/readyz says yes")
        with fetch.open(f"http://127.0.0.1:{port}/metrics", timeout=LIMIT_S) as answer:
            assert b"revocation_build_info" in answer.read()


def test_replicas_share_an_embedded_store(tmp_path: Path, cli: Cli, issuer: Issuer) -> None:
    """A second service on the first one's store, by URL: what one revokes, the other knows."""
    token = issuer.token()
    with serving(tmp_path / "data") as first, tempfile.TemporaryDirectory(prefix="rv-") as folder:
        url = f"unix://{first.data_dir}/store.sock"
        env = {"REVOCATION_SECRET_FILE": str(first.data_dir / "secret")}
        # --redis-url beside the --data-dir that `serving` gives: the store of the URL is used.
        with serving(Path(folder), "--redis-url", url, "--replica-id", "second", env=env) as second:
            assert cli("revoke", "token", token, "--address", first.address).code == Exit.OK
            assert cli("check", token, "--address", second.address).code == Exit.REVOKED

            def members() -> set[str]:
                listed = cli("members", "list", "--address", second.address, "--json").json["members"]
                return {member["id"] for member in listed}

            # One that was paused for some seconds is struck off, and comes back.
            eventually(lambda: len(members()) == 2 and "second" in members(), "both are members")


def test_all_faults_at_once(cli: Cli) -> None:
    """`serve` and `config` refuse the same things, each named with its option and variable."""
    words = ("--listen", "0.0.0.0:1", "--partitions", "65", "--redis-url", "http://user:planted@x")
    for command in ("serve", "config"):
        result = cli(command, *words)
        assert result.code == Exit.USAGE
        for named in ("--partitions, REVOCATION_PARTITIONS", "--redis-url", "--roles", "--tls-cert"):
            assert named in result.err
        assert "planted" not in result.err
    faults = cli("config", *words, "--json").json["error"]["faults"]
    assert {fault["field"] for fault in faults} == {"listen", "partitions", "redis_url", "roles"}


def test_every_setting_is_an_option_of_serve_and_config(cli: Cli) -> None:
    """The two cannot drift apart from the configuration."""
    for command in ("serve", "config"):
        shown = cli(command, "--help").out
        for field in FLAG_FIELDS:
            assert f"--{field.replace('_', '-')} " in shown
        assert "--secret " not in shown


def test_config_shows_values_sources_and_no_secret(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """For people a table, for programs an object with every setting."""
    secret = new_secret()
    monkeypatch.setenv("REVOCATION_SECRET", secret)
    monkeypatch.setenv("REVOCATION_DRAIN_S", "3")
    words = ("config", "--redis-url", "redis://user:planted@store", "--ack", "replicated:2")
    shown = cli(*words, "--json").json
    assert set(shown["settings"]) == set(Config.model_fields)
    assert shown["settings"]["ack"] == {"value": "replicated:2", "source": "flag"}
    assert shown["settings"]["drain_s"] == {"value": 3.0, "source": "env"}
    assert any("no roles" in warning for warning in shown["warnings"])
    text = cli(*words)
    assert "drain_s\t3.0\tenv" in text.out.splitlines()
    for hidden in ("planted", secret, secret.partition(":")[2]):
        assert hidden not in text.out + json.dumps(shown)
