"""Processes to measure: a store, the service as it is run in production, and the bare floors beside it."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.installation import Installation, Replica
from tests.e2e.processes import Process
from tests.servers import Server, free_port

PRODUCTION: dict[str, Any] = {"heartbeat_s": 0.5, "detect_s": 3.0, "strike_after_s": 30.0, "settle_s": 0.4}
"""The defaults of `revocation serve`, but for the wait before a new history is used."""


class Lab:
    """Starts what a row needs; ends with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.installation = Installation(folder)
        self.stack = ExitStack()

    def store(self, *, aof: bool = False) -> Server:
        """A store that writes nothing to disk, unless asked: acknowledgement level `memory`."""
        return self.installation.store(aof=aof)

    def service(self, store: Server, **flags: Any) -> Replica:
        """`revocation serve` on this store, acknowledging at level `memory`."""
        return self.installation.add_replicas(1, store.url, **{**PRODUCTION, "ack": "memory", **flags})[0]

    def ends_with(self, process: subprocess.Popen[str]) -> None:
        """Kills a process of somebody else's when the laboratory is closed."""
        self.stack.callback(process.wait)
        self.stack.callback(process.kill)

    def bare(self, kind: str, *arguments: str) -> tuple[Process, str]:
        """One of the floors, and its address."""
        address = f"127.0.0.1:{free_port()}"
        process = Process(f"bare-{kind}-{address[10:]}", ["-m", "bench.bare", kind, address, *arguments], self.folder)
        self.installation.processes.append(process)
        process.start()
        assert process.pipes.stdout is not None
        assert process.pipes.stdout.readline().strip() == "ready", process.log()
        return process, address


@contextmanager
def lab() -> Iterator[Lab]:
    """A laboratory in a folder that is gone afterwards."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench_"))
        made = Lab(Path(folder))
        stack.callback(made.installation.close)
        stack.enter_context(made.stack)
        yield made
