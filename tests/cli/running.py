"""The command line as tests run it: in this process where that is the same, as a process where it is not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from revocation_sdk import RevocationClient, Unavailable
from tests.revocation.eventually import LIMIT_S, eventually


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON object that it printed."""
        (line,) = self.out.splitlines()
        return json.loads(line)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a command: ours, without settings of this project."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("REVOCATION_")}
    return kept | dict(extra or {})


def start(*arguments: str, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """A command as a process of its own."""
    command = [sys.executable, "-m", "revocation", *arguments]
    return subprocess.Popen(command, text=True, env=environment(env), **options)


def execute(*arguments: str, stdin: str | None = None, env: Mapping[str, str] | None = None) -> Result:
    """Runs a command as a process of its own, with pipes."""
    pipe = subprocess.PIPE
    process = start(*arguments, env=env, stdin=pipe, stdout=pipe, stderr=pipe)
    out, err = process.communicate(stdin, timeout=2 * LIMIT_S)
    return Result(process.returncode, out, err)


@dataclass
class Service:
    """A running `revocation serve`."""

    process: subprocess.Popen[str]
    address: str
    data_dir: Path
    log: Path

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Ends it and returns its exit code."""
        self.process.send_signal(how)
        return self.process.wait(LIMIT_S)


@contextmanager
def serving(data_dir: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Iterator[Service]:
    """`revocation serve --embedded` on a unix socket, ready."""
    # Not in tmp_path: the path of a unix socket is short.
    with tempfile.TemporaryDirectory(prefix="rv-") as folder:
        address = f"unix:{folder}/s"
        log = Path(folder, "log")
        with log.open("w") as err:
            process = start(
                *("serve", "--data-dir", str(data_dir), "--listen", address, *arguments), env=env, stderr=err
            )
        try:
            eventually(lambda: _usable(process, address, log), "the service is usable")
            yield Service(process, address, data_dir, log)
        finally:
            process.kill()
            process.wait()


def _usable(process: subprocess.Popen[str], address: str, log: Path) -> bool:
    assert process.poll() is None, f"serve ended with {process.returncode}: {log.read_text()}"
    if "serving" not in log.read_text():
        return False
    try:
        with closing(RevocationClient(address)) as client:
            return all(partition.state == "usable" for partition in client.status(timeout=LIMIT_S).partitions)
    except Unavailable:
        return False
