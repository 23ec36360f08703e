"""Planted mistakes: each is caught, by the schedule that is kept for it; and what it breaks is in docs/mutations.md.

A checker that finds nothing proves nothing until it has been seen to find something.
"""

from __future__ import annotations

import runpy
from dataclasses import replace

import pytest

from tests.sim.counterexamples import COUNTEREXAMPLES
from tests.sim.mutants import MUTANTS
from tests.sim.mutations import DOCUMENT, written
from tests.sim.rules import RULES
from tests.sim.search import run_with
from tests.sim.shrink import sort_of

SEEDS = 400
"""The seed decides all delays; which of them show a mistake changes with the product."""


@pytest.mark.parametrize("mistake", MUTANTS)
def test_a_planted_mistake_is_caught(mistake: str) -> None:
    example = COUNTEREXAMPLES[mistake]
    found = set[str]()
    for seed in range(SEEDS):
        schedule = replace(example.schedule, seed=seed)
        found |= {sort_of(text) for text in run_with(schedule, mistake).violations}
        if example.breaks in found:
            assert not run_with(schedule, None).violations, "it is the mistake that shows"
            return
    pytest.fail(f"{mistake} ({MUTANTS[mistake].what}) does not break {example.breaks}, only {found or 'nothing'}")


@pytest.mark.parametrize("mistake", COUNTEREXAMPLES)
def test_its_schedule_is_harmless_without_it(mistake: str) -> None:
    for seed in range(10):
        assert not run_with(replace(COUNTEREXAMPLES[mistake].schedule, seed=seed), None).violations


def test_every_validator_has_failed() -> None:
    validators = {"I1", "I2", "I3", "I4", "op-id", "versions", "level", "ordered", "unique", "gapless", "resumable"}
    assert {example.breaks for example in COUNTEREXAMPLES.values()} == validators


def test_the_document_lists_them_all() -> None:
    text = DOCUMENT.read_text()
    assert written(text) == text, "python -m tests.sim.mutations"


def test_the_models_cases_exist() -> None:
    module = runpy.run_path(str(DOCUMENT.parents[1] / "model/check.py"))
    cases = {name for _, name, *_ in module["cases"]()}
    assert {case for listed in RULES.values() for case in listed} <= cases
