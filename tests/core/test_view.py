"""The view against a dictionary, with both builders, in small and in large segments."""

from __future__ import annotations

import random
import sys
import threading
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from revocation_sdk._lattice import NEVER, Cutoff, Group, Kind, MalformedRows, join_groups, parse_groups
from revocation_sdk._packed import Builder, PureBuilder
from revocation_sdk._packed_fast import NumpyBuilder
from revocation_sdk._view import View, rows_missing
from tests.core.strategies import (
    BUILDERS,
    Model,
    content,
    expiries,
    fingerprints,
    join_into,
    malformed_tails,
    pack,
    places,
    rows,
    unhurried,
    unpack,
    without_empty,
)

every_builder = pytest.mark.parametrize("builder", BUILDERS.values(), ids=BUILDERS.keys())
tiny = pytest.mark.parametrize("builder", [PureBuilder(8, 2), NumpyBuilder(8, 2)], ids=["pure", "numpy"])


class ViewMachine(RuleBasedStateMachine):
    """Whatever is done to a view, it holds what a dictionary would."""

    builder: ClassVar[Builder]

    def __init__(self) -> None:
        super().__init__()
        self.view = self.new_view()
        self.model: Model = {}

    @classmethod
    def new_view(cls) -> View:
        return View(cls.builder)

    @rule(blob=rows)
    def merge(self, blob: bytes) -> None:
        self.view.merge(blob)
        join_into(self.model, blob)

    @rule(parts=st.lists(rows, max_size=4))
    def merge_many(self, parts: list[bytes]) -> None:
        self.view.merge(*parts)
        join_into(self.model, b"".join(parts))

    @rule(seed=st.integers(0, 2**32), kind=st.sampled_from((1, 64)), count=st.integers(50, 400))
    def merge_very_many(self, seed: int, kind: int, count: int) -> None:
        rng = random.Random(seed)
        entries = [
            (rng.randrange(2**64), Cutoff(rng.randrange(60), rng.randrange(9), rng.randrange(9))) for _ in range(count)
        ]
        self.merge(join_groups([Group(kind, 1, pack(kind, [*entries, *entries[::3]]))]))

    @rule(blob=rows, tail=malformed_tails)
    def merge_malformed(self, blob: bytes, tail: bytes) -> None:
        with pytest.raises(MalformedRows):
            self.view.merge(blob, blob + tail)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def merge_what_is_known(self, data: st.DataObject) -> None:
        place = data.draw(st.sampled_from(sorted(self.model)))
        known = list(self.model[place].items())[:20]
        self.merge(join_groups([Group(*place, pack(place[0], known))]))

    @rule(now=expiries | st.floats(-5, 2.0**33))
    def drop_expired(self, now: float) -> None:
        self.view.drop_expired(now)
        for place, table in self.model.items():
            self.model[place] = {
                fp: entry for fp, entry in table.items() if entry.expires_at > now or entry.expires_at == NEVER
            }

    @rule()
    def copy_by_chunks(self) -> None:
        """A snapshot of it makes the same view, and the view goes on as before."""
        chunks = list(self.view.chunks())
        assert content(self.view) == without_empty(self.model)
        self.view = self.new_view()
        self.view.merge(*chunks)

    @rule(blob=rows)
    def tell_what_is_missing(self, blob: bytes) -> None:
        before = set(self.view._tables)
        missing = rows_missing(self.view, blob)
        assert set(self.view._tables) == before
        wanted = [
            Group(
                kind,
                tag,
                pack(kind, [(fp, entry) for fp, entry in unpack(kind, packed) if self.changes(kind, tag, fp, entry)]),
            )
            for kind, tag, packed in parse_groups(blob)
        ]
        assert missing == join_groups(wanted)

    def changes(self, kind: int, tag: int, fp: int, entry: Cutoff) -> bool:
        known = self.model.get((kind, tag), {}).get(fp)
        return known is None or any(new > old for new, old in zip(entry, known, strict=True))

    @rule(place=places, fps=st.lists(fingerprints, max_size=5), now=st.integers(0, 50))
    def look_for_others(self, place: tuple[int, int], fps: list[int], now: int) -> None:
        table = self.model.get(place, {})
        for fp in fps:
            entry = table.get(fp)
            live = entry is not None and (entry.expires_at > now or entry.expires_at == NEVER)
            kind: Kind = place[0]  # type: ignore[assignment]  # also those of later versions
            assert self.view.cutoff(kind, place[1], fp, now) == (entry if live else None)
            assert self.view.denied(kind, place[1], fp, now) == live

    @invariant()
    def holds_what_the_dictionary_holds(self) -> None:
        assert len(self.view) == sum(map(len, self.model.values()))
        for (kind, tag), table in self.model.items():
            found = self.view.tables()[kind, tag]
            assert all(found.find(fp) == entry for fp, entry in table.items())
            assert found.find_all(table) == list(table.values())

    @invariant()
    def counts_by_kind(self) -> None:
        counts: dict[int, int] = {}
        for (kind, _), table in self.model.items():
            counts[kind] = counts.get(kind, 0) + len(table)
        assert {kind: count for kind, count in self.view.counts().items() if count} == {
            kind: count for kind, count in counts.items() if count
        }


