"""Protobuf and the follower's messages say the same."""

from __future__ import annotations

import contextlib
import uuid
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1 import session_pb2
from revocation_sdk import _wire
from revocation_sdk._judge import Facts
from revocation_sdk._messages import Changes, Goodbye, Hello, Mark, Ping, Progress, SnapshotChunk
from revocation_sdk._position import NOWHERE, Position, encode_positions
from revocation_sdk._requests import Requests, make_op_id
from revocation_sdk._session_requests import shown
from revocation_sdk._wire import MalformedMessage, positions_from, positions_to, watch_message, watch_request
from revocation_sdk.errors import InvalidRequest, TokenInvalid
from tests.sdk.peer import Peer

HERE = Position(b"L" * 16, 5, b"d" * 20)
THERE = Position(b"L" * 16, 6, b"e" * 20)
ONE, TWO = positions_to((HERE, THERE)).partitions

positions = st.one_of(
    st.just(NOWHERE),
    st.builds(
        Position, st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1), st.binary(min_size=20, max_size=20)
    ),
)


@given(st.lists(positions, max_size=4).map(tuple))
def test_positions_come_back_as_they_went(given_positions: tuple[Position, ...]) -> None:
    assert positions_from(positions_to(given_positions)) == given_positions


def test_what_the_follower_says_reaches_the_wire() -> None:
    hello = watch_request(Hello("r", (HERE,)), "sdk/1", "me").hello
    assert (hello.realm, hello.protocol, hello.sdk_version, hello.name) == ("r", 1, "sdk/1", "me")
    assert positions_from(hello.resume) == (HERE,)
    ping = watch_request(Ping(3, (HERE, NOWHERE))).ping
    assert (ping.nonce, positions_from(ping.applied)) == (3, (HERE, NOWHERE))


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (pb.WatchResponse(snapshot_chunk=pb.SnapshotChunk(partition=1, rows=b"x")), SnapshotChunk(1, b"x")),
        (
            pb.WatchResponse(changes=pb.Changes(partition=0, previous=ONE, position=TWO, records=[b"a", b"b"])),
            Changes(0, HERE, THERE, (b"a", b"b")),
        ),
        (
            pb.WatchResponse(mark=pb.Mark(partition=0, previous=ONE, position=TWO, rows=b"r")),
            Mark(0, HERE, THERE, b"r"),
        ),
        (
            pb.WatchResponse(progress=pb.Progress(nonce=9, positions=positions_to((HERE,)), store_ms=12)),
            Progress(9, (HERE,), 12),
        ),
        (
            pb.WatchResponse(goodbye=pb.Goodbye(reason="drain", reconnect_after_ms=20)),
            Goodbye("drain", 20),
        ),
    ],
)
def test_what_the_service_says_reaches_the_follower(response: pb.WatchResponse, message: Any) -> None:
    assert watch_message(response) == message


def welcome(**changes: Any) -> pb.WatchResponse:
    fields: dict[str, Any] = {
        "partitions": [pb.Welcome.Partition(intent=pb.Welcome.SNAPSHOT)],
        "settings": pb.RealmSettings(max_token_life_s=60, max_leeway_s=1, margin_s=1),
        "keys": [pb.RealmKey(tag=1, key=bytes(32))],
    }
    return pb.WatchResponse(welcome=pb.Welcome(**{**fields, **changes}))


@pytest.mark.parametrize(
    "response",
    [
        pb.WatchResponse(),
        welcome(partitions=[]),
        welcome(partitions=[pb.Welcome.Partition()]),
        welcome(keys=[]),
        welcome(keys=[pb.RealmKey(tag=1, key=b"short")]),
        welcome(settings=pb.RealmSettings()),
        pb.WatchResponse(changes=pb.Changes(previous=pb.Position(log_id=b"short"))),
        pb.WatchResponse(mark=pb.Mark(previous=pb.Position(digest=b"short"))),
    ],
)
def test_what_is_no_message_of_the_contract_is_refused(response: pb.WatchResponse) -> None:
    with pytest.raises(MalformedMessage):
        watch_message(response)


@given(st.binary(max_size=200))
def test_noise_is_a_message_or_refused(noise: bytes) -> None:
    """Whatever parses as protobuf is either understood or MalformedMessage."""
    try:
        response = pb.WatchResponse.FromString(noise)
    except Exception:
        return
    with contextlib.suppress(MalformedMessage):
        watch_message(response)


# Failures


def refusal(code: grpc.StatusCode, trailing: tuple[tuple[str, Any], ...]) -> grpc.RpcError:
    """A failed call with these trailing metadata."""
    answers = {"code": code, "details": "for people", "trailing_metadata": trailing}
    body = {name: lambda self, answer=answer: answer for name, answer in answers.items()}
    abstract = dict.fromkeys(grpc.Call.__abstractmethods__ | grpc.RpcContext.__abstractmethods__)
    made: grpc.RpcError = type("Refusal", (grpc.RpcError, grpc.Call), {**abstract, **body})()
    return made


