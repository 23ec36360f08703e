"""What a client is made of, the same for both kinds: addresses, one follower, unary calls; and its fork and its end."""

from __future__ import annotations

import math
import os
import random
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from revocation_sdk import _wire
from revocation_sdk._calls import Calls
from revocation_sdk._channel import Endpoints, TokenSource, forks, parse_address, security
from revocation_sdk._check import Checker
from revocation_sdk._clock import Clock, system_clock
from revocation_sdk._compact import Claims
from revocation_sdk._follower import Follower
from revocation_sdk._following import Following
from revocation_sdk._judge import Facts
from revocation_sdk._lattice import MalformedRows
from revocation_sdk._notify import Notifier
from revocation_sdk._operation import Operation
from revocation_sdk._requests import Requests, check_wait, make_op_id
from revocation_sdk._session_requests import SessionRequests
from revocation_sdk._signed import SigningKeys
from revocation_sdk._view import View
from revocation_sdk.errors import ConfigError, OutcomeUnknown, RevocationError, ServiceError, TokenRevoked, Unavailable
from revocation_sdk.types import Freshness, Landed, Receipt, State, WaitFor

T = TypeVar("T")

CALL_TIMEOUT_S = 10.0
IMPACT_TIMEOUT_S = 30.0
"""Of a dry run, which may have much to count."""
CHECK_TIMEOUT_S = 0.5
FRESH_TIMEOUT_S = 10.0
MAX_STALENESS_S = 15.0
PING_INTERVAL_S = 2.0
WAIT_TIMEOUT_S = 10.0
_ANSWER_S = 1.0
"""How long the answer of a call that waits may take on its way."""


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of a client's constructor."""

    address: str
    realm: str
    issuer: str | None
    ping_interval: float
    max_staleness: float
    name: str
    ca: str | None
    cert: str | None
    key: str | None
    token: TokenSource | None
    insecure: bool
    clock: Clock | None
    signing_keys: Iterable[str | bytes] | None = None


class Answer(NamedTuple):
    """What the service said of a token that is not revoked."""

    asked: float
    """When, by the clock that counts suspend."""
    position: str
    store_ms: int
    """The store's time, read behind the question; 0: an older service does not tell."""

    def store_time_at_most(self, mono: float) -> float:
        """The store's time now, in seconds, if the question took no time to arrive: for judging `exp`."""
        return self.store_ms / 1000 + (mono - self.asked)


