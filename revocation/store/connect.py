"""From a URL to a store, whatever kind of store it names."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio import Redis

from revocation.config.address import split_address
from revocation.store import StoreRefused
from revocation.store.nodes import (
    Address,
    ClusterNodes,
    Nodes,
    OneNode,
    client_of,
    options_of,
    room_for,
)
from revocation.store.redis import RedisStore
from revocation.store.sentinels import NamedPrimary, client_of_primary, sentinel_clients

_FORMS = (
    "redis://[USER:PASSWORD@]HOST:PORT/DB, unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or "
    "redis+cluster://HOST:PORT,HOST:PORT; rediss for TLS"
)


def connect(url: str, *, partitions: int = 1, **options: Any) -> RedisStore:
    """A store at `url`, not yet connected. Raises StoreRefused for a URL that cannot be one; it never repeats it.

    Everything redis-py knows as a URL option goes into the query, TLS files among them (`ssl_ca_certs`,
    `ssl_certfile`, `ssl_keyfile`). User and password are those of the data nodes; Sentinels have `sentinel_username`
    and `sentinel_password`.
    """
    return RedisStore(nodes_of(url, partitions), partitions=partitions, **options)


def nodes_of(url: str, partitions: int = 1) -> Nodes:
    """The servers behind `url`. Raises StoreRefused as `connect` does."""
    try:
        return _nodes(url, partitions)
    except (ValueError, TypeError) as error:
        raise StoreRefused(f"the URL of the store is not understood; write one of {_FORMS}") from error


def sentinels_of(url: str) -> tuple[list[Redis], str] | None:
    """A client for each Sentinel that `url` names, and the name of the primary; None for another kind of store."""
    if "+sentinel" not in url.partition("://")[0]:
        return None
    hosts, service, options, own = _sentinel(url)
    return sentinel_clients(hosts, options, own), service


def _nodes(url: str, partitions: int) -> Nodes:
    scheme, _, _ = url.partition("://")
    _, plus, kind = scheme.partition("+")
    if not plus:
        options_of(url)
        return OneNode(lambda: client_of(url, partitions))
    if kind == "sentinel":
        sentinels, service, options, own = _sentinel(url)
        options = room_for(partitions) | options
        return NamedPrimary(lambda: client_of_primary(sentinels, service, options, own))
    hosts, path, options, own = _parts(url)
    if kind != "cluster" or path or own:
        raise ValueError("neither the one nor the other")
    return ClusterNodes(_addresses(hosts, 6379), room_for(partitions) | options)


def _sentinel(url: str) -> tuple[list[Address], str, dict[str, Any], dict[str, Any]]:
    """Addresses of the Sentinels, name of the primary, options of its connections, and of those to the Sentinels."""
    hosts, path, options, own = _parts(url)
    if not 1 <= len(path) <= 2:
        raise ValueError("no name of a primary")
    options["db"] = int(path[1]) if len(path) == 2 else options.get("db", 0)
    return _addresses(hosts, 26379), path[0], options, own


def _parts(url: str) -> tuple[str, list[str], dict[str, Any], dict[str, Any]]:
    """Hosts, path, options of connections, and those that begin with `sentinel_`."""
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    own = {name.removeprefix("sentinel_"): query.pop(name) for name in list(query) if name.startswith("sentinel_")}
    options = options_of(f"{parts.scheme.partition('+')[0]}://{credentials}{at}?{urlencode(query)}")
    return hosts, [unquote(part) for part in parts.path.split("/") if part], options, own


def _addresses(hosts: str, port: int) -> list[Address]:
    """Hosts with or without a port; IPv6 in brackets."""
    with_ports = [host if host.rpartition("]")[2].count(":") else f"{host}:{port}" for host in hosts.split(",")]
    return [split_address(host) for host in with_ports]
