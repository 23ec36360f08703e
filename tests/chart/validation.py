"""Validates objects strictly against the schemas of Kubernetes, and of the custom resources in crds/.

Runs in .venv-tools, where kubernetes-validate is: objects as JSON on standard input, faults as JSON on standard output.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
from kubernetes_validate import utils

CRDS = Path(__file__).parent / "crds"
CUSTOM = {"ServiceMonitor", "PrometheusRule", "Certificate"}
# The same few schemas, again and again.
utils.schema_contents = cache(utils.schema_contents)
utils.all_versions = cache(utils.all_versions)


def fault(item: dict[str, Any], version: str) -> str | None:
    """What is wrong with an object for a version of Kubernetes."""
    try:
        if item["kind"] in CUSTOM:
            schema = json.loads((CRDS / f"{item['kind'].lower()}.json").read_text())
            jsonschema.Draft202012Validator(schema).validate(item)
        else:
            kubernetes_validate.validate(item, version, strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError as error:
        return str(error.message)
    return None


def main() -> None:
    """One list of [name, version, fault]."""
    asked = json.load(sys.stdin)
    faults = []
    for version in asked["versions"]:
        for name, item in asked["objects"]:
            found = fault(item, version)
            if found is not None:
                faults.append([name, version, found])
    json.dump(faults, sys.stdout)


if __name__ == "__main__":
    main()
