"""TLS of the HTTP listener, from files that are read anew for the next handshake when they have changed."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog

log = structlog.get_logger("revocation.http")


@dataclass(frozen=True, slots=True)
class HttpTls:
    """Certificate chain, its key, and with `client_ca` the CA whose client certificates are demanded. All PEM."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Made from the files as they are now. Raises OSError (of which SSLError is one) if that cannot be."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Without a password callback OpenSSL would ask for a passphrase on the terminal.
        context.load_cert_chain(self.cert, self.key, password=lambda: b"")
        if self.client_ca is not None:
            context.load_verify_locations(self.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def stamp(self) -> tuple[int, ...]:
        """Changes when a file does."""
        paths = (self.cert, self.key, *([self.client_ca] if self.client_ca is not None else []))
        return tuple(path.stat().st_mtime_ns if path.exists() else 0 for path in paths)


class Reloading:
    """A context that hands every handshake to the newest one that could be made.

    A new one each time, and not the same one changed: what was loaded into a context, a CA among it, stays there.
    """

    def __init__(self, files: HttpTls) -> None:
        """Reads the files. Raises OSError."""
        self._files = files
        self._stamp = files.stamp()
        self._current = self.context = files.context()
        # Called for every handshake, whether or not the client names a server.
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        stamp = self._files.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            self._reload()
        connection.context = self._current

    def _reload(self) -> None:
        try:
            self._current = self._files.context()
            log.info("certificates_reloaded", listener="http")
        except OSError:
            log.warning("certificates_not_reloaded", listener="http", hint="the last good ones stay in use")
