"""Key sets in JSON, given or fetched: keys are picked from memory, and a fetch happens in the background.

A fetched set is used at once and refreshed behind the back of whoever asks (stale while revalidate). One fetch at a
time; a failed one changes nothing and waits before the next; a `kid` that nobody has heard of, which anybody can make
up, starts at most one fetch in COOL_DOWN_S. Only the very first use has nothing to answer from, and waits.
"""

from __future__ import annotations

import io
import ipaddress
import json
import logging
import os
import socket
import ssl
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from revocation_sdk._keys import HMAC_BYTES, MAX_KEYS, BadKey, Key, KeySet, make_key, public_from_jwk, static_key
from revocation_sdk.errors import ConfigError

REFRESH_AFTER_S = 300.0
COOL_DOWN_S = 10.0
MAX_STALE_S = 86_400.0
"""A set that could not be refreshed for so long is not used any more: its issuer may have removed a stolen key."""
FETCH_TIMEOUT_S = 5.0
MAX_BYTES = 512 * 1024

_log = logging.getLogger("revocation_sdk")


class BadKeySet(ValueError):
    """A document that is not a JWK set, or is too large."""


class KeySource(Protocol):
    """Where a verifier has its keys from."""

    def current(self) -> KeySet | None:
        """The keys, from memory; None: there are none yet, or none young enough."""

    def wait(self, timeout: float) -> KeySet | None:
        """As `current`, but waits for a first fetch."""

    def unknown_key(self) -> None:
        """A token was signed by no key of the set."""

    def wait_for_new(self, timeout: float) -> KeySet | None:
        """As `unknown_key`, and waits for what that brings."""


class StaticKeys:
    """Keys that never change."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def current(self) -> KeySet | None:
        """The keys."""
        return self._keys

    def wait(self, timeout: float) -> KeySet | None:
        """The keys."""
        return self._keys

    def unknown_key(self) -> None:
        """Nothing to be done."""

    def wait_for_new(self, timeout: float) -> KeySet | None:
        """The keys."""
        return self._keys


class _Fetched(NamedTuple):
    keys: KeySet
    at: float


class _Flights:
    """At most one fetch at a time in this process. A forked child has neither its parent's threads nor its locks."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._landed = threading.Event()
        self._landed.set()
        self._pid = os.getpid()  # last: in a child, another thread must not take the parent's lock for the child's

    def board(self) -> bool:
        """Whether the caller is the one to fetch; then it must call `land`."""
        if self._pid != os.getpid():
            self.__init__()  # type: ignore[misc]
        with self._lock:
            if not self._landed.is_set():
                return False
            self._landed = threading.Event()
            return True

    def land(self) -> None:
        """Lets go everybody who waits."""
        self._landed.set()

    def wait(self, timeout: float) -> None:
        """Waits for the fetch under way, if there is one."""
        self._landed.wait(timeout)


