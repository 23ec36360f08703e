"""Logs and metrics: what is in them, and above all what is not."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from prometheus_client import generate_latest

from revocation.observability.telemetry import (
    PARTITION_STATES,
    REDACTED,
    Metrics,
    audit,
    begin_request,
    clean_text,
    configure_logging,
    request_id,
    timed,
)

JWT = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, raising = root.handlers, root.level, logging.raiseExceptions
    yield
    root.handlers, logging.raiseExceptions = handlers, raising
    root.setLevel(level)
    structlog.reset_defaults()
    request_id.set("")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_one_json_object() -> None:
    """With event, level, logger, UTC time, request id and the given fields."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    begin_request("call-1")
    structlog.get_logger("revocation.test").info("committed", rows=3, realm="default")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "committed",
        "level": "info",
        "logger": "revocation.test",
        "request_id": "call-1",
        "rows": 3,
        "realm": "default",
    }


def test_an_audit_line_is_a_line_like_any_other() -> None:
    """It takes a shorter way, and nobody can tell by looking."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    begin_request("call-1")
    given: dict[str, str | int] = {
        "actor": f"https://id.example#{JWT}",
        "rows": 3,
        "stored": True,
        "jti": "secret",
        "name": "ü",
    }
    structlog.get_logger("revocation.audit").info("revoked", **given)
    audit("revoked", **given)
    plain, quick = lines(stream)
    for line in (plain, quick):
        stamp = line.pop("timestamp")
        assert stamp.endswith("Z")
        assert len(stamp) == 27
    assert quick == plain
    assert (quick["jti"], quick["actor"]) == (REDACTED, f"https://id.example#{REDACTED}")


def test_no_name_keeps_an_audit_line_from_being_written() -> None:
    """A token may smuggle half a character into the name of whoever calls; a file would refuse it."""
    raw = io.BytesIO()
    configure_logging(stream=io.TextIOWrapper(raw, "utf-8", write_through=True))
    audit("revoked", actor="\ud800")
    assert json.loads(raw.getvalue())["actor"] == "\ud800"


async def test_audit_lines_of_one_turn_are_written_in_the_next() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    for number in range(3):
        audit("revoked", rows=number)
    assert not stream.getvalue()
    await asyncio.sleep(0)
    assert [line["rows"] for line in lines(stream)] == [0, 1, 2]


def test_audit_lines_of_an_event_loop_that_has_ended_do_not_hold_up_others() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)

    loop = asyncio.new_event_loop()

    def last() -> None:
        audit("revoked", rows=1)
        loop.stop()

    async def another() -> None:
        audit("revoked", rows=2)

    loop.call_soon(last)
    loop.run_forever()
    loop.close()
    asyncio.run(another())
    assert [line["rows"] for line in lines(stream)] == [1, 2]


@pytest.mark.parametrize(("level", "seen"), [("info", 1), ("warning", 0)])
def test_level_decides_about_audit_lines_too(level: str, seen: int) -> None:
    stream = io.StringIO()
    configure_logging(level, stream)
    audit("revoked", rows=1)
    assert len(lines(stream)) == seen


def test_a_closed_standard_error_ends_no_request() -> None:
    stream = io.StringIO()
    configure_logging(stream=stream)
    stream.close()
    audit("revoked", rows=1)


@pytest.mark.parametrize(
    ("level", "seen"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)]
)  # fmt: skip
def test_level_decides(level: str, seen: int) -> None:
    """Below the level nothing is written."""
    stream = io.StringIO()
    configure_logging(level, stream)
    for name in ("debug", "info", "warning", "error"):
        getattr(structlog.get_logger("revocation.test"), name)("event")
    assert len(lines(stream)) == seen


def test_lines_of_libraries_have_the_same_form_and_the_same_net() -> None:
    """A library that logs a URL with a password does not get it out."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    logging.getLogger("redis").info("chatter")
    logging.getLogger("redis").warning("cannot reach %s", "redis://user:hush@host:1", extra={"token": JWT})
    (line,) = lines(stream)
    assert line["event"] == "cannot reach redis://***@host:1"
    assert line["token"] == REDACTED
    assert line["level"] == "warning"


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_sensitive_gets_out(terminal: bool) -> None:
    """Not by key, not nested, not in text, not by an exception, not through its local variables."""
    stream = Terminal() if terminal else io.StringIO()
    configure_logging(stream=stream)
    log = structlog.get_logger("revocation.test")

    class Opaque:
        def __str__(self) -> str:
            return f"opaque {JWT}"

    def fails(local: str) -> None:
        raise ValueError(f"cannot parse {JWT} from redis://user:hush@host {len(local)}")

    log.info(f"got {JWT}", token="planted-1", Refresh_Token="planted-2", sub="planted-3", subject="planted-4")
    log.info("x", jti="planted-5", sid="planted-6", client_id="planted-7", password="planted-8", secret="planted-9")
    log.info("x", request={"headers": [{"Authorization": "planted-a", "ok": f"Bearer {JWT}"}]}, rows=b"planted-b")
    log.info("x", opaque=Opaque(), pair=("redis://user:hush@host", {"sid": "planted-c"}))
    deep: dict[str, Any] = {"leaf": "planted-d"}
    for _ in range(20):
        deep = {"inner": deep}
    log.info("x", deep=deep)
    try:
        fails("".join(("plan", "ted-e")))  # in pieces, since a traceback shows this line
    except ValueError:
        log.exception("failed")
    text = stream.getvalue()
    assert "cannot parse" in text
    for hidden in ("planted", JWT, JWT.split(".")[1], "hush"):
        assert hidden not in text


