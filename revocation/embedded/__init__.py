"""A Valkey of the service's own, so that `revocation serve` works where nobody has set up a store.

`EmbeddedStore` owns the data directory and the server process: it starts it with persistence that survives a power
cut, restarts it when it dies, and makes sure that it dies with its owner. It knows nothing of what is stored.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import structlog

from revocation.embedded.directory import DataDirectory, EmbeddedError
from revocation.embedded.server import Server, find_server, write_config

__all__ = ["EmbeddedError", "EmbeddedStore", "Server", "find_server"]

ANSWER_S = 20.0
"""How long a started server may stay silent. Loading data is an answer: it may take as long as it needs."""

STOP_S = 8.0
"""How long a graceful end may take before the server is killed; everything acknowledged is on disk anyway."""

RESTART_S = (0.05, 10.0)
"""Shortest and longest wait before a dead server is started again; doubled at each death. It is never given up: a
full disk, of which the server dies, has space again some day, and then the service recovers by itself (I3)."""

HEALTHY_S = 60.0
"""A server that has lived so long starts the waits from the beginning."""

LOG_BYTES = 4 * 1024 * 1024
"""The server's log is renamed when it is larger; one old one is kept."""

_LAUNCH = Path(__file__).with_name("launch.py")
_LOOK_S = 30.0
_log = structlog.get_logger("revocation.embedded")


