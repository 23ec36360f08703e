"""What the service may answer instead of success. `rpc/errors.py` turns these into gRPC statuses, and nothing else.

    ServiceError
    ├── InvalidField       the caller's input; names the field; nothing was changed
    ├── Unavailable        nothing was committed by this attempt; retry with the same op id
    ├── OutcomeUnknown     it may have been; retry with the same op id
    ├── Overloaded         a limit is reached; says when to come back
    ├── Denied             who calls may not
    ├── Guarded            who calls may, but a safety rail wants something more first
    └── SessionOver        the session has ended, and why

Messages are for people and carry no token, identifier or driver text.
"""

from __future__ import annotations


class ServiceError(Exception):
    """A typed refusal. `reason` is a name of `ErrorReason` in errors.proto."""

    reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason


class InvalidField(ServiceError):
    """The request is at fault. `field` is the proto path of the field, as the caller wrote it."""

    reason = "INVALID_FIELD"

    def __init__(self, field: str, message: str, *, reason: str | None = None) -> None:
        super().__init__(f"{field}: {message}", reason=reason)
        self.field = field


class Unavailable(ServiceError):
    """Not now: store down, loading, healing, draining."""

    reason = "NOT_READY"


class OutcomeUnknown(ServiceError):
    """The change may or may not have been committed."""

    reason = "OUTCOME_UNKNOWN"


class Overloaded(ServiceError):
    """A limit is reached; come back after `retry_after_ms`. `limit`: its name in docs/limits.md."""

    reason = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_ms: int, limit: str = "", reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_ms = retry_after_ms
        self.limit = limit


class Guarded(ServiceError):
    """The caller may, but a safety rail wants something more first; `metadata` says what. Nothing was changed."""

    reason = "CONFIRMATION_REQUIRED"

    def __init__(self, message: str, *, reason: str, metadata: dict[str, str] | None = None) -> None:
        super().__init__(message, reason=reason)
        self.metadata = metadata or {}


class Denied(ServiceError):
    """The caller is not known, or may not do this."""

    reason = "PERMISSION_DENIED"


class SessionOver(ServiceError):
    """The session has ended; `why` is one of the reasons of `SessionEnded` in the SDK."""

    reason = "SESSION_ENDED"

    def __init__(self, message: str, *, why: str, reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.why = why
