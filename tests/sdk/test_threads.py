"""Threads that cannot be had at first, as where a limit of the system is reached for a moment."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pytest

from revocation_sdk import NotFresh, RevocationClient, State
from revocation_sdk._clock import Clock
from tests.sdk.peer import Peer

LIMIT_S = 30.0


class Scarce:
    """As many threads of one name as a test grants."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        self.granted = 0
        self.refused = 0
        start = threading.Thread.start

        def starting(thread: threading.Thread) -> None:
            if thread.name == name and not self.granted:
                self.refused += 1
                raise RuntimeError("can't start new thread")
            self.granted -= thread.name == name
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", starting)


class Shifted:
    """The real clocks, which a test can move forward."""

    ahead = 0.0

    def clock(self) -> Clock:
        return Clock(lambda: time.monotonic() + self.ahead, lambda: time.time() + self.ahead)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


@pytest.mark.parametrize("granted", [0, 1])
def test_a_follower_that_got_no_thread_starts_later(peer: Peer, monkeypatch: pytest.MonkeyPatch, granted: int) -> None:
    """I3: it heals by itself, whichever of its threads could not be had; both run, and each of them once."""
    scarce, times = Scarce(monkeypatch, "revocation-follower"), Shifted()
    scarce.granted = granted
    with RevocationClient(peer.address, ping_interval=0.1, clock=times.clock()) as client:
        states = [client.state]
        scarce.granted, times.ahead = 99, 1.0
        client.wait_until_fresh(LIMIT_S)
        client.invalidate()
        client.wait_until_fresh(LIMIT_S)  # which takes a keeper, that sends pings
        threads = client._core.following._worker._threads
        assert len(threads) == 2
        assert all(thread.is_alive() for thread in threads)
        assert scarce.granted == 97 + granted
        assert [*states, client.state] == [State.IDLE, State.FRESH]


def test_why_it_is_not_fresh_is_said_and_threads_are_asked_for_now_and_then(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce = Scarce(monkeypatch, "revocation-follower")
    client = RevocationClient(peer.address, clock=Clock(lambda: 1000.0, time.time))
    for _ in range(10):
        with pytest.raises(NotFresh) as caught:
            client.wait_until_fresh(0)
        assert caught.value.reason == "no_thread"
    assert scarce.refused == 1
    client.close()
    scarce.granted = 99
    client.start()
    assert scarce.granted == 99
    assert client.state is State.CLOSED


def test_callbacks_are_called_once_there_is_a_thread_for_them(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    scarce = Scarce(monkeypatch, "revocation-notifier")
    states: queue.SimpleQueue[State] = queue.SimpleQueue()
    with RevocationClient(peer.address, ping_interval=0.1) as client:
        client.on_state_change(states.put)
        client.wait_until_fresh(LIMIT_S)
        assert states.empty()
        scarce.granted = 99
        while states.get(timeout=LIMIT_S) is not State.FRESH:  # what became of it meanwhile is told
            pass
    assert scarce.granted == 98
