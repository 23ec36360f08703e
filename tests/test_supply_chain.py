"""What the product is made of: few dependencies, each pinned, none from elsewhere."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONSTRAINTS = sorted((ROOT / "constraints").glob("*.txt"))
BASE = {"grpcio", "protobuf", "googleapis-common-protos", "pyjwt"}
"""All that an application takes on with the SDK (and what these bring along)."""
MODULES = {"grpc", "google", "jwt", "cryptography"}
OPTIONAL = {"numpy", "opentelemetry", "pytest"}
"""For a faster view, for traces, and for the test kit; each only where it is there."""


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def pins() -> dict[str, set[str]]:
    """Name -> versions, over all files of constraints."""
    found: dict[str, set[str]] = {}
    for path in CONSTRAINTS:
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                found.setdefault(name_of(line), set()).add(line.partition("==")[2].partition(";")[0].strip())
    return found


def test_the_sdk_stands_on_four_packages() -> None:
    assert {name_of(requirement) for requirement in PROJECT["dependencies"]} == BASE


def test_the_sdk_imports_nothing_else() -> None:
    """An import that only the service's extras bring would fail at its users', and not here."""
    allowed = set(sys.stdlib_module_names) | MODULES | OPTIONAL | {"revocation_sdk", "revocation_api"}
    found = set()
    for path in (ROOT / "sdk/revocation_sdk").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    frameworks = {name_of(one).replace("-", "_") for extra in _frameworks().values() for one in extra}
    assert found - allowed - frameworks == set()


def _frameworks() -> dict[str, list[str]]:
    """Extras named after a framework, whose integration may import it."""
    ours = {"fast", "server", "dev", "bench"}
    return {name: extra for name, extra in PROJECT["optional-dependencies"].items() if name not in ours}


@pytest.mark.parametrize("path", CONSTRAINTS, ids=lambda path: path.name)
def test_constraints_pin_one_version_and_no_source(path: Path) -> None:
    """No range, no URL, no option that would fetch from elsewhere."""
    line = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.+!]+( *; [^@]+)?")
    lines = [text for text in path.read_text().splitlines() if text.strip() and not text.startswith("#")]
    assert lines
    assert [text for text in lines if not line.fullmatch(text.partition(" #")[0].strip())] == []


def test_whatever_is_required_is_pinned() -> None:
    pinned = pins()
    required = [
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    ]
    assert sorted({name_of(one) for one in required} - set(pinned) - {"revocation"}) == []


def test_the_audit_asks_about_every_pin_of_the_product() -> None:
    """`constraints/audit.py` reads dev.txt; so nothing that the service needs may be pinned elsewhere only."""
    dev = {name_of(line) for line in (ROOT / "constraints/dev.txt").read_text().splitlines() if "==" in line}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["server"]]
    assert {name_of(one) for one in wanted} <= dev


def test_no_requirement_names_a_source() -> None:
    """`name @ https://...` and git would get past the pins."""
    required = [
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    ]
    assert [one for one in required if "@" in one or "://" in one] == []