def machine(builder: Builder, view: type[View] = View) -> type[ViewMachine]:
    new_view = classmethod(lambda cls: view(builder))
    return type("Machine", (ViewMachine,), {"builder": builder, "new_view": new_view})


@every_builder
def test_a_view_behaves_like_a_dictionary(builder: Builder) -> None:
    run_state_machine_as_test(
        machine(builder), settings=settings(max_examples=40, stateful_step_count=20, deadline=None)
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
    assert b"".join(one.chunks()) == b"".join(other.chunks()) or len(one) != len(other) or tiny_segments(builder)


def tiny_segments(builder: Builder) -> bool:
    """Chunks end with segments, and where these end depends on how many entries there were."""
    return builder.capacity < 100


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
    view.drop_expired(float("-inf")) if False else None
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
    view, written = View(builder), []
    view.merge(join_groups([Group(1, 1, pack(1, [(fp << 54, Cutoff(9, 0, 0)) for fp in range(1000)]))]))
    join = type(builder).join
    monkeypatch.setattr(type(builder), "join", lambda *args: written.append(args) or join(*args))
    for fp in (1, 2, 3):
        view.merge(join_groups([Group(1, 1, pack(1, [(fp, Cutoff(9, 0, 0))]))]))
    assert len(written) == 1


def spread(number: int) -> int:
    return number * 0x9E37_79B9_7F4A_7C15 % 2**64


@tiny
def test_readers_miss_nothing_while_the_view_is_rebuilt(builder: Builder) -> None:
    """A reader looks for entries that have been there from the beginning, while all around them everything changes."""
    view = View(builder)
    kept = [spread(number) for number in range(100)]
    strange = [spread(number) for number in range(1_000_000, 1_000_100)]
    view.merge(join_groups([Group(1, 1, pack(1, [(fp, Cutoff(NEVER, 0, 0)) for fp in kept]))]))
    table, wrong, looks, stop = view.tables()[1, 1], [], [0], threading.Event()

    def read() -> None:
        while not stop.is_set():
            wrong.extend(fp for fp in kept if not view.denied(Kind.TOKEN, 1, fp, 0))
            wrong.extend(fp for fp in strange if view.denied(Kind.TOKEN, 1, fp, 0))
            if len(table.find_all(kept)) != len(kept):
                wrong.append(0)
            told = {
                fp for chunk in view.chunks() for _, _, packed in parse_groups(chunk) for fp, _ in unpack(1, packed)
            }
            wrong.extend(fp for fp in kept if fp not in told)
            looks[0] += 1

    reader, interval = threading.Thread(target=read), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        reader.start()
        number = 200
        while looks[0] < 30:
            batch = [(spread(number + offset), Cutoff(number, 0, 0)) for offset in range(0, 60)]
            number += 60
            view.merge(join_groups([Group(1, 1, pack(1, batch[:50]))]))
            for entry in batch[50:]:
                view.merge(join_groups([Group(1, 1, pack(1, [entry]))]))
            view.drop_expired(number - 600)
    finally:
        stop.set()
        reader.join()
        sys.setswitchinterval(interval)
    assert not wrong
