"""Which exit code and which words an error gets. The one table of it."""

from __future__ import annotations

import sys
import traceback

from revocation.cli.output import Exit, Output
from revocation_sdk.errors import (
    ApprovalRequired,
    ConfigError,
    ConfirmationRequired,
    InvalidRequest,
    NotFresh,
    OutcomeUnknown,
    PermissionDenied,
    RevocationError,
    SessionEnded,
    SessionLimit,
    StatusUnknown,
    TokenInvalid,
    TokenRejected,
    Unavailable,
)

_CODES: tuple[tuple[type[RevocationError], Exit], ...] = (
    (TokenInvalid, Exit.USAGE),
    (TokenRejected, Exit.REVOKED),
    (SessionEnded, Exit.REVOKED),
    (SessionLimit, Exit.REVOKED),
    (StatusUnknown, Exit.UNAVAILABLE),
    (Unavailable, Exit.UNAVAILABLE),
    (OutcomeUnknown, Exit.OUTCOME_UNKNOWN),
    (PermissionDenied, Exit.DENIED),
    (ConfirmationRequired, Exit.DENIED),
    (ApprovalRequired, Exit.DENIED),
    (InvalidRequest, Exit.USAGE),
    (ConfigError, Exit.USAGE),
    (RevocationError, Exit.UNAVAILABLE),
)

_DENIED = frozenset(("permission_denied", "unauthenticated", "credentials"))
"""Why a view is not fresh, where it is the caller's right that is missing."""


def explain(error: Exception, out: Output) -> int:
    """Prints what went wrong and what to do, and returns the exit code. Unknown errors are faults of ours."""
    if isinstance(error, RevocationError):
        return _of_sdk(error, out)
    if type(error).__name__ in {"ConfigInvalid", "EmbeddedError", "SecretInvalid"}:  # not worth an import here
        faults = [{"field": fault.field, "message": fault.message} for fault in getattr(error, "faults", ())]
        out.failure("config", str(error), faults[0]["field"] if faults else None, faults=faults)
        return Exit.USAGE
    out.failure("internal", f"a fault of this program: {type(error).__name__}")
    # A plain traceback: it shows code, no values.
    traceback.print_exception(error, file=sys.stderr)
    return Exit.CRASH


def _of_sdk(error: RevocationError, out: Output) -> int:
    message, more = str(error), dict[str, object]()
    if isinstance(error, OutcomeUnknown) and error.op_id:
        message += f"\nIt may have been done. Run the same command with --op-id {error.op_id} to be sure."
        more = {"op_id": error.op_id}
    if isinstance(error, Unavailable | NotFresh) and error.reason == "unavailable":
        message += "\nDoes it run there (--address)? Other machines are spoken to by TLS: see --ca, or --insecure."
    if denied := isinstance(error, PermissionDenied) or (isinstance(error, NotFresh) and error.reason in _DENIED):
        message += "\nSee --cert and --cert-key, or REVOCATION_TOKEN, and the roles file of the service."
    if isinstance(error, ConfirmationRequired):
        message += f"\nIf that is what you want, run the same command with --confirm {error.sessions}."
        more = {"sessions": error.sessions}
    if isinstance(error, ApprovalRequired):
        message += f"\nThat person runs: revocation revoke realm --approval {error.approval}"
        more = {"approval": error.approval}
    out.failure(error.reason, message, getattr(error, "field", None), **more)
    return Exit.DENIED if denied else next(code for kind, code in _CODES if isinstance(error, kind))
