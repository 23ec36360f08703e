"""Revocations that go on whatever breaks, and what must be true of them afterwards."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis

from revocation_sdk import OutcomeUnknown, RevocationClient, Unavailable
from revocation_sdk._requests import make_op_id
from revocation_sdk.types import Receipt
from tests.e2e.installation import Verifier
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.tokens import ISSUER, Signer


@dataclass
class Wanted:
    """One revocation: of a token, or of a subject and so of its token. Times are CLOCK_MONOTONIC."""

    name: str
    kind: str
    token: str
    claims: dict[str, Any]
    op_id: str = ""
    asked_at: float | None = None
    acknowledged_at: float | None = None
    receipt: Receipt | None = None
    failures: list[str] = field(default_factory=list)


class Load:
    """Threads that revoke one thing after the other, each under one op id until it is acknowledged."""

    def __init__(self, signer: Signer, count: int, *, kinds: Sequence[str] = ("token", "subject", "session")) -> None:
        self.all = [_wanted(signer, number, kinds[number % len(kinds)]) for number in range(count)]
        self._next = itertools.count()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._crashed: list[BaseException] = []
        self.longest_call_s = 0.0

    @property
    def tokens(self) -> dict[str, str]:
        return {wanted.name: wanted.token for wanted in self.all}

    @property
    def acknowledged(self) -> list[Wanted]:
        return [wanted for wanted in self.all if wanted.acknowledged_at is not None]

    @property
    def never_asked(self) -> list[Wanted]:
        return [wanted for wanted in self.all if wanted.asked_at is None]

    def start(self, client: RevocationClient, *, threads: int = 4, pause_s: float = 0.01, timeout: float = 2.0) -> None:
        for _ in range(threads):
            thread = threading.Thread(target=self._work, args=(client, pause_s, timeout), daemon=True)
            thread.start()
            self._threads.append(thread)

    def until_more(self, count: int, timeout: float = LIMIT_S) -> None:
        """Waits until so many more were acknowledged."""
        goal = len(self.acknowledged) + count
        until(lambda: self._crashed or len(self.acknowledged) >= goal, f"{count} more are acknowledged", timeout)

    def stop(self) -> None:
        """Ends when what is under way is acknowledged."""
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * LIMIT_S)
            assert not thread.is_alive(), "a revocation does not end"
        if self._crashed:
            raise self._crashed[0]

    def _work(self, client: RevocationClient, pause_s: float, timeout: float) -> None:
        try:
            while not self._stop.is_set():
                number = next(self._next)
                if number >= len(self.all):
                    return
                self._revoke(client, self.all[number], timeout)
                # The second half has to last for as long as the test does, on a slow machine too.
                pace = 1 if 2 * number < len(self.all) else 10
                time.sleep(pause_s * random.random() * 2 * pace)
        except BaseException as error:
            self._crashed.append(error)

    def _revoke(self, client: RevocationClient, wanted: Wanted, timeout: float) -> None:
        wanted.op_id = make_op_id(time.time())
        wanted.asked_at = time.monotonic()
        give_up = wanted.asked_at + 60
        while True:
            begun = time.monotonic()
            try:
                wanted.receipt = revoke(client, wanted, timeout)
                wanted.acknowledged_at = time.monotonic()
                return
            except (OutcomeUnknown, Unavailable) as error:
                wanted.failures.append(f"{type(error).__name__} {error.reason}")
                self.longest_call_s = max(self.longest_call_s, time.monotonic() - begun)
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.05)


def revoke(client: RevocationClient, wanted: Wanted, timeout: float) -> Receipt:
    """Asks for it under its op id."""
    common: Any = {"op_id": wanted.op_id, "timeout": timeout}
    match wanted.kind:
        case "subject":
            return client.revoke_subject(wanted.claims["sub"], **common)
        case "session":
            return client.revoke_session(wanted.claims["sid"], issuer=ISSUER, **common)
        case _:
            return client.revoke_token(wanted.token, **common)


def _wanted(signer: Signer, number: int, kind: str) -> Wanted:
    claims: dict[str, Any] = {"jti": f"jti-{number}", "sub": f"subject-{number}", "sid": f"sid-{number}"}
    return Wanted(f"{kind}-{number}", kind, signer.sign(**claims), claims)


@dataclass
class Findings:
    """What was wrong, by invariant. Empty: nothing."""

    stale: list[str] = field(default_factory=list)
    """I1: accepted by a view that called itself fresh, too long after the acknowledgement."""
    lost: list[str] = field(default_factory=list)
    """I2: acknowledged and not refused in the end."""
    false: list[str] = field(default_factory=list)
    """I4: refused as revoked before anybody asked for it, or without that."""

    @property
    def any(self) -> bool:
        return bool(self.stale or self.lost or self.false)


def judge(revocations: Iterable[Wanted], verifier: Verifier, report: dict[str, Any], *, whole: bool) -> Findings:
    """Compares what a verifier decided with what was acknowledged. `whole`: all must be refused by now."""
    found = Findings()
    accepted, refused = report["accepted_at"], report["refused_at"]
    for wanted in revocations:
        at, name = wanted.acknowledged_at, wanted.name
        if at is not None and accepted.get(name, at) > at + verifier.max_staleness:
            how = report["accepted_how"].get(name)
            found.stale.append(f"{verifier.name}: {name} accepted {accepted[name] - at:.2f} s after, by a view {how}")
        if name in refused and (wanted.asked_at is None or refused[name] < wanted.asked_at):
            found.false.append(f"{verifier.name}: {name}")
        if whole and at is not None and (name not in refused or accepted.get(name, 0) > refused[name]):
            found.lost.append(f"{verifier.name}: {name} ({report['rejected'].get(name, 'accepted')})")
    return found


def assert_kept(load: Load, verifiers: Iterable[Verifier]) -> None:
    """Every acknowledged revocation is refused by each of these, nothing else is, and none was accepted too late."""
    assert load.acknowledged
    for verifier in verifiers:
        verifier.wait_fresh()
        verifier.ask(do="settle")

        def look(verifier: Verifier = verifier) -> bool:
            return not judge(load.all, verifier, verifier.ask(do="report"), whole=True).lost

        try:
            until(look, "all is refused")
        except AssertionError:
            raise AssertionError(judge(load.all, verifier, verifier.ask(do="report"), whole=True)) from None
        found = judge(load.all, verifier, verifier.ask(do="report"), whole=True)
        assert not found.any, found
        for wanted in load.never_asked[:5]:
            assert verifier.verdict(wanted.token) == "accepted", (verifier.name, wanted.name)


def assert_done_once(load: Load, client: RevocationClient, *, sample: int = 200) -> None:
    """A retry gets the first answer again: one version bump and one position for each op id."""
    retried = [wanted for wanted in load.acknowledged if wanted.failures]
    others = [wanted for wanted in load.acknowledged if not wanted.failures]
    for wanted in retried[:sample] + random.sample(others, min(len(others), sample // 4)):
        assert wanted.receipt is not None
        again = revoke(client, wanted, LIMIT_S)
        assert again.cutoff == wanted.receipt.cutoff, (wanted.name, wanted.failures)


def assert_logged_once(load: Load, url: str) -> None:
    """One log record for each op id, whoever retried what."""
    with redis.Redis.from_url(url) as store:
        records: Any = store.xrange("revocation:{p0}:log")
    keys = Counter(op.split(b":")[0] for _, fields in records for op in fields[b"o"].split())
    twice = [key for key, count in keys.items() if count > 1]
    assert not twice, f"{len(twice)} of {len(keys)} op ids have several records"
    assert len(keys) >= len(load.acknowledged)
