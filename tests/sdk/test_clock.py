"""The clock that freshness hangs on counts suspend, or says that it does not know."""

from __future__ import annotations

import sys
import time

import pytest

from revocation_sdk._clock import Clock, suspend_aware, system_clock


def test_the_clock_of_this_machine_goes_forward_and_counts_suspend() -> None:
    """Every platform that the tests run on has such a clock."""
    clock = system_clock()
    first = clock.mono()
    assert clock.mono() >= first
    assert clock.mono_counts_suspend
    assert abs(clock.wall() - time.time()) < 60


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="CLOCK_BOOTTIME is Linux's")
def test_linux_uses_the_clock_that_runs_on_in_suspend() -> None:
    mono = suspend_aware("linux")
    assert mono is not None
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= mono() <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_a_platform_without_a_known_clock_says_so() -> None:
    assert suspend_aware("plan9") is None


def test_a_clock_that_the_kernel_refuses_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> float:
        raise OSError("not in this sandbox")

    monkeypatch.setattr(time, "clock_gettime", refuse)
    assert suspend_aware("linux") is None
    assert not system_clock().mono_counts_suspend


def test_a_clock_of_ones_own_counts_suspend_unless_it_says_otherwise() -> None:
    assert Clock(lambda: 1.0, lambda: 2.0).mono_counts_suspend
