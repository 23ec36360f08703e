"""What applications do meanwhile: log in, revoke, ask. It never stops, and notes what was promised to it."""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from revocation_sdk import OutcomeUnknown, RevocationClient, StatusUnknown, Unavailable
from revocation_sdk._requests import make_op_id
from revocation_sdk.errors import RevocationError, SessionEnded, TokenRevoked
from revocation_sdk.issuer import TokenIssuer
from tests.e2e.installation import Verifier
from tests.e2e.load import Wanted, revoke
from tests.e2e.tokens import AUDIENCE, ISSUER, Signer

KINDS = ("token", "subject", "session")
LIFE_S = 7_200
"""Of tokens, which must not expire before the end."""

KEPT_SHARE = 0.15
"""So many tokens are never revoked: they must be accepted to the end (I4)."""


class Work:
    """Threads that use the cluster, and the record of what they were told."""

    def __init__(self, client: RevocationClient, signer: Signer) -> None:
        self.all: list[Wanted] = []
        self.counts: Counter[str] = Counter()
        self.wrong_checks: list[tuple[str, float, str]] = []
        """What, when it was asked, and how."""
        self.different_answers: list[tuple[str, float, str]] = []
        self._client, self._signer = client, signer
        self._issuer = TokenIssuer(
            client, key=signer.keys["k1"], key_id="k1", algorithm="ES256", issuer=ISSUER, audience=AUDIENCE,
            max_staleness=4.0, lifetime=LIFE_S,
        )  # fmt: skip
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._pause = threading.Event()
        self._threads: list[threading.Thread] = []
        self._feeds: dict[Verifier, queue.SimpleQueue[dict[str, str]]] = {}

    @property
    def acknowledged(self) -> list[Wanted]:
        return [wanted for wanted in self.all if wanted.acknowledged_at is not None]

    def start(self, verifiers: list[Verifier], *, revokers: int = 4) -> None:
        for verifier in verifiers:
            self.feed(verifier)
        for body in (*[self._revoke] * revokers, self._log_in, self._check, self._retry):
            thread = threading.Thread(target=self._repeat, args=(body,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def feed(self, verifier: Verifier) -> None:
        """Has all tokens judged by this verifier too, those to come included."""
        feed = self._feeds[verifier] = queue.SimpleQueue()
        feed.put({wanted.name: wanted.token for wanted in self.all})
        threading.Thread(target=_feed, args=(verifier, feed, self._stop), daemon=True).start()

    def stop(self) -> None:
        """Ends when what is under way has an answer, or has been given up."""
        self._stop.set()
        for thread in self._threads:
            thread.join(150)
            assert not thread.is_alive(), "a call does not end"

    # -- the threads --------------------------------------------------------------------------------------------

    def _repeat(self, body: Callable[[], None]) -> None:
        while not self._stop.is_set():
            try:
                body()
            except RevocationError as error:
                self.counts[f"{body.__name__.strip('_')}: {type(error).__name__} {error.reason}"] += 1
                time.sleep(0.05)
            except Exception as error:
                self.counts[f"{body.__name__.strip('_')}: CRASH {error!r}"] += 1
                time.sleep(0.5)

    def _add(self, kind: str, token: str, claims: dict[str, Any]) -> Wanted:
        wanted = Wanted(f"{kind}-{next(self._numbers)}", kind, token, claims)
        self.all.append(wanted)
        for feed in self._feeds.values():
            feed.put({wanted.name: token})
        return wanted

    def _revoke(self) -> None:
        kind = random.choice(KINDS)
        number = next(self._numbers)
        claims: dict[str, Any] = {"jti": f"jti-{number}", "sub": f"subject-{number}", "sid": f"sid-{number}"}
        wanted = self._add(kind, self._signer.sign(**claims, life_s=LIFE_S), claims)
        time.sleep(random.uniform(0.03, 0.15))  # let some verifiers see it alive
        if random.random() > KEPT_SHARE:
            self._insist(wanted, lambda: revoke(self._client, wanted, 3.0))
            if kind == "subject" and wanted.acknowledged_at is not None and random.random() < 0.3:
                # A login right after the cutoff is good, at once and for ever.
                fresh = self._issuer.issue(claims["sub"])
                self._add("after", fresh, {"sub": claims["sub"]})
                self.counts["tokens issued after a cutoff"] += 1

    def _insist(self, wanted: Wanted, act: Callable[[], Any]) -> None:
        wanted.op_id = wanted.op_id or make_op_id(time.time())
        wanted.asked_at = time.monotonic()
        while time.monotonic() < wanted.asked_at + 120:
            try:
                wanted.receipt = act()
            except (OutcomeUnknown, Unavailable) as error:
                wanted.failures.append(error.reason)
                time.sleep(0.1)
            else:
                wanted.acknowledged_at = time.monotonic()
                return
        self.counts["given up after 120 s"] += 1

    def _log_in(self) -> None:
        login = self._issuer.login(f"human-{next(self._numbers)}", device="chaos")
        self.counts["logins"] += 1
        wanted = self._add("login", login.access_token, {"sid": login.session_id})
        time.sleep(random.uniform(0.05, 0.3))
        if random.random() < 0.3:
            try:
                self._issuer.refresh(login.refresh_token)
                self.counts["refreshes"] += 1
            except SessionEnded as error:
                # A store that lost the record; guarantees.md: the user has to sign in again.
                self.counts[f"sessions lost by the store ({error.reason})"] += 1
                return
        if random.random() < 0.7:
            wanted.op_id = make_op_id(time.time())
            self._insist(
                wanted,
                lambda: self._client.end_session(login.session_id, issuer=ISSUER, op_id=wanted.op_id, timeout=3.0),
            )
            self.counts["logouts"] += wanted.acknowledged_at is not None
        time.sleep(0.1)

    def _check(self) -> None:
        """Check answers complete as of the moment it is asked: what was acknowledged before is refused."""
        time.sleep(0.03)
        done = self.acknowledged[-400:]
        if not done:
            return
        wanted = random.choice(done)
        claims = {"iss": ISSUER, "exp": int(time.time()) + 600, "jti": "-", **wanted.claims}
        try:
            self._client.check_remote(claims, timeout=1.0)
        except TokenRevoked:
            self.counts["checks"] += 1
        except StatusUnknown:
            self.counts["checks: unknown"] += 1
        else:
            self.wrong_checks.append((wanted.name, time.monotonic(), "not known to be revoked"))

    def _retry(self) -> None:
        """The same op id again: the first answer again."""
        time.sleep(0.2)
        done = [one for one in self.acknowledged[-300:] if one.kind in KINDS]
        if done:
            wanted = random.choice(done)
            again = revoke(self._client, wanted, 3.0)
            self.counts["retries"] += 1
            if wanted.receipt is not None and again.cutoff != wanted.receipt.cutoff:
                how = f"({', '.join(wanted.failures) or 'no failure'})"
                self.different_answers.append((wanted.name, time.monotonic(), how))


def _feed(verifier: Verifier, feed: queue.SimpleQueue[dict[str, str]], stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            tokens = feed.get(timeout=0.2)
        except queue.Empty:
            continue
        while not feed.empty():
            tokens |= feed.get()
        try:
            verifier.ask(120, do="sample", tokens=tokens)
        except (AssertionError, OSError):
            return  # it was ended
