"""What a client can ask of the service: one method builds one call. Pure, and shared by both clients.

A method that takes what a user gives checks only what would not survive the wire; limits are the service's to judge.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from google.protobuf.message import Message

from revocation_api.v1 import revocation_pb2
from revocation_api.v1.revocation_pb2_grpc import RevocationServiceStub
from revocation_sdk import _wire
from revocation_sdk._compact import Identity, read_identity, take_apart
from revocation_sdk._judge import Facts
from revocation_sdk._operation import Operation, build
from revocation_sdk._position import decode_positions
from revocation_sdk.errors import InvalidRequest
from revocation_sdk.types import Impact, Landed, Member, Receipt, ServiceStatus, Subscribers, Versions, WaitFor

T = TypeVar("T")
MAX_BATCH = 10_000
_BEYOND_TIME = 2**62
MAX_PAGE = 1_000
MAX_WAIT_S = 58
"""A call to the service takes 60 s at most."""


class Consent(NamedTuple):
    """What a caller gives besides the order itself."""

    confirm: int | None = None
    approval: str | None = None


NOTHING = Consent()


def seconds(expires_at: float) -> int:
    """An expiry in whole seconds, never too early."""
    if not isinstance(expires_at, int | float) or not abs(expires_at) < _BEYOND_TIME:  # NaN is not either
        raise InvalidRequest("expires_at must be seconds since 1970", field="expires_at")
    return math.ceil(expires_at)


def make_op_id(now: float) -> str:
    """A UUID version 7 (RFC 9562): the time in milliseconds, then chance."""
    number = int.from_bytes(os.urandom(10)) | (int(now * 1000) & (1 << 48) - 1) << 80
    number = number & ~(0xF << 76) | 7 << 76
    number = number & ~(0x3 << 62) | 2 << 62
    text = f"{number:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class Requests:
    """Builds the calls of one client."""

    def __init__(self, realm: str, issuer: str | None, new_op_id: Callable[[], str]) -> None:
        self._realm = realm
        self._issuer = issuer
        self._new_op_id = new_op_id

    # Revocations

    def revoke_token(
        self,
        token: str | None,
        jti: str | None,
        issuer: str | None,
        expires_at: float | None,
        op_id: str | None,
        reason: str,
    ) -> Operation[Receipt]:
        """By the token itself, which is not verified, or by its `jti` and `exp`."""
        if (token is None) == (jti is None):
            raise InvalidRequest("give either a token or jti= and expires_at=", field="token")
        if token is not None:
            if issuer is not None or expires_at is not None:
                raise InvalidRequest("a token names its issuer and expiry by itself", field="token")
            return self.revoke_identity(read_identity(take_apart(token)), op_id, reason)
        if expires_at is None:
            raise InvalidRequest("jti= needs expires_at=", field="expires_at")
        assert jti is not None
        return self.revoke_identity(Identity(jti, self._or_default(issuer), expires_at), op_id, reason)

    def revoke_identity(self, named: Identity, op_id: str | None, reason: str) -> Operation[Receipt]:
        """By what was read of a token already. An issuer that it does not name is not made up."""
        target = build(
            revocation_pb2.TokenTarget, jti=named.token_id, issuer=named.issuer, expires_at=seconds(named.expires_at)
        )
        return self._revoke(op_id, reason, token=target)

    def revoke_tokens(
        self, tokens: Iterable[tuple[str, float]], issuer: str | None, op_id: str | None, reason: str
    ) -> Operation[Receipt]:
        """Many tokens of one issuer."""
        item = revocation_pb2.BatchRevokeTokensRequest.Item
        items = [build(item, jti=jti, expires_at=seconds(expires_at)) for jti, expires_at in tokens]
        if not 0 < len(items) <= MAX_BATCH:
            raise InvalidRequest(f"1 to {MAX_BATCH} tokens at once, not {len(items)}", field="items")
        op_id = op_id or self._new_op_id()
        request = build(
            revocation_pb2.BatchRevokeTokensRequest,
            realm=self._realm,
            issuer=self._or_default(issuer),
            items=items,
            op_id=op_id,
            reason=reason,
        )
        return _mutation("BatchRevokeTokens", request, _wire.receipt, op_id)

    def revoke_session(self, sid: str, issuer: str | None, op_id: str | None, reason: str) -> Operation[Receipt]:
        """All tokens of a session."""
        target = build(revocation_pb2.SessionTarget, sid=sid, issuer=self._or_default(issuer))
        return self._revoke(op_id, reason, session=target)

    def revoke_subject(
        self, subject: str, issuer: str | None, op_id: str | None, reason: str, consent: Consent = NOTHING
    ) -> Operation[Receipt]:
        """All tokens and sessions of a subject until now."""
        return self._revoke(op_id, reason, consent, subject=self._subject(subject, issuer))

    def revoke_client(
        self, client_id: str, issuer: str | None, op_id: str | None, reason: str, consent: Consent = NOTHING
    ) -> Operation[Receipt]:
        """All tokens and sessions of a client until now."""
        return self._revoke(op_id, reason, consent, client=self._client(client_id, issuer))

    def revoke_key(
        self,
        kid: str | None,
        thumbprint: str | None,
        issuer: str | None,
        op_id: str | None,
        reason: str,
        consent: Consent = NOTHING,
    ) -> Operation[Receipt]:
        """All tokens signed by a key."""
        return self._revoke(op_id, reason, consent, key=self._key(kid, thumbprint, issuer))

    def revoke_realm(self, op_id: str | None, reason: str, consent: Consent = NOTHING) -> Operation[Receipt]:
        """Everything until now."""
        return self._revoke(op_id, reason, consent, whole_realm=revocation_pb2.RealmTarget())

    def impact(
        self, subject: str | None, client_id: str | None, key: tuple[str | None, str | None], issuer: str | None
    ) -> Operation[Impact]:
        """What a revocation would end: of a subject, a client, a key (kid, thumbprint), or else of the whole realm."""
        given = [name for name in (subject, client_id, *key) if name is not None]
        if len(given) > 1:
            raise InvalidRequest("give one of subject=, client_id=, kid= and thumbprint=, or none", field="target")
        target: dict[str, Message]
        if subject is not None:
            target = {"subject": self._subject(subject, issuer)}
        elif client_id is not None:
            target = {"client": self._client(client_id, issuer)}
        elif given:
            target = {"key": self._key(*key, issuer)}
        else:
            target = {"whole_realm": revocation_pb2.RealmTarget()}
        # Without an op id: a service that does not know dry runs refuses it, where it would else revoke.
        request = build(revocation_pb2.RevokeRequest, realm=self._realm, dry_run=True, **target)
        return Operation(RevocationServiceStub, "Revoke", request, _wire.impact)

    def _subject(self, subject: str, issuer: str | None) -> revocation_pb2.SubjectTarget:
        return build(revocation_pb2.SubjectTarget, subject=subject, issuer=self._or_default(issuer))

    def _client(self, client_id: str, issuer: str | None) -> revocation_pb2.ClientTarget:
        return build(revocation_pb2.ClientTarget, client_id=client_id, issuer=self._or_default(issuer))

    def _key(self, kid: str | None, thumbprint: str | None, issuer: str | None) -> revocation_pb2.KeyTarget:
        if (kid is None) == (thumbprint is None):
            raise InvalidRequest("give either a kid or thumbprint=", field="key")
        if thumbprint is not None and issuer is not None:
            raise InvalidRequest("a thumbprint names a key by itself, without an issuer", field="issuer")
        issuer = self._or_default(issuer) if kid is not None else None
        return build(revocation_pb2.KeyTarget, kid=kid, thumbprint=thumbprint, issuer=issuer)

    def _revoke(
        self, op_id: str | None, reason: str, consent: Consent = NOTHING, **target: Message
    ) -> Operation[Receipt]:
        op_id = op_id or self._new_op_id()
        request = build(
            revocation_pb2.RevokeRequest,
            realm=self._realm,
            op_id=op_id,
            reason=reason,
            confirm=consent.confirm,
            approval=consent.approval,
            **target,
        )
        return _mutation("Revoke", request, _wire.receipt, op_id)

    # Questions

    def check(self, facts: Facts, not_older_than: str | None) -> Operation[revocation_pb2.CheckResponse]:
        """Whether a token with these facts is revoked, by the service's knowledge."""
        request = build(
            revocation_pb2.CheckRequest,
            realm=self._realm,
            issuer=facts.issuer,
            jti=facts.token_id,
            sid=facts.sid,
            subject=facts.subject,
            client_id=facts.client_id,
            version=facts.versions,
            versioned=facts.versions is not None,
            issued_at_ms=None if facts.issued_at is None else math.floor(facts.issued_at * 1000),
            issuer_skew_ms=math.ceil(facts.issuer_skew_s * 1000),
            kid=facts.kid,
            thumbprint=facts.thumbprint,
            not_older_than=_demand(not_older_than),
        )
        return Operation(RevocationServiceStub, "Check", request, _same)

    def get_version(self, subject: str, client_id: str | None, issuer: str | None) -> Operation[Versions]:
        """The versions to mint."""
        request = build(
            revocation_pb2.GetVersionRequest,
            realm=self._realm,
            issuer=self._or_default(issuer),
            subject=subject,
            client_id=client_id,
        )
        return Operation(RevocationServiceStub, "GetVersion", request, _wire.versions)

    def status(self) -> Operation[ServiceStatus]:
        """State of the replica that answers."""
        request = revocation_pb2.GetStatusRequest(realm=self._realm)
        return Operation(RevocationServiceStub, "GetStatus", request, _wire.status)

    def members(self) -> Operation[list[Member]]:
        """The registry."""
        request = revocation_pb2.ListMembersRequest()
        return Operation(RevocationServiceStub, "ListMembers", request, _wire.members)

    def await_applied(self, position: str, wait_for: WaitFor, wait_timeout: float) -> Operation[Landed]:
        """Waits until verifiers have applied a position."""
        request = build(
            revocation_pb2.AwaitAppliedRequest,
            realm=self._realm,
            position=_demand(position, "position"),
            verifiers=verifiers_of(wait_for),
            timeout_ms=wait_ms(wait_timeout),
        )
        return Operation(RevocationServiceStub, "AwaitApplied", request, _wire.landed, patient=True)

    def subscribers(self, size: int, page: str) -> Operation[tuple[Subscribers, str]]:
        """A page of the verifiers that follow the realm."""
        request = build(revocation_pb2.ListSubscribersRequest, realm=self._realm, page_size=size, page_token=page)
        return Operation(RevocationServiceStub, "ListSubscribers", request, _wire.subscriber_page, patient=True)

    def strike_member(self, member_id: str) -> Operation[None]:
        """Takes a silent member off the registry by force."""
        request = build(revocation_pb2.StrikeMemberRequest, id=member_id)
        return Operation(RevocationServiceStub, "StrikeMember", request, _nothing, mutates=True)

    def _or_default(self, issuer: str | None) -> str | None:
        return self._issuer if issuer is None else issuer


