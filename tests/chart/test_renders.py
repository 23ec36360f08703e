"""Every value set of the chart: rendered by Helm 3 and 4, valid for each Kubernetes, restricted, and as in golden/."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.charts import (
    CHART,
    GOLDEN,
    ROOT,
    TOOLS,
    VALUES,
    Object,
    golden,
    helm,
    one,
    parse,
    pod_specs,
    rendered,
    server,
    settled,
)

pytestmark = pytest.mark.chart
KUBERNETES = [f"1.{minor}" for minor in range(27, 38)]


def all_objects() -> Iterator[tuple[str, Object]]:
    for name in VALUES:
        for item in parse(rendered(4, name)):
            yield f"{name}: {item['kind']}/{item['metadata']['name']}", item


def test_there_is_a_value_set_for_every_mode_of_store_and_tls() -> None:
    assert len(VALUES) >= 14
    urls = {name: _env(name)["REVOCATION_REDIS_URL"] for name in VALUES}
    schemes = {url.partition(":")[0] for url in urls.values()}
    assert schemes == {"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster"}
    kinds = {name: {item["kind"] for item in parse(rendered(4, name))} for name in VALUES}
    for kind in ("HorizontalPodAutoscaler", "NetworkPolicy", "ServiceMonitor", "PrometheusRule", "Certificate"):
        assert any(kind in found for found in kinds.values()), kind


def _env(name: str) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in server(rendered(4, name))["env"]}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("name", ["minimal", "everything"])
def test_lint_finds_nothing(version: int, name: str) -> None:
    helm(version, "lint", "--strict", "--quiet", str(CHART), "-f", str(VALUES[name]))


@pytest.mark.parametrize("name", VALUES)
def test_helm_3_and_4_render_the_same(name: str) -> None:
    # In an order of their own.
    three, four = (sorted(map(_key, parse(settled(rendered(version, name))))) for version in (3, 4))
    assert three == four


def _key(item: Object) -> str:
    return json.dumps([item["kind"], item["metadata"]["name"], item], sort_keys=True)


@pytest.mark.parametrize("name", VALUES)
def test_the_render_is_the_reviewed_one(name: str) -> None:
    """After a change: `make chart-files`, then look at the diff."""
    assert golden(rendered(4, name)) == (GOLDEN / f"{name}.yaml").read_text()


def test_no_golden_render_is_left_over() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(VALUES)


def validate(objects: list[tuple[str, Object]], versions: list[str]) -> list[list[str]]:
    """Faults: name of the object, version of Kubernetes, what is wrong."""
    done = subprocess.run(
        [TOOLS / "python", ROOT / "tests/chart/validation.py"],
        input=json.dumps({"versions": versions, "objects": objects}),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    faults: list[list[str]] = json.loads(done.stdout)
    return faults


def test_every_object_is_valid_for_every_supported_kubernetes() -> None:
    unlike = {json.dumps(item, sort_keys=True): name for name, item in all_objects()}
    assert validate([(name, json.loads(text)) for text, name in unlike.items()], KUBERNETES) == []


def test_the_validation_would_find_faults() -> None:
    """Each planted fault is found, in a resource of Kubernetes and in custom ones."""
    deployment = one(rendered(4, "minimal"), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["reddinessProbe"] = {}
    monitor, rule = (one(rendered(4, "monitoring"), kind) for kind in ("ServiceMonitor", "PrometheusRule"))
    monitor["spec"]["endpoints"][0]["interval"] = "often"
    del rule["spec"]["groups"][0]["rules"][0]["alert"]
    certificate = one(rendered(4, "tls-cert-manager"), "Certificate", "-tls")
    del certificate["spec"]["issuerRef"]["name"]
    planted = [(item["kind"], item) for item in (deployment, monitor, rule, certificate)]
    assert [name for name, *_ in validate(planted, ["1.30"])] == [name for name, _ in planted]


@pytest.mark.parametrize("name", VALUES)
def test_every_pod_fits_the_restricted_profile(name: str) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/, and what checkers ask for besides."""
    for pod, spec in pod_specs(rendered(4, name)).items():
        assert spec["automountServiceAccountToken"] is False, pod
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), pod
        assert spec["securityContext"]["runAsNonRoot"] is True, pod
        assert spec["securityContext"]["runAsUser"] > 0, pod
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        kinds = {kind for volume in spec.get("volumes", []) for kind in volume if kind != "name"}
        assert kinds <= {"secret", "configMap", "projected", "emptyDir"}, pod
        assert not spec.get("initContainers"), pod
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, pod
            assert context["readOnlyRootFilesystem"] is True, pod
            assert context["capabilities"] == {"drop": ["ALL"]}, pod
            assert container["resources"]["requests"]["cpu"], pod
            assert container["resources"]["limits"]["memory"], pod
            assert not any(port.get("hostPort") for port in container.get("ports", [])), pod
            assert not container["image"].endswith(":latest"), pod


