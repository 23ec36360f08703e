"""Who counts, who is done, and what the answers of several replicas add up to."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from revocation.fanout import landing
from revocation.fanout.landing import Owed, Report, Roster, Tally, Verifier, lag, reached, renewed
from revocation_sdk._position import NOWHERE, Position

OLD, NEW = b"o" * 16, b"n" * 16


def at(seq: int, log_id: bytes = NEW, past: int = 0) -> Position:
    return Position(log_id, seq, bytes([past]) * 20)


def verifier(number: int = 1, **fields: object) -> Verifier:
    made = Verifier(bytes([number]) * 16, f"v{number}", "anonymous", "sdk", 0.0)
    for name, value in fields.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize(
    ("applied", "done"),
    [
        ((at(5),), True),
        ((at(6),), True),
        ((at(4),), False),
        ((at(9, OLD),), False),  # a number of another history says nothing
        ((at(5, past=1),), False),  # the same number in another past neither
        ((NOWHERE,), False),
        ((), False),
    ],
)
def test_done_is_who_has_applied_it_in_the_same_history(applied: tuple[Position, ...], done: bool) -> None:
    assert reached(applied, (at(5),)) is done


def test_every_partition_that_makes_a_demand_counts() -> None:
    assert reached((at(1), at(7)), (NOWHERE, at(7)))
    assert not reached((at(9), at(6)), (NOWHERE, at(7)))
    assert not reached((at(9),), (NOWHERE, at(7)))


def test_a_position_of_an_older_history_becomes_the_one_in_force() -> None:
    """H3: what was acknowledged there has been brought along, to somewhere before what a barrier proved."""
    assert renewed((at(3, OLD), NOWHERE, at(2)), (at(50), at(9), at(8))) == (at(50), NOWHERE, at(2))
    assert renewed((at(9),), (at(8),)) is None
    assert renewed((at(8, past=1),), (at(8),)) is None


def test_lag_is_counted_in_records_and_never_across_histories() -> None:
    assert lag((at(3), at(5)), (at(10), at(5))) == 7
    assert lag((at(3, OLD),), (at(10),)) == -1
    assert lag((), (at(10),)) == -1


def test_a_stream_that_ended_counts_for_as_long_as_it_can_be_fresh() -> None:
    roster, gone, silent = Roster(), verifier(1, answered=10.0, staleness_s=15.0), verifier(2)
    for one in (gone, silent):
        roster.begin(one)
    assert set(roster.all(11.0)) == {gone, silent}
    for one in (gone, silent):
        roster.end(one, 12.0)
    assert roster.all(24.9) == [gone]  # who was never answered was never fresh by this stream
    assert roster.all(25.0) == []
    assert roster.longest_s(13.0) == 15.0
    assert roster.longest_s(26.0) == 0.0


def test_the_later_of_two_streams_of_one_verifier_counts() -> None:
    roster, first, second = Roster(), verifier(answered=10.0), verifier(answered=12.0)
    roster.end(second, 13.0)
    roster.end(first, 14.0)
    assert roster.all(26.0) == [second]


def test_more_than_can_be_remembered_make_the_replica_say_that_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(landing, "MOST_LEFT", 2)
    roster = Roster()
    for number in range(3):
        roster.end(verifier(number, answered=10.0), 11.0)
    assert len(roster.left) == 2
    assert roster.crowded_until == 25.0


def test_nobody_speaks_for_somebody_else() -> None:
    one, other = verifier(), replace_identity(verifier(), "mallory")
    assert one.key != other.key
    assert one.key == verifier().key


def replace_identity(one: Verifier, identity: str) -> Verifier:
    return Verifier(one.instance, one.name, identity, one.sdk_version, one.since)


def owed(key: bytes, left_s: float = math.inf) -> Owed:
    return Owed(key, left_s, {})


A, B, C = b"a" * 16, b"b" * 16, b"c" * 16


def test_all_is_complete_when_every_replica_has_answered_and_nobody_is_owed() -> None:
    tally = Tally({"r1", "r2"}, 0)
    present = {"r1", "r2"}
    tally.add("r1", Report(frozenset((A,)), ()), 0.0)
    assert tally.landing(0.0, present).silent == ("r2",)
    assert not tally.landing(0.0, present).complete
    tally.add("r2", Report(frozenset(), (owed(B),)), 0.0)
    assert not tally.landing(0.0, present).complete
    assert [one.key for one in tally.landing(0.0, present).laggards] == [B]
    tally.add("r2", Report(frozenset((B,)), ()), 1.0)
    found = tally.landing(1.0, present)
    assert found.complete
    assert (found.applied, found.live) == (2, 2)


def test_a_verifier_that_went_to_another_replica_is_done_when_it_says_so_there() -> None:
    tally = Tally({"r1", "r2"}, 0)
    tally.add("r1", Report(frozenset(), (owed(A, 15.0),)), 0.0)
    tally.add("r2", Report(frozenset((A,)), ()), 0.1)
    assert tally.landing(0.1, {"r1", "r2"}).complete


def test_who_cannot_be_fresh_any_more_is_owed_nothing() -> None:
    tally = Tally({"r1"}, 0)
    tally.add("r1", Report(frozenset(), (owed(A, 5.0),)), 10.0)
    assert not tally.landing(14.9, {"r1"}).complete
    assert tally.landing(15.0, {"r1"}).complete
    assert tally.landing(15.0, {"r1"}).live == 0


def test_a_replica_that_died_is_silent_for_as_long_as_its_verifiers_can_be_fresh() -> None:
    tally = Tally({"r1", "r2"}, 0)
    tally.add("r1", Report(frozenset((A,)), ()), 0.0)
    assert tally.landing(0.0, {"r1"}, gone={"r2"}).silent == ("r2",)
    assert tally.landing(0.0, {"r1"}).complete
    assert tally.landing(0.0, {"r1"}, gone={"r3"}).silent == ("r3",)


def test_a_number_is_complete_whoever_lags() -> None:
    tally = Tally({"r1", "r2"}, 2)
    tally.add("r1", Report(frozenset((A,)), (owed(C),)), 0.0)
    assert not tally.landing(0.0, {"r1", "r2"}).complete
    tally.add("r1", Report(frozenset((B,)), (owed(C),)), 0.0)
    assert tally.landing(0.0, {"r1", "r2"}).complete


def test_a_replica_that_cannot_know_all_of_its_own_is_silent() -> None:
    tally = Tally({"r1"}, 0)
    tally.add("r1", Report(frozenset(), (), crowded=True), 0.0)
    assert tally.landing(0.0, {"r1"}).silent == ("r1",)
    tally.add("r1", Report(frozenset(), (), more=3), 0.0)
    assert not tally.landing(0.0, {"r1"}).complete
    assert tally.landing(0.0, {"r1"}).live == 3


KEYS = st.integers(0, 5).map(lambda number: bytes([number]) * 16)
REPORTS = st.builds(
    Report,
    st.frozensets(KEYS),
    st.lists(st.builds(Owed, KEYS, st.floats(0, 30), st.just({})), max_size=6, unique_by=lambda one: one.key).map(
        tuple
    ),
    st.integers(0, 1),
    st.booleans(),
)


@given(
    st.lists(st.tuples(st.sampled_from(["r1", "r2", "r3"]), REPORTS), max_size=12),
    st.sets(st.sampled_from(["r1", "r2", "r3"]), min_size=1),
    st.floats(0, 40),
)
def test_complete_never_hides_anybody(told: list[tuple[str, Report]], present: set[str], now: float) -> None:
    """Whatever comes in whichever order: "all" is complete only if the last word of every replica owes nobody."""
    tally = Tally({"r1", "r2", "r3"}, 0)
    for replica, report in told:
        tally.add(replica, report, 0.0)
    found = tally.landing(now, present)
    last = dict(told)
    done = {key for _, report in told for key in report.done}
    lacking = {one.key for report in last.values() for one in report.owed if one.left_s > now} - done
    silent = {name for name in present if name not in last} | {name for name, report in last.items() if report.crowded}
    more = sum(report.more for report in last.values())
    assert found.complete == (not lacking and not silent and not more)
    assert {one.key for one in found.laggards} == lacking
    assert set(found.silent) == silent
    assert found.live == len(done) + len(lacking) + more


def test_what_a_verifier_tells_of_its_staleness_is_bounded() -> None:
    one = verifier()
    one.judged_by(0)
    assert one.staleness_s == landing.DEFAULT_STALENESS_S
    one.judged_by(2_500)
    assert one.staleness_s == 2.5
    one.judged_by(2**62)
    assert one.staleness_s == landing.LONGEST_STALENESS_S


def test_a_report_is_replaced_by_the_next_of_the_same_replica() -> None:
    tally = Tally({"r1"}, 0)
    tally.add("r1", Report(frozenset(), (owed(A), owed(B))), 0.0)
    tally.add("r1", replace(Report(frozenset((A,)), ()), owed=(owed(C),)), 1.0)
    assert [one.key for one in tally.landing(1.0, {"r1"}).laggards] == [C]
