"""What the numbers were measured on: nothing that names a host or a place."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("grpcio", "redis", "hiredis", "PyJWT", "cryptography", "numpy", "uvloop", "Flask-JWT-Extended")


def describe(store: str) -> list[str]:
    """A few lines."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    return [
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}; {store}; {packages}",
    ]


def busy() -> str:
    """How many processes wanted a core, on average, in the last minutes."""
    return ", ".join(f"{value:.1f}" for value in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"


def commit() -> str:
    """The commit measured, and whether anything was changed since."""
    root = Path(__file__).parent.parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "revocation", "sdk")
    return (git("rev-parse", "--short", "HEAD") or "unknown") + (" and changes on top of it" if changed else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