def test_a_failure_that_the_service_did_not_explain_has_no_reason() -> None:
    failure = _wire.failure_of(refusal(grpc.StatusCode.UNAVAILABLE, ()))
    assert (failure.code, failure.reason, failure.name) == ("UNAVAILABLE", "", "unavailable")


def test_details_that_do_not_parse_are_none() -> None:
    failure = _wire.failure_of(refusal(grpc.StatusCode.ABORTED, (("grpc-status-details-bin", b"\xff\xff\xff"),)))
    assert failure.reason == ""


def test_an_error_that_is_no_call_is_unknown() -> None:
    assert _wire.failure_of(grpc.RpcError()).code == "UNKNOWN"


# Requests


def requests(issuer: str | None = None) -> Requests:
    return Requests("r", issuer, lambda: "op-new")


def test_an_op_id_is_a_uuid_of_version_7_with_its_time() -> None:
    made = make_op_id(1_700_000_000.5)
    parsed = uuid.UUID(made)
    assert str(parsed) == made
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == 1_700_000_000_500
    assert make_op_id(1.0) != make_op_id(1.0)


def test_the_constructors_issuer_stands_in_and_none_means_whichever() -> None:
    assert requests("https://id").revoke_session("s", None, None, "").request.session.issuer == "https://id"
    assert requests("https://id").revoke_session("s", "other", None, "").request.session.issuer == "other"
    assert not requests().revoke_session("s", None, None, "").request.session.HasField("issuer")


def test_a_thumbprint_has_no_issuer() -> None:
    key = requests("https://id").revoke_key(None, "t" * 43, None, None, "").request.key
    assert (key.thumbprint, key.HasField("issuer")) == ("t" * 43, False)
    assert requests("https://id").revoke_key("k1", None, None, None, "").request.key.issuer == "https://id"


def test_a_mutation_keeps_the_op_id_that_it_is_given() -> None:
    operation = requests().revoke_realm("op-old", "because")
    assert (operation.op_id, operation.request.op_id, operation.request.reason) == ("op-old", "op-old", "because")
    assert requests().revoke_realm(None, "").request.op_id == "op-new"


def test_an_expiry_is_rounded_up() -> None:
    assert requests().revoke_token(None, "j", None, 10.2, None, "").request.token.expires_at == 11


@pytest.mark.parametrize(
    "ask",
    [
        lambda: requests().revoke_token(None, None, None, None, None, ""),
        lambda: requests().revoke_token("a.b.c", "j", None, 1, None, ""),
        lambda: requests().revoke_token("a.b.c", None, "i", None, None, ""),
        lambda: requests().revoke_token(None, "j", None, None, None, ""),
        lambda: requests().revoke_token(None, "j", None, float("nan"), None, ""),
        lambda: requests().revoke_token(None, "j", None, 1e30, None, ""),
        lambda: requests().revoke_token(None, "j\ud800", None, 1, None, ""),
        lambda: requests().revoke_tokens([], None, None, ""),
        lambda: requests().revoke_tokens([("j", 1)] * 10_001, None, None, ""),
        lambda: requests().revoke_key(None, None, None, None, ""),
        lambda: requests().revoke_key("k", "t", None, None, ""),
        lambda: requests().revoke_key(None, "t", "i", None, ""),
        lambda: requests().revoke_subject(7, None, None, ""),  # type: ignore[arg-type]
        lambda: requests().check(Facts(), "not a position!"),
    ],
)
def test_what_would_not_survive_the_wire_is_refused_here(ask: Any) -> None:
    with pytest.raises(InvalidRequest):
        ask()


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "e30.e30.", "e30.W10.eA", "é.é.é"])
def test_what_is_no_token_cannot_be_revoked(token: str) -> None:
    with pytest.raises(TokenInvalid):
        requests().revoke_token(token, None, None, None, None, "")


def test_a_check_asks_for_everything_that_the_facts_name() -> None:
    facts = Facts(
        issuer="i", token_id="j", sid="s", subject="u", client_id="c", versions=(1, 2, 3), issued_at=1.5,
        kid="k", thumbprint="t", issuer_skew_s=0.25,
    )  # fmt: skip
    asked = requests().check(facts, encode_positions((HERE,))).request
    assert (asked.issuer, asked.jti, asked.sid, asked.subject, asked.client_id) == ("i", "j", "s", "u", "c")
    assert (list(asked.version), asked.versioned) == ([1, 2, 3], True)
    assert (asked.issued_at_ms, asked.issuer_skew_ms, asked.kid, asked.thumbprint) == (1500, 250, "k", "t")
    assert positions_from(asked.not_older_than) == (HERE,)
    foreign = requests().check(Facts(versions=None), None).request
    assert (foreign.versioned, foreign.HasField("issuer"), foreign.HasField("issued_at_ms")) == (False, False, False)


def test_display_data_is_cut_to_whole_characters() -> None:
    device = shown("ü" * 100, None, "x" * 300)
    assert device == session_pb2.Device(label="ü" * 64, user_agent="x" * 256)
    assert shown("\ud800", None, None).label == "?"


def test_the_peer_of_these_tests_starts() -> None:
    with Peer() as peer:
        assert peer.address.startswith("127.0.0.1:")