@pytest.mark.parametrize("name", VALUES)
def test_no_secret_is_in_a_variable_or_an_argument(name: str) -> None:
    """Secrets are files: variables show up in crash reports, arguments in process lists."""
    for pod, spec in pod_specs(rendered(4, name)).items():
        for container in spec["containers"]:
            for item in container.get("env", []):
                assert "secretKeyRef" not in item.get("valueFrom", {}), pod
                assert not re.search(r"://[^/]*@", item.get("value", "")), pod


@pytest.mark.parametrize("name", VALUES)
def test_what_is_mounted_exists(name: str) -> None:
    """Mounts have volumes; secrets and maps that the chart names by its own name are in the render."""
    objects = parse(rendered(4, name))
    made = {(item["kind"], item["metadata"]["name"]) for item in objects}
    made |= {("Secret", item["spec"]["secretName"]) for item in objects if item["kind"] == "Certificate"}
    for pod, spec in pod_specs(rendered(4, name)).items():
        claims = {"data"} if pod.startswith("StatefulSet") else set()
        volumes = {volume["name"] for volume in spec.get("volumes", [])} | claims
        for container in spec["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes, pod
        for kind, wanted in _references(spec):
            assert (kind, wanted) in made or not wanted.startswith("rel-"), (pod, wanted)


def _references(spec: Object) -> Iterator[tuple[str, str]]:
    for volume in spec.get("volumes", []):
        if "secret" in volume:
            yield "Secret", volume["secret"]["secretName"]
        if "configMap" in volume:
            yield "ConfigMap", volume["configMap"]["name"]
        for source in volume.get("projected", {}).get("sources", []):
            yield "Secret", source["secret"]["name"]


@pytest.mark.parametrize("name", VALUES)
def test_a_pod_gets_the_time_that_its_drain_takes(name: str) -> None:
    spec = one(rendered(4, name), "Deployment")["spec"]["template"]["spec"]
    container = server(rendered(4, name))
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1]) if "lifecycle" in container else 0
    drain = float(_env(name)["REVOCATION_DRAIN_S"])
    # The service needs two more seconds to leave the members.
    assert spec["terminationGracePeriodSeconds"] >= before + drain + 5


@pytest.mark.parametrize("name", VALUES)
def test_services_find_the_pods_and_only_those(name: str) -> None:
    text = rendered(4, name)
    objects = parse(text)
    pods = [
        item["spec"]["template"]["metadata"]["labels"]
        for item in objects
        if item["kind"] in {"Deployment", "StatefulSet"}
    ]
    for service in (item for item in objects if item["kind"] == "Service"):
        selector = service["spec"]["selector"].items()
        assert len([labels for labels in pods if selector <= labels.items()]) == 1, service["metadata"]["name"]


def test_names_stay_within_their_limit() -> None:
    """However long the release is called: pods and services have at most 63 characters, with the hashes of pods."""
    client = ["name=" + "c" * 16, "roles={admin}", "realms={default}"]
    words = [word for part in client for word in ("--set", f"auth.clients[0].{part}")]
    text = helm(4, "template", "r" * 53, str(CHART), *words)
    limits = {"Deployment": 46, "StatefulSet": 52, "Service": 63, "Pod": 63}
    for item in parse(text):
        assert len(item["metadata"]["name"]) <= limits.get(item["kind"], 253), item["metadata"]["name"]


def test_zero_and_false_are_values() -> None:
    """`if` in a template takes 0 for absent; these must arrive."""
    env = _env("single-without-volume")
    assert env["REVOCATION_DRAIN_S"] == "0"
    assert "lifecycle" not in server(rendered(4, "single-without-volume"))
    env = _env("everything")
    assert (env["REVOCATION_ALLOW_EVICTION"], env["REVOCATION_LOG_MAX_ENTRIES"]) == ("false", "5000000")
    (realms,) = [item for item in parse(rendered(4, "everything")) if item["metadata"]["name"].endswith("-realms")]
    assert json.loads(realms["data"]["realms.json"]) == {"default": {"grace_ms": 0, "max_leeway_s": 0}}
