"""The product as the simulator runs it: without what costs much and shows nothing, and without chance of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from random import Random
from unittest.mock import patch

from revocation import commit
from revocation.replication import departures, replica
from revocation.store import memory, memory_data
from tests.sim.cluster import swift_replace


class _Silent:
    """A logger that says nothing."""

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


class _Chance:
    """Takes the place of `secrets`, so that a seed tells all."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def token_hex(self, size: int) -> str:
        return self._random.randbytes(size).hex()


@contextmanager
def lean(random: Random) -> Iterator[None]:
    """Without what costs much and shows nothing: logs, and the slow way to copy what the reference store holds."""
    with ExitStack() as stack:
        stack.enter_context(patch.object(replica, "secrets", _Chance(random)))
        for module in (replica, departures, commit):
            stack.enter_context(patch.object(module, "log", _Silent()))
        for module in (memory, memory_data):
            stack.enter_context(patch.object(module, "replace", swift_replace))
        yield
