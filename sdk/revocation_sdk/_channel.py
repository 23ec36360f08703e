"""Where the service is and how to talk to it: addresses, credentials, channels.

Several addresses are taken in turn, by our own rotation: gRPC's static lists know no host names. `dns:///name`
leaves the choice among the name's addresses to gRPC. Nothing is opened or read before it is needed.
"""

from __future__ import annotations

import importlib.metadata
import ipaddress
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import grpc

from revocation_sdk._wire import failure_of
from revocation_sdk.errors import ConfigError, Unavailable

DEFAULT_PORT = 50051
MAX_RECEIVE_BYTES = 16 * 1024 * 1024
KEEPALIVE_MS = 30_000
TokenSource = str | os.PathLike[str] | Callable[[], str]
"""A token, a file that holds one, or what gives one."""
_MAX_RETIRED = 2
_UNREACHED = frozenset(("UNAVAILABLE", "DEADLINE_EXCEEDED", "CANCELLED"))
_UNIX = re.compile(r"unix(-abstract)?:")
_DNS = re.compile(r"dns:(///|)(?P<rest>[^/]*)$")
_HOST_PORT = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[^:\[\]/@\s]+)(:(?P<port>[0-9]{1,5}))?$")


@dataclass(frozen=True, slots=True)
class Target:
    """One address."""

    name: str
    """As gRPC wants it."""
    local: bool
    """Loopback or a unix socket: plain text is fine."""
    balanced: bool = False
    """gRPC chooses among several addresses of the name."""


def parse_address(text: str) -> tuple[Target, ...]:
    """Reads one address, a comma-separated list, `dns:///name` or `unix:path`. Raises ConfigError."""
    targets = tuple(_parse_one(part.strip()) for part in text.split(","))
    if len(set(targets)) != len(targets):
        raise ConfigError(f"address {text!r} names the same place twice", reason="address")
    return targets


def _parse_one(text: str) -> Target:
    if _UNIX.match(text):
        return Target(text, local=True)
    dns = _DNS.match(text)
    host, port = _host_port(dns["rest"] if dns else text, text)
    return Target(f"dns:///{host}:{port}", _is_loopback(host), balanced=dns is not None)


def _host_port(text: str, whole: str) -> tuple[str, int]:
    if text.count(":") > 1 and "[" not in text:
        text = f"[{text}]"  # a bare IPv6 address
    match = _HOST_PORT.match(text)
    port = int(match["port"] or DEFAULT_PORT) if match else 0
    if match is None or not 0 < port < 65536:
        raise ConfigError(
            f"address {whole!r}: expected host:port, unix:path or dns:///name, or several with commas",
            reason="address",
        )
    return match["host"], port


def _is_loopback(host: str) -> bool:
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Security:
    """How to know the service, and how to be known by it. `repr` shows no token."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    token: Callable[[], str] | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigError("cert= and key= belong together", reason="tls")
        if self.insecure and (self.ca or self.cert):
            raise ConfigError("insecure=True contradicts ca= and cert=", reason="tls")

    def plain(self, target: Target) -> bool:
        """Whether this address is spoken to in plain text."""
        return self.insecure or (target.local and not self.ca and not self.cert)

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files, as they are now. Raises ConfigError if that fails."""
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.cert))

    def stamp(self) -> tuple[int, ...]:
        """Changes when a file does, so that a renewed certificate is taken up."""
        return tuple(_changed_ns(path) for path in (self.ca, self.cert, self.key) if path)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every call. Raises Unavailable if the token cannot be had."""
        if self.token is None:
            return ()
        try:
            token = self.token()
        except Exception as error:
            raise Unavailable("the source of the access token failed", reason="credentials") from error
        if not isinstance(token, str) or not re.fullmatch(r"[!-~]+", token):
            raise ConfigError("token= is not a token, or gave none", reason="credentials")
        return (("authorization", f"Bearer {token}"),)


def security(ca: str | None, cert: str | None, key: str | None, token: TokenSource | None, insecure: bool) -> Security:
    """Security from a client's arguments."""
    if token is None or callable(token):
        return Security(ca, cert, key, token, insecure)
    given = token
    return Security(ca, cert, key, lambda: _token_of(given), insecure)  # a closure: `repr` does not show what it holds


def _token_of(source: str | os.PathLike[str]) -> str:
    """A file is read anew for every call: projected tokens are renewed in place."""
    return source if isinstance(source, str) else Path(source).read_text("ascii").strip()


def _changed_ns(path: str) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except OSError:  # not there, perhaps only while it is being replaced
        return 0


def _read(path: str | None) -> bytes | None:
    try:
        return Path(path).read_bytes() if path else None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", reason="tls") from None


@cache
def sdk_version() -> str:
    """How this SDK introduces itself."""
    try:
        version = importlib.metadata.version("revocation")
    except importlib.metadata.PackageNotFoundError:
        version = "0"
    return f"revocation-sdk-python/{version}"


