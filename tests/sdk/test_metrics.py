"""A client's metrics in the application's own registry."""

from __future__ import annotations

import gc

import jwt
import pytest
from prometheus_client import CollectorRegistry

from revocation_sdk import RevocationClient, State, StatusUnknown, TokenInvalid, TokenRevoked, Verifier
from revocation_sdk._counts import APPLY_BUCKETS_S, OUTCOMES
from revocation_sdk.testing import FakeRevocations
from tests.sdk.peer import Peer

KEY = "k" * 32
LIMIT_S = 20.0


def value(registry: CollectorRegistry, name: str, client: str = "", **labels: str) -> float | None:
    return registry.get_sample_value(f"revocation_client_{name}", {"realm": "default", "client": client, **labels})


def token(client: FakeRevocations, **claims: object) -> str:
    now = int(client.clock.wall())
    return jwt.encode({"iss": "i", "aud": "a", "iat": now, "exp": now + 600, "jti": "1", **claims}, KEY)


def test_verdicts_are_counted_by_outcome_and_look_ups_by_cache() -> None:
    client, registry = FakeRevocations(), CollectorRegistry()
    client.metrics(registry)
    client.wait_until_fresh(5)
    verifier = Verifier(client, key=KEY, algorithms=["HS256"], issuer="i", audience="a", version_claim=None)
    good, bad = token(client), token(client, jti="2")
    for _ in range(3):
        verifier.verify(good)
    client.revoke_token(bad)
    for wrong, error in ((bad, TokenRevoked), ("x.y.z", TokenInvalid)):
        with pytest.raises(error):
            verifier.verify(wrong)
    client.go_stale()
    with pytest.raises(StatusUnknown):
        verifier.verify(good)
    verifier.verify(good, on_stale="allow")
    found = {outcome: value(registry, "verdicts_total", outcome=outcome) for outcome in OUTCOMES}
    assert found == {
        "accepted": 3, "accepted_stale": 1, "revoked": 1, "expired": 0, "invalid": 1, "unknown": 1, "failed": 0,
    }  # fmt: skip
    assert (value(registry, "cache_hits_total"), value(registry, "cache_misses_total")) == (4, 2)


def test_claims_that_others_verified_count_too() -> None:
    client, registry = FakeRevocations(), CollectorRegistry()
    client.metrics(registry)
    client.wait_until_fresh(5)
    now = client.clock.wall()
    client.check({"jti": "1", "iat": now, "exp": now + 60, "tver": []})
    with pytest.raises(TokenInvalid):
        client.check({"exp": now + 60})
    assert value(registry, "verdicts_total", outcome="accepted") == 1
    assert value(registry, "verdicts_total", outcome="invalid") == 1


def test_state_age_and_position_are_worked_out_at_the_scrape() -> None:
    with Peer() as peer, RevocationClient(peer.address, ping_interval=0.1, name="api") as client:
        registry = CollectorRegistry()
        client.metrics(registry)
        client.wait_until_fresh(LIMIT_S)
        client.revoke_subject("alice")
        states = {state: value(registry, "state", "api", state=state.value) for state in State}
        assert states == {state: float(state is State.FRESH) for state in State}
        assert value(registry, "max_staleness_seconds", "api") == 15
        assert value(registry, "entries", "api") == 1
        age = value(registry, "age_seconds", "api")
        assert age is not None
        assert 0 <= age <= 15
        # Welcome, chunk and end of the snapshot at least.
        total = value(registry, "apply_seconds_count", "api")
        assert total is not None
        assert total >= 3
        assert value(registry, "apply_seconds_bucket", "api", le=str(APPLY_BUCKETS_S[-1])) == total
        stream = peer.next_stream()
        stream._end()
        peer.next_stream()
        assert value(registry, "streams_ended_total", "api", reason="stream_ended") == 1


def test_several_clients_share_a_registry_and_one_that_is_gone_is_left_out() -> None:
    registry = CollectorRegistry()
    one, two = FakeRevocations(), FakeRevocations()
    one.metrics(registry, "one")
    two.metrics(registry, "two")
    one.metrics(registry, "one")  # again does no harm
    with pytest.raises(ValueError, match="two"):
        one.metrics(registry, "two")
    assert value(registry, "entries", "one") == value(registry, "entries", "two") == 0
    del two
    gc.collect()
    assert value(registry, "entries", "two") is None
    assert value(registry, "entries", "one") == 0


def test_a_client_that_is_closed_makes_room_for_its_successor() -> None:
    """Though it is still there: the parts of a client refer to each other, and garbage is collected now and then."""
    registry, one = CollectorRegistry(), FakeRevocations()
    one.metrics(registry)
    with pytest.raises(ValueError, match="give another name"):
        FakeRevocations().metrics(registry)
    one.close()
    assert value(registry, "state", state="closed") == 1
    two = FakeRevocations()
    two.metrics(registry)
    assert value(registry, "state", state="closed") == 0
    assert value(registry, "state", state="idle") == 1
