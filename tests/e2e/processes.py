"""Processes of an installation: started, stopped in mid-air, killed; with logs. None outlives its test."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.e2e.releases import Release
from tests.servers import resident_kb

T = TypeVar("T")

LIMIT_S = 60.0
"""How long anything may take, on a machine that is busy with other things."""

# The test process may die in whatever way: the kernel then kills what it started. It may be gone before prctl.
_LAUNCH = (
    "import ctypes,os,sys\n"
    "if sys.platform=='linux':\n"
    "  ctypes.CDLL(None).prctl(1,9)\n"
    "  if os.getppid()!=int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2],sys.argv[2:])"
)


def until(look: Callable[[], T], what: str, timeout: float = LIMIT_S) -> T:
    """Looks until what it sees is true, and returns that; OSError counts as "not yet". Fails with `what`."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = seen = look()
            if seen:
                return seen
        except OSError as error:
            last = error
        time.sleep(0.01)
    raise AssertionError(f"waited {timeout:g} s in vain until {what}; last seen: {last!r}")


class Process:
    """One process with a log, which restarts do not empty."""

    prefix: tuple[str, ...] = ()
    """What is put before its command: where it runs."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        release: Release | None = None,
    ) -> None:
        self.name = name
        self.release = release
        """Whose code it runs from the next start on; None: the code at hand."""
        self.log_path = folder / f"{name}.log"
        self.stopped = False
        self._command = [sys.executable, *command]
        self._env = {**os.environ, "GRPC_VERBOSITY": "ERROR", **(env or {})}
        self._process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} has not been started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts it, with pipes to its standard input and output. From the main thread: it dies with its thread."""
        assert not self.running, f"{self.name} runs already"
        assert threading.current_thread() is threading.main_thread()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, sys.executable, "-ISc", _LAUNCH, str(os.getpid()), *self._command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
                env=self._env | (self.release.env if self.release else {}),
                cwd=self.release.folder if self.release else None,
            )  # fmt: skip
        self.stopped = False

    @property
    def pipes(self) -> subprocess.Popen[str]:
        """The process with its pipes."""
        assert self._process is not None
        return self._process

    def signal(self, number: signal.Signals) -> None:
        self.pipes.send_signal(number)

    def stop(self) -> None:
        """Stops it in mid-air: connections stay open and nothing answers."""
        self.signal(signal.SIGSTOP)
        self.stopped = True

    def resume(self) -> None:
        self.signal(signal.SIGCONT)
        self.stopped = False

    def kill(self) -> None:
        """Ends it as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close_pipes()
        self.stopped = False

    def terminate(self) -> None:
        """Asks it to end."""
        self.signal(signal.SIGTERM)

    def wait(self, timeout: float = LIMIT_S) -> int:
        """Its exit code; negative for a signal."""
        try:
            return self.pipes.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout:g} s") from None

    def _close_pipes(self) -> None:
        for pipe in (self.pipes.stdin, self.pipes.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of a JSON log that tell of this event."""
        found = []
        for line in self.log().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("event") == event:
                found.append(entry)
        return found

    def memory_kb(self) -> int:
        """Its resident memory."""
        return resident_kb(self.pid)


class Answering(Process):
    """A process that answers each line of JSON with one."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str] | None = None,
        release: Release | None = None,
    ) -> None:
        super().__init__(name, command, folder, env, release)
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock = threading.Lock()

    def start(self) -> None:
        super().start()
        self._answers = queue.SimpleQueue()
        threading.Thread(target=_pump, args=(self.pipes.stdout, self._answers), daemon=True).start()

    def ask(self, timeout: float = LIMIT_S, **question: Any) -> dict[str, Any]:
        """One question and its answer."""
        with self._lock:
            assert self.pipes.stdin is not None
            self.pipes.stdin.write(json.dumps(question) + "\n")
            self.pipes.stdin.flush()
            return self.read(timeout)

    def read(self, timeout: float = LIMIT_S) -> dict[str, Any]:
        """The next answer."""
        try:
            line = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"{self.name} did not answer within {timeout:g} s") from None
        if not line:
            raise AssertionError(f"{self.name} has ended:\n{self.log()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _pump(lines: Any, answers: queue.SimpleQueue[str]) -> None:
    try:
        for line in lines:
            answers.put(line)
    except ValueError:  # closed by `kill`
        pass
    answers.put("")
