"""A verifier in a process of its own: follows the service and judges tokens, as an API server does.

Arguments: JSON with `kind` ("thread" or "asyncio"), `addresses`, `jwks`, `ping_interval`, `max_staleness`, `on_stale`.
Reads one JSON object a line and answers each with one. `{"do": "sample", "tokens": {name: token}}` has tokens judged
again and again in the background; `{"do": "report"}` tells for each when it was last accepted by a fresh view and
when it was first refused as revoked. All times are CLOCK_MONOTONIC, which the processes of one machine share.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from revocation.observability.tracing import configure
from revocation_sdk import (
    AsyncRevocationClient,
    RevocationClient,
    StatusUnknown,
    TokenRejected,
    TokenRevoked,
    Verifier,
)

_PAUSE_S = 0.05
_SETTLED_SHARE, _SETTLED_MOST = 0.02, 100
_UNSETTLED_S = 180.0
"""Whoever wants a token revoked gives up before that."""


class Sampler(threading.Thread):
    """Judges tokens for ever. Those that were refused, and the old ones, are looked at now and then."""

    def __init__(self, verifier: Verifier, replica: Callable[[], str]) -> None:
        super().__init__(daemon=True)
        self._replica = replica
        self.decisions = 0
        self.unknown = 0
        self.rejected: dict[str, str] = {}
        self.accepted_at: dict[str, float] = {}
        self.accepted_how: dict[str, str] = {}
        self.refused_at: dict[str, float] = {}
        self.fresh_at = 0.0
        self.pause_s = _PAUSE_S
        self._verifier = verifier
        self._tokens: dict[str, str] = {}
        self._settles_at: dict[str, float] = {}
        self._added: deque[str] = deque()
        self._active: list[str] = []
        self._settled: list[str] = []
        self._all_asked = 0
        self.all_judged = 0
        """Up to which call of `settle` all tokens have been judged once more."""

    def add(self, tokens: dict[str, str]) -> None:
        self._settles_at |= dict.fromkeys(tokens, time.monotonic() + _UNSETTLED_S)
        self._tokens |= tokens
        self._added.extend(tokens)

    def run(self) -> None:
        while True:
            asked, unknown = self._all_asked, self.unknown
            self._turn(everything=asked > self.all_judged)
            if unknown == self.unknown:
                self.all_judged = asked
            time.sleep(self.pause_s)

    def _turn(self, *, everything: bool) -> None:
        while self._added:
            self._active.append(self._added.popleft())
        if everything:
            self._active, self._settled = list(self._tokens), []
        # Bounded, or a long run would be about nothing else in the end.
        few = random.sample(self._settled, min(int(len(self._settled) * _SETTLED_SHARE), _SETTLED_MOST))
        now = time.monotonic()
        done = {name for name in self._active if self._judge(name) or self._settles_at[name] < now}
        for name in few:
            self._judge(name)
        if done:
            self._settled += done
            self._active = [name for name in self._active if name not in done]

    def _judge(self, name: str) -> bool:
        # Read before: if the process is stopped in between, the decision counts as older than it is, never as newer.
        begun = time.monotonic()
        self.decisions += 1
        try:
            verified = self._verifier.verify(self._tokens[name], on_stale="deny")
        except TokenRevoked:
            self.refused_at.setdefault(name, time.monotonic())
            return True
        except StatusUnknown:
            self.unknown += 1
            return False
        except TokenRejected as error:
            self.rejected[name] = error.reason
            return True
        if verified.freshness.fresh:
            self.accepted_at[name] = self.fresh_at = begun
            self.accepted_how[name] = f"{verified.freshness.age_s:.2f} s old, of {self._replica()}"
        return False

    def settle(self) -> int:
        """Has every token judged once more, whatever was said before; that is done when `all_judged` is as high."""
        self._all_asked += 1
        return self._all_asked


class Asked:
    """Answers questions."""

    def __init__(self, client: Any, verifier: Verifier) -> None:
        self._client = client
        self._verifier = verifier
        self._sampler = Sampler(verifier, lambda: str(client.follower.replica))
        self._sampler.start()

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        do = question.pop("do")
        answer: dict[str, Any] = getattr(self, do)(**question)
        return answer

    def verify(self, token: str, **options: Any) -> dict[str, Any]:
        begun = time.monotonic()
        return {"begun": begun, **judge(self._verifier, token, **options), "ended": time.monotonic()}

    def verify_all(self, tokens: list[str]) -> dict[str, Any]:
        return {"why": [judge(self._verifier, token)["why"] for token in tokens]}

    def sample(self, tokens: dict[str, str], pause_s: float = _PAUSE_S) -> dict[str, Any]:
        self._sampler.pause_s = pause_s
        self._sampler.add(tokens)
        return {}

    def settle(self) -> dict[str, Any]:
        return {"asked": self._sampler.settle()}

    def report(self) -> dict[str, Any]:
        sampler = self._sampler
        return {
            "accepted_at": dict(sampler.accepted_at),
            "accepted_how": dict(sampler.accepted_how),
            "refused_at": dict(sampler.refused_at),
            "rejected": dict(sampler.rejected),
            **self.state(),
        }

    def state(self) -> dict[str, Any]:
        follower = self._client.follower
        return {
            "state": self._client.state.value,
            "replica": follower.replica,
            "entries": len(follower.view),
            "allowed": self._verifier.allowed_stale,
            "decisions": self._sampler.decisions,
            "all_judged": self._sampler.all_judged,
            "unknown": self._sampler.unknown,
            "fresh_at": self._sampler.fresh_at,
            "now": time.monotonic(),
            "most_memory_kb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        }

    def revoke(self, sid: str) -> dict[str, Any]:
        """Revokes a session inside of a span of the application's own."""
        from opentelemetry import trace

        with trace.get_tracer("application").start_as_current_span("logout") as span:
            self._client.revoke_session(sid)
        return {"trace": f"{span.get_span_context().trace_id:032x}"}

    def flush(self) -> dict[str, Any]:
        """Sends the spans that wait."""
        from opentelemetry import trace

        trace.get_tracer_provider().force_flush()  # type: ignore[attr-defined]
        return {}

    def version(self, subject: str) -> dict[str, Any]:
        """A cutoff's version, asked of the service in the client's own way."""
        found = self._client.get_version(subject)
        if asyncio.iscoroutine(found):
            found = asyncio.run_coroutine_threadsafe(found, LOOP).result()
        return {"version": list(found.version), "now_ms": found.now_ms}


