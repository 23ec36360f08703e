"""Everything that the SDK raises, in one tree.

    RevocationError
    ├── TokenRejected              the token must not be accepted
    │   ├── TokenInvalid           malformed, bad signature, wrong audience, ...
    │   ├── TokenExpired
    │   └── TokenRevoked           .target, .since
    ├── StatusUnknown              nobody knows whether it is revoked; .age_s
    │   └── NotFresh               the view did not become fresh in time; also a TimeoutError
    ├── ServiceError               the service refused, or was not heard
    │   ├── Unavailable            nothing was changed; try again
    │   ├── OutcomeUnknown         it may have been committed: retry with the same .op_id
    │   ├── PermissionDenied
    │   ├── InvalidRequest         .field
    │   ├── ConfirmationRequired   it would end more than may be ended unseen; .sessions
    │   ├── ApprovalRequired       another person must order the same; .approval
    │   └── SessionLimit           the subject has as many sessions as it may
    ├── SessionEnded               .reason says how
    │   └── RefreshReused          an old refresh token was replayed; the session was ended everywhere
    └── ConfigError

Every error has a stable `.reason` to match on; the message is for people and may change. Neither holds a token or
an identifier of a user, so both may be logged. All of them can be pickled.
"""

from __future__ import annotations

from typing import ClassVar


class RevocationError(Exception):
    """The root of the tree."""

    default_reason: ClassVar[str] = "error"
    reason: str
    """Why, as one stable lower-case word."""

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        self.reason = reason or self.default_reason
        super().__init__(message or self.reason.replace("_", " "))


class TokenRejected(RevocationError):
    """The token must not be accepted."""

    default_reason = "rejected"


class TokenInvalid(TokenRejected):
    """The token is malformed, not signed by a known key, or not meant for this verifier."""

    default_reason = "invalid"


class TokenExpired(TokenRejected):
    """The token was good once."""

    default_reason = "expired"


class TokenRevoked(TokenRejected):
    """The token, or something that it stands on, was taken back."""

    default_reason = "revoked"

    def __init__(
        self, message: str = "", *, target: str = "token", since: float | None = None, reason: str = ""
    ) -> None:
        super().__init__(message or f"revoked: its {target}", reason=reason)
        self.target = target
        """What was revoked: "token", "session", "key", "subject", "client" or "realm"."""
        self.since = since
        """When, in seconds since 1970 by the store's clock; known for subject, client and realm."""


class StatusUnknown(RevocationError):
    """Nobody knows whether the token is revoked: the view is older than allowed, and no answer came in its place."""

    default_reason = "stale"

    def __init__(self, message: str = "", *, age_s: float | None = None, reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.age_s = age_s
        """How long ago the view was known to be complete; None: not known."""


class NotFresh(StatusUnknown, TimeoutError):
    """The view did not become fresh in time."""

    default_reason = "not_fresh"


class ServiceError(RevocationError):
    """The service refused a call, or was not heard."""

    default_reason = "service_error"


class Unavailable(ServiceError):
    """The service could not be reached or cannot do it now. Nothing was changed."""

    default_reason = "unavailable"


class OutcomeUnknown(ServiceError):
    """The change may or may not have been committed. Repeating it with the same `op_id` never applies it twice."""

    default_reason = "outcome_unknown"

    def __init__(self, message: str = "", *, op_id: str = "", reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.op_id = op_id
        """Give it to the repetition; empty for a call that carries none."""


class PermissionDenied(ServiceError):
    """The caller is unknown to the service, or may not do this."""

    default_reason = "permission_denied"


class InvalidRequest(ServiceError):
    """The service, or the client on its behalf, refused what was asked. Nothing was changed."""

    default_reason = "invalid_field"

    def __init__(self, message: str = "", *, field: str = "", reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.field = field
        """The offending field, where there is one."""


class ConfirmationRequired(ServiceError):
    """The revocation would end more sessions than the realm lets anybody end unseen. Nothing was changed."""

    default_reason = "confirmation_required"

    def __init__(self, message: str = "", *, sessions: int = 0, reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.sessions = sessions
        """How many; give it to the repetition as `confirm=`."""


class ApprovalRequired(ServiceError):
    """The realm demands two persons: another one must order the same within ten minutes. Nothing was changed."""

    default_reason = "approval_required"

    def __init__(self, message: str = "", *, approval: str = "", reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.approval = approval
        """What the other one gives as `approval=`."""


class SessionLimit(ServiceError):
    """The subject has as many sessions as it may, and the limit says that the newcomer is refused."""

    default_reason = "session_limit"


class SessionEnded(RevocationError):
    """The session is over, and `reason` says how.

    One of "logout", "reuse", "idle", "absolute", "limit", "subject", "client", "realm", "unknown".
    """

    default_reason = "unknown"


class RefreshReused(SessionEnded):
    """An older refresh token was replayed, which looks like theft: the session was ended everywhere."""

    default_reason = "reuse"


class ConfigError(RevocationError):
    """The client, verifier or issuer was set up in a way that cannot work."""

    default_reason = "config"
