"""Renders of the chart by the real Helm, 3 and 4, as text and as objects."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "helm/revocation"
HELM = {version: ROOT / f".cache/helm/helm{version}" for version in (3, 4)}
TOOLS = ROOT / ".venv-tools/bin"
GOLDEN = Path(__file__).parent / "golden"
VALUES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
RELEASE, NAMESPACE = "rel", "prod"
Object = dict[str, Any]


class Refused(Exception):
    """Helm did not render; the text is what it says."""


class _Strict(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses keys that are there twice, which YAML forbids and the loader would not notice."""


def _mapping(loader: _Strict, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    assert not twice, f"{twice} twice, {node.start_mark}"
    loader.flatten_mapping(node)
    return {loader.construct_object(key): loader.construct_object(value, deep=True) for key, value in node.value}


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def helm(version: int, *words: str) -> str:
    """What a helm command prints. Raises Refused."""
    binary = HELM[version]
    assert binary.is_file(), f"{binary.name} is not there; run `make chart`"
    done = subprocess.run([binary, *words], capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def template(version: int, *words: str) -> str:
    """The chart rendered with these further arguments."""
    return helm(version, "template", RELEASE, str(CHART), "--namespace", NAMESPACE, *words)


@cache
def rendered(version: int, name: str) -> str:
    """A value set of helm/revocation/ci, rendered."""
    return template(version, "-f", str(VALUES[name]))


def parse(text: str) -> list[Object]:
    """The objects of a render."""
    return deepcopy(_parsed(text))


@cache
def _parsed(text: str) -> list[Object]:
    return [item for item in yaml.load_all(text, _Strict) if item]


def notes(folder: Path, *words: str) -> str:
    """What `helm install` prints. It needs a cluster, so a copy of the chart has the text as a template."""
    chart = folder / "chart"
    shutil.copytree(CHART, chart)
    text = (chart / "templates/NOTES.txt").read_text()
    (chart / "templates/_shown.tpl").write_text('{{- define "shown" }}' + text + "{{- end }}")
    show = "templates/shown.yaml"
    (chart / show).write_text('kind: Notes\ntext: {{ include "shown" . | toJson }}\n')
    done = helm(4, "template", RELEASE, str(chart), "--namespace", NAMESPACE, *words, "--show-only", show)
    return str(yaml.safe_load(done)["text"])


def objects(text: str, kind: str) -> dict[str, Object]:
    """The objects of one kind, by name."""
    return {item["metadata"]["name"]: item for item in parse(text) if item["kind"] == kind}


def one(text: str, kind: str, suffix: str = "") -> Object:
    """The only object of a kind whose name ends so."""
    (found,) = [item for name, item in objects(text, kind).items() if name.endswith(suffix)]
    return found


def pod_specs(text: str) -> dict[str, Object]:
    """The specs of all pods that come of a render, by kind and name of what makes them."""
    found = {}
    for item in parse(text):
        if item["kind"] == "Pod":
            found[f"Pod/{item['metadata']['name']}"] = item["spec"]
        elif "template" in item.get("spec", {}):
            found[f"{item['kind']}/{item['metadata']['name']}"] = item["spec"]["template"]["spec"]
    return found


def server(text: str) -> Object:
    """The container of the service."""
    (container,) = one(text, "Deployment")["spec"]["template"]["spec"]["containers"]
    found: Object = container
    return found


def environment(container: Mapping[str, Any], pod: str = "pod-0") -> dict[str, str]:
    """The variables of a container, those of the downward API too."""
    return {item["name"]: item.get("value", pod) for item in container.get("env", [])}


def data(secret: Mapping[str, Any]) -> dict[str, bytes]:
    """The decoded content of a secret."""
    return {name: base64.b64decode(value) for name, value in secret["data"].items()}


_CHANCE = re.compile(r"^(  (?:secret|password|users\.acl|ca\.crt|tls\.crt|tls\.key): )\S+$", re.MULTILINE)


def settled(text: str) -> str:
    """A render without what chance decides, and without versions."""
    text = _CHANCE.sub(r"\1(made by helm)", text)
    text = re.sub(r"(helm\.sh/chart: revocation-|app\.kubernetes\.io/version: )\S+", r"\1(version)", text)
    return re.sub(r"(image: \S*revocation:)\d\S*", r"\1(version)", text)


def golden(text: str) -> str:
    """A render of Helm 4, settled, and without the files of alerts and dashboard, which have tests of their own."""
    for file, indent in (("alerts.yaml", 2), ("dashboard.json", 4)):
        content = (CHART / "files" / file).read_text()
        text = text.replace(
            "\n".join(" " * indent + line for line in content.split("\n")), f"{' ' * indent}(files/{file})"
        )
    return settled(text)


def renew(names: Sequence[str] = tuple(VALUES)) -> None:
    """Writes the golden renders."""
    for path in GOLDEN.glob("*.yaml"):
        path.unlink()
    for name in names:
        (GOLDEN / f"{name}.yaml").write_text(golden(rendered(4, name)))


if __name__ == "__main__":
    renew()
