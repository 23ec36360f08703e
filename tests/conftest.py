"""Fixtures of all tests: a clean store, and servers of one's own for fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import stores
from tests.servers import NoServer, Servers

# A busy machine is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def pytest_report_header() -> str:
    return f"store of the tests: {stores.describe()}"


@pytest.fixture(scope="session")
def test_store(worker_id: str) -> Iterator[stores.TestStore]:
    """The one server of this test process."""
    with ExitStack() as stack:
        missing = ""
        try:
            store = stack.enter_context(stores.running(worker_id))
        except NoServer as error:
            missing = str(error)
        if missing:
            pytest.fail(missing, pytrace=False)
        yield store
        if not store.ours:
            store.empty()


@pytest.fixture
def redis_url(test_store: stores.TestStore) -> str:
    """URL of the store of the tests, emptied."""
    test_store.empty()
    return test_store.url


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    """Starts servers of this test's own; they end with it."""
    with Servers(tmp_path / "servers") as running:
        yield running