class Core:
    """The parts of a client. Does no I/O until something is asked of it."""

    def __init__(self, options: Options) -> None:
        _check(options)
        how = security(options.ca, options.cert, options.key, options.token, options.insecure)
        targets = parse_address(options.address)
        first = random.randrange(len(targets))  # so that not all clients crowd the first address
        self.realm = options.realm
        self.max_staleness = options.max_staleness
        self.clock = options.clock or system_clock()
        self.follower = Follower(options.realm, View())
        # Watch, calls and checks have connections of their own: neither a snapshot nor a batch delays a check.
        self._endpoints = [Endpoints(targets, how, first) for _ in range(3)]
        watch, calls, checks = self._endpoints
        signing = None if options.signing_keys is None else SigningKeys(options.signing_keys)
        self.following = Following(self.follower, watch, how, self.clock, options.ping_interval, signing=signing)
        self.following.name = options.name
        self.following.judged_by(options.max_staleness)
        self.calls = Calls(calls, how)
        self.checks = Calls(checks, how)
        self.checker = Checker(self.follower, self.clock)
        self.requests = Requests(options.realm, options.issuer, self.new_op_id)
        self.sessions = SessionRequests(options.realm, options.issuer, self.new_op_id)
        self._notifier = Notifier(self.state)
        _cores.add(self)

    def state(self) -> State:
        """What the client is doing right now."""
        return self.following.state(self.max_staleness)

    def on_state_change(self, callback: Callable[[State], object]) -> None:
        """Calls back at every change of state."""
        self.following.listen(self._wake)
        self._notifier.add(callback)

    def new_op_id(self) -> str:
        """An op id, with the store's time where that is known: the service refuses old ones."""
        lease = self.follower.lease
        if lease is None:
            return make_op_id(time.time())
        return make_op_id(lease.store_time_at_least(self.clock.mono()))

    def run(self, operation: Operation[T], timeout: float) -> T:
        """Runs a call, and takes what it committed into the own view."""
        response = self.calls.run(operation, timeout)
        with _readable(operation):
            if operation.rows and self.following.signing is None:  # else the stream brings them, signed
                self.following.merge(response.rows)
            return operation.read(response)

    async def run_async(self, operation: Operation[T], timeout: float) -> T:
        """As `run`, without blocking the event loop."""
        response = await self.calls.run_async(operation, timeout)
        with _readable(operation):
            if operation.rows and self.following.signing is None:  # else the stream brings them, signed
                await self.following.merge_async(response.rows)
            return operation.read(response)

    def revoke(
        self, operation: Operation[Receipt], timeout: float, wait_for: WaitFor | None, wait_timeout: float
    ) -> Receipt:
        """Runs a revocation; then, if asked for, waits until verifiers have applied it, which changes no outcome."""
        if wait_for is None:
            return self.run(operation, timeout)
        check_wait(wait_for, wait_timeout)
        receipt = self.run(operation, timeout)
        return replace(receipt, landed=self.landed(receipt.position, wait_for, wait_timeout))

    async def revoke_async(
        self, operation: Operation[Receipt], timeout: float, wait_for: WaitFor | None, wait_timeout: float
    ) -> Receipt:
        """As `revoke`, without blocking the event loop."""
        if wait_for is None:
            return await self.run_async(operation, timeout)
        check_wait(wait_for, wait_timeout)
        receipt = await self.run_async(operation, timeout)
        return replace(receipt, landed=await self.landed_async(receipt.position, wait_for, wait_timeout))

    def landed(self, position: str, wait_for: WaitFor, wait_timeout: float) -> Landed:
        """Waits until verifiers have applied a position. What keeps it from waiting is in `.failure`."""
        asked = self.requests.await_applied(position, wait_for, wait_timeout)
        try:
            return self.run(asked, wait_timeout + _ANSWER_S)
        except RevocationError as error:
            return Landed(complete=False, failure=error.reason)

    async def landed_async(self, position: str, wait_for: WaitFor, wait_timeout: float) -> Landed:
        """As `landed`, without blocking the event loop."""
        asked = self.requests.await_applied(position, wait_for, wait_timeout)
        try:
            return await self.run_async(asked, wait_timeout + _ANSWER_S)
        except RevocationError as error:
            return Landed(complete=False, failure=error.reason)

    def ask(self, facts: Facts, timeout: float, not_older_than: str | None = None) -> Answer:
        """Asks the service about a token. Raises TokenRevoked or ServiceError."""
        operation, began = self._question(facts, not_older_than)
        response = self.checks.run(operation, timeout)
        with _readable(operation):
            return self._answered(began, response)

    async def ask_async(self, facts: Facts, timeout: float, not_older_than: str | None = None) -> Answer:
        """As `ask`, without blocking the event loop."""
        operation, began = self._question(facts, not_older_than)
        response = await self.checks.run_async(operation, timeout)
        with _readable(operation):
            return self._answered(began, response)

    def check_remote(self, claims: Claims, timeout: float, not_older_than: str | None) -> Freshness:
        """Asks the service about a token, and judges its times by the service's clock too."""
        return self._checked(claims, self.ask(claims.facts, timeout, not_older_than))

    async def check_remote_async(self, claims: Claims, timeout: float, not_older_than: str | None) -> Freshness:
        """As `check_remote`, without blocking the event loop."""
        return self._checked(claims, await self.ask_async(claims.facts, timeout, not_older_than))

    def _checked(self, claims: Claims, answer: Answer) -> Freshness:
        mono = self.clock.mono()
        self.checker.check_times(claims, max(self.clock.wall(), answer.store_time_at_most(mono)))
        return Freshness(True, mono - answer.asked, answer.position)

    def _question(self, facts: Facts, not_older_than: str | None) -> tuple[Operation[Any], float]:
        self._require_unsigned()
        return self.requests.check(facts, not_older_than), self.clock.mono()

    def _require_unsigned(self) -> None:
        """Answers to single questions are not signed; whoever trusts signatures only cannot use them."""
        if self.following.signing is not None:
            text = "the service does not sign its answers to check, and this client takes signed words only"
            raise Unavailable(text, reason="unsigned")

    def _answered(self, began: float, response: Any) -> Answer:
        revoked = _wire.revoked(response)
        if revoked is not None:
            target, since_ms = revoked
            raise TokenRevoked(target=target, since=since_ms / 1000 if since_ms else None)
        return Answer(began, _wire.checked_position(response), response.store_ms)

    def close(self) -> None:
        """Ends everything, for good. Twice does no harm."""
        self.following.close()
        self._notifier.stir()
        for endpoints in self._endpoints:
            endpoints.close()

    def after_fork(self) -> None:
        """In a child: begins anew, touching nothing of the parent's."""
        for endpoints in self._endpoints:
            endpoints.after_fork()
        self.following.after_fork()
        self.following.listen(self._wake)
        self._notifier.after_fork()

    def _wake(self) -> None:
        self._notifier.stir()


@contextmanager
def _readable(operation: Operation[Any]) -> Iterator[None]:
    """A service that answers what is no answer has done nobody knows what."""
    try:
        yield
    except (_wire.MalformedMessage, MalformedRows):
        text = "the service's answer cannot be read"
        if operation.mutates:
            raise OutcomeUnknown(text, op_id=operation.op_id, reason="malformed_answer") from None
        raise ServiceError(text, reason="malformed_answer") from None


def _check(options: Options) -> None:
    if not options.realm:
        raise ConfigError("realm= must not be empty", reason="realm")
    if len(options.name.encode()) > 128:
        raise ConfigError("name= is longer than 128 bytes", reason="name")
    if not 0.05 <= options.ping_interval <= 600:
        raise ConfigError("ping_interval= must be between 0.05 and 600 seconds", reason="ping_interval")
    check_staleness(options.max_staleness, options.ping_interval)


def check_staleness(max_staleness: float, ping_interval: float) -> None:
    """Raises ConfigError for a max_staleness by which nothing, or everything, would be fresh."""
    least = 2 * ping_interval
    if not least <= max_staleness < math.inf:  # NaN is not either
        raise ConfigError(
            f"max_staleness={max_staleness:g}: at least two ping intervals ({least:g} s), since one lost answer would "
            "else make every token unknown, and not without end",
            reason="max_staleness",
        )


_cores: weakref.WeakSet[Core] = weakref.WeakSet()


def _after_fork() -> None:
    forks.in_child()
    for core in list(_cores):
        core.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
