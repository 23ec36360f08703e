"""Introspection: asking somebody else for each request, over HTTP (RFC 7662) and by our own Check."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import grpc

from bench.lab import Lab
from bench.measure import Spread, each, turns
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub

PROVIDER = "oidc-provider@9.13.3"


class NotInstalled(Exception):
    """There is no node, or the package cannot be installed; the text says which."""


def measure(lab: Lab, quick: bool) -> tuple[dict[str, Spread], str]:
    """Milliseconds a question, one at a time; and why the peer is missing, if it is."""
    seconds, rounds = (0.3, 3) if quick else (1.0, 7)
    service = lab.service(lab.store())
    missing = ""
    with grpc.insecure_channel(service.address) as channel:
        stub = RevocationServiceStub(channel)
        jobs = {"Check": each(lambda jti: stub.Check(_question(jti)), [secrets.token_hex(16)], seconds, waits=True)}
        try:
            jobs["introspection"] = each(_provider(lab), [None], seconds, waits=True)
        except NotInstalled as error:
            missing = str(error)
        for job in jobs.values():
            job()
        took = turns(rounds, jobs)
    return {name: Spread.of(value * 1e3 for value in values) for name, values in took.items()}, missing


def _question(jti: str) -> pb.CheckRequest:
    return pb.CheckRequest(realm="default", jti=jti, subject="user", sid="session", versioned=True)


def _provider(lab: Lab) -> Callable[[object], None]:
    folder = lab.folder / "peer"
    if not (folder / "node_modules").exists():
        install(folder)
    script = Path(__file__).with_name("introspect.js")
    process = subprocess.Popen(
        ["node", "--input-type=module", "-", str(folder)],
        stdin=script.open("rb"),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lab.ends_with(process)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise NotInstalled("node-oidc-provider does not start")
    told = json.loads(line)
    connection = http.client.HTTPConnection("127.0.0.1", told["port"], timeout=10)
    password = base64.b64encode(b"bench:bench-secret").decode()
    headers = {"Authorization": f"Basic {password}", "Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode({"token": told["token"]})

    def ask(_: object) -> None:
        connection.request("POST", "/token/introspection", body, headers)
        answer = json.loads(connection.getresponse().read())
        assert answer["active"] is True, answer

    ask(None)
    return ask


def install(folder: Path) -> None:
    """Installs the peer with npm, which must answer within a minute."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        raise NotInstalled("node and npm are not on the PATH")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}')
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", PROVIDER]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.SubprocessError, OSError) as error:
        raise NotInstalled(f"npm could not install {PROVIDER} ({type(error).__name__})") from None
