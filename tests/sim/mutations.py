"""Writes the tables of docs/mutations.md: `python -m tests.sim.mutations`. A test keeps them in step with the code."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path

from tests.core import test_mutations as client_side
from tests.sim.counterexamples import COUNTEREXAMPLES
from tests.sim.mutants import MUTANTS
from tests.sim.rules import RULES

DOCUMENT = Path(__file__).parents[2] / "docs/mutations.md"
_BEGIN, _END = "<!-- made by python -m tests.sim.mutations -->\n", "<!-- end -->\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _both_sides() -> Iterator[str]:
    yield _row("rule", "mistake", "breaks", "schedule, and its test")
    yield _row("---", "---", "---", "---")
    for name, mutant in sorted(MUTANTS.items(), key=lambda item: _order(item[1].rule)):
        yield _row(
            mutant.rule, mutant.what, COUNTEREXAMPLES[name].breaks, f"`test_a_planted_mistake_is_caught[{name}]`"
        )


def _order(rule: str) -> tuple[int, str, int]:
    number = rule[1:]
    return (0, rule[0], int(number)) if number.isdigit() else (1, rule, 0)


def _client_side() -> Iterator[str]:
    yield _row("mistake", "test")
    yield _row("---", "---")
    for mutant in client_side.MUTANTS:
        yield _row(_sentence(mutant), f"`test_the_simulator_catches[{mutant.__name__}]`")
    for table in client_side.TABLES:
        yield _row(_sentence(table), f"`test_the_dictionary_shows[{table.__name__}]`")


def _sentence(planted: type) -> str:
    return (inspect.getdoc(planted) or "").removesuffix(".").replace("\n", " ")


def _rules() -> Iterator[str]:
    yield _row("rule", "simulator", "model")
    yield _row("---", "---", "---")
    for rule, cases in RULES.items():
        planted = [f"`{name}`" for name, mutant in MUTANTS.items() if mutant.rule == rule]
        planted += [f"`{kind.__name__}`" for kind in client_side.MUTANTS if _sentence(kind).startswith(f"{rule}:")]
        yield _row(rule, ", ".join(planted) or "-", ", ".join(f"`{case}`" for case in cases) or "-")


TABLES = (_both_sides, _client_side, _rules)


def written(text: str) -> str:
    """The document with its tables made anew."""
    parts = text.split(_BEGIN)
    made = [parts[0]]
    for part, table in zip(parts[1:], TABLES, strict=True):
        made.append(_BEGIN + "\n" + "".join(table()) + "\n" + _END + part.split(_END, 1)[1])
    return "".join(made)


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text()))
