"""The store of the tests: the first of these that is there.

1. `REVOCATION_TEST_REDIS_URL`: an *empty* database on a server of yours. Only keys of this service are removed from it.
   With several test processes (`pytest -n`), process n takes the database n places further on.
2. A container, where a Docker engine answers.
3. `valkey-server` or `redis-server` on the PATH, else 4. the Valkey of the embedded store; one for each test process.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import redis

from tests.servers import NoServer, Servers, find_binary, until

VARIABLE = "REVOCATION_TEST_REDIS_URL"
IMAGE = "valkey/valkey:8-alpine"


@dataclass(frozen=True, slots=True)
class TestStore:
    """Where the store of the tests is. `ours`: we started it, so that all of it may be emptied."""

    __test__ = False

    url: str
    name: str
    ours: bool

    def empty(self) -> None:
        """Forgets everything that tests wrote."""
        with redis.Redis.from_url(self.url) as client:
            if self.ours:
                client.flushall()
                client.config_set("maxmemory-policy", "noeviction")
            else:
                for key in list(client.scan_iter("revocation:*", count=1000)):
                    client.unlink(key)


@cache
def docker_engine() -> str | None:
    """Version of the Docker engine that answers, if one does."""
    try:
        client = import_module("docker").from_env(timeout=2)
        try:
            return str(client.version()["Version"])
        finally:
            client.close()
    except Exception:  # no package, no socket, no rights, no engine: all the same to us
        return None


def describe() -> str:
    """What `running` will start, for the header of the test run."""
    if os.environ.get(VARIABLE):
        return f"the server at {VARIABLE}"
    if version := docker_engine():
        return f"{IMAGE} in a container (engine {version})"
    try:
        return find_binary()[1]
    except NoServer as error:
        return str(error)


@contextmanager
def running(worker: str = "master") -> Iterator[TestStore]:
    """The store of the tests, for as long as the context lasts. Raises NoServer if there is none."""
    if url := os.environ.get(VARIABLE):
        yield _given(url, worker)
        return
    if docker_engine() and (container := _container()):
        try:
            url = f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
            until(lambda: _answers(url), "the container answers")
            yield TestStore(url, f"{IMAGE} in a container", ours=True)
        finally:
            container.stop()
        return
    with Servers() as servers:
        yield TestStore(servers.start().url, find_binary()[1], ours=True)


def _given(url: str, worker: str) -> TestStore:
    number = int(worker.removeprefix("gw")) if worker.startswith("gw") else 0
    parts = urlsplit(url)
    database = int(parts.path.strip("/") or 0) + number
    url = urlunsplit(parts._replace(path=f"/{database}")) if number else url
    with redis.Redis.from_url(url) as client:
        try:
            held = int(client.dbsize())
        except redis.RedisError as error:
            raise NoServer(f"database {database} of the server at {VARIABLE}: {error}") from error
    if held:
        raise NoServer(
            f"database {database} at {VARIABLE} holds {held} keys; tests run on an empty one only, and never empty it "
            "themselves"
        )
    return TestStore(url, f"database {database} at {VARIABLE}", ours=False)


def _container() -> Any:
    """A started container, or None if the image cannot be had."""
    try:
        from testcontainers.core.container import DockerContainer

        return DockerContainer(IMAGE).with_exposed_ports(6379).start()
    except Exception as error:
        warnings.warn(f"{IMAGE} does not start ({type(error).__name__}); taking a process instead", stacklevel=2)
        return None


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url, socket_timeout=1) as client:
        return bool(client.ping())
