"""The data directory of an embedded store: whose it is, who uses it now, and what was made in it once.

    lock         held by the owner and by its server; a second start fails
    format       version of this layout; a newer one is refused
    initialised  exists once a store was ready here: from then on an empty store is a loss, not a beginning
    replica-id   name of the service as a member, the same after every restart
    secret       master secret, mode 0600 (see keys/keyring.py)
    server       which server wrote the data, since an older one cannot read them
    store/       the server's own files; store.conf, store.log, store.sock lie beside it

Files of others are left alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import socket
import tempfile
import time
from pathlib import Path

FORMAT = 1
LONGEST_SOCKET_PATH = 100
"""Bytes; systems allow 103 to 107."""

_OWNER_IS_DYING_S = 10.0
"""How long a server may take to follow its dead owner before the directory counts as in use."""

_FOREIGN_DATA = ("*.rdb", "*.aof", "appendonlydir", "nodes.conf")


class EmbeddedError(Exception):
    """The embedded store cannot be used. The message says where and what to do."""


def socket_of(data_dir: Path) -> Path | None:
    """The socket of the store that runs in a data directory, for whoever only wants to look; None if there is none."""
    elsewhere = data_dir / "socket-dir"
    for folder in (data_dir, Path(elsewhere.read_text("utf-8").strip()) if elsewhere.exists() else None):
        if folder is not None and (folder / "store.sock").exists():
            return folder / "store.sock"
    return None


class DataDirectory:
    """Opens and locks a data directory; made if it is not there. Raises EmbeddedError."""

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._check_ours()
            self.lock_fd = self._lock()
        except OSError as error:
            raise EmbeddedError(f"cannot use the data directory {self.path}: {error.strerror}") from error
        try:
            self._check_format()
            self.fresh = not (self.path / "initialised").exists()
            self.replica_id = self._once("replica-id", f"{_host_name()}-{secrets.token_hex(4)}")
            self.store.mkdir(mode=0o700, exist_ok=True)
            self._socket_dir: Path | None = None
        except OSError as error:
            os.close(self.lock_fd)
            raise EmbeddedError(f"cannot use the data directory {self.path}: {error.strerror}") from error
        except BaseException:
            os.close(self.lock_fd)
            raise

    @property
    def store(self) -> Path:
        """Where the server keeps its files."""
        return self.path / "store"

    @property
    def config(self) -> Path:
        """The server's configuration, written anew at each start."""
        return self.path / "store.conf"

    @property
    def log(self) -> Path:
        """The server's log; the one before is beside it, as `store.log.1`."""
        return self.path / "store.log"

    def socket(self) -> Path:
        """The path of the server's socket: here, or in a private temporary directory if here is too deep."""
        here = self.path / "store.sock"
        if len(os.fsencode(here)) <= LONGEST_SOCKET_PATH:
            return here
        if self._socket_dir is None:
            self._remove_socket_dir(self.read("socket-dir"))
            self._socket_dir = Path(tempfile.mkdtemp(prefix="revocation-"))
            self.write("socket-dir", str(self._socket_dir))
        return self._socket_dir / "store.sock"

    def read(self, name: str) -> str | None:
        """The text of one of our small files, or None if there is none."""
        try:
            return (self.path / name).read_text("utf-8").strip()
        except FileNotFoundError:
            return None

    def write(self, name: str, text: str) -> None:
        """Replaces one of our small files; after a crash it holds the old text or the new one."""
        draft = self.path / f"{name}.draft"
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(self.path / name)
        directory = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def close(self) -> None:
        """Gives the directory free. The server has ended before."""
        if self._socket_dir is not None:
            self._remove_socket_dir(str(self._socket_dir))
        os.close(self.lock_fd)

    def _check_ours(self) -> None:
        if (self.path / "format").exists():
            return
        for pattern in _FOREIGN_DATA:
            for found in self.path.glob(pattern):
                raise EmbeddedError(
                    f"{self.path} holds the data of another Redis or Valkey ({found.name}); choose another directory"
                )

    def _lock(self) -> int:
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + _OWNER_IS_DYING_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(fd, 0)
                os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                return fd
            except BlockingIOError:
                owner = os.pread(fd, 32, 0).strip()
                if _lives(owner) or time.monotonic() > deadline:
                    os.close(fd)
                    raise EmbeddedError(
                        f"the data directory {self.path} is in use by process {owner.decode('ascii', 'replace')}; "
                        "stop that one, or choose another directory with --data-dir"
                    ) from None
                time.sleep(0.02)  # the owner was killed, its server is about to follow and to give up the lock

    def _check_format(self) -> None:
        text = self._once("format", str(FORMAT))
        if not text.isascii() or not text.isdigit():
            raise EmbeddedError(f"{self.path / 'format'} is damaged: it should say {FORMAT}")
        if int(text) > FORMAT:
            raise EmbeddedError(
                f"{self.path} was made by a newer version (format {text}; this one knows {FORMAT}): "
                "update revocation, or choose another directory"
            )

    def _once(self, name: str, text: str) -> str:
        known = self.read(name)
        if known:
            return known
        self.write(name, text)
        return text

    def _remove_socket_dir(self, path: str | None) -> None:
        if path and Path(path).name.startswith("revocation-"):
            with contextlib.suppress(OSError):
                Path(path, "store.sock").unlink(missing_ok=True)
                Path(path).rmdir()


def _lives(pid: bytes) -> bool:
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except OSError as error:
        return error.errno == errno.EPERM
    return True


def _host_name() -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "host"