class EmbeddedStore:
    """Runs the server of one data directory while the context is open.

    Raises EmbeddedError on entering if the directory is in use, foreign or newer, if there is no server to run, or if
    it does not start.
    """

    def __init__(self, data_dir: Path, *, how: str = "replace" if sys.platform == "linux" else "stay") -> None:
        self.data_dir = data_dir
        self._how = how
        self._directory: DataDirectory | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._spawning = threading.Lock()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._failure: EmbeddedError | None = None
        self._thread: threading.Thread | None = None
        self.fresh = False
        """Whether the directory was new at the start: an empty store is then as it should be."""
        self.replica_id = ""
        """Name of the service as a member; it outlives the process."""
        self.url = ""
        """URL of the running store, unix://..."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the server and returns when it has loaded its data. Raises EmbeddedError."""
        directory = self._directory = DataDirectory(self.data_dir)
        try:
            server = find_server(directory.read("server"))
            self.data_dir, self.fresh, self.replica_id = directory.path, directory.fresh, directory.replica_id
            self.url = f"unix://{quote(os.fsencode(directory.socket()))}"
            write_config(directory)
            directory.write("server", str(server))
            # A thread of its own, which lives as long as the server: on Linux the end of the thread that started
            # a process is what kills it (PR_SET_PDEATHSIG).
            self._thread = threading.Thread(
                target=self._supervise, args=(directory, server), name="embedded-store", daemon=True
            )
            self._thread.start()
            atexit.register(self.stop)
            self._ready.wait()
            if self._failure is not None:
                raise self._failure
            directory.write("initialised", "a store was ready here")
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise EmbeddedError(f"cannot use {directory.path}: {error.strerror}") from error
            raise

    def stop(self) -> None:
        """Ends the server, gracefully if it answers, and frees the directory. Harmless when repeated."""
        atexit.unregister(self.stop)
        with self._spawning:
            self._stopping.set()
            process = self._process
        if process is not None:
            _end(process)
        if self._thread is not None:
            self._thread.join()
        if self._directory is not None:
            self._directory.close()
            self._directory = None

    def alive(self) -> bool:
        """Whether the server runs now. False while it is started again after it died."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def pid(self) -> int | None:
        """Process id of the server (of its guard, outside Linux)."""
        return None if self._process is None else self._process.pid

    def _supervise(self, directory: DataDirectory, server: Server) -> None:
        try:
            self._keep_running(directory, server)
        finally:  # whoever waits for the start never waits in vain
            if not self._ready.is_set() and self._failure is None:
                self._failure = EmbeddedError("the embedded store was not started")
            self._ready.set()

    def _keep_running(self, directory: DataDirectory, server: Server) -> None:
        wait = RESTART_S[0]
        while not self._stopping.is_set():
            begin = time.monotonic()
            try:
                self._run_once(directory, server)
            except (EmbeddedError, OSError) as error:
                reason = error if isinstance(error, EmbeddedError) else EmbeddedError(str(error))
                if self._process is not None:
                    _end(self._process)
                if not self._ready.is_set():  # it never ran: whoever starts it is told
                    self._failure = reason
                    return
                _log.error("embedded_store_does_not_start", why=str(reason), again_in_s=wait)
            if time.monotonic() - begin > HEALTHY_S:
                wait = RESTART_S[0]
            self._stopping.wait(wait)
            wait = min(2 * wait, RESTART_S[1])

    def _run_once(self, directory: DataDirectory, server: Server) -> None:
        """One life of the server. Raises EmbeddedError if it does not come up."""
        process = self._spawn(directory, server)
        if process is None:
            return
        self._await_answer(process, directory)
        self._ready.set()
        self._await_end(process, directory)
        if not self._stopping.is_set():
            _log.error("embedded_store_died", code=process.returncode, why=_last_words(directory))

    def _spawn(self, directory: DataDirectory, server: Server) -> subprocess.Popen[bytes] | None:
        _rotate(directory)
        command = [
            *(sys.executable, "-I", "-S", str(_LAUNCH), self._how, str(os.getpid()), str(directory.lock_fd)),
            *(str(server.path), str(directory.config)),
        ]
        with self._spawning, directory.log.open("ab") as log:
            if self._stopping.is_set():
                return None
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=directory.store,
                umask=0o077,
                start_new_session=True,  # Ctrl-C is for the service, which still needs the store to drain
                # The lock is free only when the server is gone too: two servers would corrupt the data.
                pass_fds=(directory.lock_fd,),
            )
            return self._process

    def _await_answer(self, process: subprocess.Popen[bytes], directory: DataDirectory) -> None:
        deadline = time.monotonic() + ANSWER_S
        while not self._stopping.is_set():
            answer = _ping(directory.socket())
            if answer.startswith(b"+PONG"):
                return
            if answer.startswith(b"-LOADING"):
                deadline = time.monotonic() + ANSWER_S
            if process.poll() is not None:
                raise EmbeddedError(
                    f"the embedded store ended with code {process.returncode}; {_last_words(directory)}"
                )
            if time.monotonic() > deadline:
                raise EmbeddedError(f"the embedded store does not answer within {ANSWER_S} s; {_last_words(directory)}")
            self._stopping.wait(0.01)

    def _await_end(self, process: subprocess.Popen[bytes], directory: DataDirectory) -> None:
        with contextlib.ExitStack() as stack:
            watched = select.poll()
            if hasattr(os, "pidfd_open"):
                with contextlib.suppress(ProcessLookupError):
                    fd = os.pidfd_open(process.pid)
                    stack.callback(os.close, fd)
                    watched.register(fd, select.POLLIN)
                while process.poll() is None:
                    watched.poll(_LOOK_S * 1000)
                    _rotate(directory)
            while process.poll() is None:
                time.sleep(0.25)
                _rotate(directory)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        if process.stdin is not None:
            process.stdin.close()  # outside Linux: lets the guard kill the server before it is killed itself
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1.0 if sys.platform != "linux" else 0)
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def _ping(path: Path) -> bytes:
    """The first bytes of the server's answer; empty if there is none."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1.0)
            connection.connect(str(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64)
    except OSError:
        return b""


def _rotate(directory: DataDirectory) -> None:
    """Renames a log that has grown too large; the server opens it anew for each line."""
    with contextlib.suppress(OSError):
        if directory.log.stat().st_size > LOG_BYTES:
            directory.log.replace(directory.log.with_name(f"{directory.log.name}.1"))


def _last_words(directory: DataDirectory) -> str:
    """What the server logged last, for a message."""
    try:
        lines = directory.log.read_bytes()[-2000:].decode("utf-8", "replace").splitlines()[-5:]
    except OSError:
        lines = []
    return f"last lines of {directory.log}:\n" + "\n".join(lines)
