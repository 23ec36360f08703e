"""Revocation of JWTs, for the programs that verify, issue and take back tokens.

    from revocation_sdk import RevocationClient, Verifier

    client = RevocationClient("localhost:50051")
    verifier = Verifier(client, key=public_key, algorithms=["ES256"], issuer="https://id.example", audience="api")
    claims = verifier.verify(token).claims     # from memory; raises TokenRejected or StatusUnknown

What is imported from here is public; modules whose names begin with an underscore are not.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from revocation_sdk.aio import AsyncRevocationClient
from revocation_sdk.client import RevocationClient
from revocation_sdk.errors import (
    ApprovalRequired,
    ConfigError,
    ConfirmationRequired,
    InvalidRequest,
    NotFresh,
    OutcomeUnknown,
    PermissionDenied,
    RefreshReused,
    RevocationError,
    ServiceError,
    SessionEnded,
    SessionLimit,
    StatusUnknown,
    TokenExpired,
    TokenInvalid,
    TokenRejected,
    TokenRevoked,
    Unavailable,
)
from revocation_sdk.types import (
    Canary,
    ClientSettings,
    Cutoff,
    Freshness,
    Grant,
    Impact,
    Landed,
    Login,
    Member,
    PartitionStatus,
    Receipt,
    ServiceStatus,
    SessionInfo,
    State,
    Subscriber,
    Subscribers,
    Verified,
    Versions,
)

if TYPE_CHECKING:
    from revocation_sdk.issuer import AsyncTokenIssuer, TokenIssuer
    from revocation_sdk.verifier import Verifier

__all__ = [
    "ApprovalRequired",
    "AsyncRevocationClient",
    "AsyncTokenIssuer",
    "Canary",
    "ClientSettings",
    "ConfigError",
    "ConfirmationRequired",
    "Cutoff",
    "Freshness",
    "Grant",
    "Impact",
    "InvalidRequest",
    "Landed",
    "Login",
    "Member",
    "NotFresh",
    "OutcomeUnknown",
    "PartitionStatus",
    "PermissionDenied",
    "Receipt",
    "RefreshReused",
    "RevocationClient",
    "RevocationError",
    "ServiceError",
    "ServiceStatus",
    "SessionEnded",
    "SessionInfo",
    "SessionLimit",
    "State",
    "StatusUnknown",
    "Subscriber",
    "Subscribers",
    "TokenExpired",
    "TokenInvalid",
    "TokenIssuer",
    "TokenRejected",
    "TokenRevoked",
    "Unavailable",
    "Verified",
    "Verifier",
    "Versions",
]


_LATER = {"Verifier": "verifier", "TokenIssuer": "issuer", "AsyncTokenIssuer": "issuer"}
"""What needs a JOSE library is imported when it is asked for: a client alone starts faster."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
