"""Pages that promise something name the test that shows it, the value and the metric; all of these exist."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from revocation.config.settings import Config
from revocation.observability.telemetry import Metrics
from revocation.store.hints import HINTS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs/guarantees.md", ROOT / "docs/limits.md"]
_TEST = re.compile(r"`((?:[\w]+/)*test_\w+\.py)(?:::(\w+))?`")


def functions_of(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    named = _TEST.findall(page.read_text())
    assert named
    for file, test in named:
        path = ROOT / "tests" / file.removeprefix("tests/")
        assert path.is_file(), file
        assert not test or test in functions_of(path), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_row_names_a_test(page: Path) -> None:
    """But for headings, and the matrix whose rows are the cases of one test that the page names above it."""
    for line in page.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| ") else []
        matrix = len(cells) == 4 and {*cells[1:]} <= {"kept", "delayed", "lost"}
        heading = bool(cells) and cells[0] in {"fault", "limit", "flood", "level", "trouble"}
        if cells and not matrix and not heading:
            assert _TEST.search(line) or "`model/" in line, line


def test_values_are_those_of_the_code() -> None:
    found = re.findall(r"`([\w.]+)\.([A-Z_]+)` = ([\d,]+)", PAGES[1].read_text())
    assert len(found) > 8
    for module, name, value in found:
        assert getattr(import_module(f"revocation.{module}"), name) == int(value.replace(",", "")), name


def test_flags_are_those_of_the_service() -> None:
    for page in PAGES:
        for flag in re.findall(r"`--([a-z-]+)", page.read_text()):
            assert flag.replace("-", "_") in Config.model_fields or flag == "min-ack", flag


def test_metrics_are_those_of_the_service() -> None:
    metrics = Metrics(version="0", replica="r")
    known = {
        family.name.removeprefix("revocation_") + ("_total" if family.type == "counter" else "")
        for family in metrics.registry.collect()
    }
    for page in PAGES:
        for name in re.findall(r"`(?:revocation_)?([a-z_]+_total|snapshots_running)(?:\{[^}]*\})?`", page.read_text()):
            assert name in known, name


def test_every_limit_that_refuses_calls_is_on_the_page() -> None:
    named = set(re.findall(r'limits_reached_total\{limit="(\w+)"\}', PAGES[1].read_text()))
    source = "\n".join(path.read_text() for path in (ROOT / "revocation").rglob("*.py"))
    in_code = set(re.findall(r'limit="(\w+)"', source)) | {"log", "store_memory"}
    assert in_code == named


def test_every_kind_of_trouble_with_the_store_is_on_the_page() -> None:
    section = PAGES[0].read_text().partition("## Trouble with the store")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == HINTS.keys() - {"other"}
