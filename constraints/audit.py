"""Asks for known vulnerabilities of every pinned package: `make audit`, and a part of `make check`.

pip-audit asks PyPI's JSON API, one question a package. Where that does not answer, as behind a mirror that has packages
only, one question finds it out, and this says so and ends well: a check that cannot run is no check that failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
PROBE = "protobuf"
PATIENCE_S = 120


def main() -> int:
    """0: nothing known, or nobody to ask; 1: vulnerabilities, which are listed."""
    pins = sorted({line.partition(";")[0].strip() for line in _lines("dev.txt") if "==" in line})
    probe = next(pin for pin in pins if pin.startswith(f"{PROBE}=="))
    if not _audited(_ask([probe])):
        print("pip-audit: NOT AUDITED, since no advisories can be reached from here (PyPI's JSON API).")
        return 0
    found = _ask(pins)
    bad = [package for package in found if package.get("vulns")]
    for package in bad:
        for one in package["vulns"]:
            fixed = ", ".join(one["fix_versions"]) or "no version yet"
            print(f"{package['name']} {package['version']}: {one['id']}, repaired in {fixed}")
    print(f"pip-audit: {len(_audited(found))} of {len(pins)} packages audited, {len(bad)} with known vulnerabilities.")
    return 1 if bad else 0


def _lines(name: str) -> list[str]:
    return [line for line in (FOLDER / name).read_text().splitlines() if line and not line.startswith("#")]


def _audited(packages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [package for package in packages if "vulns" in package]


def _ask(pins: list[str]) -> list[dict[str, Any]]:
    """What pip-audit says of each package; nothing if it says nothing."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins) + "\n")
        file.flush()
        command = [
            *(sys.executable, "-m", "pip_audit", "--requirement", file.name, "--no-deps", "--disable-pip"),
            *("--format", "json", "--progress-spinner", "off", "--timeout", "5", "--cache-dir", ".cache/pip-audit"),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
        except (subprocess.TimeoutExpired, ValueError, KeyError):
            return []
    return packages


if __name__ == "__main__":
    sys.exit(main())
