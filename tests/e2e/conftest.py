"""Every test here gets an installation of its own and shows its logs when it fails."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.e2e.installation import Installation


@pytest.fixture
def installation() -> Iterator[Installation]:
    # Not pytest's own folder, whose name is too long for a socket in it.
    with TemporaryDirectory(prefix="rv-", ignore_cleanup_errors=True) as folder, Installation(Path(folder)) as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    values: dict[str, Any] = getattr(item, "funcargs", {})
    if report.when == "call" and report.failed:
        for made in values.values():
            if isinstance(made, Installation):
                report.sections += [(f"log of {name}", text) for name, text in made.logs()]
    return report
