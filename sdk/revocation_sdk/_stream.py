"""One Watch stream: a channel of its own, the call on it, and what is to be said.

A channel for each stream: gRPC's own back-off and its idea of which address is good do not add to ours, names are
resolved anew, and renewed certificates are read.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Iterator
from typing import Any

from revocation_api.v1 import revocation_pb2
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub
from revocation_sdk._channel import Endpoint
from revocation_sdk._signed import Seal

_MAX_UNSENT = 4
_MAX_STAY_AWAY_S = 60.0
_SILENCE_SPREAD = 0.25
_MOST_DOUBLINGS = 2
_LONGEST_UNPROVEN_S = 60.0


class Patience:
    """How long a follower stays with a service from which it does not get what it wants. Pure.

    Each stream has its own, so that thousands whose service falls silent at the same moment do not all come back at
    the same moment.
    """

    def __init__(self, limit_s: float, tries: int, luck: float) -> None:
        """`tries`: how often it has gone elsewhere since anybody was fresh; `luck`: a random number in [0, 1)."""
        self._silence_s = limit_s * (1 + _SILENCE_SPREAD * luck)
        # Another replica may do better, if it is this one that cannot reach the store. But if the store is away, who
        # stays is fresh as soon as it is back, and a herd is not: so the more was tried in vain, the longer it stays.
        shortest_s = limit_s * (1 + luck)
        longer_s = min(shortest_s * 2.0 ** min(tries, _MOST_DOUBLINGS), _LONGEST_UNPROVEN_S)
        self._unproven_s = max(shortest_s, longer_s)

    def silent(self, seconds: float) -> bool:
        """Whether nothing was said for so long that the connection counts as dead."""
        return seconds > self._silence_s

    def unproven(self, seconds: float) -> bool:
        """Whether nothing but polls came for so long that it is time to try elsewhere."""
        return seconds > self._unproven_s


class Stream:
    """One attempt to follow; from `open` to `close`."""

    def __init__(self, endpoint: Endpoint, now: float, patience: Patience) -> None:
        self.patience = patience
        self.heard = now
        """When the last message came or was done with."""
        self.told = now
        """The same of the last one that was more than a poll."""
        self.busy = False
        """A message is being applied: the silence is ours."""
        self.next_ping = now
        self.pinged = -math.inf
        """When the last ping was said."""
        self.cut = ""
        """Why we ended the stream ourselves."""
        self.seal: Seal | None = None
        """What messages must bear, where only signed ones are taken."""
        self._endpoint = endpoint
        self._outbox: queue.SimpleQueue[revocation_pb2.WatchRequest | None] = queue.SimpleQueue()
        self._call: Any = None
        self._return_at: float | None = None

    def open(
        self, hello: revocation_pb2.WatchRequest, metadata: tuple[tuple[str, str], ...]
    ) -> Iterator[revocation_pb2.WatchResponse]:
        """Begins, and gives the answers as they come. Raises grpc.RpcError at the end."""
        self._outbox.put(hello)
        self._call = self._endpoint.stub(RevocationServiceStub).Watch(self._said(), metadata=metadata)
        if self.cut:  # ended by another thread before there was a call to cancel
            self._call.cancel()
        answers: Iterator[revocation_pb2.WatchResponse] = self._call
        return answers

    def say(self, request: revocation_pb2.WatchRequest) -> None:
        """Sends, unless the peer does not even take in what was said before."""
        if self._outbox.qsize() < _MAX_UNSENT:
            self._outbox.put(request)

    def goodbye(self, now: float, reconnect_after_s: float) -> None:
        """The service will end the stream; it wants us to connect elsewhere, not before then."""
        self._return_at = now + min(max(0.0, reconnect_after_s), _MAX_STAY_AWAY_S)

    @property
    def leave_at(self) -> float | None:
        """When to go elsewhere, if the service asked for it."""
        return self._return_at

    def stay_away(self, now: float) -> float:
        """How long the service still wants us to wait."""
        return max(0.0, self._return_at - now) if self._return_at is not None else 0.0

    def end(self, why: str) -> None:
        """Frees the thread that reads the stream. From any thread."""
        self.cut = self.cut or why
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        """Gives everything back. A call that is not cancelled is never collected (grpc#43462)."""
        if self._call is not None:
            self._call.cancel()
        self._outbox.put(None)
        self._endpoint.close()

    def _said(self) -> Iterator[revocation_pb2.WatchRequest]:
        """Runs on a thread of gRPC's, which ends with it."""
        while (request := self._outbox.get()) is not None:
            yield request
