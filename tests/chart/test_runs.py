"""What the chart renders, run as processes: the same arguments, variables, files, probes and test script.

Changed are addresses and folders only: free ports, localhost for the names of services, a folder for /etc/revocation.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.chart.charts import (
    NAMESPACE,
    RELEASE,
    Object,
    data,
    environment,
    objects,
    one,
    pod_specs,
    rendered,
    server,
    template,
)
from tests.e2e.processes import LIMIT_S, Process, until
from tests.servers import Servers, free_port

pytestmark = pytest.mark.chart
NAME = f"{RELEASE}-revocation"


class Cluster:
    """The pods of one render."""

    def __init__(self, text: str, folder: Path, servers: Servers) -> None:
        self.text, self.folder = text, folder
        self.replicas: dict[str, Process] = {}
        self.ports: dict[str, dict[str, int]] = {}
        self.store = self._valkey(servers)

    def _valkey(self, servers: Servers) -> str:
        """The bundled Valkey with the configuration of its ConfigMap; its address."""
        (pod,) = [spec for name, spec in pod_specs(self.text).items() if name.startswith("StatefulSet")]
        mounted = self._mount(pod, "valkey")
        (container,) = pod["containers"]
        assert container["command"] == ["valkey-server", "/etc/valkey/config/valkey.conf"]
        lines = Path(mounted["/etc/valkey/config"], "valkey.conf").read_text().splitlines()
        config = dict(line.split(" ", 1) for line in lines)
        del config["dir"]  # the volume
        config["aclfile"] = config["aclfile"].replace("/etc/valkey/secret", mounted["/etc/valkey/secret"])
        started = servers.start(config)
        assert started.config["appendfsync"] == "always"
        return started.address

    def _mount(self, spec: Object, name: str) -> dict[str, str]:
        """Lays the files of a pod's volumes; path in the container -> folder here."""
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        found = {}
        for mount in spec["containers"][0].get("volumeMounts", []):
            folder = self.folder / name / mount["name"]
            folder.mkdir(parents=True, exist_ok=True)
            found[mount["mountPath"]] = str(folder)
            for file, content in self._content(volumes.get(mount["name"], {})).items():
                (folder / file).write_bytes(content)
        return found

    def _content(self, volume: Object) -> dict[str, bytes]:
        secrets, maps = objects(self.text, "Secret"), objects(self.text, "ConfigMap")
        if "secret" in volume:
            files = data(secrets[volume["secret"]["secretName"]])
            items = volume["secret"].get("items", [{"key": key, "path": key} for key in files])
            return {item["path"]: files[item["key"]] for item in items}
        if "projected" in volume:
            sources = [{"secret": {**source["secret"], "secretName": source["secret"]["name"]}}
                       for source in volume["projected"]["sources"]]  # fmt: skip
            return {file: content for source in sources for file, content in self._content(source).items()}
        if "configMap" in volume:
            return {file: text.encode() for file, text in maps[volume["configMap"]["name"]]["data"].items()}
        return {}

    def _local(self, value: str, mounted: dict[str, str], ports: dict[str, int]) -> str:
        for path, folder in mounted.items():
            value = value.replace(path + "/", folder + "/")
        value = value.replace(f"{NAME}-valkey:6379", self.store)
        value = value.replace(f"{NAME}.{NAMESPACE}.svc:50051", f"localhost:{ports['grpc']}")
        return value.replace(":50051", f":{ports['grpc']}").replace(":9464", f":{ports['http']}")

    def start(self, pod: str) -> Process:
        """One replica, with the command and the variables of the Deployment."""
        spec = one(self.text, "Deployment")["spec"]["template"]["spec"]
        mounted = self._mount(spec, pod)
        self.ports[pod] = {"grpc": free_port(), "http": free_port()}
        env = environment(server(self.text), pod)
        env = {name: self._local(value, mounted, self.ports[pod]) for name, value in env.items()}
        process = Process(pod, ["-m", "revocation", *server(self.text)["args"]], self.folder, env)
        self.replicas[pod] = process
        process.start()
        return process

    def probe(self, pod: str, which: str) -> bool:
        """Asks as the kubelet would."""
        probe = server(self.text)[f"{which}Probe"]
        if "grpc" in probe:
            with grpc.insecure_channel(f"127.0.0.1:{self.ports[pod]['grpc']}") as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                asked = health_pb2.HealthCheckRequest(service=probe["grpc"].get("service", ""))
                try:
                    return bool(stub.Check(asked, timeout=LIMIT_S).status == health_pb2.HealthCheckResponse.SERVING)
                except grpc.RpcError:
                    return False
        assert probe["httpGet"]["port"] == "http"
        url = f"http://127.0.0.1:{self.ports[pod]['http']}{probe['httpGet']['path']}"
        try:
            with urllib.request.urlopen(url, timeout=LIMIT_S) as response:
                return bool(response.status == 200)
        except urllib.error.HTTPError:
            return False

    def test(self, pod: str) -> subprocess.CompletedProcess[str]:
        """`helm test`, against one replica."""
        spec = one(self.text, "Pod")["spec"]
        (container,) = spec["containers"]
        mounted = self._mount(spec, "test")
        env = {name: self._local(value, mounted, self.ports[pod]) for name, value in environment(container).items()}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            [*container["command"], *container["args"]],
            env={"PATH": path, "LC_ALL": "C.UTF-8", **env}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip

    def client(self, name: str, pod: str, *words: str) -> tuple[int, Object]:
        """A command line with a certificate that the chart made; exit code and answer."""
        folder = self.folder / f"client-{name}"
        folder.mkdir(exist_ok=True)
        for file, content in data(objects(self.text, "Secret")[f"{NAME}-client-{name}"]).items():
            (folder / file).write_bytes(content)
        done = subprocess.run(
            [
                sys.executable, "-m", "revocation", *words, "--json",
                "--address", f"localhost:{self.ports[pod]['grpc']}",
                "--ca", folder / "ca.crt", "--cert", folder / "tls.crt", "--cert-key", folder / "tls.key",
            ],
            capture_output=True, text=True, timeout=2 * LIMIT_S, check=False,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path, servers: Servers) -> Iterator[Cluster]:
    made = Cluster(rendered(4, request.param) if request.param else template(4), tmp_path, servers)
    try:
        yield made
    finally:
        for name, process in made.replicas.items():
            process.kill()
            print(f"--- {name}\n{process.log()[-3000:]}")


