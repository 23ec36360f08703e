"""The primary that the Sentinels name: all are asked, and when they name another, it is noticed.

A primary that was cut off, or stood still, goes on as if nothing had happened until a Sentinel reaches it and demotes
it, which takes ten seconds and more. Whoever is still connected to it would commit there meanwhile, and hold up the
others, who wait in the new history for every member. See docs/decisions/0033-the-named-primary.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.exceptions import ConnectionError, TimeoutError

from revocation.store.nodes import Address, OneNode

_SENTINEL_TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Named:
    """What one Sentinel says."""

    epoch: int
    """Of the configuration: whoever was promoted later has a higher one."""

    reachable: bool
    address: Address


class Sentinels(Sentinel):
    """Believes the newest configuration that a majority knows of.

    redis-py believes the first Sentinel that answers, and asks them one after the other: one that is cut off together
    with the old primary goes on naming it, and each one that is silent costs a time-out.
    """

    async def discover_master(self, service_name: str) -> Address:
        """Address of the primary. Raises MasterNotFoundError, or what the Sentinels refused."""
        named, failures = await self._answers(service_name)
        if (believed := _newest(named)) is not None:
            return believed.address
        for failure in failures:
            if not isinstance(failure, ConnectionError | TimeoutError | OSError):
                raise failure
        said = ", ".join(type(failure).__name__ for failure in failures) or "it is down, or nobody knows it"
        raise MasterNotFoundError(f"no primary found for {service_name!r}: {said}")

    async def _answers(self, service: str) -> tuple[list[Named], list[Exception]]:
        named: list[Named] = []
        failures: list[Exception] = []
        asked = [asyncio.ensure_future(_named_by(sentinel, service)) for sentinel in self.sentinels]
        try:
            for answer in asyncio.as_completed(asked):
                try:
                    named += await answer
                except Exception as failure:  # sorted out by who asked
                    failures.append(failure)
                if len(named) > len(asked) // 2 and _newest(named) is not None:
                    break
        finally:
            for one in asked:
                one.cancel()
        return named, failures


def _newest(named: Sequence[Named]) -> Named | None:
    """None if nobody who knows the newest configuration reaches its primary: an older one is no way out."""
    newest = max((one.epoch for one in named), default=0)
    return next((one for one in named if one.epoch == newest and one.reachable), None)


async def _named_by(sentinel: Redis, service: str) -> list[Named]:
    masters: Any = await sentinel.sentinel_masters()
    if (state := masters.get(service)) is None:
        return []
    reachable = bool(state["is_master"]) and not state["is_sdown"] and not state["is_odown"]
    return [Named(int(state["config-epoch"]), reachable, (state["ip"], int(state["port"])))]


class NamedPrimary(OneNode):
    """The server that the Sentinels name. `make` makes a client that asks them whenever it connects."""

    async def moved(self) -> bool:
        """Whether they name another one than that which is in use."""
        pool: Any = self._client.connection_pool
        in_use = pool.master_address
        if in_use is None:
            return False
        with contextlib.suppress(ConnectionError, TimeoutError, OSError):
            return bool(await pool.sentinel_manager.discover_master(pool.service_name) != in_use)
        return False

    async def _drop(self, client: Redis) -> None:
        """Closes the connections to the Sentinels, too, which redis-py leaves open."""
        await client.aclose()
        pool: Any = client.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            await sentinel.aclose()


def client_of_primary(
    sentinels: Sequence[Address], service: str, options: dict[str, Any], sentinel_options: dict[str, Any]
) -> Redis:
    """A client of whatever server the Sentinels call the primary at the moment of connecting."""
    sentinel = _sentinel(sentinels, options, sentinel_options)
    primary: Redis = sentinel.master_for(service, **_own_tls(options))
    return primary


def sentinel_clients(
    sentinels: Sequence[Address], options: dict[str, Any], sentinel_options: dict[str, Any]
) -> list[Redis]:
    """A client for each of the Sentinels themselves."""
    return list(_sentinel(sentinels, options, sentinel_options).sentinels)


def _sentinel(sentinels: Sequence[Address], options: dict[str, Any], sentinel_options: dict[str, Any]) -> Sentinels:
    """Sentinels are spoken to as the data nodes are, in plain text or by TLS, and must answer sooner."""
    own: dict[str, Any] = {"socket_timeout": _SENTINEL_TIMEOUT_S, "socket_connect_timeout": _SENTINEL_TIMEOUT_S}
    own |= {name: value for name, value in _own_tls(options).items() if name == "retry" or name.startswith("ssl")}
    return Sentinels(sentinels, sentinel_kwargs=own | sentinel_options)  # type: ignore[no-untyped-call]


def _own_tls(options: dict[str, Any]) -> dict[str, Any]:
    """redis-py's Sentinel wants a flag where a URL gives a class of connections."""
    options = options.copy()
    options["ssl"] = options.pop("connection_class", None) is not None
    return options
