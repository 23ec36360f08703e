"""The client's side of knowing that a revocation landed: polls, who one is, and waiting that changes no outcome."""

from __future__ import annotations

import os

import grpc
import pytest

from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk import AsyncRevocationClient, InvalidRequest, RevocationClient, Verifier
from tests.sdk.peer import Peer, PeerStream, fail

LIMIT_S = 20.0
SLOW_PING_S = 5.0


def following(peer: Peer, **options: float) -> RevocationClient:
    return RevocationClient(peer.address, ping_interval=SLOW_PING_S, **options)  # type: ignore[arg-type]


def test_a_poll_is_answered_at_once_and_not_more_often_than_it_may() -> None:
    with Peer() as peer, following(peer) as client:
        stream = peer.next_stream()
        client.wait_until_fresh(LIMIT_S)
        first: pb.Ping = stream.pings.get(timeout=LIMIT_S)
        peer.commit(b"")
        for _ in range(100):
            stream.say(poll=pb.Poll())
        assert stream.pings.get(timeout=LIMIT_S).nonce == first.nonce + 1  # long before the next regular one
        client.wait_until_fresh(LIMIT_S)
        assert stream.pings.qsize() < 90


def test_a_poll_says_nothing_about_the_view() -> None:
    with Peer() as peer, following(peer) as client:
        stream = peer.next_stream()
        client.wait_until_fresh(LIMIT_S)
        lease = client.follower.lease
        peer.mute = True
        stream.say(poll=pb.Poll())
        stream.pings.get(timeout=LIMIT_S)
        stream.pings.get(timeout=LIMIT_S)
        assert client.follower.lease is lease


def hello(stream: PeerStream) -> pb.Hello:
    return stream.hello


def test_a_follower_is_the_same_on_all_its_streams() -> None:
    with Peer() as peer, following(peer) as client, following(peer) as other:
        one, two = hello(peer.next_stream()), hello(peer.next_stream())
        assert len(one.instance) == len(two.instance) == 16
        assert one.instance != two.instance
        client.wait_until_fresh(LIMIT_S)
        other.wait_until_fresh(LIMIT_S)
        for stream in list(peer.live):
            stream._end()
        assert {hello(peer.next_stream()).instance for _ in range(2)} == {one.instance, two.instance}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing to fork")
def test_a_forked_child_is_somebody_else() -> None:
    client = RevocationClient("127.0.0.1:1")
    before = client._core.following._worker.instance
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, client._core.following._worker.instance)
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reading, 64)
    assert len(told) == 16
    assert told != before
    assert client._core.following._worker.instance == before
    client.close()


def test_the_largest_max_staleness_of_all_who_judge_is_told() -> None:
    with Peer() as peer, following(peer, max_staleness=11.0) as client:
        stream = peer.next_stream()
        assert stream.hello.max_staleness_ms == 11_000
        assert stream.pings.get(timeout=LIMIT_S).max_staleness_ms == 11_000
        for max_staleness in (40.0, 20.0):
            Verifier(client, key=b"k" * 32, algorithms=["HS256"], issuer="i", audience="a", max_staleness=max_staleness)
        client.wait_until_fresh(LIMIT_S)
        stream.say(poll=pb.Poll())
        assert stream.pings.get(timeout=LIMIT_S).max_staleness_ms == 40_000


def test_waiting_tells_what_came_of_it() -> None:
    with Peer() as peer, following(peer) as client:
        landed = client.revoke_subject("alice", wait_for="all").landed
        assert landed is not None
        assert (landed.complete, landed.applied, landed.live) == (False, 2, 3)
        (laggard,) = landed.laggards
        assert (laggard.name, laggard.replica, laggard.answered_s_ago) == ("slow", "r1", None)
        some = client.revoke_subject("alice", wait_for=2).landed
        assert some is not None
        assert some.complete
        assert client.revoke_subject("alice").landed is None


async def test_waiting_works_in_an_event_loop() -> None:
    with Peer() as peer:
        client = AsyncRevocationClient(peer.address)
        receipt = await client.revoke_subject("alice", wait_for=2)
        assert receipt.landed is not None
        assert receipt.landed.complete
        assert (await client.await_applied(receipt.position)).live == 3
        assert (await client.subscribers()).total == 0
        await client.close()


def test_a_wait_that_fails_leaves_the_revocation_committed() -> None:
    """And it is no outcome unknown: a service that is older, or gone meanwhile, is told of in `landed`."""
    with Peer() as peer, following(peer) as client:
        peer.answers["AwaitApplied"].append(lambda _, context: fail(context, grpc.StatusCode.UNIMPLEMENTED))
        receipt = client.revoke_subject("alice", wait_for="all")
        assert receipt.stored
        assert receipt.landed is not None
        assert (receipt.landed.complete, receipt.landed.failure) == (False, "unimplemented")


@pytest.mark.parametrize(("wait_for", "wait_timeout"), [(0, 1), (-1, 1), (True, 1), ("any", 1), ("all", 0), (1, 1e9)])
def test_what_cannot_be_waited_for_is_refused_before_anything_is_committed(
    wait_for: object, wait_timeout: float
) -> None:
    with Peer() as peer, following(peer) as client:
        with pytest.raises(InvalidRequest):
            client.revoke_subject("alice", wait_for=wait_for, wait_timeout=wait_timeout)  # type: ignore[arg-type]
        assert not peer.records
