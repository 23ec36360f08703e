"""Rules of the repository that no linter knows."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SDK = ROOT / "sdk/revocation_sdk"
GENERATED = ROOT / "sdk/revocation_api/v1"
WIRE = {
    *(
        SDK / name
        for name in ("_wire.py", "_requests.py", "_session_requests.py", "_stream.py", "_worker.py", "audit.py")
    ),
    *(ROOT / "revocation/rpc").glob("*.py"),
}
"""The only modules that know protobuf classes."""

LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
PURE = next(contract for contract in LINTER if contract["type"] == "forbidden")
IMPURE_CALLS = {"input", "now", "open", "print", "sleep", "today", "token_bytes", "urandom", "utcnow", "uuid4"}


def tracked(*suffixes: str) -> list[Path]:
    """The files that are, or would be, committed and were not generated."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    files = [ROOT / name for name in names if name and name.endswith(suffixes or "")]
    return [path for path in files if path.is_file() and "_pb2" not in path.name]


def source(*folders: Path) -> list[Path]:
    return [path for path in tracked(".py") if any(path.is_relative_to(folder) for folder in folders)]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imports(path: Path) -> Iterator[str]:
    """Every module, or name in a module, that a file imports, wherever in it."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def names(paths: list[Path]) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for path in paths)


@pytest.mark.parametrize("module", PURE["source_modules"])
def test_pure_cores_are_pure(module: str) -> None:
    """Time, chance and everything that arrives are arguments of a pure core."""
    package = ROOT / ("sdk" if module.startswith("revocation_sdk") else "")
    path = package / (module.replace(".", "/") + ".py")
    assert {name.partition(".")[0] for name in imports(path)}.isdisjoint(PURE["forbidden_modules"])
    calls = (node.func for node in ast.walk(parse(path)) if isinstance(node, ast.Call))
    called = {getattr(function, "attr", getattr(function, "id", "")) for function in calls}
    assert called.isdisjoint(IMPURE_CALLS)


def test_the_sdk_does_not_know_the_service() -> None:
    """Imports go one way: revocation, revocation_sdk, revocation_api."""
    assert (
        names([path for path in source(SDK) if any(name.split(".")[0] == "revocation" for name in imports(path))]) == []
    )


def test_protobuf_stays_in_the_wire_modules() -> None:
    """Whoever reads another module needs no protobuf."""
    code = set(source(SDK, ROOT / "revocation")) - WIRE
    assert names([path for path in code if any("_pb2" in name for name in imports(path))]) == []


def test_no_file_is_long() -> None:
    """A file is read in one go. A suite that is one list of cases may be longer: it is read a case at a time."""
    code = tracked(".py", ".lua", ".proto", ".sh")
    long = [
        path for path in code if path.read_text().count("\n") > (900 if path.is_relative_to(ROOT / "tests") else 500)
    ]
    assert names(long) == []


def test_no_file_is_large() -> None:
    """The repository holds text, not artefacts."""
    assert names([path for path in tracked() if path.stat().st_size > 300_000]) == []


def test_nothing_names_a_machine() -> None:
    """No path of somebody's machine and no address of a package index is written down."""
    foreign = re.compile(rf"{re.escape(str(ROOT))}\b|/(home|root|Users)/\w|--(extra-)?index-url|--find-link[s]")
    assert names([path for path in tracked() if foreign.search(path.read_text(errors="replace"))]) == []


def test_every_module_says_what_it_is_for() -> None:
    """Private modules too: the docstring says why the module exists."""
    code = source(SDK, ROOT / "revocation", ROOT / "tests", ROOT / "sdk/revocation_api")
    assert names([path for path in code if ast.get_docstring(parse(path)) is None]) == []


@pytest.mark.parametrize("package", ["revocation", "sdk/revocation_sdk", "sdk/revocation_api"])
def test_packages_are_typed(package: str) -> None:
    """Type checkers read our annotations (PEP 561)."""
    assert (ROOT / package / "py.typed").is_file()
