"""Fair limits, and the queue in which realms take turns."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from revocation.fairness.quotas import BETWEEN_REALMS, MOST_HELD, MOST_IDENTITIES, Bucket, Quotas, Refused
from revocation.fairness.turns import FairQueue
from revocation.realms import RealmLimits, RealmSettings

AMOUNTS = st.lists(st.tuples(st.floats(0, 3), st.integers(1, 40)), max_size=200)


@given(rate=st.integers(1, 50), burst=st.integers(1, 60), asked=AMOUNTS)
def test_a_bucket_never_gives_more_than_burst_and_rate(rate: int, burst: int, asked: list[tuple[float, int]]) -> None:
    bucket, mono, given_since_start, largest = Bucket(rate, burst), 0.0, 0, 0
    for pause, amount in asked:
        mono += pause
        if bucket.wait_s(amount, mono) == 0:
            bucket.take(amount)
            given_since_start, largest = given_since_start + amount, max(largest, amount)
        assert given_since_start <= burst + rate * mono + max(0, largest - burst) + 1e-6


@given(rate=st.integers(1, 50), burst=st.integers(1, 60), asked=AMOUNTS)
def test_who_waits_as_long_as_told_gets_it(rate: int, burst: int, asked: list[tuple[float, int]]) -> None:
    bucket, mono = Bucket(rate, burst), 0.0
    for pause, amount in asked:
        mono += pause
        mono += bucket.wait_s(amount, mono) + 1e-9
        assert bucket.wait_s(amount, mono) == pytest.approx(0, abs=1e-6)
        bucket.take(amount)


def quotas(**limits: int) -> tuple[Quotas, dict[tuple[str, str], int]]:
    refusals: dict[tuple[str, str], int] = defaultdict(int)

    def count(realm: str, limit: str) -> None:
        refusals[realm, limit] += 1

    return Quotas({"shop": RealmLimits(**limits), "bank": RealmLimits()}, count), refusals


def admitted(made: Quotas, realm: str, identity: str, times: int, mono: float = 0.0, rows: int = 0) -> int:
    """How many of so many calls were let in, one after the other."""
    count = 0
    for _ in range(times):
        if made.admit(realm, identity, rows, mono) is None:
            made.leave(realm)
            count += 1
    return count


def test_one_realm_and_one_identity_use_up_nobody_elses() -> None:
    made, refusals = quotas(calls_per_s=100, calls_burst=50, identity_calls_per_s=10, identity_calls_burst=20)
    assert admitted(made, "shop", "noisy", 100) == 20
    assert admitted(made, "shop", "quiet", 20) == 20, "the noisy one was refused before it took from the realm"
    assert admitted(made, "shop", "third", 20) == 10
    assert admitted(made, "bank", "noisy", 1_000) == 1_000
    assert refusals == {("shop", "identity_calls"): 80, ("shop", "calls"): 10}
    assert admitted(made, "shop", "noisy", 100, mono=1.0) == 10


def test_a_batch_weighs_its_rows_and_a_refused_one_nothing() -> None:
    made, refusals = quotas(rows_per_s=1_000)
    assert admitted(made, "shop", "me", 3, rows=1_500) == 1, "two seconds' worth are there, and a part of that is left"
    assert admitted(made, "shop", "me", 1, rows=500) == 1
    assert refusals == {("shop", "rows"): 2}
    assert admitted(made, "shop", "me", 1, rows=100_000, mono=2.0) == 1, (
        "more than the bucket holds goes when it is full"
    )
    assert admitted(made, "shop", "me", 1, rows=1, mono=50.0) == 0, "and is paid off"
    assert admitted(made, "shop", "me", 1, rows=1, mono=101.0) == 1
    assert admitted(made, "shop", "me", 5) == 5, "calls without rows are not held up"


def test_calls_at_once_are_bounded_and_free_their_place() -> None:
    made, _ = quotas(max_in_flight=2)
    assert [made.admit("shop", "me", 0, 0.0) for _ in range(2)] == [None, None]
    refused = made.admit("shop", "me", 0, 0.0)
    assert isinstance(refused, Refused)
    assert refused.limit == "in_flight"
    made.leave("shop")
    assert made.admit("shop", "me", 0, 0.0) is None


def test_streams_and_what_they_catch_up_with_are_bounded() -> None:
    made, refusals = quotas(max_subscribers=3, max_snapshots=1, catch_up_bytes_per_s=100)
    assert made.admit_stream("shop", 2, 10) is None
    assert made.admit_stream("shop", 3, 10) is not None
    assert made.admit_stream("bank", 4, 10) is None
    assert made.admit_stream("bank", 5, 10) is not None, "a realm that says nothing has half of the places"
    assert made.may_snapshot("shop")
    made.catching_up("shop", 10_000, snapshot=True)
    assert not made.may_snapshot("shop")
    assert made.may_snapshot("bank")
    late = made.admit_late("shop", 0.0)
    assert isinstance(late, Refused)
    assert late.retry_after_ms == pytest.approx((10_000 - 1_600 + 1) * 10, rel=0.01)
    assert made.admit_late("bank", 0.0) is None
    made.caught_up("shop", snapshot=True)
    assert made.may_snapshot("shop")
    assert set(refusals) == {
        ("shop", "subscribers"), ("bank", "subscribers"), ("shop", "snapshots"), ("shop", "catch_up"),
    }  # fmt: skip


def test_a_realm_alone_has_no_limits_and_several_share() -> None:
    alone = Quotas({"default": RealmLimits()}, lambda realm, limit: None)
    assert admitted(alone, "default", "me", 20_000) == 20_000
    assert alone.admit_stream("default", 9_999, 10_000) is None
    shared, _ = quotas(calls_per_s=0)
    assert admitted(shared, "shop", "me", 20_000) == 20_000, "0 is no limit"
    assert BETWEEN_REALMS.calls_per_s is not None
    assert admitted(shared, "bank", "me", 20_000) == 2 * BETWEEN_REALMS.calls_per_s


def test_memory_for_identities_and_held_refusals_is_bounded() -> None:
    made, _ = quotas(identity_calls_per_s=1, calls_per_s=0)
    for number in range(MOST_IDENTITIES + 100):
        assert admitted(made, "shop", f"identity-{number}", 1) == 1
    assert len(made._realms["shop"].identities) == MOST_IDENTITIES
    assert [made.hold("shop") for _ in range(MOST_HELD + 1)] == [True] * MOST_HELD + [False]
    made.let_go("shop")
    assert made.hold("shop")


def test_an_unknown_realm_is_not_the_quotas_business() -> None:
    made, _ = quotas()
    assert made.admit("nowhere", "me", 0, 0.0) is None
    made.leave("nowhere")


def test_limits_in_a_realms_file() -> None:
    settings = RealmSettings.model_validate({"limits": {"calls_per_s": 5}})
    assert settings.limits.filled(BETWEEN_REALMS) == BETWEEN_REALMS.model_copy(update={"calls_per_s": 5})
    with pytest.raises(ValidationError, match="calls_per_sec"):
        RealmSettings.model_validate({"limits": {"calls_per_sec": 5}})


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(("put", "take"))), max_size=200))
def test_realms_take_turns_and_each_keeps_its_order(steps: list[tuple[str, str]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue()
    waiting: dict[str, list[int]] = defaultdict(list)
    since: dict[str, int] = {}
    for number, (realm, what) in enumerate(steps):
        if what == "put":
            queue.put(realm, (realm, number))
            waiting[realm].append(number)
            since.setdefault(realm, 0)
        elif queue:
            first = queue.first()
            taken, item = queue.take()
            assert first == (taken, item)
            assert item == waiting[taken].pop(0)
            since = {name: turns + 1 for name, turns in since.items() if name != taken}
            if waiting[taken]:
                since[taken] = 0
            assert all(turns < 3 for turns in since.values()), "nobody is passed over while the others go twice"
        assert len(queue) == sum(map(len, waiting.values()))


def test_what_is_put_back_is_in_front_in_its_order() -> None:
    queue: FairQueue[int] = FairQueue()
    queue.put("a", 3)
    queue.put_back("a", [1, 2])
    assert [queue.take() for _ in range(3)] == [1, 2, 3]
    assert not queue
    with pytest.raises(StopIteration):
        queue.first()


def test_the_defaults_between_realms_are_those_that_are_documented() -> None:
    for name, value in BETWEEN_REALMS.model_dump(exclude_none=True).items():
        assert f"With several realms: {value:,}." in (RealmLimits.model_fields[name].description or ""), name
