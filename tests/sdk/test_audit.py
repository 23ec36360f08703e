"""The reader of the audit, against services that stop in the middle."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from revocation_api.v1 import audit_pb2 as pb
from revocation_api.v1.audit_pb2_grpc import AuditServiceServicer, add_AuditServiceServicer_to_server
from revocation_sdk import RevocationClient, Unavailable
from revocation_sdk._channel import Endpoint
from revocation_sdk.audit import read, verify
from revocation_sdk.errors import ServiceError

Answers = Callable[[Any], Iterator[pb.FollowResponse]]
START = pb.FollowResponse(start=pb.AuditStart(partitions=[pb.AuditStart.Partition()]))
HEADS = pb.FollowResponse(heads=pb.AuditHeads(heads=[pb.AuditPosition()]))


class Service(AuditServiceServicer):
    """Answers what a test says."""

    def __init__(self) -> None:
        self.answers: Answers = lambda context: iter(())

    def Follow(self, request: pb.FollowRequest, context: Any) -> Iterator[pb.FollowResponse]:
        return self.answers(context)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def client(service: Service) -> Iterator[RevocationClient]:
    server = grpc.server(futures.ThreadPoolExecutor(4))
    add_AuditServiceServicer_to_server(service, server)
    client = RevocationClient(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    yield client
    client.close()
    server.stop(0)


def test_an_empty_audit(service: Service, client: RevocationClient) -> None:
    service.answers = lambda context: iter((START, HEADS))
    report = verify(client)
    assert (report.entries, report.failed()) == (0, False)
    assert list(read(client)) == []


@pytest.mark.parametrize("answers", [(), (START,), (HEADS,), (pb.FollowResponse(start=pb.AuditStart()), HEADS)])
def test_a_stream_that_ends_early_proves_nothing(
    service: Service, client: RevocationClient, answers: tuple[pb.FollowResponse, ...]
) -> None:
    service.answers = lambda context: iter(answers)
    for reader in (verify, lambda client: list(read(client))):
        with pytest.raises(Unavailable) as caught:
            reader(client)
        assert caught.value.reason == "stream_ended"


def test_an_entry_of_a_partition_that_was_not_announced(service: Service, client: RevocationClient) -> None:
    service.answers = lambda context: iter((START, pb.FollowResponse(entry=pb.AuditEntry(partition=7))))
    with pytest.raises(ServiceError) as caught:
        verify(client)
    assert caught.value.reason == "malformed_answer"


def test_a_service_that_does_not_begin_is_waited_for_so_long(service: Service, client: RevocationClient) -> None:
    def silent(context: Any) -> Iterator[pb.FollowResponse]:
        while context.is_active():
            time.sleep(0.01)
        return iter(())

    service.answers = silent
    with pytest.raises(Unavailable) as caught:
        list(read(client, timeout=2))
    assert caught.value.reason == "deadline_exceeded"


def test_what_comes_after_the_first_answer_may_take_its_time(service: Service, client: RevocationClient) -> None:
    def slow(context: Any) -> Iterator[pb.FollowResponse]:
        yield START
        time.sleep(2.5)
        yield HEADS

    service.answers = slow
    assert list(read(client, timeout=2)) == []


def test_a_client_that_is_closed_while_a_stream_begins(
    service: Service, client: RevocationClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What grpc says of a channel that was closed just now is none of our errors."""

    def closed(endpoint: Endpoint, timeout: float) -> Any:
        client.close()
        raise ValueError("Cannot invoke RPC on closed channel!")

    monkeypatch.setattr(Endpoint, "probe", closed)
    with pytest.raises(Unavailable) as caught:
        list(read(client))
    assert caught.value.reason == "closed"
