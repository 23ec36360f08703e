"""The two threads that keep a follower going, in one process.

The *reader* connects, reads the stream and applies it; only cancelling the call frees it from a read. The *keeper*
sends pings and ends a stream that is silent for too long. Freshness hangs on neither: it is judged where a verdict is
asked for, from lease, view and clock (`_sight.py`).
"""

from __future__ import annotations

import logging
import math
import os
import random
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import grpc

from revocation_api.v1 import revocation_pb2
from revocation_sdk._channel import Endpoints, Security, sdk_version
from revocation_sdk._clock import Clock
from revocation_sdk._counts import Counts
from revocation_sdk._follower import Follower, Resync
from revocation_sdk._messages import Changes, Message, Poll, Progress, TraceNote
from revocation_sdk._retry import MAX_BACKOFF_S, backoff
from revocation_sdk._signed import CHALLENGE_BYTES, LARGEST_STEP, Seal, SigningKeys, Unsigned
from revocation_sdk._stream import Patience, Stream
from revocation_sdk._tracing import AppliedTraces, active
from revocation_sdk._wire import MalformedMessage, failure_of, unsealed, watch_message, watch_request
from revocation_sdk.errors import RevocationError

log = logging.getLogger("revocation_sdk")

_TICK_S = 1.0
_MIN_SILENCE_S = 3.0
_RESTED_S = 1.0
"""Whoever waited in vain for long need not stay away for long, too."""
_STARVED_S = 4.0
_MAX_WATCH_S = 1.5
_PING_PATIENCE_S = 0.2
_POLLED_EVERY_S = 0.05
"""A ping costs the service a proof: asked more often than so, the follower does not answer."""
_NO_THREAD = "no_thread"
_START_AGAIN_S = 1.0
"""Where no thread can be had, verdicts ask for one so often and not each time."""
_EXPIRE_EVERY_S = 30.0
_EXPIRE_SHARE = 50
"""Dropping what expired may take one part in so many of the time."""