def tell(client: Any) -> None:
    """Writes to the log how every stream begins and every change of history: what a failure is explained by."""
    follower, receive = client.follower, client.follower.receive

    def told(message: Any, mono: float) -> None:
        kind = type(message).__name__
        if kind in {"Welcome", "SnapshotEnd", "Mark", "Goodbye"}:
            own = [f"{position.log_id.hex()[:6]}/{position.seq}" for position in follower.positions]
            print(f"{datetime.now(UTC):%T.%f} {kind} at {own}: {_short(message)}", file=sys.stderr, flush=True)
        try:
            receive(message, mono)
        except Exception as error:
            print(f"{datetime.now(UTC):%T.%f} {kind}: {error!r}", file=sys.stderr, flush=True)
            raise

    follower.receive = told


def _short(message: Any) -> str:
    parts = [getattr(message, "replica", ""), getattr(message, "reason", "")]
    places = [getattr(message, name, None) for name in ("previous", "position")]
    for intent in getattr(message, "partitions", ()):
        parts.append(f"{intent.intent.name} {intent.reason}")
        places.append(intent.position)
    parts += [f"{place.log_id.hex()[:6]}/{place.seq}" for place in places if place is not None]
    parts.append(f"{len(getattr(message, 'rows', b''))} bytes")
    return " ".join(part for part in parts if part)


def judge(verifier: Verifier, token: str, **options: Any) -> dict[str, Any]:
    try:
        verified = verifier.verify(token, **options)
    except TokenRevoked as error:
        return {"why": "revoked", "target": error.target}
    except TokenRejected as error:
        return {"why": error.reason}
    except StatusUnknown as error:
        return {"why": "unknown", "reason": error.reason, "age_s": error.age_s}
    return {"why": "accepted", "fresh": verified.freshness.fresh, "age_s": verified.freshness.age_s}


LOOP = asyncio.new_event_loop()


def serve(client: Any, options: dict[str, Any]) -> None:
    verifier = Verifier(
        client, jwks=options["jwks"], algorithms=["ES256"], issuer=options["issuer"], audience=options["audience"],
        max_staleness=options["max_staleness"], on_stale=options["on_stale"],
    )  # fmt: skip
    tell(client)
    asked = Asked(client, verifier)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(asked.answer(json.loads(line))), flush=True)


async def serve_async(client: Any, options: dict[str, Any]) -> None:
    async with client:
        await asyncio.to_thread(serve, client, options)


def main() -> None:
    options = json.loads(sys.argv[1])
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
        configure(options["name"], "0")
    common = {
        "ping_interval": options["ping_interval"], "max_staleness": options["max_staleness"], "name": options["name"]
    }  # fmt: skip
    if options["kind"] == "thread":
        with RevocationClient(options["addresses"], **common) as client:
            serve(client, options)
    else:
        asyncio.set_event_loop(LOOP)
        LOOP.run_until_complete(serve_async(AsyncRevocationClient(options["addresses"], **common), options))


if __name__ == "__main__":
    main()
