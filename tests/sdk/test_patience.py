"""How long a follower stays where it gets no proof, and how it comes back: alone it is quick, thousands are no herd."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk import RevocationClient
from revocation_sdk import _worker as worker_module
from revocation_sdk._clock import Clock
from revocation_sdk._follower import Follower, Lease
from revocation_sdk._stream import Patience
from revocation_sdk._view import View
from revocation_sdk._worker import Worker
from tests.sdk.peer import Peer, PeerStream

LIMIT_S = 30.0
LUCK = st.floats(0, 1, exclude_max=True)


@given(limit_s=st.floats(3, 90), tries=st.integers(0, 100), luck=LUCK)
def test_silence_is_borne_for_little_more_than_the_limit(limit_s: float, tries: int, luck: float) -> None:
    """However often it was tried: a dead connection must not hold anybody up."""
    patience = Patience(limit_s, tries, luck)
    assert not patience.silent(limit_s)
    assert patience.silent(limit_s * 1.26)


@given(tries=st.integers(0, 100), luck=LUCK)
def test_a_service_without_proof_is_left_in_time_and_later_each_time(tries: int, luck: float) -> None:
    """At first before a verifier with the default settings (a ping each 2 s, 15 s) turns stale."""
    limit_s = 6.0
    first = Patience(limit_s, 0, luck)
    assert not first.unproven(limit_s)
    assert first.unproven(2.001 * limit_s)
    assert Patience(limit_s, tries, luck).unproven(60.1)
    assert not Patience(limit_s, tries + 1, luck).unproven(2 * limit_s * (1 + luck))


def test_those_who_are_left_alone_at_the_same_moment_do_not_leave_at_the_same_moment() -> None:
    fleet = [Patience(6.0, 0, number / 1_000) for number in range(1_000)]
    assert 400 < sum(patience.silent(6.75) for patience in fleet) < 600
    assert 400 < sum(patience.unproven(9.0) for patience in fleet) < 600


class Nap(threading.Event):
    """Notes for how long somebody would have slept."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.taken: list[float] = []
        self._most = most

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.taken.append(timeout)
        return len(self.taken) >= self._most

    def is_set(self) -> bool:
        return len(self.taken) >= self._most


class Lonely(Worker):
    """Its streams last for 6.5 s each, and one of them makes it fresh."""

    def __init__(self, fresh_at: int, most: int) -> None:
        self.now = 0.0
        clock = Clock(lambda: self.now, lambda: self.now)
        nobody: Any = None
        super().__init__(Follower("default", View()), nobody, nobody, clock, 2.0, lambda: None)
        self.nap = self._stop = Nap(most)
        self._fresh_at = fresh_at
        self.streams = 0

    def _follow_once(self, name: str) -> float:
        self.now += 6.5
        if self.streams == self._fresh_at:
            stream: Any = type("Stream", (), {"seal": None, "pinged": 0.0, "leave_at": None})()
            self._take(stream, pb.WatchResponse(goodbye=pb.Goodbye()))
        self.streams += 1
        return 0.0


def test_only_a_stream_that_made_somebody_fresh_ends_the_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that lasted, and brought nothing, is no reason for all to come back at once."""
    monkeypatch.setattr(random, "random", lambda: 1.0)
    worker = Lonely(fresh_at=6, most=9)

    def receive(*_: object) -> None:
        worker._follower.lease = Lease(0.0, 0.0, 0.0, 0, ())

    monkeypatch.setattr(worker._follower, "receive", receive)
    worker._read("test")
    assert worker.nap.taken == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 0.1, 0.2, 0.4])


@pytest.fixture
def dumb() -> Iterator[Peer]:
    """A peer that answers no ping, and says all the time that it is there."""
    over = threading.Event()

    def reassure(stream: PeerStream) -> None:
        peer.welcome(stream)

        def speak() -> None:
            while not (stream.over.is_set() or over.wait(0.05)):
                stream.say(poll=pb.Poll())

        threading.Thread(target=speak, daemon=True).start()

    with Peer() as peer:
        peer.mute = True
        peer.on_stream = reassure
        yield peer
        over.set()


def test_a_service_that_only_says_that_it_is_there_is_left_for_another(
    dumb: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the only one that cannot reach the store."""
    monkeypatch.setattr(worker_module, "_MIN_SILENCE_S", 0.3)
    with Peer() as good, RevocationClient(f"{dumb.address},{good.address}", ping_interval=0.1) as client:
        client.wait_until_fresh(LIMIT_S)
        assert client.status().replica == "peer"


def test_a_service_that_says_that_it_is_there_is_not_silent(dumb: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "_MIN_SILENCE_S", 0.3)
    with RevocationClient(dumb.address, ping_interval=0.1) as client:
        for _ in range(3):
            assert dumb.next_stream().over.wait(LIMIT_S)
        assert client._core.following.why_stale()[0] == "not_vouched"