class _Forks:
    """How often this process was forked from one with open channels.

    gRPC survives that once. In the child of such a child it aborts the process in one case of three (measured with
    grpcio 1.85: "Check failed" in ev_epoll1_linux.cc), so there nothing is opened: unknown is better than dead.
    """

    def __init__(self) -> None:
        self.stained = 0
        self.open = 0

    def check(self) -> None:
        """Raises Unavailable where gRPC must not be used."""
        if self.stained > 1:
            raise Unavailable(
                "gRPC does not work in a child of a child that uses it too; start the process with spawn",
                reason="forked_twice",
            )

    def in_child(self) -> None:
        """Notes that this is a child."""
        self.stained += self.open > 0
        self.open = 0


forks = _Forks()


def open_channel(target: Target, how: Security) -> grpc.Channel:
    """Opens a channel of its own, which connects when first used."""
    forks.check()
    options: list[tuple[str, Any]] = [
        ("grpc.primary_user_agent", sdk_version()),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),  # also how long one attempt to connect may take
        ("grpc.max_reconnect_backoff_ms", 2_000),
        ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
        ("grpc.enable_retries", 0),  # we retry by ourselves, with one op id
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.service_config_disable_resolution", 1),
    ]
    if target.local:
        options.append(("grpc.enable_http_proxy", 0))
    if target.balanced:
        options.append(("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'))
    if how.plain(target):
        return grpc.insecure_channel(target.name, options)
    return grpc.secure_channel(target.name, how.credentials(), options)


class Endpoint:
    """One address with its channel."""

    def __init__(self, target: Target, how: Security) -> None:
        self.target = target
        self.stamp = how.stamp()
        self.channel = open_channel(target, how)
        forks.open += 1
        self.proven = False
        """A call got through lately; else whoever calls waits for the connection first."""
        self._stubs: dict[type[Any], Any] = {}
        self._probe: Any = self.channel.unary_unary("/grpc.health.v1.Health/Check")

    def stub(self, kind: type[Any]) -> Any:
        """The stub of a service."""
        stub = self._stubs.get(kind)
        if stub is None:
            stub = self._stubs[kind] = kind(self.channel)
        return stub

    def probe(self, timeout: float) -> Any:
        """A call that does nothing (gRPC's health check), as a future; `reached` reads it.

        Before a channel has proven itself, it tells "nothing was sent" from "nobody knows". The channel's own idea
        of its connection could not, behind a proxy, and watching it needs a thread that outlives the channel.
        """
        return self._probe.future(b"", timeout)

    @staticmethod
    def reached(probe: Any) -> bool:
        """Whether a probe got through, whatever the answer was. Waits for it."""
        try:
            probe.result()
        except grpc.RpcError as error:
            return failure_of(error).code not in _UNREACHED
        except grpc.FutureCancelledError:
            return False
        return True

    def close(self) -> None:
        """Ends the channel and all that runs on it."""
        self.channel.close()
        forks.open -= 1


class Endpoints:
    """The addresses of the service, one of them in use."""

    def __init__(self, targets: tuple[Target, ...], how: Security, first: int) -> None:
        self._targets = targets
        self._how = how
        self._index = first % len(targets)
        self._open: dict[Target, Endpoint] = {}
        self._retired: list[Endpoint] = []
        self._lock = threading.Lock()
        self._closed = False

    def current(self) -> Endpoint:
        """The endpoint in use. Raises ConfigError if its credentials cannot be read."""
        with self._lock:
            if self._closed:
                raise Unavailable("the client is closed", reason="closed")
            target = self._targets[self._index]
            endpoint = self._open.get(target)
            if endpoint is None:
                endpoint = self._open[target] = Endpoint(target, self._how)
            return endpoint

    def new(self) -> Endpoint:
        """A channel of its own to the address in use; closing it is up to the caller."""
        with self._lock:
            target = self._targets[self._index]
        return Endpoint(target, self._how)

    def advance(self) -> None:
        """Goes on to the next address."""
        with self._lock:
            self._index = (self._index + 1) % len(self._targets)

    def leave(self, endpoint: Endpoint) -> None:
        """Goes on to the next address, unless somebody else already did."""
        with self._lock:
            endpoint.proven = False
            if self._targets[self._index] == endpoint.target:
                self._index = (self._index + 1) % len(self._targets)
            if self._open.get(endpoint.target) is endpoint and endpoint.stamp != self._how.stamp():
                # Renewed credentials need a new channel. Calls may still run on the old one: it is closed later.
                self._retired.append(self._open.pop(endpoint.target))
            surplus = self._retired[:-_MAX_RETIRED]
            del self._retired[:-_MAX_RETIRED]
        for old in surplus:
            old.close()

    def close(self) -> None:
        """Ends all channels."""
        with self._lock:
            self._closed = True
            endpoints = [*self._open.values(), *self._retired]
            self._open, self._retired = {}, []
        for endpoint in endpoints:
            endpoint.close()

    def after_fork(self) -> None:
        """In a child: the channels are the parent's. They are kept as they are, since even closing touches them."""
        _parents.extend([*self._open.values(), *self._retired])
        self._open, self._retired = {}, []
        self._lock = threading.Lock()


_parents: list[Endpoint] = []
