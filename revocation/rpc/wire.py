"""Requests from the wire to values, validated; answers back. The only rules about input are here and in limits.py."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

from revocation import limits
from revocation.callers.roles import Caller
from revocation.errors import InvalidField
from revocation.model import Operation, Receipt, Target, Tokens, request_digest
from revocation.rails.consent import Consent
from revocation.rpc import stream
from revocation.session.impact import Impact
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._judge import Facts, Revoked
from revocation_sdk._lattice import Kind
from revocation_sdk._position import Position

_MOST = 0xFFFFFFFE
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")


def identifier(field: str, text: str, limit: int = limits.ID_BYTES) -> str:
    """A required identifier within its limit. Raises InvalidField."""
    if not text:
        raise InvalidField(field, "is missing")
    return bounded(field, text, limit)


def bounded(field: str, text: str, limit: int) -> str:
    """Text within its limit, in UTF-8 bytes. Raises InvalidField."""
    if 4 * len(text) <= limit:  # whatever the characters
        return text
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise InvalidField(field, f"has {size} bytes; at most {limit} are allowed")
    return text


def seconds(field: str, value: int) -> int:
    """A time in seconds since 1970. Raises InvalidField for what cannot be one."""
    if not 0 < value <= _MOST:
        raise InvalidField(field, "must be seconds since 1970, and in this century")
    return value


def target(request: pb.RevokeRequest) -> Target:
    """What is to be revoked. Raises InvalidField."""
    match request.WhichOneof("target"):
        case "token":
            token = request.token
            return token_target("token.", token.jti, _issuer(token, "token."), token.expires_at)
        case "session":
            sid = identifier("session.sid", request.session.sid)
            return Target(Kind.SESSION, _issuer(request.session, "session."), sid)
        case "subject":
            subject = identifier("subject.subject", request.subject.subject)
            return Target(Kind.SUBJECT, _issuer(request.subject, "subject."), subject)
        case "client":
            client = identifier("client.client_id", request.client.client_id)
            return Target(Kind.CLIENT, _issuer(request.client, "client."), client)
        case "key":
            return _key(request.key)
        case "whole_realm":
            return Target(Kind.REALM, None, "")
        case _:
            raise InvalidField("target", "is missing: name a token, session, subject, client, key or whole_realm")


def token_target(prefix: str, jti: str, issuer: str | None, expires_at: int) -> Target:
    """A token to revoke. Raises InvalidField, naming fields behind `prefix`."""
    return Target(Kind.TOKEN, issuer, identifier(f"{prefix}jti", jti), seconds(f"{prefix}expires_at", expires_at))


def batch(request: pb.BatchRevokeTokensRequest) -> Tokens:
    """The tokens of a batch. Raises InvalidField for the first that is wrong; then nothing is done."""
    if not 0 < len(request.items) <= limits.BATCH_ITEMS:
        raise InvalidField("items", f"has {len(request.items)} items; 1 to {limits.BATCH_ITEMS} are allowed")
    issuer = _issuer(request, "")
    values, expires_at = zip(*[(item.jti, item.expires_at) for item in request.items], strict=True)
    sizes = set(map(len, values))
    if not (0 < min(sizes) <= 4 * max(sizes) <= limits.ID_BYTES and 0 < min(expires_at) <= max(expires_at) <= _MOST):
        # Nearly all batches are plainly right; of another one `token_target` says which is wrong, if any is.
        for number, (value, at) in enumerate(zip(values, expires_at, strict=True)):
            token_target(f"items[{number}].", value, issuer, at)
    return Tokens(issuer, values, expires_at)


def _issuer(message: object, prefix: str) -> str | None:
    if not message.HasField("issuer"):  # type: ignore[attr-defined]  # every caller's message has it
        return None
    issuer: str = message.issuer  # type: ignore[attr-defined]
    return bounded(f"{prefix}issuer", issuer, limits.ISSUER_BYTES)


def _key(message: pb.KeyTarget) -> Target:
    if message.WhichOneof("key") == "thumbprint":
        if not _THUMBPRINT.fullmatch(message.thumbprint):
            raise InvalidField("key.thumbprint", "must be an RFC 7638 SHA-256 thumbprint: 43 characters of base64url")
        if message.HasField("issuer"):
            raise InvalidField("key.issuer", "goes with a kid only: a thumbprint names the key itself")
        return Target(Kind.KEY, None, "jkt:" + message.thumbprint)
    return Target(Kind.KEY, _issuer(message, "key."), "kid:" + identifier("key.kid", message.kid))


def operation(request: pb.RevokeRequest | pb.BatchRevokeTokensRequest, caller: Caller) -> Operation:
    """The operation's identity: op id, caller, and a digest of what is asked. Raises InvalidField."""
    bounded("reason", request.reason, limits.REASON_BYTES)
    content = type(request)()
    content.CopyFrom(request)  # type: ignore[arg-type]  # of its own type
    for field in ("op_id", "min_ack", "reason"):
        content.ClearField(field)
    digest = request_digest(content.SerializeToString(deterministic=True))
    return Operation(request.realm, caller.name, op_id(request.op_id), digest, caller.role, request.reason)


