"""A real service and a real client, over real sockets: raw bytes to every method, on streams, and to the HTTP pages."""

from __future__ import annotations

import re
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from revocation_api.v1 import audit_pb2, session_pb2
from revocation_api.v1 import revocation_pb2 as pb
from tests.e2e.installation import Installation
from tests.fuzz.messages import a_message
from tests.fuzz.mutation import mutate
from tests.fuzz.streams import packed, unpacked
from tests.fuzz.target import Finding, Target, check_text

PATIENCE_S = 20.0
FILES = (pb.DESCRIPTOR, session_pb2.DESCRIPTOR)
METHODS: tuple[tuple[str, Any], ...] = tuple(
    (f"/{service.full_name}/{method.name}", GetMessageClass(method.input_type))
    for file in FILES
    for service in file.services_by_name.values()
    for method in service.methods
    if method.name != "Watch"
)
WAITS = frozenset(("/revocation.v1.RevocationService/AwaitApplied",))
"""Methods that wait on purpose; they get a moment only, and may answer that it was too short."""
MOMENT_S = 0.05
FOREIGN = ("/grpc.health.v1.Health/Check", "/revocation.v1.RevocationService/Nothing", "/x/y")
_BAD = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.DEADLINE_EXCEEDED}
_REQUEST_IDS = ("x", "a" * 64, "../../x", "a b", "%0a", "x" * 4000, "{}")


