"""For the unit tests of applications: revocation without a service, sockets or sleeps.

    pytest_plugins = ["revocation_sdk.testing"]         # in conftest.py; nothing is registered by itself

    def test_logout(revocations):
        verifier = Verifier(revocations, key=public_key, algorithms=["ES256"], issuer=ME, audience="api")
        token = TokenIssuer(revocations, key=private_key, algorithm="ES256", issuer=ME, audience="api").issue("alice")
        revocations.revoke_subject("alice")
        with pytest.raises(TokenRevoked):
            verifier.verify(token)

A FakeRevocations *is* a RevocationClient: the view, the follower and the verdicts are the real ones, and only the
service behind them is a fake in memory.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

from revocation_sdk._check import Checker
from revocation_sdk._client import BaseClient
from revocation_sdk._core import MAX_STALENESS_S, PING_INTERVAL_S, Answer, Core, Options
from revocation_sdk._counts import Counts
from revocation_sdk._fake_service import FakeService
from revocation_sdk._follower import Follower, Lease
from revocation_sdk._following import Following
from revocation_sdk._judge import Facts
from revocation_sdk._messages import Changes, Intent, PartitionIntent, Progress, RealmSettings, SnapshotEnd, Welcome
from revocation_sdk._operation import Operation
from revocation_sdk._position import NOWHERE
from revocation_sdk._view import View
from revocation_sdk.aio import AsyncRevocationClient
from revocation_sdk.client import RevocationClient
from revocation_sdk.errors import NotFresh, Unavailable

__all__ = ["AsyncFakeRevocations", "FakeRevocations", "RealmSettings"]

T = TypeVar("T")
_LONG_AGO_S = 86_400.0


class _FakeFollower(Follower):
    """A follower that reads the service's log whenever somebody asks for its lease, unless it was cut off."""

    def __init__(self, realm: str, service: FakeService) -> None:
        self.service = service
        self.started = False
        self.severed = False
        self.writing = threading.RLock()
        self._inside = False
        self._lease: Lease | None = None
        super().__init__(realm, View())

    @property
    def lease(self) -> Lease | None:
        """A new one each time while connected."""
        with self.writing:
            if self.started and not self.severed and not self._inside:
                self._inside = True
                try:
                    self._renew()
                finally:
                    self._inside = False
            return self._lease

    @lease.setter
    def lease(self, lease: Lease | None) -> None:
        self._lease = lease

    def cut_off(self) -> None:
        """The stream is down, and has been for long."""
        with self.writing:
            lease, self.severed = self.lease, True
            self.disconnected()
            if lease is not None:
                self._lease = replace(
                    lease,
                    mono=lease.mono - _LONG_AGO_S,
                    wall=lease.wall - _LONG_AGO_S,
                    mono_heard=lease.mono_heard - _LONG_AGO_S,
                    store_ms=lease.store_ms - int(_LONG_AGO_S * 1000),
                )

    def _renew(self) -> None:
        with self.service.lock:  # which takes no other one
            self._catch_up()

    def _catch_up(self) -> None:
        """What a stream would bring: the welcome, the changes, and the answer to a ping."""
        service, clock = self.service, self.service.clock
        if not self.live:
            self._begin_stream()
        (own,) = self.positions
        if missed := service.records[own.seq :]:
            self.receive(Changes(0, own, service.positions[-1], tuple(missed)), clock.mono())
        ping = self.ping(clock.mono(), clock.wall())
        self.receive(Progress(ping.nonce, (service.positions[-1],), service.now_ms), clock.mono())
        self.view.drop_expired(min(clock.wall(), service.now_ms / 1000))

    def _begin_stream(self) -> None:
        service, mono = self.service, self.service.clock.mono()
        resumed = bool(self.hello().resume)
        intent = Intent.RESUME if resumed else Intent.SNAPSHOT
        partition = PartitionIntent(intent, "" if resumed else "first", self.positions[0] if resumed else NOWHERE)
        self.receive(Welcome((partition,), service.settings, service.keys, service.now_ms, "fake"), mono)
        if not resumed:
            self.receive(SnapshotEnd(0, service.positions[0], 0, hashlib.sha256().digest()), mono)


