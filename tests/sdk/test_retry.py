"""Which failure is repeated, and which error it becomes in the end."""

from __future__ import annotations

import pytest

from revocation_sdk._retry import MAX_BACKOFF_S, NOT_CONNECTED, Failure, Retry, backoff, error_of
from revocation_sdk.errors import (
    InvalidRequest,
    OutcomeUnknown,
    PermissionDenied,
    RefreshReused,
    RevocationError,
    ServiceError,
    SessionEnded,
    SessionLimit,
    Unavailable,
)

TRANSPORT = Failure("UNAVAILABLE")
STORE_GONE = Failure("UNAVAILABLE", "store_unavailable")
UNKNOWN_OUTCOME = Failure("ABORTED", "outcome_unknown")
SILENT = Failure("DEADLINE_EXCEEDED")
DENIED = Failure("PERMISSION_DENIED", "permission_denied")
INVALID = Failure("INVALID_ARGUMENT", "invalid_field", field="jti")


def mutation(timeout: float = 10.0) -> Retry:
    return Retry(0.0, timeout, mutates=True, op_id="op-1")


def final(retry: Retry, failure: Failure, now: float = 0.0) -> RevocationError:
    with pytest.raises(RevocationError) as caught:
        retry.after(failure, now, 0.5)
    return caught.value


@pytest.mark.parametrize(
    "failure", [NOT_CONNECTED, TRANSPORT, STORE_GONE, UNKNOWN_OUTCOME, SILENT, Failure("CANCELLED")]
)
def test_what_may_pass_is_tried_again(failure: Failure) -> None:
    assert mutation().after(failure, 0.0, 0.5) >= 0


@pytest.mark.parametrize("failure", [DENIED, INVALID, Failure("NOT_FOUND", "unknown_realm"), Failure("INTERNAL")])
def test_what_will_not_pass_is_not_tried_again(failure: Failure) -> None:
    assert isinstance(final(mutation(), failure), ServiceError)


@pytest.mark.parametrize("failure", [NOT_CONNECTED, STORE_GONE])
def test_nothing_sent_and_nothing_done_is_unavailable_in_the_end(failure: Failure) -> None:
    error = final(mutation(), failure, now=10.0)
    assert type(error) is Unavailable


@pytest.mark.parametrize("failure", [TRANSPORT, UNKNOWN_OUTCOME, SILENT, Failure("INTERNAL", "internal")])
def test_a_mutation_without_a_definite_answer_is_an_unknown_outcome_with_its_op_id(failure: Failure) -> None:
    error = final(mutation(), failure, now=10.0)
    assert isinstance(error, OutcomeUnknown)
    assert error.op_id == "op-1"


@pytest.mark.parametrize("last", [NOT_CONNECTED, STORE_GONE, DENIED, Failure("FAILED_PRECONDITION", "op_id_expired")])
def test_a_doubt_is_not_lifted_by_a_later_refusal_that_says_nothing_of_the_first_attempt(last: Failure) -> None:
    retry = mutation()
    retry.after(SILENT, 0.0, 0.0)
    assert isinstance(final(retry, last, now=10.0), OutcomeUnknown)


def test_a_doubt_stays_if_we_cannot_even_ask_again() -> None:
    closed = Unavailable("closed", reason="closed")
    assert mutation().given_up(closed) is closed
    retry = mutation()
    retry.after(SILENT, 0.0, 0.0)
    assert isinstance(retry.given_up(closed), OutcomeUnknown)


def test_an_unknown_outcome_names_an_op_id_only_where_there_is_one() -> None:
    assert "op id" in str(final(mutation(), SILENT, now=10.0))
    error = final(Retry(0.0, 10.0, mutates=True), SILENT, now=10.0)
    assert isinstance(error, OutcomeUnknown)
    assert "op id" not in str(error)


def test_a_doubt_is_lifted_if_the_request_could_never_have_passed() -> None:
    retry = mutation()
    retry.after(SILENT, 0.0, 0.0)
    error = final(retry, INVALID, now=5.0)
    assert isinstance(error, InvalidRequest)
    assert error.field == "jti"


def test_a_refresh_in_doubt_still_says_that_the_session_is_over() -> None:
    retry = Retry(0.0, 10.0, mutates=True)
    retry.after(SILENT, 0.0, 0.0)
    ended = Failure("FAILED_PRECONDITION", "session_ended", session_end="logout")
    assert final(retry, ended, now=1.0).reason == "logout"


def test_a_question_is_never_an_unknown_outcome() -> None:
    retry = Retry(0.0, 1.0, mutates=False)
    assert type(final(retry, SILENT, now=1.0)) is Unavailable


def test_one_silent_address_does_not_eat_the_timeout() -> None:
    retry = mutation(timeout=9.0)
    assert retry.attempt_s(0.0) == 3.0
    assert retry.attempt_s(8.0) == 1.0
    assert Retry(0.0, 0.5, mutates=False).attempt_s(0.0) == 0.5


def test_the_service_says_how_long_to_wait() -> None:
    busy = Failure("RESOURCE_EXHAUSTED", "overloaded", retry_after_s=3.0)
    assert mutation().after(busy, 0.0, 0.5) == 3.0
    assert type(final(mutation(timeout=2.0), busy)) is Unavailable


def test_back_off_grows_to_a_limit_and_is_spread_to_zero() -> None:
    tops = [backoff(tries, 1.0) for tries in range(40)]
    assert tops[:3] == [0.1, 0.2, 0.4]
    assert max(tops) == tops[-1] == MAX_BACKOFF_S
    assert backoff(5, 0.0) == 0.0


@pytest.mark.parametrize(
    ("failure", "kind", "reason"),
    [
        (Failure("UNAUTHENTICATED", "unauthenticated"), PermissionDenied, "unauthenticated"),
        (DENIED, PermissionDenied, "permission_denied"),
        (Failure("INVALID_ARGUMENT", "beyond_horizon"), InvalidRequest, "beyond_horizon"),
        (Failure("FAILED_PRECONDITION", "op_id_expired"), InvalidRequest, "op_id_expired"),
        (Failure("NOT_FOUND", "unknown_realm"), InvalidRequest, "unknown_realm"),
        (Failure("UNAVAILABLE", "draining"), Unavailable, "draining"),
        (Failure("FAILED_PRECONDITION", "session_ended", session_end="idle"), SessionEnded, "idle"),
        (Failure("FAILED_PRECONDITION", "refresh_reused"), RefreshReused, "reuse"),
        (Failure("INVALID_ARGUMENT", "refresh_invalid"), SessionEnded, "unknown"),
        (Failure("RESOURCE_EXHAUSTED", "session_limit"), SessionLimit, "session_limit"),
        (Failure("UNIMPLEMENTED"), ServiceError, "unimplemented"),
        (Failure("INTERNAL", "internal"), ServiceError, "internal"),
    ],
)
def test_each_failure_has_its_error(failure: Failure, kind: type[RevocationError], reason: str) -> None:
    error = error_of(failure)
    assert type(error) is kind
    assert error.reason == reason
