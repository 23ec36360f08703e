"""The one table from what went wrong to what the caller hears: gRPC status, and details by which machines decide."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from revocation import errors

DOMAIN = "revocation"
_Code = grpc.StatusCode

_BY_REASON = {
    "UNKNOWN_REALM": _Code.NOT_FOUND,
    "OP_ID_EXPIRED": _Code.FAILED_PRECONDITION,
    "ACK_NOT_OFFERED": _Code.FAILED_PRECONDITION,
    "UNAUTHENTICATED": _Code.UNAUTHENTICATED,
    "RESYNC": _Code.ABORTED,
    "REFRESH_INVALID": _Code.INVALID_ARGUMENT,
}
_BY_TYPE: dict[type[errors.ServiceError], grpc.StatusCode] = {
    errors.InvalidField: _Code.INVALID_ARGUMENT,
    errors.Unavailable: _Code.UNAVAILABLE,
    errors.OutcomeUnknown: _Code.ABORTED,
    errors.Overloaded: _Code.RESOURCE_EXHAUSTED,
    errors.Denied: _Code.PERMISSION_DENIED,
    errors.Guarded: _Code.FAILED_PRECONDITION,
    errors.SessionOver: _Code.FAILED_PRECONDITION,
}


def code_of(error: errors.ServiceError) -> grpc.StatusCode:
    """The gRPC code: by reason where the reason decides, else by type."""
    known = _BY_REASON.get(error.reason)
    if known is not None:
        return known
    found = (code for kind, code in _BY_TYPE.items() if isinstance(error, kind))
    return next(found, _Code.INTERNAL)


def trailers(error: errors.ServiceError) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata with google.rpc.Status."""
    metadata: dict[str, str] = {}
    details = []
    if isinstance(error, errors.InvalidField):
        metadata["field"] = error.field
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=error.message)
        details.append(error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, errors.Guarded):
        metadata |= error.metadata
    if isinstance(error, errors.SessionOver):
        metadata["session_end"] = error.why
    if isinstance(error, errors.Overloaded):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(error.retry_after_ms)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)
    status = status_pb2.Status(code=code_of(error).value[0], message=error.message)
    for detail in (info, *details):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return (("grpc-status-details-bin", status.SerializeToString()),)
