"""The errors: one tree, stable reasons, picklable."""

from __future__ import annotations

import pickle

import pytest

from revocation_sdk import errors


def classes() -> list[type[errors.RevocationError]]:
    return [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RevocationError)
    ]


@pytest.mark.parametrize("kind", classes())
def test_every_error_has_a_reason_a_message_and_its_place_in_the_docstring(
    kind: type[errors.RevocationError],
) -> None:
    error = kind()
    assert error.reason == kind.default_reason
    assert error.reason.islower()
    assert str(error)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    "error",
    [
        errors.TokenRevoked(target="session", since=12.5),
        errors.NotFresh("late", age_s=3.0, reason="unavailable"),
        errors.OutcomeUnknown("?", op_id="op-1"),
        errors.InvalidRequest("bad", field="expires_at", reason="beyond_horizon"),
        errors.SessionEnded(reason="idle"),
    ],
)
def test_an_error_survives_pickling_with_all_that_it_says(error: errors.RevocationError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)


def test_not_fresh_is_a_timeout_too() -> None:
    assert issubclass(errors.NotFresh, TimeoutError)
    assert issubclass(errors.NotFresh, errors.StatusUnknown)