class Worker:
    """A follower's life in one process. A forked child gets a new one."""

    def __init__(
        self,
        follower: Follower,
        endpoints: Endpoints,
        how: Security,
        clock: Clock,
        ping_interval: float,
        changed: Callable[[], None],
        *,
        signing: SigningKeys | None = None,
    ) -> None:
        self.pid = os.getpid()
        self.instance = os.urandom(16)
        """Names this follower in this process, on all its streams."""
        self.staleness_s = 0.0
        """The largest max_staleness by which anybody here judges."""
        self.counts = Counts()
        self.trouble = ""
        """Why the last stream ended, as a stable word; empty while all is well."""
        self.started_at: float | None = None
        self._beats = 0
        """How often the keeper has run."""
        self._watched = (-1, 0.0, 0.0)
        self._follower = follower
        self._endpoints = endpoints
        self._how = how
        self._clock = clock
        self._ping_interval = ping_interval
        self._changed = changed
        self._signing = signing
        self._starting = threading.Lock()
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._start_again_at = -math.inf
        self._stream: Stream | None = None
        self._tries = 0
        self._expire_at = 0.0
        self._traces: AppliedTraces | None = None

    def start(self, name: str) -> None:
        """Starts the threads, once. What cannot be started now, a later call starts."""
        with self._starting:
            now = self._clock.mono()
            if self.started_at is not None or self._stop.is_set() or now < self._start_again_at:
                return
            self.started_at = now
            targets = (lambda: self._read(name), self._keep)
            for target in targets[len(self._threads) :]:
                thread = threading.Thread(target=target, name="revocation-follower", daemon=True)
                try:
                    thread.start()
                except RuntimeError as error:  # no more threads for now, or the interpreter is going down
                    log.warning("the follower cannot start: %s", error)
                    self.started_at, self.trouble = None, _NO_THREAD
                    self._start_again_at = now + _START_AGAIN_S
                    return
                self._threads.append(thread)
            if self.trouble == _NO_THREAD:
                self.trouble = ""

    def stop(self, wait: float) -> None:
        """Ends the stream and the threads."""
        self._stop.set()
        stream = self._stream
        if stream is not None:
            stream.end("closed")
        for thread in self._threads:
            if thread is not threading.current_thread():
                with suppress(RuntimeError):
                    thread.join(wait)

    def starved(self) -> bool:
        """Whether the threads were started and do not run, as far as those who ask have seen.

        A pause of the whole process, in which nobody could ask either, counts for next to nothing.
        """
        now = self._clock.mono()
        beats, asked, waited = self._watched
        if self.started_at is None or beats != self._beats:
            waited = 0.0
        else:
            waited += min(now - asked, _MAX_WATCH_S)
        self._watched = (self._beats, now, waited)
        return waited > _STARVED_S

    def merge(self, rows: bytes) -> None:
        """Joins rows into the view, which has one writer at a time. Who only revokes drops here what expired (I8)."""
        with self._writing:
            self._follower.view.merge(rows)
            if not self._follower.live:
                self._expire(self._clock.mono())

    def busy(self) -> bool:
        """Whether merging may take a while: somebody writes to the view just now, or it is to be tidied."""
        return self._writing.locked() or not (self._follower.live or self._clock.mono() < self._expire_at)

    def invalidate(self) -> None:
        """Forgets freshness, and the pings under way."""
        self._follower.lease = None  # at once, even while the reader applies something
        with self._writing:
            self._follower.invalidate()

    # The reader

    def _read(self, name: str) -> None:
        self._traces = AppliedTraces() if active() else None
        while not self._stop.is_set():
            began = self._clock.mono()
            wait = self._follow_once(name)
            self.counts.stream_ended(self.trouble)
            self._changed()
            pause = backoff(self._tries, random.random())
            if self._clock.mono() - began > MAX_BACKOFF_S:
                pause = min(pause, _RESTED_S)
            self._stop.wait(max(wait, pause))
            self._tries += 1

    def _follow_once(self, name: str) -> float:
        """One stream, from connecting to its end. Returns how long to stay away, if the service said so."""
        stream: Stream | None = None
        try:
            metadata = self._how.metadata()
            stream = Stream(self._endpoints.new(), self._clock.mono(), self._patience())
            self._stream = stream
            if self._signing is not None:
                stream.seal = Seal(self._signing, self._follower.realm, os.urandom(CHALLENGE_BYTES))
            with self._writing:
                hello = watch_request(
                    self._follower.hello(), sdk_version(), name, self.instance, self.staleness_s,
                    challenge=stream.seal.challenge if stream.seal else b"",
                )  # fmt: skip
            if self._stop.is_set():
                return 0.0
            answers = stream.open(hello, metadata)
            self._ping(stream)
            for answer in answers:
                self._take(stream, answer)
            self.trouble = stream.cut or "stream_ended"
            return stream.stay_away(self._clock.mono())
        except Exception as error:
            return max(self._failed(stream, error), stream.stay_away(self._clock.mono()) if stream else 0.0)
        finally:
            self._endpoints.advance()
            with self._writing:
                self._follower.disconnected()
            if stream is not None:
                stream.close()
            self._stream = None

    def _take(self, stream: Stream, answer: revocation_pb2.WatchResponse) -> None:
        stream.busy = True
        lease = self._follower.lease
        message = watch_message(answer if stream.seal is None else unsealed(answer, stream.seal))
        now, begun_ns = self._clock.mono(), time.time_ns() if self._traces is not None else 0
        with self._writing:
            self._follower.receive(message, now)
            if not isinstance(message, Progress):
                self.counts.message_applied(self._clock.mono() - now)
            if self._follower.live:
                self._expire(now)
        if self._traces is not None:
            self._trace(message, begun_ns)
        if isinstance(message, Poll) and now - stream.pinged >= _POLLED_EVERY_S:
            self._ping(stream)
        if self._follower.goodbye is not None and stream.leave_at is None:
            stream.goodbye(now, self._follower.goodbye.reconnect_after_ms / 1000)
        if self._follower.lease is not lease:
            self.trouble = ""
            if self._tries:
                self._tries = 0
                stream.patience = self._patience()
            self._changed()
        stream.heard = self._clock.mono()
        if not isinstance(message, Poll):
            stream.told = stream.heard
        stream.busy = False

    def _patience(self) -> Patience:
        return Patience(max(3 * self._ping_interval, _MIN_SILENCE_S), self._tries, random.random())

    def _trace(self, message: Message, begun_ns: int) -> None:
        assert self._traces is not None
        if isinstance(message, Changes):
            self._traces.changed(message, begun_ns)
        elif isinstance(message, TraceNote):
            self._traces.told(message)

    def _expire(self, now: float) -> None:
        if now < self._expire_at:
            return
        self._follower.drop_expired(now, self._clock.wall())
        took = self._clock.mono() - now
        self._expire_at = now + max(_EXPIRE_EVERY_S, took * _EXPIRE_SHARE)

    def _failed(self, stream: Stream | None, error: Exception) -> float:
        """Notes why a stream ended. Returns how long the service wants us to wait."""
        wait = 0.0
        if isinstance(error, grpc.RpcError):
            failure = failure_of(error)
            self.trouble = (stream.cut if stream else "") or failure.name
            wait = failure.retry_after_s
        elif isinstance(error, Resync | RevocationError):
            self.trouble = error.reason
        elif isinstance(error, Unsigned):
            self._follower.lease = None  # whoever stands in between has begun to meddle
            self.trouble = error.reason
            log.warning("the stream of revocations is not the service's: %s", error.reason)
        else:
            # Something came that could not be applied: from here on nothing is known to be complete (D5).
            self._follower.lease = None
            self.trouble = "malformed_message" if isinstance(error, MalformedMessage) else "internal"
            if self.trouble == "internal":
                log.exception("the follower stumbled; it goes on with a new stream")
        log.debug("the stream ended: %s", self.trouble)
        return min(wait, 60.0)

    # The keeper

    def _keep(self) -> None:
        tick = self._ping_interval / math.ceil(self._ping_interval / _TICK_S)
        last = self._clock.mono()
        while not self._stop.wait(tick):
            now = self._clock.mono()
            slept = now - last > tick + _TICK_S
            last = now
            self._beats += 1
            stream = self._stream
            if stream is not None:
                self._look_after(stream, now, slept)

    def _look_after(self, stream: Stream, now: float, slept: bool) -> None:
        if slept:  # stopped or suspended: what the service said meanwhile is still to be read
            stream.heard = stream.told = now
        if stream.leave_at is not None and now >= stream.leave_at:
            stream.end("goodbye")
        elif not stream.busy and stream.patience.silent(now - stream.heard):
            stream.end("silent")
        elif not stream.busy and stream.patience.unproven(now - stream.told):
            stream.end("not_vouched")
        elif now >= stream.next_ping:
            self._ping(stream)

    def _ping(self, stream: Stream) -> None:
        # Whoever applies a large message holds the lock for long; the next tick will do.
        if not self._clock.mono_counts_suspend or not self._writing.acquire(timeout=_PING_PATIENCE_S):
            return
        try:
            now = self._clock.mono()
            step = 1 if stream.seal is None else 1 + secrets.randbelow(LARGEST_STEP)
            ping = watch_request(self._follower.ping(now, self._clock.wall(), step), staleness_s=self.staleness_s)
        finally:
            self._writing.release()
        if self._follower.worn:
            stream.end("worn")
        stream.pinged = now
        stream.next_ping = now + self._ping_interval * 0.95
        stream.say(ping)
