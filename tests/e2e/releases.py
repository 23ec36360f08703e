"""The release before this one, out of the repository's history, to be run beside it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREVIOUS = "2d9edc05880c4a26a4a098868a3a54c4d3814ca2"
"""0.1.0. With every release the commit of the one before goes here."""


@dataclass(frozen=True, slots=True)
class Release:
    """Code to run processes from: their working directory and what they need in the environment."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        return {"PYTHONPATH": os.pathsep.join([str(self.folder), str(self.folder / "sdk")])}


def previous(folder: Path) -> Release:
    """The code of the release before, laid out in `folder`."""
    made = subprocess.run(["git", "-C", ROOT, "archive", PREVIOUS, "revocation", "sdk", "tests"], capture_output=True)
    assert made.returncode == 0, (
        f"commit {PREVIOUS[:12]} is not in this clone; git fetch --unshallow brings it: {made.stderr.decode()}"
    )
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return Release(folder)
