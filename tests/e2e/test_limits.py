"""I8 and the contract at its edges: bad input, slow readers, tokens that have expired."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub
from revocation_sdk import RevocationClient
from revocation_sdk._requests import make_op_id
from tests.e2e.installation import PATIENT_S, Installation
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.rpc import a_revocation, answer_of, call, stub

pytestmark = pytest.mark.e2e

SOON = int(time.time()) + 600
"""Some time after the start of the whole run: for requests that are refused, however late it is for them."""
LONG = "x" * 257


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("limits")) as made:
        made.add_replicas(1, made.store(aof=False).url)
        made.add_verifier("thread", max_staleness=PATIENT_S)
        yield made


@pytest.fixture(scope="module")
def service(installed: Installation) -> Iterator[Any]:
    with stub(installed.replicas[0].address) as made:
        yield made


@pytest.fixture(scope="module")
def client(installed: Installation) -> RevocationClient:
    client = installed.client()
    client.wait_until_fresh(30)
    return client


def token(**changes: Any) -> pb.TokenTarget:
    return pb.TokenTarget(**{"jti": "a", "expires_at": SOON, **changes})


BAD: dict[str, tuple[dict[str, Any], str, str]] = {
    "no target": ({"session": None}, "target", "INVALID_FIELD"),
    "token without jti": ({"token": token(jti="")}, "token.jti", "INVALID_FIELD"),
    "token with a long jti": ({"token": token(jti=LONG)}, "token.jti", "INVALID_FIELD"),
    "long in bytes, not in characters": ({"token": token(jti="é" * 129)}, "token.jti", "INVALID_FIELD"),
    "long issuer": ({"token": token(issuer="x" * 513)}, "token.issuer", "INVALID_FIELD"),
    "token without expiry": ({"token": token(expires_at=0)}, "token.expires_at", "INVALID_FIELD"),
    "token with a negative expiry": ({"token": token(expires_at=-5)}, "token.expires_at", "INVALID_FIELD"),
    "token with an absurd expiry": ({"token": token(expires_at=1 << 40)}, "token.expires_at", "INVALID_FIELD"),
    "token beyond the horizon": ({"token": token(expires_at=SOON + 200_000)}, "token.expires_at", "BEYOND_HORIZON"),
    "session without sid": ({"session": pb.SessionTarget()}, "session.sid", "INVALID_FIELD"),
    "session with a long sid": ({"session": pb.SessionTarget(sid=LONG)}, "session.sid", "INVALID_FIELD"),
    "subject without value": ({"subject": pb.SubjectTarget()}, "subject.subject", "INVALID_FIELD"),
    "client without value": ({"client": pb.ClientTarget()}, "client.client_id", "INVALID_FIELD"),
    "key without name": ({"key": pb.KeyTarget()}, "key.kid", "INVALID_FIELD"),
    "key with a short thumbprint": ({"key": pb.KeyTarget(thumbprint="abc")}, "key.thumbprint", "INVALID_FIELD"),
    "thumbprint with an issuer": (
        {"key": pb.KeyTarget(thumbprint="a" * 43, issuer="i")}, "key.issuer", "INVALID_FIELD",
    ),
    "long reason": ({"reason": LONG}, "reason", "INVALID_FIELD"),
    "no op id": ({"op_id": ""}, "op_id", "INVALID_FIELD"),
    "op id of version 4": ({"op_id": "8c1f4b1e-9d0a-4c57-8b0e-2f6c7c0f1a2b"}, "op_id", "INVALID_FIELD"),
    "op id without hyphens": ({"op_id": make_op_id(time.time()).replace("-", "")}, "op_id", "INVALID_FIELD"),
    "op id from the future": ({"op_id": make_op_id(time.time() + 86_400)}, "op_id", "OP_ID_EXPIRED"),
    "old op id": ({"op_id": make_op_id(time.time() - 700)}, "op_id", "OP_ID_EXPIRED"),
    "unknown realm": ({"realm": "nowhere"}, "", "PERMISSION_DENIED"),
    "unknown ack level": ({"min_ack": 9}, "min_ack", "INVALID_FIELD"),
}  # fmt: skip
_CODES = {"OP_ID_EXPIRED": "FAILED_PRECONDITION", "PERMISSION_DENIED": "PERMISSION_DENIED"}


def state(service: Any) -> tuple[Any, int]:
    status = service.GetStatus(pb.GetStatusRequest(realm="default"))
    return [partition.position.SerializeToString() for partition in status.partitions], status.entries


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_by_field_and_reason_and_changes_nothing(service: Any, what: str) -> None:
    changes, field, reason = BAD[what]
    before = state(service)
    request = a_revocation(**changes)
    if "session" in changes and changes["session"] is None:
        request.ClearField("session")
    answer = call(service.Revoke, request)
    assert (answer.code, answer.reason, answer.field) == (_CODES.get(reason, "INVALID_ARGUMENT"), reason, field)
    assert LONG not in answer.message
    assert state(service) == before


@pytest.mark.parametrize(
    ("items", "field", "reason"),
    [
        ([], "items", "INVALID_FIELD"),
        ([("a", SOON)] * 10_001, "items", "INVALID_FIELD"),
        ([("a", SOON)] * 9_999 + [("", SOON)], "items[9999].jti", "INVALID_FIELD"),
        ([("a", SOON), ("b", SOON + 200_000)], "items[1].expires_at", "BEYOND_HORIZON"),
        ([("a", SOON), ("b", 0)], "items[1].expires_at", "INVALID_FIELD"),
        ([("a", SOON + 200_000)], "items[0].expires_at", "BEYOND_HORIZON"),
    ],
)
def test_a_batch_with_one_bad_item_is_refused_whole(
    service: Any, items: list[tuple[str, int]], field: str, reason: str
) -> None:
    before = state(service)
    request = pb.BatchRevokeTokensRequest(
        realm="default", op_id=make_op_id(time.time()),
        items=[pb.BatchRevokeTokensRequest.Item(jti=jti, expires_at=end) for jti, end in items],
    )  # fmt: skip
    answer = call(service.BatchRevokeTokens, request)
    assert (answer.code, answer.reason, answer.field) == ("INVALID_ARGUMENT", reason, field)
    assert state(service) == before


def test_an_op_id_with_another_content_is_an_error(service: Any) -> None:
    first = a_revocation(subject=pb.SubjectTarget(subject="one"))
    done = call(service.Revoke, first)
    assert done.code == "OK"
    before = state(service)
    answer = call(service.Revoke, a_revocation(op_id=first.op_id, subject=pb.SubjectTarget(subject="two")))
    assert (answer.code, answer.reason, answer.field) == ("INVALID_ARGUMENT", "OP_ID_REUSED", "op_id")
    again = call(service.Revoke, first)
    assert again.response.cutoff == done.response.cutoff
    assert again.response.position == done.response.position
    assert state(service) == before


def test_a_token_that_has_expired_is_a_success_that_stores_nothing(service: Any, client: RevocationClient) -> None:
    before = state(service)
    receipt = client.revoke_token(jti="long-gone", expires_at=time.time() - 600)
    assert not receipt.stored
    assert state(service) == before
    # Still within leeway and margin some verifier may accept it.
    assert client.revoke_token(jti="just-gone", expires_at=time.time() - 30).stored
    mixed = client.revoke_tokens([("long-gone", time.time() - 600), ("alive", time.time() + 60)])
    assert mixed.stored


def test_a_question_with_bad_input_is_refused_by_field(service: Any) -> None:
    for request, field in (
        (pb.CheckRequest(realm="default"), "jti"),
        (pb.CheckRequest(realm="default", jti="a", sid=LONG), "sid"),
        (pb.CheckRequest(realm="default", jti="a", version=[1, 2, 3, 4], versioned=True), "version"),
        (pb.CheckRequest(realm="default", jti="a", thumbprint=LONG), "thumbprint"),
    ):
        answer = call(service.Check, request)
        assert (answer.code, answer.field) == ("INVALID_ARGUMENT", field), request


def test_garbage_on_a_stream_ends_it_and_nothing_else(installed: Installation, service: Any) -> None:
    hello = pb.Hello(realm="default", protocol=1)
    absurd = pb.Positions(partitions=[pb.Position(log_id=b"x", seq=1 << 60, digest=b"y")] * 300)
    for messages, code in (
        ([], "PERMISSION_DENIED"),
        ([pb.WatchRequest(ping=pb.Ping(nonce=1))], "PERMISSION_DENIED"),
        ([pb.WatchRequest(hello=pb.Hello(realm="default", protocol=99))], "INVALID_ARGUMENT"),
        ([pb.WatchRequest(hello=hello), pb.WatchRequest(hello=hello)], "INVALID_ARGUMENT"),
        ([pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1, name=LONG))], "INVALID_ARGUMENT"),
        ([pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1, resume=absurd))], "UNAVAILABLE"),
        ([pb.WatchRequest(hello=pb.Hello(realm="nowhere", protocol=1))], "PERMISSION_DENIED"),
    ):
        with pytest.raises(grpc.RpcError) as ended:
            for _ in service.Watch(iter(messages), timeout=LIMIT_S):
                pass
        assert answer_of(ended.value).code == code, (messages, answer_of(ended.value))
    installed.accepted_everywhere(installed.signer.sign())


def test_a_subscriber_that_does_not_read_is_cut_off_and_nobody_else_notices(
    installed: Installation, client: RevocationClient
) -> None:
    (replica,) = installed.replicas
    (verifier,) = installed.verifiers
    probe = installed.signer.sign()
    verifier.wait_fresh()
    verifier.ask(do="sample", tokens={"probe": probe})
    unknown = verifier.ask(do="state")["unknown"]
    # No growth of the window: what the reader does not take, the service has to keep.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    done = threading.Event()
    with grpc.insecure_channel(replica.address, options) as channel:
        stream = RevocationServiceStub(channel).Watch(_hello_and_wait("slow", done))
        assert next(stream).WhichOneof("kind") == "welcome"
        for _ in range(100):
            soon = time.time() + 600
            client.revoke_tokens([(secrets.token_hex(8), soon) for _ in range(10_000)], timeout=LIMIT_S)
            if replica.metric("queue_overflows_total"):
                break
        assert replica.metric("queue_overflows_total") == 1
        until(lambda: replica.metric("subscribers") == 2, "only the client and the verifier are left")
        with pytest.raises(grpc.RpcError) as ended:
            for _ in stream:
                pass
        done.set()
        answer = answer_of(ended.value)
        assert (answer.code, answer.reason) == ("ABORTED", "RESYNC")
    assert verifier.ask(do="state")["unknown"] == unknown
    client.revoke_token(probe)
    installed.refused_everywhere([probe])


def _hello_and_wait(name: str, done: threading.Event) -> Iterator[pb.WatchRequest]:
    yield pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1, name=name))
    done.wait(600)