@pytest.mark.parametrize("cluster", [None], indirect=True, ids=["default values"])
def test_a_fresh_installation_revokes_a_token(cluster: Cluster) -> None:
    for pod in ("pod-0", "pod-1"):
        cluster.start(pod)
    for pod in cluster.replicas:
        until(lambda pod=pod: cluster.probe(pod, "startup"), f"{pod} has started")  # type: ignore[misc]
        until(lambda pod=pod: cluster.probe(pod, "readiness"), f"{pod} is ready")  # type: ignore[misc]
        assert cluster.probe(pod, "liveness")
        done = cluster.test(pod)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "passed: the token was good, and is revoked" in done.stdout

    # Callers are who their certificates say, and may do what their roles allow.
    assert cluster.client("admin", "pod-0", "revoke", "subject", "alice")[0] == 0
    code, members = cluster.client("admin", "pod-1", "members", "list")
    assert code == 0
    assert {"pod-0", "pod-1"} <= set(json.dumps(members).replace('"', " ").split())
    assert cluster.client("verifier", "pod-1", "revoke", "subject", "alice")[0] == 5
    assert cluster.client("issuer", "pod-1", "revoke", "subject", "alice")[0] == 0

    # One pod goes, as a rollout makes it; the other goes on.
    cluster.replicas["pod-0"].terminate()
    assert cluster.replicas["pod-0"].wait() == 0
    assert cluster.client("issuer", "pod-1", "revoke", "subject", "bob")[0] == 0


@pytest.mark.parametrize("cluster", ["tls-off-in-a-mesh"], indirect=True, ids=["plain text, grpc probes"])
def test_native_grpc_probes_tell_life_from_readiness(cluster: Cluster, servers: Servers) -> None:
    cluster.start("pod-0")
    until(lambda: cluster.probe("pod-0", "startup"), "it has started")
    until(lambda: cluster.probe("pod-0", "readiness"), "it is ready")
    assert cluster.test("pod-0").returncode == 0
    (store,) = servers._all
    store.kill()
    until(lambda: not cluster.probe("pod-0", "readiness"), "it is not ready without its store")
    # Or the kubelet would restart every replica because of the store, and with them goes what they remember.
    assert cluster.probe("pod-0", "liveness")


def test_the_test_script_notices_a_service_that_does_not_revoke(tmp_path: Path) -> None:
    """With a command line that says "active" to everything: the script fails."""
    (tmp_path / "revocation").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "revocation").chmod(0o755)
    (container,) = one(rendered(4, "minimal"), "Pod")["spec"]["containers"]
    done = subprocess.run(
        [*container["command"], *container["args"]],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True, text=True, timeout=2 * LIMIT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "expected exit code 1 (revoked), got 0" in done.stdout
