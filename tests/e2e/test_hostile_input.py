"""What fuzzing found in a running service, each by name, and shapes of input that are too large for a campaign."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from revocation_api.v1 import revocation_pb2 as pb
from tests.e2e.installation import Installation, Replica
from tests.e2e.rpc import answer_of, call
from tests.fuzz.live import METHODS

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def replica(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replica]:
    with Installation(tmp_path_factory.mktemp("hostile")) as installation:
        yield installation.add_embedded()


@pytest.fixture
def channel(replica: Replica) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(replica.address) as made:
        yield made


def raw(channel: grpc.Channel, path: str, data: bytes, **more: Any) -> Any:
    method: Any = channel.unary_unary(path)
    return call(lambda request, timeout: method(request, timeout=timeout, **more), data)


@pytest.mark.parametrize("path", [path for path, _ in METHODS])
def test_bytes_that_are_no_protobuf_are_bad_input(channel: grpc.Channel, path: str) -> None:
    """gRPC itself answered UNKNOWN, with the text of the exception."""
    answer = raw(channel, path, b"\xff\xff\xff")
    assert (answer.code, answer.reason, answer.field) == ("INVALID_ARGUMENT", "INVALID_FIELD", "request")
    assert "Error" not in answer.message


def test_health_and_reflection_bear_them_too(channel: grpc.Channel) -> None:
    assert raw(channel, "/grpc.health.v1.Health/Check", b"\xff").code == "OK"
    reflection: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    assert len(list(reflection(iter([b"\xff"]), timeout=20))) == 1
    assert raw(channel, "/grpc.health.v1.Health/Nothing", b"").code == "UNIMPLEMENTED"


def test_a_stream_that_breaks_the_protocol_at_once_ends_at_once(channel: grpc.Channel) -> None:
    """About one in two hundred stayed open: its status was refused by gRPC while the first write was given up."""
    watch: Any = channel.stream_stream("/revocation.v1.RevocationService/Watch")
    hello = pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1)).SerializeToString()
    for breach in (hello, b"\xff\xff", b""):
        for _ in range(250):
            with pytest.raises(grpc.RpcError) as ended:
                list(watch(iter([hello, breach]), timeout=60))
            assert answer_of(ended.value).code == "INVALID_ARGUMENT"


def test_a_megabyte_of_metadata_is_refused_and_nobody_else_notices(replica: Replica, channel: grpc.Channel) -> None:
    good = pb.GetStatusRequest(realm="default").SerializeToString()
    path = "/revocation.v1.RevocationService/GetStatus"
    options = [("grpc.max_metadata_size", 4_000_000), ("grpc.absolute_max_metadata_size", 4_000_000)]
    with grpc.insecure_channel(replica.address, options) as large:
        answer = raw(large, path, good, metadata=(("authorization", "Bearer " + "A" * 1_000_000),))
    assert answer.code in ("RESOURCE_EXHAUSTED", "UNAVAILABLE")
    assert "A" * 50 not in answer.message
    assert raw(channel, path, good).code == "OK"


def test_a_request_above_the_limit_is_refused_by_its_size(channel: grpc.Channel) -> None:
    answer = raw(channel, "/revocation.v1.RevocationService/Revoke", b"\0" * 5_000_000)
    assert answer.code == "RESOURCE_EXHAUSTED"


def ask(replica: Replica, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", replica.http_port), 20) as peer:
        said = b""
        try:
            peer.sendall(data)
            while chunk := peer.recv(65_536):
                said += chunk
        except ConnectionError:  # it need not read all of it
            pass
    return said


CLOSE = b"Connection: close\r\n\r\n"


@pytest.mark.parametrize("accept", [
    b"application/openmetrics-text; version=x; escaping=values;q=x", b"application/openmetrics-text;version=1.0.0",
    b"text/plain;version=9.9;escaping=\xff", b"," * 3000, b"*/*;q=", b"application/openmetrics-text;version=1.0.0\x0b",
])  # fmt: skip
def test_metrics_whatever_form_is_wanted(replica: Replica, accept: bytes) -> None:
    """The content type was made of the header, and could not be sent: 500."""
    said = ask(replica, b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: " + accept + b"\r\n" + CLOSE)
    assert said.startswith((b"HTTP/1.1 200", b"HTTP/1.1 400"))
    assert b"escaping=values" not in said.partition(b"\r\n\r\n")[0]


def test_no_page_repeats_the_host_that_was_asked_for(replica: Replica) -> None:
    """A slash at the end was redirected to the Host header's address."""
    said = ask(replica, b"GET /livez/ HTTP/1.1\r\nHost: evil.example\r\n" + CLOSE)
    assert said.startswith(b"HTTP/1.1 404")
    assert b"evil" not in said


def test_a_megabyte_of_headers_is_refused_early(replica: Replica) -> None:
    said = ask(replica, b"GET /livez HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 1_000_000 + b"\r\n" + CLOSE)
    assert said.startswith(b"HTTP/1.1 400") or said == b""
    replica.wait_ready()


def test_requests_that_go_on_wrongly_leave_no_traceback(replica: Replica) -> None:
    for _ in range(20):
        ask(replica, b"GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\naGARBAGE\0\0\r\n\r\n")
    replica.wait_ready()
    assert "Traceback" not in replica.log()