class JwksUrl:
    """Keys that an issuer publishes at a URL: https, or http on this host."""

    def __init__(
        self,
        url: str,
        algorithms: frozenset[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        ca: Path | None = None,
        token_file: Path | None = None,
    ) -> None:
        """`ca`: who signed the server's certificate; `token_file`: a bearer token to show it. Read at each fetch.

        Raises ConfigError for a URL that is none of these, or a CA that cannot be read.
        """
        _opener(url, ca)
        self._url = url
        self._ca = ca
        self._token_file = token_file
        self._algorithms = algorithms
        self._clock = clock
        self._fetched: _Fetched | None = None
        self._flights = _Flights()
        self._next_try = float("-inf")
        self._failures = 0

    def current(self) -> KeySet | None:
        """The keys as fetched last; starts a fetch when they are old."""
        fetched = self._fetched
        if fetched is None:
            self._start()
            return None
        age = self._clock() - fetched.at
        if age > REFRESH_AFTER_S:
            self._start()
        return fetched.keys if age <= MAX_STALE_S else None

    def wait(self, timeout: float) -> KeySet | None:
        """The keys; waits for the fetch under way if there are none."""
        keys = self.current()
        if keys is None:
            self._flights.wait(timeout)
            keys = self.current()
        return keys

    def unknown_key(self) -> None:
        """Looks for a new key, unless that was done just now."""
        fetched = self._fetched
        if fetched is not None and self._clock() - fetched.at > COOL_DOWN_S:
            self._start()

    def wait_for_new(self, timeout: float) -> KeySet | None:
        """As `unknown_key`, and waits for the fetch, if there is one."""
        self.unknown_key()
        self._flights.wait(timeout)
        return self.current()

    def _start(self) -> None:
        """Begins a fetch if none is under way and the last failure is long enough ago."""
        if self._clock() < self._next_try or not self._flights.board():
            return
        try:
            threading.Thread(target=self._run, name="revocation-jwks", daemon=True).start()
        except RuntimeError:  # no thread to be had, now or any more: the interpreter may be ending
            self._flights.land()

    def _run(self) -> None:
        try:
            keys = parse_key_set(self._download(), self._algorithms)
            self._fetched = _Fetched(keys, self._clock())
            self._failures = 0
            self._next_try = float("-inf")
            if not keys.keys:
                _log.warning("the key set at jwks_url has no key that fits")
        except (OSError, HTTPException, ValueError, ConfigError) as error:
            self._failures += 1
            self._next_try = self._clock() + min(COOL_DOWN_S, 0.25 * 2.0 ** min(self._failures, 10))
            _log.warning("fetching jwks_url failed: %s", type(error).__name__)
        finally:
            self._flights.land()

    def _download(self) -> bytes:
        """The document. Bounded in size and, against a server that drips, in time."""
        request = urllib.request.Request(self._url, headers={"Accept": "application/json"})
        if self._token_file is not None:
            request.add_header("Authorization", f"Bearer {self._token_file.read_text('ascii').strip()}")
        with _opener(self._url, self._ca).open(request, timeout=FETCH_TIMEOUT_S) as response:
            return _read(response)


def parse_key_set(document: object, algorithms: frozenset[str], *, allow_secrets: bool = False) -> KeySet:
    """The usable keys of a JWK set. Raises BadKeySet; keys that cannot be used are left out (RFC 7517 section 5)."""
    if isinstance(document, str | bytes):
        try:
            document = json.loads(document)
        except (ValueError, RecursionError) as error:
            raise BadKeySet("not JSON") from error
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise BadKeySet("no `keys`")
    if len(entries) > MAX_KEYS:
        raise BadKeySet(f"more than {MAX_KEYS} keys")
    made = (_usable(entry, algorithms, allow_secrets) for entry in entries)
    return KeySet(key for key in made if key is not None)


def key_source(
    key: object,
    jwks: object,
    jwks_url: str | None,
    key_id: str | None,
    algorithms: frozenset[str],
    clock: Callable[[], float],
) -> KeySource:
    """The one source that a verifier is set up with. Raises ConfigError."""
    if sum(one is not None for one in (key, jwks, jwks_url)) != 1:
        raise ConfigError("give exactly one of key=, jwks= and jwks_url=", reason="key")
    if key is not None:
        return StaticKeys(static_key(key, algorithms, key_id))
    if key_id is not None:
        raise ConfigError("key_id= names the key of key=; a key set names its keys by itself", reason="key")
    if jwks_url is None:
        return static_jwks(jwks, algorithms)
    if algorithms & HMAC_BYTES.keys():
        raise ConfigError("jwks_url: a secret that is published is none; use a public-key algorithm", reason="key")
    return JwksUrl(jwks_url, algorithms, clock=clock)


def static_jwks(document: object, algorithms: frozenset[str]) -> StaticKeys:
    """The keys of `jwks=`. Raises ConfigError if there is none that fits."""
    try:
        keys = parse_key_set(document, algorithms, allow_secrets=True)
    except BadKeySet as error:
        raise ConfigError(f"jwks: {error}", reason="key") from error
    if not keys.keys:
        raise ConfigError("jwks: no key in it fits the algorithms", reason="key")
    return StaticKeys(keys)


def _usable(jwk: object, algorithms: frozenset[str], allow_secrets: bool) -> Key | None:
    """One entry of a set, or None: not for signatures, not for these algorithms, or broken."""
    if not isinstance(jwk, Mapping) or jwk.get("use", "sig") != "sig":
        return None
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    if jwk.get("kty") == "oct" and not allow_secrets:
        return None  # a secret that is published is none
    try:
        key = make_key(public_from_jwk(jwk))
    except BadKey:
        return None
    fitting = key.algorithms & algorithms & _declared(jwk, algorithms)
    kid = jwk.get("kid")
    kids = (kid,) if isinstance(kid, str) and kid else ()
    return replace(key, algorithms=fitting, kids=kids) if fitting else None


def _declared(jwk: Mapping[str, Any], algorithms: frozenset[str]) -> frozenset[str]:
    declared = jwk.get("alg")
    if declared is None:
        return algorithms
    return frozenset((declared,)) if isinstance(declared, str) else frozenset()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Keys come from where the configuration says, and from nowhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _opener(url: str, ca: Path | None = None) -> urllib.request.OpenerDirector:
    """Checks the URL and reads the CA; raises ConfigError."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise ConfigError("jwks_url: not a URL", reason="key") from error
    if parts.scheme == "https" and host:
        try:
            tls = _Https(ssl.create_default_context(cafile=ca))
        except OSError:
            raise ConfigError(f"jwks_ca: cannot read {ca} as PEM", reason="key") from None
        return urllib.request.build_opener(_NoRedirect, _Http, tls)
    if parts.scheme == "http" and _is_loopback(host):
        return urllib.request.build_opener(_NoRedirect, _Http, urllib.request.ProxyHandler({}))
    raise ConfigError("jwks_url: https, or http to this host only", reason="key")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read(response: HTTPResponse) -> bytes:
    body = bytearray()
    while chunk := response.read1(65_536):
        body += chunk
        if len(body) > MAX_BYTES:
            raise BadKeySet(f"more than {MAX_BYTES} bytes")
    return bytes(body)


class _InTime(io.RawIOBase):
    """What comes from a socket until a deadline. The socket's own timeout is for each read: a server may drip."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, deadline: float) -> None:
        self._raw = raw
        self._sock = sock
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(HTTPResponse):
    """An answer that has come wholly in time, its status and its headers too; or TimeoutError."""

    def __init__(self, sock: socket.socket, *args: Any, deadline: float, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp = io.BufferedReader(_InTime(self.fp.detach(), sock, deadline))


def _connection(kind: type[HTTPConnection], host: str, *, timeout: float, **more: Any) -> HTTPConnection:
    connection = kind(host, timeout=timeout, **more)
    connection.response_class = partial(_Response, deadline=time.monotonic() + timeout)  # type: ignore[assignment]
    return connection


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_connection, HTTPConnection), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._tls = context

    def https_open(self, req: urllib.request.Request) -> HTTPResponse:
        return self.do_open(partial(_connection, HTTPSConnection), req, context=self._tls)
