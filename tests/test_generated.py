"""The committed wire code is what the pinned toolchain makes of the contract."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMITTED = ROOT / "sdk/revocation_api/v1"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*_pb2*.py*")}


@pytest.mark.timeout(600)  # the first time, it sets up .venv-proto
def test_generated_code_is_fresh(tmp_path: Path) -> None:
    """`make proto` would change nothing."""
    subprocess.run([ROOT / "proto/generate.sh", tmp_path], env={**os.environ, "PYTHON": sys.executable}, check=True)
    fresh, committed = contents(tmp_path / "revocation_api/v1"), contents(COMMITTED)
    assert fresh.keys() == committed.keys()
    assert [name for name in fresh if fresh[name] != committed[name]] == []
