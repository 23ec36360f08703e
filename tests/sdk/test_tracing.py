"""When the span of an applied revocation is made, and what counts as a trace."""

from __future__ import annotations

import pytest

from revocation_sdk import _tracing
from revocation_sdk._messages import Changes, TraceNote
from revocation_sdk._position import NOWHERE, ZERO_DIGEST, Position
from revocation_sdk._tracing import AppliedTraces, sampled

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
LOG, OTHER = b"l" * 16, b"o" * 16


def at(seq: int, log_id: bytes = LOG) -> Position:
    return Position(log_id, seq, ZERO_DIGEST)


def changes(before: int, after: int, partition: int = 0) -> Changes:
    return Changes(partition, at(before), at(after), ())


class Spans(AppliedTraces):
    """Where spans go is OpenTelemetry's; here they are counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.made: list[tuple[str, int | None]] = []
        spans = self.made

        class Span:
            def end(self, at_ns: int) -> None: ...

        class Tracer:
            def start_span(self, name: str, *_: object, start_time: int | None = None) -> Span:
                spans.append((name, start_time))
                return Span()

        monkeypatch.setattr(_tracing.trace, "get_tracer", lambda _: Tracer())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (TRACE, True),
        (TRACE[:-1] + "0", False),
        ("00-" + "0" * 32 + "-" + "b" * 16 + "-01", False),
        ("00-" + "a" * 32 + "-" + "0" * 16 + "-01", False),
        (TRACE + "-x", False),
        (TRACE.upper(), False),
        ("", False),
        (b"bytes", False),
    ],
)
def test_only_a_sampled_w3c_context_is_a_trace(text: object, kept: bool) -> None:
    assert sampled(text) is kept


def test_the_note_may_come_before_or_after_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = Spans(monkeypatch)
    traces.changed(changes(0, 3), 100)
    traces.told(TraceNote((at(2),), TRACE))
    assert traces.made == [("revocation.apply", 100)]
    traces.told(TraceNote((at(5),), TRACE))
    assert len(traces.made) == 1
    traces.changed(changes(3, 4), 200)
    assert len(traces.made) == 1
    traces.changed(changes(4, 7), 300)
    assert traces.made[1:] == [("revocation.apply", 300)]
    traces.changed(changes(7, 9), 400)
    assert len(traces.made) == 2  # once


def test_all_partitions_of_a_batch_must_have_come(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = Spans(monkeypatch)
    traces.told(TraceNote((at(1), NOWHERE, at(1)), TRACE))
    traces.changed(changes(0, 1, partition=2), 100)
    assert not traces.made
    traces.changed(changes(0, 1, partition=0), 50)
    assert traces.made == [("revocation.apply", 50)]


def test_another_history_is_another_record(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = Spans(monkeypatch)
    traces.changed(changes(0, 3), 100)
    traces.told(TraceNote((at(2, OTHER),), TRACE))
    assert not traces.made


def test_notes_that_never_find_their_record_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    traces = Spans(monkeypatch)
    for number in range(500):
        traces.told(TraceNote((at(10_000 + number),), f"00-{number + 1:032x}-{'b' * 16}-01"))
        traces.changed(changes(number, number + 1), number)
    assert len(traces._pending) <= 64
    assert len(traces._applied) <= 256


def test_without_a_provider_nothing_is_done() -> None:
    assert not _tracing.active()
    assert _tracing.current() == ""
    with _tracing.call("Revoke"):
        assert _tracing.current() == ""
