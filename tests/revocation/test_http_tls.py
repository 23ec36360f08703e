"""The HTTP listener over TLS: certificates that are renewed, client certificates that are demanded and taken back."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import trustme
from prometheus_client import CollectorRegistry

from revocation.http.server import OpsServer
from revocation.http.tls import HttpTls

_turns = iter(range(1, 1000))


def write(folder: Path, ca: trustme.CA, name: str = "server") -> tuple[Path, Path]:
    """A certificate of `ca` for this host, in files whose times differ from those before."""
    issued, cert, key = ca.issue_cert("localhost", "127.0.0.1"), folder / f"{name}.pem", folder / f"{name}.key"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    for path in (cert, key):
        touch(path)
    return cert, key


def touch(path: Path) -> None:
    moment = path.stat().st_mtime + next(_turns)
    os.utime(path, (moment, moment))


@asynccontextmanager
async def serving(tls: HttpTls) -> AsyncIterator[str]:
    server = OpsServer("127.0.0.1:0", lambda: None, CollectorRegistry(), tls)
    await server.start()
    try:
        yield f"https://{server.address}/livez"
    finally:
        await server.stop()


async def asks(url: str, ca: trustme.CA, files: tuple[Path, Path] | None = None) -> bool:
    """Whether somebody who trusts `ca`, with a certificate or without, gets an answer over a connection of its own."""
    context = ssl.create_default_context()
    ca.configure_trust(context)
    if files is not None:
        context.load_cert_chain(*files)
    try:
        async with httpx.AsyncClient(verify=context, trust_env=False) as client:
            return (await client.get(url)).status_code == 200
    except (httpx.TransportError, ssl.SSLError):
        return False


async def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    old, new = trustme.CA(), trustme.CA()
    cert, key = write(tmp_path, old)
    async with serving(HttpTls(cert, key)) as url:
        assert await asks(url, old)
        assert not await asks(url, new)
        write(tmp_path, new)
        assert await asks(url, new)
        assert not await asks(url, old)
        cert.write_text("no certificate")
        touch(cert)
        assert await asks(url, new), "the last good one stays in use"
        key.unlink()
        assert await asks(url, new)


async def test_client_certificates_are_demanded_and_a_ca_that_is_removed_is_forgotten(tmp_path: Path) -> None:
    ours, first, second = trustme.CA(), trustme.CA(), trustme.CA()
    cert, key = write(tmp_path, ours)
    client_ca = tmp_path / "clients.pem"
    first.cert_pem.write_to_path(str(client_ca))
    of_first, of_second = write(tmp_path, first, "first"), write(tmp_path, second, "second")
    async with serving(HttpTls(cert, key, client_ca)) as url:
        assert await asks(url, ours, of_first)
        assert not await asks(url, ours)
        assert not await asks(url, ours, of_second)
        second.cert_pem.write_to_path(str(client_ca))
        touch(client_ca)
        assert await asks(url, ours, of_second)
        assert not await asks(url, ours, of_first)


async def test_plain_text_is_not_answered(tmp_path: Path) -> None:
    cert, key = write(tmp_path, trustme.CA())
    async with serving(HttpTls(cert, key)) as url, httpx.AsyncClient(trust_env=False) as client:
        with pytest.raises(httpx.TransportError):
            await client.get(url.replace("https", "http"))


def test_files_that_cannot_be_used_are_an_error_at_the_start(tmp_path: Path) -> None:
    cert, key = write(tmp_path, trustme.CA())
    cert.write_text("no certificate")
    with pytest.raises(ssl.SSLError):
        OpsServer("127.0.0.1:0", lambda: None, CollectorRegistry(), HttpTls(cert, key))
