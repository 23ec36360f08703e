"""The view against a dictionary: the machine that test_view and test_mutations run."""

from __future__ import annotations

import random
from typing import ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from revocation_sdk._lattice import NEVER, Cutoff, Group, Kind, MalformedRows, join_groups, parse_groups
from revocation_sdk._packed import Builder
from revocation_sdk._view import View, rows_missing
from tests.core.strategies import (
    Model,
    content,
    expiries,
    fingerprints,
    join_into,
    malformed_tails,
    pack,
    places,
    rows,
    unpack,
    without_empty,
)


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
        wanted: list[Group] = []
        for kind, tag, packed in parse_groups(blob):
            changing = [(fp, entry) for fp, entry in unpack(kind, packed) if self.changes(kind, tag, fp, entry)]
            wanted.append(Group(kind, tag, pack(kind, changing)))
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
        for place, table in without_empty(self.model).items():
            found = self.view.tables()[place]
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
