"""What TLS says of a service's certificate: gRPC itself says only that there is no connection."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from revocation.cli.connection import Connection

_CONNECT_TIMEOUT_S = 3.0


def misfits(connection: Connection) -> str:
    """Why `--ca` does not fit what the service presents, wherever it does not; empty: it fits, or nobody answers."""
    if connection.ca is None:
        return ""
    return "; ".join(why for host, port in secured(connection) if (why := misfit(host, port, connection.ca)))


def secured(connection: Connection) -> Iterator[tuple[str, int]]:
    """The addresses that are spoken to by TLS, as host and port."""
    from revocation_sdk._channel import parse_address, security

    how = security(_text(connection.ca), _text(connection.cert), _text(connection.cert_key), None, connection.insecure)
    for target in parse_address(connection.address):
        if not how.plain(target) and target.name.startswith("dns:///"):
            host, _, port = target.name.removeprefix("dns:///").rpartition(":")
            yield host.strip("[]"), int(port)


def presented(host: str, port: int) -> bytes:
    """The certificate at an address in PEM, whoever signed it. Raises OSError."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return ssl.DER_cert_to_PEM_cert(_handshake(host, port, context)).encode()


def misfit(host: str, port: int, ca: Path) -> str:
    """Why the certificate at an address does not fit a CA; empty: it does, or none is to be seen."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC has it
    try:
        context.load_verify_locations(ca.expanduser())
    except OSError:
        return f"no certificate can be read from {ca}"
    try:
        _handshake(host, port, context)
    except ssl.SSLCertVerificationError as error:
        return f"the certificate of {host}:{port} does not fit the CA in {ca}: {error.verify_message}"
    except OSError:
        pass
    return ""


def _handshake(host: str, port: int, context: ssl.SSLContext) -> bytes:
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection((host, port), _CONNECT_TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        der = secured.getpeercert(binary_form=True)
    if der is None:
        raise OSError("no certificate")
    return der


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser())