def dry_run(request: pb.RevokeRequest) -> tuple[str, Target]:
    """Realm and target of a dry run. Raises InvalidField."""
    if request.op_id:
        text = "must be empty for a dry run: a service too old to know `dry_run` would take it for a revocation"
        raise InvalidField("op_id", text)
    return request.realm, target(request)


def consent(request: pb.RevokeRequest) -> Consent:
    """What comes with an order. Raises InvalidField."""
    approval = bounded("approval", request.approval, limits.LABEL_BYTES)
    return Consent(request.confirm if request.HasField("confirm") else None, approval)


def impact(value: Impact) -> pb.RevokeResponse:
    """The answer to a dry run."""
    found = pb.Impact(sessions=value.sessions, subjects=value.subjects, exact=value.exact, at_most=value.at_most)
    return pb.RevokeResponse(impact=found)


def op_id(text: str) -> uuid.UUID:
    """A UUID version 7. Raises InvalidField."""
    try:
        parsed = uuid.UUID(text)
    except ValueError:
        parsed = uuid.UUID(int=0)
    if str(parsed) != text.lower() or parsed.version != 7:
        raise InvalidField("op_id", "must be a UUID version 7 (RFC 9562), one for each operation and its retries")
    return parsed


def ack_level(number: int) -> str:
    """The ack level asked for, or "" for the service's own. Raises InvalidField."""
    names = {pb.ACK_LEVEL_UNSPECIFIED: "", pb.MEMORY: "memory", pb.REPLICATED: "replicated", pb.FSYNCED: "fsynced"}
    if number not in names:
        raise InvalidField("min_ack", "is not an ack level of this version")
    return names[pb.AckLevel.ValueType(number)]


def facts(request: pb.CheckRequest) -> Facts:
    """What a Check asks about. Raises InvalidField."""
    if len(request.version) > 3:
        raise InvalidField("version", "has at most three numbers: subject, client, realm")
    padded = [*request.version, 0, 0, 0]
    names = {name: getattr(request, name) for name in ("sid", "subject", "client_id", "kid")}
    for name, text in names.items():
        bounded(name, text, limits.ID_BYTES)
    return Facts(
        issuer=_issuer(request, ""),
        token_id=identifier("jti", request.jti),
        sid=names["sid"] or None,
        subject=names["subject"] or None,
        client_id=names["client_id"] or None,
        versions=(padded[0], padded[1], padded[2]) if request.versioned else None,
        issued_at=request.issued_at_ms / 1000 if request.HasField("issued_at_ms") else None,
        kid=names["kid"] or None,
        thumbprint=bounded("thumbprint", request.thumbprint, limits.THUMBPRINT_CHARACTERS) or None,
        issuer_skew_s=max(0, request.issuer_skew_ms) / 1000,
    )


def receipt(op: str, value: Receipt) -> pb.RevokeResponse:
    """The answer to a revocation."""
    cutoff = pb.Cutoff(version=value.cutoff.version, at_ms=value.cutoff.at_ms) if value.cutoff else None
    return pb.RevokeResponse(
        position=stream.positions(value.positions), op_id=op, stored=value.stored, cutoff=cutoff, rows=value.rows
    )


def verdict(revoked: Revoked | None, positions: Iterable[Position], store_ms: int) -> pb.CheckResponse:
    """The answer to a Check."""
    response = pb.CheckResponse(position=stream.positions(positions), store_ms=store_ms)
    if revoked is not None:
        response.revoked = pb.Kind.ValueType(int(revoked.target))
        response.since_ms = revoked.since_ms
    return response


def issuer_of(request: object) -> str | None:
    """The issuer that a request names. Raises InvalidField."""
    return _issuer(request, "")
