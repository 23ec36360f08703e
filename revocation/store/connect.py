"""From a URL to a store, whatever kind of store it names."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from revocation.address import split_address
from revocation.store import StoreRefused
from revocation.store.nodes import Address, ClusterNodes, Nodes, OneNode, client_of, client_of_primary, options_of
from revocation.store.redis import RedisStore

_FORMS = (
    "redis://[USER:PASSWORD@]HOST:PORT/DB, unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or "
    "redis+cluster://HOST:PORT,HOST:PORT; rediss for TLS"
)


def connect(url: str, **options: Any) -> RedisStore:
    """A store at `url`, not yet connected. Raises StoreRefused for a URL that cannot be one; it never repeats it.

    Everything redis-py knows as a URL option goes into the query, TLS files among them (`ssl_ca_certs`,
    `ssl_certfile`, `ssl_keyfile`). User and password are those of the data nodes; Sentinels have `sentinel_username`
    and `sentinel_password`.
    """
    try:
        nodes = _nodes(url)
    except (ValueError, TypeError) as error:
        raise StoreRefused(f"the URL of the store is not understood; write one of {_FORMS}") from error
    return RedisStore(nodes, **options)


def _nodes(url: str) -> Nodes:
    scheme, _, _ = url.partition("://")
    transport, plus, kind = scheme.partition("+")
    if not plus:
        options_of(url)
        return OneNode(lambda: client_of(url))
    parts = urlsplit(url)
    credentials, at, hosts = parts.netloc.rpartition("@")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    sentinel_options = {
        name.removeprefix("sentinel_"): query.pop(name) for name in list(query) if name.startswith("sentinel_")
    }
    options = options_of(f"{transport}://{credentials}{at}?{urlencode(query)}")
    path = [unquote(part) for part in parts.path.split("/") if part]
    if kind == "cluster" and not path and not sentinel_options:
        return ClusterNodes(_addresses(hosts, 6379), options)
    if kind != "sentinel" or not 1 <= len(path) <= 2:
        raise ValueError("neither the one nor the other")
    options["db"] = int(path[1]) if len(path) == 2 else options.get("db", 0)
    sentinels = _addresses(hosts, 26379)
    return OneNode(lambda: client_of_primary(sentinels, path[0], options, sentinel_options))


def _addresses(hosts: str, port: int) -> list[Address]:
    """Hosts with or without a port; IPv6 in brackets."""
    with_ports = [host if host.rpartition("]")[2].count(":") else f"{host}:{port}" for host in hosts.split(",")]
    return [split_address(host) for host in with_ports]