class _NoWorker:
    """In the place of the threads that keep a follower going."""

    def __init__(self, follower: _FakeFollower) -> None:
        self.pid = os.getpid()
        self.trouble = "cut_off"
        self.staleness_s = 0.0
        self.counts = Counts()
        self.started_at: float | None = None
        self._follower = follower

    def start(self, name: str) -> None:
        self.started_at = self._follower.service.clock.mono()
        self._follower.started = True

    def stop(self, wait: float) -> None:
        self._follower.started = False

    def starved(self) -> bool:
        return False

    def merge(self, rows: bytes) -> None:
        with self._follower.writing:
            self._follower.view.merge(rows)

    def invalidate(self) -> None:
        with self._follower.writing:
            self._follower.invalidate()


class _FakeFollowing(Following):
    def _new_worker(self) -> _NoWorker:  # type: ignore[override]
        assert isinstance(self.follower, _FakeFollower)
        return _NoWorker(self.follower)

    def left(self, end: float, timeout: float) -> float:
        """Nothing changes by waiting here."""
        reason, message = self.why_stale()
        raise NotFresh(message, age_s=self.age(), reason=reason)

    def changed(self) -> None:
        self._changed()


class _FakeCore(Core):
    """The parts of a client, with a service in memory in the place of connections."""

    def __init__(self, service: FakeService, options: Options) -> None:
        super().__init__(replace(options, clock=service.clock))
        self.service = service
        self.reachable = True
        self.follower = self.stream = _FakeFollower(options.realm, service)
        nowhere, how = self.following._endpoints, self.following._how
        self.following = self.fake = _FakeFollowing(self.stream, nowhere, how, self.clock, options.ping_interval)
        self.checker = Checker(self.follower, self.clock)

    def run(self, operation: Operation[T], timeout: float) -> T:
        self._reach()
        answer, rows = self.service.call(operation.method, operation.request)
        if rows:
            self.following.merge(rows)
        return answer  # type: ignore[no-any-return]

    async def run_async(self, operation: Operation[T], timeout: float) -> T:
        return self.run(operation, timeout)

    def ask(self, facts: Facts, timeout: float, not_older_than: str | None = None) -> Answer:
        self._reach()
        asked = self.clock.mono()
        return Answer(asked, *self.service.check(facts))

    async def ask_async(self, facts: Facts, timeout: float, not_older_than: str | None = None) -> Answer:
        return self.ask(facts, timeout, not_older_than)

    def _reach(self) -> None:
        if not self.reachable:
            raise Unavailable("the fake service was made unreachable")


class _Faked(BaseClient):
    """What a test may do to a fake client."""

    _core: _FakeCore

    def __init__(
        self,
        service: FakeService | None = None,
        *,
        realm: str = "default",
        issuer: str | None = None,
        ping_interval: float = PING_INTERVAL_S,
        max_staleness: float = MAX_STALENESS_S,
        settings: RealmSettings | None = None,
    ) -> None:
        """A client of a fake service: of a new one, or, to share it, of `other.service`."""
        options = Options(
            "localhost",
            realm,
            issuer,
            ping_interval,
            max_staleness,
            name="",
            ca=None,
            cert=None,
            key=None,
            token=None,
            insecure=False,
            clock=None,
        )
        self._core = _FakeCore(service or FakeService(settings or RealmSettings()), options)
        self._end = weakref.finalize(self, self._core.close)

    @property
    def service(self) -> FakeService:
        """What this client follows: give it to a second one, to revoke from elsewhere."""
        return self._core.service

    def advance(self, seconds: float) -> None:
        """Lets time pass, for the service and all its clients."""
        self._core.service.offset += seconds

    def go_stale(self, *, reachable: bool = True) -> None:
        """The stream breaks, and the view is too old at once. Calls still work if the service is `reachable`."""
        self._core.reachable = reachable
        self._core.stream.cut_off()
        self._core.fake.changed()

    def go_fresh(self) -> None:
        """All is well again; what was missed is caught up with."""
        self._core.reachable = True
        self._core.stream.severed = False
        self._core.fake.changed()


class FakeRevocations(_Faked, RevocationClient):
    """A RevocationClient whose service is in memory."""


class AsyncFakeRevocations(_Faked, AsyncRevocationClient):
    """An AsyncRevocationClient whose service is in memory."""


try:
    import pytest
except ImportError:  # it is no dependency
    pass
else:

    @pytest.fixture
    def revocations() -> Iterator[FakeRevocations]:
        """A fake client and service of this test's own."""
        with FakeRevocations() as client:
            yield client
