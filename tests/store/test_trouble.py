"""The kinds of trouble with a store: every error has one, every kind a hint, and none repeats what a server said."""

from __future__ import annotations

import ssl

import pytest
import redis.asyncio.sentinel
from redis import exceptions as errors
from redis._parsers.base import BaseParser

from revocation.store.hints import HINTS
from revocation.store.trouble import did_nothing, kind_of

SAID = "secret-name 10.0.0.1"
CASES: list[tuple[Exception, str, bool]] = [
    (redis.asyncio.sentinel.MasterNotFoundError(SAID), "no_primary", True),
    (errors.BusyLoadingError(SAID), "loading", True),
    (errors.NoPermissionError(SAID), "rights", True),
    (errors.AuthenticationError(SAID), "credentials", True),
    (errors.ReadOnlyError(SAID), "read_only", True),
    (errors.OutOfMemoryError(SAID), "memory", True),
    (errors.ResponseError(f"BUSY {SAID}"), "busy", True),
    (errors.ResponseError(f"MISCONF {SAID}"), "disk", True),
    (errors.ResponseError(f"NOREPLICAS {SAID}"), "replicas", True),
    (errors.ResponseError(f"CLUSTERDOWN {SAID}"), "moved", True),
    (errors.ResponseError(f"WRONGTYPE {SAID}"), "other", False),
    (errors.ResponseError(f"ERR {SAID}"), "other", False),
    (errors.TimeoutError(SAID), "timeout", False),
    (errors.ConnectionError(SAID), "unreachable", False),
    (ConnectionResetError(SAID), "unreachable", False),
    (RuntimeError("unable to perform operation on <TCPTransport>"), "unreachable", False),
]


@pytest.mark.parametrize(("error", "kind", "nothing"), CASES, ids=lambda value: str(value)[:30])
def test_every_error_has_its_kind(error: Exception, kind: str, nothing: bool) -> None:
    assert (kind_of(error), did_nothing(error)) == (kind, nothing)


ELSEWHERE = "access a non local key in a cluster node script: 1f, on @user_script:9."


@pytest.mark.parametrize(
    ("said", "kind", "nothing"),
    [
        ("MOVED 3999 10.0.0.1:6381", "moved", True),
        ("ASK 3999 10.0.0.1:6381", "moved", True),
        ("TRYAGAIN Multiple keys request during rehashing of slot", "moved", True),
        ("CLUSTERDOWN Hash slot not served", "moved", True),
        (f"ERR Script attempted to {ELSEWHERE}", "moved", False),  # Redis
        (f"ERR Attempted to {ELSEWHERE}", "moved", False),  # Valkey
        ("ERR Script attempted to execute a command while the cluster is down", "moved", False),  # Redis
        ("ERR Can not execute a command 'get' while the cluster is down", "moved", False),  # Valkey
        ("ERR Script attempted to execute nonsense", "other", False),
        ("MASTERDOWN Link with MASTER is down", "loading", True),
        ("LOADING Redis is loading the dataset in memory", "loading", True),
        ("BUSY Redis is busy running a script", "busy", True),
        ("NOAUTH Authentication required.", "credentials", True),
        ("WRONGPASS invalid username-password pair", "credentials", True),
        ("NOPERM this user has no permissions", "rights", True),
        ("READONLY You can't write against a read only replica.", "read_only", True),
        ("OOM command not allowed when used memory > 'maxmemory'.", "memory", True),
        ("MISCONF Redis is configured to save RDB snapshots", "disk", True),
        ("NOREPLICAS Not enough good replicas to write.", "replicas", True),
    ],
)
def test_what_a_server_says_is_known_as_the_driver_hands_it_on(said: str, kind: str, nothing: bool) -> None:
    """It makes some of these classes of its own, whose text lacks the code."""
    error = BaseParser.parse_error(said)  # type: ignore[no-untyped-call]
    assert (kind_of(error), did_nothing(error)) == (kind, nothing)


def wrapped(error: Exception) -> Exception:
    """As redis-py wraps what a socket says while it connects."""
    try:
        try:
            raise error
        except OSError as inner:
            raise errors.ConnectionError(str(inner))  # noqa: B904 - as it does
    except errors.ConnectionError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "kind", "nothing"),
    [
        (ssl.SSLCertVerificationError(1, SAID), "tls", False),
        (ssl.SSLEOFError(8, "the peer went away in the middle of a call"), "unreachable", False),
        (ConnectionRefusedError(111, SAID), "unreachable", True),
        (ConnectionResetError(104, SAID), "unreachable", False),
    ],
)
def test_what_the_driver_wraps_is_seen(error: Exception, kind: str, nothing: bool) -> None:
    """A handshake that fails is told from a connection that ends; only a refused one has certainly done nothing."""
    assert (kind_of(wrapped(error)), did_nothing(wrapped(error))) == (kind, nothing)


def test_every_kind_says_what_to_do() -> None:
    assert {kind for _, kind, _ in CASES} | {"tls", "eviction"} == HINTS.keys()
    for hint in HINTS.values():
        assert SAID not in hint
        assert len(hint) > 30
