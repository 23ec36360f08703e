"""I8 under floods: every limit has a defined outcome and a metric, and the memory stays flat.

Flat: two equal halves of a flood, and the second may not add what the first did. Both halves leave nothing behind that
must be kept, or as much of it as is said.
"""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import grpc
import pytest

from revocation.limits import HELLO_TIMEOUT_S, SNAPSHOTS_AT_ONCE
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub
from revocation_sdk._requests import make_op_id
from tests.e2e.installation import Installation
from tests.e2e.processes import LIMIT_S, Answering, until
from tests.e2e.rpc import Answer, a_revocation, answer_of, call, stub

pytestmark = pytest.mark.e2e

STREAMS = int(os.environ.get("REVOCATION_TEST_STREAMS", "300"))
"""`make herd` sets 5000."""

SLACK_KB = 6_144
"""What a heap may grow by without a reason: arenas, buffers of sockets."""


def grown(memory: list[int]) -> int:
    """By how much in the calmest round but the first: a leak grows in every one, buffers and an allocator in some."""
    return min(after - before for before, after in pairwise(memory[1:]))


def herd(installation: Installation, address: str, count: int, *, fresh: bool = False) -> Answering:
    name = f"herd-{len(installation.processes)}"
    process = Answering(
        name, ["-m", "tests.e2e.herd_process", address, str(count), str(int(fresh))], installation.folder
    )
    installation.processes.append(process)
    process.start()
    assert process.read()["ready"]
    return process


def fill(service: Any, entries: int) -> None:
    soon = int(time.time()) + 3_600
    for start in range(0, entries, 10_000):
        items = [
            pb.BatchRevokeTokensRequest.Item(jti=secrets.token_hex(8), expires_at=soon)
            for _ in range(min(10_000, entries - start))
        ]
        request = pb.BatchRevokeTokensRequest(realm="default", op_id=make_op_id(time.time()), items=items)
        answer = call(service.BatchRevokeTokens, request, timeout=60)
        assert answer.code == "OK", answer


def test_a_mass_reconnect_takes_no_snapshots_and_no_memory(installation: Installation) -> None:
    """All streams end and come back at the same moment, again and again; each resumes."""
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url, max_subscribers=STREAMS + 10)
    with stub(replica.address) as service:
        fill(service, 20_000)
        process = herd(installation, replica.address, STREAMS)
        first = process.ask(300, do="come")
        until(lambda: replica.metric("subscribers") == STREAMS, "all are there")
        snapshots = replica.metric("snapshots_total")
        rounds, memory = [], []
        for _ in range(4):
            assert call(service.Revoke, a_revocation()).code == "OK"
            rounds.append(process.ask(300, do="come"))
            memory.append(replica.memory_kb())
        print(f"\n{STREAMS} streams: first {first}, again {rounds}; resident kB {memory}")
        assert replica.metric("snapshots_total") == snapshots, "who was there before resumes"
        assert not replica.events("store_unreachable"), (
            "a stream that begins needs no connection to the store of its own"
        )
        assert memory[3] - memory[1] < SLACK_KB + 0.2 * (memory[1] - memory[0]) + 2 * STREAMS, memory
        verifier = installation.add_verifier("thread")
        verifier.wait_fresh()


def test_a_herd_of_newcomers_shares_snapshots_and_takes_no_memory(installation: Installation) -> None:
    """One snapshot is made for all of them, and freed afterwards."""
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url)
    with stub(replica.address) as service:
        fill(service, 120_000)
    process = herd(installation, replica.address, 160, fresh=True)
    memory = []
    for _ in range(4):
        came = process.ask(300, do="come")
        assert came["snapshot"] >= 160, came
        memory.append(replica.memory_kb())
    assert grown(memory) < SLACK_KB, memory
    until(lambda: replica.metric("snapshots_running") == 0, "no place is taken any more")


def test_those_who_do_not_read_their_snapshots_hold_the_places_for_a_while_only(installation: Installation) -> None:
    """Newcomers are told to come back; those who are stuck are cut off, and the newcomers get theirs."""
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url)
    with stub(replica.address) as service, ExitStack() as stack:
        fill(service, 120_000)
        # All is made ready before: the places are held for SNAPSHOT_PATIENCE_S.
        process = herd(installation, replica.address, 20, fresh=True)
        with ThreadPoolExecutor(SNAPSHOTS_AT_ONCE) as pool:
            streams = list(pool.map(lambda _: _stuck(stack, replica.address), range(SNAPSHOTS_AT_ONCE)))
        until(lambda: replica.metric("snapshots_running") == SNAPSHOTS_AT_ONCE, "all places are taken")
        came = process.ask(120, do="come")
        assert came["refused RESOURCE_EXHAUSTED"] >= 20, came
        assert came["snapshot"] >= 20, came
        assert replica.metric("limits_reached_total", limit="snapshots") >= 20
        half = len(streams) / 2
        until(lambda: replica.metric("queue_overflows_total") >= half, "the stuck ones are cut off")
        until(lambda: replica.metric("resyncs_total", reason="slow") >= half, "they are told why")


