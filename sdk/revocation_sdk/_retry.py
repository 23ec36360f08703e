"""What a failed call means: which error it is, and whether to try once more. Pure; the time comes in.

A mutation is repeated with the same op id only, so it is never applied twice. Once an attempt *may* have reached the
service without a definite answer, nothing but a definite answer ends the doubt: without one, OutcomeUnknown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from revocation_sdk.errors import (
    ApprovalRequired,
    ConfirmationRequired,
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

FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
_ATTEMPTS_IN_TIMEOUT = 3
_MIN_ATTEMPT_S = 1.0
_MAX_HINT_S = 60.0

_NOTHING_DONE = frozenset(
    (
        "store_unavailable",
        "not_ready",
        "draining",
        "clock_skew",
        "overloaded",
        "position_not_reached",
        "too_many_streams",
    )
)
"""Reasons by which the service says: not now, and nothing was changed."""

_DOUBTFUL_CODES = frozenset(("UNAVAILABLE", "ABORTED", "DEADLINE_EXCEEDED", "CANCELLED"))
"""Codes that leave open whether the service did it, unless a reason above says otherwise.

CANCELLED comes from a server that sheds connections, since nobody here cancels a call and then asks about it.
"""
_BROKEN_CODES = frozenset(("INTERNAL", "UNKNOWN", "DATA_LOSS"))
"""Something broke midway; once more would break it again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a call failed, free of gRPC."""

    code: str
    """The name of the gRPC status code."""
    reason: str = ""
    """The ErrorReason of the service in lower case; empty: it was not the service that spoke."""
    message: str = ""
    field: str = ""
    session_end: str = ""
    sessions: int = 0
    approval: str = ""
    retry_after_s: float = 0.0
    sent: bool = True
    """False: the request certainly never left."""

    @property
    def harmless(self) -> bool:
        """Nothing was changed, and it may work later or elsewhere."""
        return not self.sent or self.reason in _NOTHING_DONE

    @property
    def doubtful(self) -> bool:
        """It may or may not have been done."""
        return not self.harmless and (self.code in _DOUBTFUL_CODES or self.code in _BROKEN_CODES)

    @property
    def elsewhere(self) -> bool:
        """Another address may do better."""
        return self.code in _DOUBTFUL_CODES or self.reason in _NOTHING_DONE

    @property
    def name(self) -> str:
        """A stable word for it."""
        return self.reason or self.code.lower()


NOT_CONNECTED = Failure("UNAVAILABLE", "", "no connection to the service", sent=False)


class Retry:
    """The attempts of one call. Times are of one monotonic clock, in seconds."""

    def __init__(self, now: float, timeout: float, *, mutates: bool, op_id: str = "", patient: bool = False) -> None:
        self._attempts = 1 if patient else _ATTEMPTS_IN_TIMEOUT
        self._timeout = timeout
        self._end = now + timeout
        self._mutates = mutates
        self._op_id = op_id
        self._doubt: Failure | None = None
        self._tries = 0

    def attempt_s(self, now: float) -> float:
        """How long the next attempt may take: a part of the timeout, so that one silent address does not eat it."""
        return min(max(_MIN_ATTEMPT_S, self._timeout / self._attempts), max(self._end - now, 0.001))

    def after(self, failure: Failure, now: float, jitter: float) -> float:
        """How long to wait before the next attempt; raises the final error if there is none."""
        if failure.doubtful:
            self._doubt = failure
        if not failure.elsewhere:
            raise self._final(failure)
        wait = max(backoff(self._tries, jitter), min(failure.retry_after_s, _MAX_HINT_S))
        self._tries += 1
        if now + wait >= self._end:
            raise self._final(failure)
        return wait

    def given_up(self, error: RevocationError) -> RevocationError:
        """The final error if something of our own keeps us from another attempt."""
        return self._unknown() if self._in_doubt() else error

    def _final(self, failure: Failure) -> RevocationError:
        # What lacks an approval was never done by an attempt before, either.
        settled = failure.code == "INVALID_ARGUMENT" or failure.reason in _SESSION_REASONS | {"approval_required"}
        if self._in_doubt() and not settled:
            return self._unknown("op_id_expired" if failure.reason == "op_id_expired" else "")
        return error_of(failure)

    def _in_doubt(self) -> bool:
        return self._mutates and self._doubt is not None

    def _unknown(self, reason: str = "") -> OutcomeUnknown:
        why = self._doubt.name if self._doubt is not None else ""
        then = "repeat it with the same op id" if self._op_id else "it may have been done"
        return OutcomeUnknown(f"no definite answer ({why}); {then}", op_id=self._op_id, reason=reason)


def backoff(tries: int, jitter: float) -> float:
    """Full-jitter back-off after `tries` failures; `jitter` is a random number in [0, 1)."""
    return float(jitter * min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(tries, 16)))


def error_of(failure: Failure) -> RevocationError:
    """The error of a failure whose outcome is certain, or does not matter."""
    make = _BY_REASON.get(failure.reason) or _BY_CODE.get(failure.code) or _service_error
    return make(failure)


def _service_error(failure: Failure) -> RevocationError:
    return ServiceError(failure.message, reason=failure.name)


def _unavailable(failure: Failure) -> RevocationError:
    return Unavailable(failure.message, reason=failure.name)


def _invalid(failure: Failure) -> RevocationError:
    return InvalidRequest(failure.message, field=failure.field, reason=failure.name)


def _denied(failure: Failure) -> RevocationError:
    return PermissionDenied(failure.message, reason=failure.name)


def _session_ended(failure: Failure) -> RevocationError:
    return SessionEnded(failure.message, reason=failure.session_end)


_BY_REASON: dict[str, Callable[[Failure], RevocationError]] = {
    "session_ended": _session_ended,
    "refresh_reused": lambda failure: RefreshReused(failure.message),
    "refresh_invalid": _session_ended,  # RFC 6749: to its owner it is a grant that is gone, whatever it was
    "session_limit": lambda failure: SessionLimit(failure.message),
    "confirmation_required": lambda failure: ConfirmationRequired(failure.message, sessions=failure.sessions),
    "approval_required": lambda failure: ApprovalRequired(failure.message, approval=failure.approval),
    "approval_invalid": _invalid,
    "op_id_expired": _invalid,
    "ack_not_offered": _invalid,
    "unknown_realm": _invalid,
    "overloaded": _unavailable,
    "too_many_streams": _unavailable,
}
_SESSION_REASONS = frozenset(("session_ended", "refresh_reused", "refresh_invalid", "session_limit"))

_BY_CODE: dict[str, Callable[[Failure], RevocationError]] = {
    "UNAVAILABLE": _unavailable,
    "DEADLINE_EXCEEDED": _unavailable,
    "CANCELLED": _unavailable,
    "ABORTED": _unavailable,
    "INVALID_ARGUMENT": _invalid,
    "UNAUTHENTICATED": _denied,
    "PERMISSION_DENIED": _denied,
}
