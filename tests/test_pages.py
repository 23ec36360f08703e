"""Pages that promise something name the test that shows it, the value and the metric; all of these exist."""

from __future__ import annotations

import ast
import re
import runpy
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import grpc
import pytest

from revocation.config.settings import Config
from revocation.observability.telemetry import Metrics
from revocation.session.machine import End
from revocation.store.hints import HINTS
from revocation_api.v1 import errors_pb2

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "docs/guarantees.md", ROOT / "docs/limits.md"]
_TEST = re.compile(r"`((?:[\w]+/)*test_\w+\.py)(?:::(\w+))?`")
_CASE = re.compile(r'`model/check\.py --only "([^"]+)"`')
"""A case of the models whose schedule shows something."""


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
            assert _TEST.search(line) or _CASE.search(line), line


def test_every_case_of_the_models_that_the_page_names_is_there_and_breaks_something() -> None:
    cases = runpy.run_path(str(ROOT / "model/check.py"))["cases"]()
    verdicts = {name: verdict for _, name, _, verdict in cases}
    named = _CASE.findall(PAGES[0].read_text())
    assert named
    assert {name: verdicts.get(name) for name in named if verdicts.get(name, "holds") == "holds"} == {}


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


REASONS = (ROOT / "docs/reasons.md").read_text()
STATUS_CODES = {code.name.lower() for code in grpc.StatusCode}
NOT_SHOWN = {
    "error", "rejected", "invalid", "service_error", "not_fresh", "config",  # defaults; what is raised says more
    "session_ended", "refresh_reused", "refresh_invalid",  # the contract's words; the SDK says how it ended
    "error_reason_unspecified",
}  # fmt: skip


def reasons_in_the_sdk() -> Iterator[str]:
    """Every word that is given as a reason somewhere: by keyword, by default, or as why a stream ended."""
    for path in (ROOT / "sdk/revocation_sdk").glob("*.py"):
        if path.name == "testing.py" or path.name.startswith("_fake"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.keyword(arg="reason", value=value):
                    yield from words_in(value)
                case ast.AnnAssign(target=ast.Name(id="default_reason"), value=ast.Constant() as value):
                    yield from words_in(value)
                case ast.Assign(targets=[ast.Name(id="default_reason" | "_HOPELESS") | ast.Attribute(attr="trouble")]):
                    yield from words_in(node.value)
                case ast.Call(func=ast.Name(id="Unsigned") | ast.Attribute(attr="_broken" | "end"), args=[value]):
                    yield from words_in(value)


def words_in(node: ast.expr) -> Iterator[str]:
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and re.fullmatch(r"[a-z_]{3,}", part.value):
            yield part.value


def test_every_reason_is_on_the_page_and_no_other_is() -> None:
    """Tables in the first column, and the arguments that a ConfigError names."""
    columns = "".join(re.findall(r"^\| (`.*?) \|", REASONS, re.MULTILINE))
    shown = set(re.findall(r"`(\w+)`", columns + REASONS.rpartition("names the argument: ")[2].partition(". A few")[0]))
    in_code = {*reasons_in_the_sdk(), *map(str.lower, errors_pb2.ErrorReason.keys()), *End, "issuer", "issuer_skew"}
    assert in_code - NOT_SHOWN - shown == set()
    assert shown - in_code - STATUS_CODES == set()


def test_every_reason_says_what_to_do() -> None:
    rows = [line.strip("|").split(" | ") for line in REASONS.splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    for row in rows:
        assert len(row) == 3, row
