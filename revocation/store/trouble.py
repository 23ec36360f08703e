"""What a failed call to the store means: its kind, a key of `hints.HINTS`, and whether it certainly did nothing."""

from __future__ import annotations

import re
import ssl

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
    TryAgainError,
)

# What redis-py has a class for has lost its error code.
_BY_TYPE: tuple[tuple[type[BaseException], str], ...] = (
    (MasterNotFoundError, "no_primary"),
    (BusyLoadingError, "loading"),
    (MasterDownError, "loading"),  # which redis-py takes for a ClusterDownError
    (NoPermissionError, "rights"),
    (AuthenticationError, "credentials"),
    (ReadOnlyError, "read_only"),
    (OutOfMemoryError, "memory"),
    (AskError, "moved"),  # and MovedError with it
    (TryAgainError, "moved"),
    (ClusterDownError, "moved"),
    (ssl.SSLEOFError, "unreachable"),
    (ssl.SSLError, "tls"),
    (TimeoutError, "timeout"),
)
_BY_CODE = {
    "NOAUTH": "credentials", "WRONGPASS": "credentials", "NOPERM": "rights", "READONLY": "read_only",
    "LOADING": "loading", "MASTERDOWN": "loading", "BUSY": "busy", "OOM": "memory", "MISCONF": "disk",
    "NOREPLICAS": "replicas", "MOVED": "moved", "ASK": "moved", "TRYAGAIN": "moved", "CLUSTERDOWN": "moved",
}  # fmt: skip
_BEFORE_ANYTHING = frozenset(_BY_CODE.values()) | {"no_primary"}
"""Said by the server before it runs a script, or at its first write; or there was nobody to connect to."""
_IN_A_SCRIPT = re.compile("access a non local key in a cluster node|while the cluster is down")
"""Said of a key that a script comes to while its slot moves, or whose part of the cluster is down."""


def kind_of(error: BaseException) -> str:
    """A key of HINTS."""
    for link in _chain(error):
        for kind, name in _BY_TYPE:
            if isinstance(link, kind):
                return name
    if isinstance(error, ResponseError):
        return "moved" if _IN_A_SCRIPT.search(str(error)) else _BY_CODE.get(code_of(error), "other")
    return "unreachable" if isinstance(error, OSError | RuntimeError | AttributeError | RedisError) else "other"


def did_nothing(error: BaseException) -> bool:
    """Whether the command that failed has certainly not run, not even a part of it."""
    before = kind_of(error) in _BEFORE_ANYTHING and not _IN_A_SCRIPT.search(str(error))
    return before or isinstance(error.__context__, ConnectionRefusedError)


def code_of(error: BaseException) -> str:
    """The error code in a server's own words, or ""."""
    found = re.match(r"[A-Z]{3,20}\b", str(error))
    return found[0] if found else ""


def describe(error: BaseException) -> str:
    """The kind of a driver's error and, for a server's own words, the error code; never arguments."""
    return (code_of(error) if type(error) is ResponseError else "") or type(error).__name__


def _chain(error: BaseException) -> list[BaseException]:
    """The error and what led to it: the driver wraps what the socket said."""
    found: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(found) < 8:
        found.append(link)
        link = link.__cause__ or link.__context__
    return found
