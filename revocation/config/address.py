"""Addresses: of listeners and who can reach them, of stores without their passwords. Pure."""

from __future__ import annotations

import ipaddress
import os
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

LONGEST_SOCKET_PATH = 100
"""Bytes of a unix socket's path; systems allow 103 to 107."""


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[IPV6]:PORT`. Raises ValueError if it is neither."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise ValueError("write HOST:PORT with a port of 0 to 65535, for example 127.0.0.1:50051")
    if ":" in host and not bracketed:
        raise ValueError("put an IPv6 address in brackets, for example [::1]:50051")
    return (host[1:-1] if bracketed else host), int(port)


def listen_address(address: str) -> str:
    """Normal form of where to listen: `HOST:PORT`, or `unix:/path`. Raises ValueError with what to write."""
    if not address.startswith("unix:"):
        split_address(address)
        return address
    path = address.removeprefix("unix:").removeprefix("//")
    if not path.startswith("/"):
        raise ValueError("a unix socket needs an absolute path, for example unix:///run/revocation.sock")
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise ValueError(f"the path of a unix socket has at most {LONGEST_SOCKET_PATH} bytes; take a shorter one")
    return f"unix:{path}"


def is_local(address: str) -> bool:
    """Whether only this machine can reach `address`: a unix socket, or a loopback address."""
    if address.startswith("unix:"):
        return True
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # another name: whoever resolves it decides, so it does not count as local


def redacted_url(url: str) -> str:
    """`url` with every password replaced by `***`; what cannot be parsed is hidden whole."""
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True)
    except ValueError:
        return "***"
    credentials, at, place = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = f"{user}{colon}{'***' if colon else ''}{at}{place}"
    hidden = [(name, "***" if "password" in name.lower() else value) for name, value in query]
    # '*' stays readable; ':', ',' and '/' are ordinary in store URLs. Not urlunsplit, which drops an empty host.
    tail = urlencode(hidden, safe="*:,/", quote_via=quote)
    return f"{parts.scheme}://{shown}{parts.path}{'?' if tail else ''}{tail}"