def _stuck(stack: ExitStack, address: str) -> Any:
    """A stream that wants a snapshot and reads nothing of it."""
    # No growth of the window: what the reader does not take, the service has to keep.
    options = [("grpc.http2.bdp_probe", 0), ("grpc.use_local_subchannel_pool", 1)]
    channel = stack.enter_context(grpc.insecure_channel(address, options))
    hello = pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1))
    done = threading.Event()
    stack.callback(done.set)

    def requests() -> Iterator[pb.WatchRequest]:
        yield hello
        done.wait(600)

    stream = RevocationServiceStub(channel).Watch(requests())
    assert next(stream).WhichOneof("kind") == "welcome"
    return stream


def test_more_streams_than_a_replica_takes_are_told_to_come_back(installation: Installation) -> None:
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url, max_subscribers=5)
    process = herd(installation, replica.address, 5)
    process.ask(do="come")
    client = installation.client()
    client.start()
    until(lambda: replica.metric("limits_reached_total", limit="streams") > 0, "the sixth is refused")
    assert replica.metric("subscribers") == 5
    assert client.state.value == "connecting"
    assert client.revoke_session("s").stored, "calls are not streams"
    process.kill()
    client.wait_until_fresh(LIMIT_S)


def test_a_flood_of_distinct_subjects_adds_its_entries_and_nothing_else(installation: Installation) -> None:
    """Revocations are state; questions about ever other subjects, tokens and clients leave nothing at all."""
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url)
    with stub(replica.address) as service:

        def half(revoke: bool) -> int:
            def ask(_: int) -> Answer:
                name = secrets.token_hex(16)
                if revoke:
                    return call(service.Revoke, a_revocation(subject=pb.SubjectTarget(subject=name)), timeout=30)
                call(service.GetVersion, pb.GetVersionRequest(realm="default", subject=name, client_id=name), 30)
                request = pb.CheckRequest(realm="default", jti=name, sid=name, subject=name, client_id=name, kid=name)
                return call(service.Check, request, timeout=30)

            with ThreadPoolExecutor(16) as pool:
                assert {answer.code for answer in pool.map(ask, range(2_500))} == {"OK"}
            return replica.memory_kb()

        asked = [half(revoke=False), half(revoke=False)]
        assert asked[1] - asked[0] < SLACK_KB, asked
        revoked = [half(revoke=True), half(revoke=True)]
        # 28 bytes a row in the view and in the ring of recent changes, and the record of its operation.
        assert revoked[1] - revoked[0] < SLACK_KB + 2_500, revoked


def test_a_log_that_is_full_refuses_and_goes_on_when_it_was_trimmed(installation: Installation) -> None:
    """A member that reads nothing keeps the log; at the cap commits are refused, and when it is gone they go on."""
    store = installation.store(aof=False)
    replicas = installation.add_replicas(2, store.url, log_max_entries=1_000, detect_s=300, strike_after_s=300)
    with stub(replicas[0].address) as service:
        replicas[1].stop()

        def flooded() -> bool:
            answer = call(service.Revoke, a_revocation(), timeout=10)
            assert answer.code in {"OK", "RESOURCE_EXHAUSTED"}, answer
            return answer.code == "RESOURCE_EXHAUSTED"

        until(flooded, "the log is full", 120)
        assert 1_000 <= int(store.call("XLEN", "revocation:{p0}:log")) < 1_200
        answer = call(service.Revoke, a_revocation(), timeout=10)
        assert answer.reason == "OVERLOADED"
        assert replicas[0].metric("limits_reached_total", limit="log") > 0
        (line,) = replicas[0].events("commits_refused")
        assert "--log-max-entries" in line["hint"]
        replicas[1].resume()
        until(lambda: call(service.Revoke, a_revocation()).code == "OK", "it has read on, and the log was trimmed")
        assert not replicas[1].events("log_diverged"), "it did not have to load again"


def test_a_stream_without_a_hello_is_ended_and_told_to_come_back(installation: Installation) -> None:
    """It is no question of rights: a service that is too busy to hear it in time says the same."""
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url)
    with stub(replica.address) as service:
        done = threading.Event()
        with pytest.raises(grpc.RpcError) as ended:
            next(service.Watch(iter(done.wait, True), timeout=HELLO_TIMEOUT_S * 4))
        done.set()
        answer = answer_of(ended.value)
        assert (answer.code, answer.reason) == ("UNAVAILABLE", "NOT_READY")
    refused = {"method": "Watch", "code": "UNAVAILABLE"}
    until(lambda: replica.metric("rpc_requests_total", **refused) == 1, "it is counted")  # behind the answer


def test_a_message_that_is_too_large_is_refused_before_it_is_read(installation: Installation) -> None:
    (replica,) = installation.add_replicas(1, installation.store(aof=False).url)
    with stub(replica.address) as service:
        memory = []
        for _ in range(5):  # the first warms up
            for _ in range(20):
                answer = call(service.Revoke, a_revocation(reason="x" * (5 << 20)), timeout=30)
                assert answer.code == "RESOURCE_EXHAUSTED", answer
            memory.append(replica.memory_kb())
        assert grown(memory) < SLACK_KB, memory
        assert call(service.Revoke, a_revocation()).code == "OK"