class _Live(Target):
    """A service of its own, with an embedded store."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self.installation = Installation(Path(self._folder.name))
        try:
            self.replica = self.installation.add_embedded(log_level="error", **self.flags())
        except BaseException:
            self.installation.close()
            raise
        self.channel = grpc.insecure_channel(self.replica.address, [("grpc.enable_http_proxy", 0)])

    def flags(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self.channel.close()
        log = self.replica.log()
        self.installation.close()
        self._folder.cleanup()
        if "call_failed" in log or "Traceback" in log:
            raise Finding(f"the service stumbled: {log[-2000:]}")

    def memory(self) -> int:
        """Bytes of the service in memory."""
        status = Path(f"/proc/{self.replica.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        return int(found[1]) * 1024 if found else 0


class Calls(_Live):
    """Every unary method, with anything in it: a typed status, soon, and no word about the insides."""

    name = "grpc"

    def seeds(self) -> Sequence[bytes]:
        rng = Random(11)
        good = [
            bytes([n]) + a_message(rng, kind).SerializeToString()
            for n, (_, kind) in enumerate(METHODS)
            for _ in range(3)
        ]
        return [*good, *(bytes([len(METHODS) + n]) + b"\xff\xff" for n in range(len(FOREIGN)))]

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        if rng.random() < 0.2:
            return mutate(rng, rng.choice(seeds), seeds)
        number = rng.randrange(len(METHODS))
        raw = a_message(rng, METHODS[number][1]).SerializeToString()
        return bytes([number]) + (mutate(rng, raw) if rng.random() < 0.2 else raw)

    def one(self, data: bytes) -> str:
        paths = [path for path, _ in METHODS] + list(FOREIGN)
        number = (data[0] if data else 0) % len(paths)
        given = (("x-request-id", _REQUEST_IDS[len(data) % len(_REQUEST_IDS)]),)
        try:
            method: Any = self.channel.unary_unary(paths[number])
            method(data[1:], timeout=MOMENT_S if paths[number] in WAITS else PATIENCE_S, metadata=given)
        except grpc.RpcError as error:
            if paths[number] in WAITS and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return "waited"
            return judge_status(error, data[1:])
        return "OK"


class Follows(_Live):
    """The audit stream, asked for with anything: records, or a typed status."""

    name = "grpc-audit"

    def seeds(self) -> Sequence[bytes]:
        rng = Random(13)
        return [b"\xff\xff", *(a_message(rng, audit_pb2.FollowRequest).SerializeToString() for _ in range(8))]

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        raw = a_message(rng, audit_pb2.FollowRequest).SerializeToString()
        return mutate(rng, raw, seeds) if rng.random() < 0.3 else raw

    def one(self, data: bytes) -> str:
        method: Any = self.channel.unary_stream("/revocation.v1.AuditService/Follow")
        call = method(data, timeout=MOMENT_S * 4)
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return "followed"
            return judge_status(error, data)
        finally:
            call.cancel()
        return "OK"


class Watches(_Live):
    """Streams of a hostile client: whatever it says, they end with a typed status, and the service goes on."""

    name = "grpc-watch"

    def seeds(self) -> Sequence[bytes]:
        hello = pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1))
        ping = pb.WatchRequest(ping=pb.Ping(nonce=1))
        return [
            packed(hello, ping, ping),
            packed(ping),
            packed(hello, hello),
            packed(hello, b"\xff\xff"),
            packed(b"\xff"),
            packed(hello),
        ]

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        messages = list(unpacked(rng.choice(seeds)))
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(messages))
            made = a_message(rng, pb.WatchRequest)
            if made.HasField("hello") and rng.random() < 0.7:
                made.hello.realm, made.hello.protocol = "default", 1
            raw = made.SerializeToString()
            messages[at : at + rng.randrange(2)] = [mutate(rng, raw) if rng.random() < 0.3 else raw]
        return packed(*messages)

    def one(self, data: bytes) -> str:
        method: Any = self.channel.stream_stream("/revocation.v1.RevocationService/Watch")
        call = method(unpacked(data), timeout=PATIENCE_S)
        try:
            for _ in call:
                pass
        except grpc.RpcError as error:
            return judge_status(error, data)
        finally:
            call.cancel()
        return "OK"


def judge_status(error: Any, data: bytes) -> str:
    """The name of the status. Raises Finding for one that no input may cause."""
    code: grpc.StatusCode = error.code()
    text = error.details() or ""
    if code in _BAD:
        raise Finding(f"{code.name}: {text[:300]}")
    check_text(text, data)
    return code.name


REQUESTS = (
    b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /readyz HTTP/1.0\r\n\r\n",
    b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text; version=x; escaping=values;q=x\r\n\r\n",
    b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"GET http://x/livez HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"GET /livez?" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%00%ff HTTP/1.1\r\nHost: x\r\nA: \xff\r\n\r\n",
)
WORDS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b"HTTP/1.1",
    b"HTTP/9.9",
    b"Content-Length: -1\r\n",
    b"Content-Length: 99\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: a\r\nHost: b\r\n",
    b"Accept: " + b"," * 500 + b"\r\n",
    b"A: " + b"b" * 5000 + b"\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"%00",
    b"\xff",
    b"Accept: */*;q=",
    b"version=",
    b"escaping=",
    b"/metrics",
    b"?name[]=",
    b"/",
    b"//",
    b"GET",
    b"Accept-Encoding: gzip\r\n",
    "é".encode(),
    b"Range: bytes=0-1\r\n",
)


class Pages(_Live):
    """The HTTP pages: an answer of HTTP below 500 but for 503, or the connection is closed."""

    name = "http"
    words = WORDS

    def seeds(self) -> Sequence[bytes]:
        return REQUESTS

    def one(self, data: bytes) -> str:
        with socket.create_connection(("127.0.0.1", self.replica.http_port), PATIENCE_S) as peer:
            said = b""
            try:
                peer.sendall(data)
                peer.shutdown(socket.SHUT_WR)
                while chunk := peer.recv(65_536):
                    said += chunk
            except ConnectionError:
                pass
            except TimeoutError:
                raise Finding("the connection stays open") from None
        for status in re.findall(rb"^HTTP/1\.1 (\d+)", said, re.MULTILINE):
            if status.startswith(b"5") and status != b"503":
                raise Finding(f"status {status.decode()}: {said[:300]!r}")
        if b"Traceback" in said or b".py" in said:
            raise Finding(f"the insides: {said[:300]!r}")
        return said[:12].decode("latin-1") or "closed"
