"""Dashboards and alerts use what a running service exports, and nothing else; docs/observability.md lists it all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from revocation.observability.telemetry import Metrics

ROOT = Path(__file__).parent.parent
FILES = ROOT / "helm/revocation/files"
ALERTS, DASHBOARD = FILES / "alerts.yaml", FILES / "dashboard.json"
_SUFFIX = re.compile(r"_(total|bucket|sum|count|info)$")
_RANGE = re.compile(r"\$__(rate_)?interval")


def exported() -> set[str]:
    """Names of all time series that a replica exports, without the suffixes of counters and histograms."""
    return {family.name for family in Metrics(version="1", replica="r").registry.collect()}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load(ALERTS.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    for rule in alerts():
        yield rule["expr"]
    yield from _of_panels(json.loads(DASHBOARD.read_text())["panels"])


def _of_panels(panels: list[dict[str, Any]]) -> Iterator[str]:
    for panel in panels:
        yield from (target["expr"] for target in panel.get("targets", ()))
        yield from _of_panels(panel.get("panels", []))


@pytest.mark.parametrize("expression", sorted(set(expressions())))
def test_every_expression_parses_and_names_what_is_exported(expression: str) -> None:
    promql_parser.parse(_RANGE.sub("5m", expression))
    names = set(re.findall(r"\b(?:revocation|process|python)_[a-z_]+", expression))
    names -= {name for name in names if f'"{name}' in expression}
    unknown = {name for name in names if not {name, _SUFFIX.sub("", name)} & exported()}
    assert names
    assert not unknown


def test_every_alert_says_what_to_do_and_where_it_is_written() -> None:
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
        for line in (ROOT / "docs/operate.md").read_text().splitlines()
        if line.startswith("#")
    }
    for rule in alerts():
        assert rule["labels"]["severity"] in {"critical", "warning"}
        annotations = rule["annotations"]
        assert annotations["summary"]
        page, _, anchor = annotations["runbook"].partition("#")
        assert page.endswith("docs/operate.md"), rule["alert"]
        assert anchor in headings, rule["alert"]


def test_what_was_promised_is_watched() -> None:
    """The canary, lag, freshness and the store have an alert and a panel each."""
    alerting = " ".join(rule["expr"] for rule in alerts())
    shown = " ".join(_of_panels(json.loads(DASHBOARD.read_text())["panels"]))
    for name in ("canary_seconds", "canary_failures", "log_lag_seconds", "progress_seconds", "store_heard_seconds"):
        assert f"revocation_{name}" in alerting, name
        assert f"revocation_{name}" in shown, name