def verifiers_of(wait_for: WaitFor) -> int:
    """How many verifiers to wait for; 0: all. Raises InvalidRequest."""
    if wait_for == "all":
        return 0
    if type(wait_for) is not int or not 0 < wait_for < 2**32:
        raise InvalidRequest('wait_for must be "all" or a number of verifiers', field="wait_for")
    return wait_for


def check_wait(wait_for: WaitFor, wait_timeout: float) -> None:
    """What can be waited for. Before anything is committed. Raises InvalidRequest."""
    verifiers_of(wait_for)
    wait_ms(wait_timeout)


def wait_ms(wait_timeout: float) -> int:
    """How long to wait, in milliseconds. Raises InvalidRequest."""
    if not isinstance(wait_timeout, int | float) or not 0 < wait_timeout <= MAX_WAIT_S:
        raise InvalidRequest(f"wait_timeout must be more than 0 and at most {MAX_WAIT_S} s", field="wait_timeout")
    return math.ceil(wait_timeout * 1000)


def _demand(position: str | None, field: str = "not_older_than") -> revocation_pb2.Positions | None:
    if not position:
        return None
    try:
        return _wire.positions_to(decode_positions(position))
    except ValueError:
        raise InvalidRequest("not a position", field=field) from None


def _mutation(method: str, request: Message, read: Callable[[Any], T], op_id: str) -> Operation[T]:
    return Operation(RevocationServiceStub, method, request, read, mutates=True, op_id=op_id, rows=True)


def _same(response: T) -> T:
    return response


def _nothing(response: object) -> None:
    return None
