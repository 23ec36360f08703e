"""Network namespaces, where root may make them: places with an interface of their own, which a partition takes down.

What is behind such an interface gets no reset and no answer, as behind a switch that fails: packets are lost, and TCP
sends them again by its own timers when the link is back.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from pathlib import Path

from tests.servers import Place


class NoNamespaces(Exception):
    """There are none here; the text says why."""


class Network:
    """A bridge, and places on it. Ends with `close`; what a killed run left behind, the next one removes."""

    def __init__(self) -> None:
        if os.geteuid() != 0 or not shutil.which("ip"):
            raise NoNamespaces("root and iproute2 are needed for network namespaces")
        _sweep()
        self._prefix = f"rv{os.getpid()}"
        self._net = f"10.{random.randrange(64, 250)}.{random.randrange(256)}"
        self.host = f"{self._net}.1"
        """The address of this machine on the bridge."""
        self._count = 0
        self._links: dict[Place, str] = {}
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("addr", "add", f"{self.host}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            self.add()
        except subprocess.CalledProcessError as error:
            self.close()
            raise NoNamespaces(f"the kernel refuses network namespaces: {error.stderr.strip()}") from None

    @property
    def _bridge(self) -> str:
        return f"{self._prefix}b"

    def add(self) -> Place:
        """A place of its own on the bridge."""
        self._count += 1
        name, link = f"{self._prefix}-{self._count}", f"{self._prefix}v{self._count}"
        place = Place(f"{self._net}.{self._count + 1}", ("ip", "netns", "exec", name))
        _ip("netns", "add", name)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name)
        _ip("link", "set", link, "master", self._bridge, "up")
        _ip("-n", name, "addr", "add", f"{place.host}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            _ip("-n", name, "link", "set", device, "up")
        self._links[place] = link
        return place

    def cut(self, place: Place) -> None:
        """Partitions the place from everything."""
        _ip("link", "set", self._links[place], "down")

    def join(self, place: Place) -> None:
        """Ends the partition."""
        _ip("link", "set", self._links[place], "up")

    def close(self) -> None:
        """Removes everything."""
        _remove(self._prefix)


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=60).stdout


def _remove(prefix: str) -> None:
    with contextlib.suppress(subprocess.CalledProcessError):
        for line in _ip("netns", "list").splitlines():
            name = line.split()[0]
            if name.startswith(f"{prefix}-"):
                _ip("netns", "del", name)  # and the pair of interfaces with it
        if f"{prefix}b:" in _ip("-o", "link", "show"):
            _ip("link", "del", f"{prefix}b")


def _sweep() -> None:
    """Removes what runs that were killed have left."""
    try:
        names = [line.split()[0] for line in _ip("netns", "list").splitlines()]
    except subprocess.CalledProcessError:
        return
    prefixes = {name.partition("-")[0] for name in names if name.startswith("rv") and "-" in name}
    for prefix in prefixes:
        number = prefix.removeprefix("rv")
        if number.isdigit() and not Path(f"/proc/{number}").exists():
            _remove(prefix)