def test_what_is_not_sensitive_stays() -> None:
    """Redaction by key and by form, not by suspicion."""
    plain = "https://example/a?b=c ey eyJ 10.0.0.1:50051 user@example"
    assert clean_text(plain) == plain


def test_a_closed_stream_ends_no_request() -> None:
    """Standard error may be gone; the service goes on."""
    stream = io.StringIO()
    configure_logging(stream=stream)
    stream.close()
    structlog.get_logger("revocation.test").error("into the void")


@pytest.mark.parametrize("given", [None, "", "a b", "x" * 65, 'a"\n', "é"])
def test_request_ids_of_callers_are_taken_only_if_sane(given: str | None) -> None:
    """What a caller sends goes into logs: letters, digits, `._-`, at most 64."""
    chosen = begin_request(given)
    assert chosen != given
    assert len(chosen) == 16
    assert request_id.get() == chosen


def test_replicas_in_one_process_have_metrics_of_their_own() -> None:
    """No global registry: two services, also one after the other, do not collide."""
    one, two = (Metrics(version="0", replica=name) for name in ("one", "two"))
    one.rpc_requests.labels("Revoke", "OK").inc()
    name, labels = "revocation_rpc_requests_total", {"method": "Revoke", "code": "OK"}
    assert one.registry.get_sample_value(name, labels) == 1
    assert two.registry.get_sample_value(name, labels) is None


def test_every_metric_has_the_prefix_and_a_text() -> None:
    """As dashboards expect it; process and platform metrics keep their usual names."""
    metrics = Metrics(version="0", replica="r")
    for family in metrics.registry.collect():
        assert family.documentation
        assert family.name.startswith(("revocation_", "process_", "python_"))
    assert b"revocation_build_info" in generate_latest(metrics.registry)


def test_a_partition_is_in_one_state() -> None:
    """The others read 0, so that a dashboard can sum."""
    metrics = Metrics(version="0", replica="r")
    for state in PARTITION_STATES:
        metrics.set_partition_state(0, state)
        values = {
            known: metrics.registry.get_sample_value(
                "revocation_partition_state", {"partition": "0", "state": known}
            )
            for known in PARTITION_STATES
        }  # fmt: skip
        assert values == {known: float(known == state) for known in PARTITION_STATES}


def test_timed_counts_failures_too() -> None:
    """A barrier that fails after five seconds took five seconds."""
    seen: list[float] = []
    with pytest.raises(ValueError, match="x"), timed(seen.append):
        raise ValueError("x")
    assert len(seen) == 1
    assert seen[0] >= 0
