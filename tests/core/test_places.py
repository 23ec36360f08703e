"""Places that realms share: one cannot take what is for the others."""

from __future__ import annotations

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from revocation.fairness.places import Places

REALMS = st.sampled_from("abcdefgh")


@given(total=st.integers(0, 64), steps=st.lists(st.tuples(REALMS, st.booleans()), max_size=300))
def test_never_more_than_there_are_and_never_more_than_half_for_one(total: int, steps: list[tuple[str, bool]]) -> None:
    places, held = Places(total), Counter[str]()
    for realm, take in steps:
        if take:
            may = held[realm] < total - held.total()
            assert places.take(realm) == may
            held[realm] += may
        elif held[realm]:
            places.leave(realm)
            held[realm] -= 1
        assert held.total() <= total
        assert max(held.values(), default=0) <= (total + 1) // 2


def test_several_greedy_realms_leave_some_to_another() -> None:
    places = Places(128)
    got = []
    for realm in "abcdefgh":
        count = 0
        while places.take(realm):
            count += 1
        got.append(count)
    assert got == [64, 32, 16, 8, 4, 2, 1, 1]


def test_what_is_given_back_is_there_again() -> None:
    places = Places(2)
    for _ in range(3):
        assert places.take("a")
        assert not places.take("a")
        places.leave("a")
