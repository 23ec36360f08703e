"""A real Envoy with the configuration that `examples/envoy` gives to users, before the replicas of a test."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.processes import Process, until
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "envoy" / "envoy.yaml"
ENDPOINT = "- endpoint: { address: { socket_address: { address: revocation-headless, port_value: 50051 } } }"


def binary() -> str:
    """Where Envoy is: $REVOCATION_TEST_ENVOY, the tools' environment, the PATH."""
    installed = sorted(ROOT.glob(".venv-tools/lib/python3*/site-packages/envoy/_bin/envoy"))
    found = os.environ.get("REVOCATION_TEST_ENVOY") or (str(installed[0]) if installed else shutil.which("envoy"))
    assert found, "no Envoy: `make proxy` installs one"
    return found


class Envoy(Process):
    """Balances between these ports of this machine."""

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        self.port, self._admin = free_port(), free_port()
        path = folder / "envoy.yaml"
        path.write_text(_configuration(self.port, self._admin, ports))
        super().__init__("envoy", [], folder)
        self._command = [binary(), "-c", str(path), "--log-level", "warning", "--concurrency", "1",
                         "--use-dynamic-base-id"]  # fmt: skip

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def wait_healthy(self, count: int) -> None:
        """Waits until it takes so many replicas for healthy."""
        until(lambda: self.stat("cluster.revocation.membership_healthy") == count, f"Envoy sees {count} replicas")

    def stat(self, name: str) -> int:
        """One of its counters or gauges."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/stats?filter=^{name}$", timeout=2) as answer:
            _, _, value = answer.read().decode().strip().partition(": ")
        return int(value or 0)


def _configuration(port: int, admin: int, replicas: Sequence[int]) -> str:
    text = EXAMPLE.read_text()
    for shown, meant in (
        ("port_value: 9901", f"port_value: {admin}"),
        ("address: 0.0.0.0, port_value: 50050", f"address: 127.0.0.1, port_value: {port}"),
        (ENDPOINT, "\n              ".join(_endpoint(replica) for replica in replicas)),
    ):
        assert text.count(shown) == 1, f"{EXAMPLE.name} says no more {shown!r}"
        text = text.replace(shown, meant)
    return text


def _endpoint(port: int) -> str:
    return ENDPOINT.replace("revocation-headless", "127.0.0.1").replace("50051", str(port))
