"""Rows "full revocation check" and "verify() of a token seen before", beside what an application would do instead."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flask
import flask_jwt_extended
import jwt
import numpy as np
import redis

from bench.lab import Lab
from bench.measure import Spread, each, once, ratios, turns
from revocation_sdk import RevocationClient, Verifier
from revocation_sdk._follower import Lease
from revocation_sdk._judge import Facts, judge
from revocation_sdk._lattice import Group, Kind, RealmKey, join_groups
from tests.e2e.tokens import AUDIENCE, ISSUER, Signer

SECRET = "a secret of the benchmark, long enough for HS256"
KEY = RealmKey(1, b"k" * 32)
_CLIENT = "web"


@dataclass
class Checks:
    """Seconds a call, round by round, by name."""

    found: dict[str, list[float]]

    def us(self, name: str) -> Spread:
        return Spread.of(value * 1e6 for value in self.found[name])

    def ratio(self, one: str, other: str) -> Spread:
        return ratios(self.found[one], self.found[other])


def denials(kind: Kind, count: int, expires_at: int, seed: int = 0) -> bytes:
    """Random entries."""
    rows = np.empty(count, np.dtype([("fp", "<u8"), ("expires_at", "<u4")]))
    rows["fp"] = np.random.default_rng([count, seed]).integers(0, 2**64, count, np.uint64)
    rows["expires_at"] = expires_at
    return join_groups([Group(kind, KEY.tag, rows.tobytes())])


def cutoffs(kind: Kind, count: int, expires_at: int) -> bytes:
    rows = np.empty(count, np.dtype([("fp", "<u8"), ("expires_at", "<u4"), ("version", "<u8"), ("at_ms", "<u8")]))
    rows["fp"] = np.random.default_rng(count + kind).integers(0, 2**64, count, np.uint64)
    rows["expires_at"], rows["version"], rows["at_ms"] = expires_at, 1, 1
    return join_groups([Group(kind, KEY.tag, rows.tobytes())])


def client_with(tokens: int, others: int) -> RevocationClient:
    """A client whose view holds so many revoked tokens, sessions and subjects, and is fresh; nothing is connected."""
    client = RevocationClient("localhost:1", max_staleness=3600)
    client._core.following._worker.started_at = 0.0  # as if it followed
    follower, now = client.follower, time.time()
    follower.keys = (KEY,)
    until = int(now) + 86_400
    if tokens:
        follower.view.merge(denials(Kind.TOKEN, tokens, until))
    if others:
        follower.view.merge(denials(Kind.SESSION, others, until), cutoffs(Kind.SUBJECT, others, until))
        follower.view.merge(cutoffs(Kind.CLIENT, 20, until), cutoffs(Kind.REALM, 1, until))
        follower.view.merge(denials(Kind.KEY, 2, until))
    mono = client.clock.mono()
    follower.lease = Lease(mono, now, mono, int(now * 1000), ())
    return client


def claims(count: int) -> list[dict[str, Any]]:
    now = int(time.time())
    return [
        {
            "iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600, "jti": secrets.token_hex(16),
            "sub": f"user-{secrets.token_hex(6)}", "sid": secrets.token_hex(16), "client_id": _CLIENT,
        }
        for _ in range(count)
    ]  # fmt: skip


def _facts(of: dict[str, Any]) -> Facts:
    return Facts(of["iss"], of["jti"], of["sid"], of["sub"], of["client_id"], issued_at=of["iat"], kid="k1")


def _hashes(facts: Facts) -> None:
    """The fingerprints that a check of a token never seen needs: three targets, under its issuer and under none."""
    for kind, value in ((Kind.TOKEN, facts.token_id), (Kind.SESSION, facts.sid), (Kind.SUBJECT, facts.subject)):
        KEY.fingerprint(kind, facts.issuer, value or "")
        KEY.fingerprint(kind, None, value or "")


def measure(lab: Lab, quick: bool) -> Checks:
    """All of it, in turns."""
    rounds, fresh = (3, 2_000) if quick else (15, 10_000)
    client = client_with(1_000_000, 100_000)
    signer = Signer()
    verifier = Verifier(
        client, jwks=signer.jwks(), algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE, max_staleness=3600
    )
    seen = claims(50)
    facts = [_facts(one) for one in seen]
    hs256 = [jwt.encode(one, SECRET, "HS256") for one in seen]
    es256 = [signer.sign(**one) for one in seen]
    public = signer.keys["k1"].public_key()
    revoked = {f"{number:032x}" for number in range(1_000_000)}
    asked = [secrets.token_hex(16) for _ in range(1_000)]
    view, keys, margin = client.follower.view, client.follower.keys, client.follower.settings.margin_s
    now = time.time()

    def changed(one: Facts) -> object:
        view.generation = object()
        return judge(view, keys, one, now, margin)

    def cold(make: Callable[[dict[str, Any]], Any], call: Callable[[Any], object]) -> Callable[[], float]:
        def job() -> float:
            return once(call, [make(one) for one in claims(fresh)])

        return job

    jobs: dict[str, Callable[[], float]] = {
        "PyJWT HS256": each(lambda t: jwt.decode(t, SECRET, ["HS256"], audience=AUDIENCE), hs256),
        "PyJWT ES256": each(lambda t: jwt.decode(t, public, ["ES256"], audience=AUDIENCE), es256),
        "judge hot": each(lambda one: judge(view, keys, one, now, margin), facts),
        "judge changed": each(changed, facts),
        "check hot": each(client.check, seen),
        "judge cold": cold(_facts, lambda one: judge(view, keys, one, now, margin)),
        "check cold": cold(dict, client.check),
        "hashes": cold(_facts, _hashes),
        "set": each(revoked.__contains__, asked),
        "verify seen": each(verifier.verify, es256),
        **_flask(lab, seen),
    }
    turns(1, jobs)  # whatever is done once
    return Checks(turns(rounds, jobs))


def _flask(lab: Lab, seen: Sequence[dict[str, Any]]) -> dict[str, Callable[[], float]]:
    """flask-jwt-extended as its documentation says: with a look-up in Redis for each request, and without."""
    store = redis.Redis.from_url(lab.store().url, decode_responses=True)

    def application(looks: bool) -> tuple[flask.Flask, str]:
        app = flask.Flask("bench")
        app.config["JWT_SECRET_KEY"] = SECRET
        manager = flask_jwt_extended.JWTManager(app)
        if looks:
            manager.token_in_blocklist_loader(lambda _, payload: store.get(payload["jti"]) is not None)
        with app.app_context():
            return app, flask_jwt_extended.create_access_token("user", additional_claims={"sid": seen[0]["sid"]})

    def request(looks: bool) -> Callable[[], float]:
        app, token = application(looks)

        def verify(_: object) -> None:
            flask.g.pop("_jwt_extended_jwt", None)
            flask_jwt_extended.verify_jwt_in_request()

        job = each(verify, [None], waits=True)

        def in_request() -> float:
            with app.test_request_context(headers={"Authorization": f"Bearer {token}"}):
                return job()

        return in_request

    return {
        "flask-jwt-extended": request(False),
        "flask-jwt-extended with Redis": request(True),
        "redis-py GET": each(store.get, [one["jti"] for one in seen], waits=True),
    }


def by_entries(sizes: Sequence[int], quick: bool) -> dict[int, dict[str, Spread]]:
    """The check and `str in set` by the number of revoked tokens."""
    return {size: _of_size(size, quick) for size in sizes}


def _of_size(size: int, quick: bool) -> dict[str, Spread]:
    client = client_with(size, size // 10)
    view, keys, now = client.follower.view, client.follower.keys, time.time()
    facts = [_facts(one) for one in claims(2_000)]
    names = {f"{number:032x}" for number in range(min(size, 1_000_000))}
    asked = [secrets.token_hex(16) for _ in range(2_000)]
    jobs = {
        "check": each(lambda one: judge(view, keys, one, now, 60), facts),
        "set": each(names.__contains__, asked),
    }
    took = turns(3 if quick else 7, jobs)
    return {name: Spread.of(value * 1e6 for value in values[1:]) for name, values in took.items()}
