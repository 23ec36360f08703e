"""The view against a dictionary, with both builders, in small and in large segments."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from revocation_sdk._lattice import NEVER, Cutoff, Group, Kind, join_groups, parse_groups
from revocation_sdk._packed import Builder, Packed, PureBuilder
from revocation_sdk._packed_fast import NumpyBuilder
from revocation_sdk._view import View
from tests.core.strategies import (
    BUILDERS,
    content,
    pack,
    rows,
    unhurried,
    unpack,
)
from tests.core.view_machine import machine

every_builder = pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS.keys())
tiny = pytest.mark.parametrize("builder", [PureBuilder(8, 2), NumpyBuilder(8, 2)], ids=["pure", "numpy"])


@every_builder
def test_a_view_behaves_like_a_dictionary(builder: Builder) -> None:
    run_state_machine_as_test(
        machine(builder), settings=settings(max_examples=20, stateful_step_count=20, deadline=None)
    )


@every_builder
@unhurried
@given(parts=st.lists(rows, max_size=6), seed=st.integers(0, 2**32))
def test_neither_order_nor_repetition_matters(builder: Builder, parts: list[bytes], seed: int) -> None:
    one, other, rng = View(builder), View(builder), random.Random(seed)
    for part in parts:
        one.merge(part)
    shuffled = parts + rng.choices(parts, k=3) if parts else []
    rng.shuffle(shuffled)
    cut = rng.randint(0, len(shuffled))
    other.merge(*shuffled[:cut])
    other.merge(b"".join(shuffled[cut:]))
    assert content(one) == content(other)


@every_builder
@unhurried
@given(blob=rows)
def test_chunks_change_nothing_and_parse_by_themselves(builder: Builder, blob: bytes) -> None:
    view = View(builder)
    view.merge(blob)
    states = [table.state for table in view.tables().values()]
    assert [len(list(parse_groups(chunk))) for chunk in view.chunks()] == [1 for _ in view.chunks()]
    assert [table.state for table in view.tables().values()] == states


@every_builder
def test_never_is_never(builder: Builder) -> None:
    view = View(builder)
    view.merge(join_groups([Group(Kind.KEY, 1, pack(3, [(5, Cutoff(NEVER, 0, 0)), (6, Cutoff(NEVER - 1, 0, 0))]))]))
    for now in (0.0, NEVER - 2, NEVER - 1, NEVER, 1e18, float("inf")):
        view.drop_expired(now)
        assert view.denied(Kind.KEY, 1, 5, now)
        assert view.denied(Kind.KEY, 1, 6, now) == (now < NEVER - 1)
    assert len(view) == 1


def test_a_time_that_is_none_drops_nothing() -> None:
    view = View()
    view.merge(join_groups([Group(1, 1, pack(1, [(5, Cutoff(9, 0, 0))]))]))
    with pytest.raises(ValueError, match="NaN"):
        view.drop_expired(float("nan"))
    assert len(view) == 1


@tiny
def test_looking_for_what_is_due_is_cheap(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(builder)
    view.merge(join_groups([Group(1, 1, pack(1, [(fp << 40, Cutoff(50 + fp % 9, 0, 0)) for fp in range(1000)]))]))
    monkeypatch.setattr(type(builder), "live", None)
    view.drop_expired(49)
    assert len(view) == 1000


@tiny
def test_a_small_batch_rewrites_one_segment_at_most(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    view = View(builder)
    written: list[object] = []
    view.merge(join_groups([Group(1, 1, pack(1, [(fp << 54, Cutoff(9, 0, 0)) for fp in range(1000)]))]))
    join = builder.join

    def counting(base: Packed, new: object, bits: int) -> Packed:
        written.append(new)
        return join(base, new, bits)

    monkeypatch.setattr(builder, "join", counting)
    for fp in (1, 2, 3):
        view.merge(join_groups([Group(1, 1, pack(1, [(fp, Cutoff(9, 0, 0))]))]))
    assert len(written) == 1


def spread(number: int) -> int:
    return number * 0x9E37_79B9_7F4A_7C15 % 2**64


KEPT = [spread(number) for number in range(100)]
STRANGE = [spread(number) for number in range(1_000_000, 1_000_100)]


class Reader(threading.Thread):
    """Looks, again and again, for what has always been there and for what never was."""

    def __init__(self, view: View) -> None:
        super().__init__()
        self.view = view
        self.looks = 0
        self.ended = False
        self.wrong: list[str] = []

    def run(self) -> None:
        try:
            while not self.ended:
                self.look()
                self.looks += 1
        except Exception as error:
            self.wrong.append(repr(error))

    def look(self) -> None:
        view, table = self.view, self.view.tables()[1, 1]
        self.wrong += ["missed" for fp in KEPT if not view.denied(Kind.TOKEN, 1, fp, 0)]
        self.wrong += ["invented" for fp in STRANGE if view.denied(Kind.TOKEN, 1, fp, 0)]
        if len(table.find_all(KEPT)) != len(KEPT):
            self.wrong.append("missed by find_all")
        told: set[int] = set()
        for chunk in view.chunks():
            told.update(fp for _, _, packed in parse_groups(chunk) for fp, _ in unpack(1, packed))
        if not told.issuperset(KEPT):
            self.wrong.append("missed by chunks")


@pytest.fixture
def hectic() -> Iterator[None]:
    """Threads take turns as often as they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@tiny
@pytest.mark.usefixtures("hectic")
def test_readers_miss_nothing_while_the_view_is_rebuilt(builder: Builder) -> None:
    view = View(builder)
    view.merge(join_groups([Group(1, 1, pack(1, [(fp, Cutoff(NEVER, 0, 0)) for fp in KEPT]))]))
    reader, number = Reader(view), 200
    reader.start()
    while reader.looks < 20 and reader.is_alive():
        batch = [(spread(number + offset), Cutoff(number, 0, 0)) for offset in range(60)]
        number += 60
        view.merge(join_groups([Group(1, 1, pack(1, batch[:50]))]))
        for entry in batch[50:]:
            view.merge(join_groups([Group(1, 1, pack(1, [entry]))]))
        view.drop_expired(number - 600)
    reader.ended = True
    reader.join()
    assert not reader.wrong
