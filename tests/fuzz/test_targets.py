"""Every target for a moment, with the corpus and the same inputs each time; `make fuzz` is the long campaign."""

from __future__ import annotations

import pytest

from tests.fuzz.campaign import IN_MEMORY, LIVE, run
from tests.fuzz.target import CORPUS, corpus

FEW = {"inspect": 60, "realms-file": 150, "environment": 150, "rows": 200, "grpc-watch": 400, "grpc-audit": 150}


@pytest.mark.parametrize("name", [target.name for target in IN_MEMORY])
def test_no_input_makes_a_parser_stumble(name: str) -> None:
    report = run(name, FEW.get(name, 1000) + len(corpus(name)), seed=1)
    assert report.findings == []
    assert report.inputs >= len(corpus(name))
    assert len(report.words) > 1, "inputs of one kind only test little"


@pytest.mark.e2e
@pytest.mark.parametrize("name", [target.name for target in LIVE])
def test_no_input_makes_a_service_stumble(name: str) -> None:
    report = run(name, FEW.get(name, 1000) + len(corpus(name)), seed=1)
    assert report.findings == []
    assert len(report.words) > 1


def test_the_corpus_belongs_to_targets() -> None:
    """A file of another name would be read by nobody."""
    names = {target.name for target in (*IN_MEMORY, *LIVE)}
    files = {path.stem for path in CORPUS.glob("*.txt")}
    assert files
    assert files <= names
