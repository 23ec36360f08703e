"""Who may call, over real TLS: client certificates, bearer tokens, roles, and files that change while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from revocation.callers.roles import TABLE, Role
from revocation_api.v1 import audit_pb2, audit_pb2_grpc, revocation_pb2_grpc
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk import PermissionDenied
from tests.e2e.installation import Installation
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.secured import ISSUER, SUBJECT, Bind, Secured
from tests.e2e.walk import attempts, methods

pytestmark = pytest.mark.e2e

VERIFIER, REVOKER, STRANGER = "spiffe://test/verifier", "spiffe://test/revoker", "spiffe://test/stranger"


ADMIN = "spiffe://test/admin"
ROLES: list[Bind] = [
    (ADMIN, "admin", ["*"]),
    (VERIFIER, "verifier", ["default"]),
    (REVOKER, "revoker", ["default"]),
    (f"{ISSUER}#{SUBJECT}", "session-manager", ["default"]),
]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with Installation(tmp_path_factory.mktemp("roles")) as installation:
        made = Secured(installation, ROLES, realms={"default": {}, "other": {}})
        made.embedded()
        yield made


def call(channel: grpc.Channel, service: str, method: str, message: Any) -> grpc.StatusCode:
    stub: Any = revocation_pb2_grpc.RevocationServiceStub(channel)
    try:
        getattr(stub, method)(message, timeout=LIMIT_S)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def state(secured: Secured) -> list[Any]:
    """What an administrator sees of both realms."""
    seen: list[Any] = []
    for realm in ("default", "other"):
        with secured.client(ADMIN, realm=realm) as client:
            status = client.status()
            seen += [status.entries, *(partition.position for partition in status.partitions)]
            seen += [client.get_client_settings("x"), client.list_sessions("x"), client.impact()]
    return seen


def test_every_method_that_the_server_registers_has_a_row(secured: Secured) -> None:
    """By reflection, so that a service that is added without rows fails here, too."""
    with secured.channel(ADMIN) as channel:
        registered = {method.name for _, method in methods(channel)}
        targets = {attempt.name for attempt in attempts(channel, "default") if attempt.method.name == "Revoke"}
    assert registered == {row.partition(":")[0] for row in TABLE}
    assert targets == {row for row in TABLE if row.startswith("Revoke:")}


@pytest.mark.parametrize("realm", ["default", "other", "nowhere", ""])
def test_a_verifier_tries_everything_and_changes_nothing(secured: Secured, realm: str) -> None:
    """With a verifier's certificate nothing in the API changes anything; what it may read, it may, in its realm."""
    before = state(secured)
    with secured.channel(VERIFIER) as channel:
        found = [(attempt, *attempt.make(channel)) for attempt in attempts(channel, realm)]
    allowed = {row for row, roles in TABLE.items() if Role.VERIFIER in roles} if realm == "default" else set()
    assert {attempt.method.name for attempt, _, _ in found} == {row.partition(":")[0] for row in TABLE}
    for attempt, code, details in found:
        if attempt.method.name in allowed and attempt.variant != "ping":
            assert code == "OK", (attempt.name, details)
        else:
            assert (code, details) == ("PERMISSION_DENIED", "this identity may not do that in this realm"), attempt.name
    assert state(secured) == before


def test_watch_is_for_verifiers_and_only_in_their_realm(secured: Secured) -> None:
    """A verifier follows its realm; another realm, and a stranger, learn nothing."""
    with secured.client(VERIFIER) as client:
        client.wait_until_fresh(LIMIT_S)
    for identity, realm in ((VERIFIER, "other"), (STRANGER, "default"), (REVOKER, "default"), (VERIFIER, "nowhere")):
        with secured.channel(identity) as channel:
            stub = revocation_pb2_grpc.RevocationServiceStub(channel)
            hello = pb.WatchRequest(hello=pb.Hello(realm=realm, protocol=1))
            with pytest.raises(grpc.RpcError) as refused:
                next(iter(stub.Watch(iter([hello]), timeout=LIMIT_S)))
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert refused.value.details() == "this identity may not do that in this realm"


def test_a_revoker_revokes_tokens_and_no_clients(secured: Secured) -> None:
    client = secured.client(REVOKER)
    assert client.revoke_token(jti="t", expires_at=int(time.time()) + 60).stored
    with pytest.raises(PermissionDenied):
        client.revoke_client("shop")
    with pytest.raises(PermissionDenied):
        client.revoke_realm()
    client.close()


def test_without_a_certificate_nobody_gets_in(secured: Secured) -> None:
    root = (secured.folder / "ca.pem").read_bytes()
    with grpc.secure_channel(secured.replica.address, grpc.ssl_channel_credentials(root)) as channel:
        assert call(channel, "RevocationService", "Check", pb.CheckRequest()) is grpc.StatusCode.UNAVAILABLE


def test_bearer_tokens(secured: Secured) -> None:
    """A bearer token adds its identity; a wrong one is refused, and says no more than that."""
    request = pb.GetVersionRequest(realm="default", subject="u")
    foreign = jwt.encode(
        {"iss": ISSUER, "sub": SUBJECT, "aud": "revocation", "exp": int(time.time()) + 60},
        ec.generate_private_key(ec.SECP256R1()), "ES256", headers={"kid": "k"},
    )  # fmt: skip
    cases = {
        secured.bearer(): grpc.StatusCode.OK,
        secured.bearer(sub="system:serviceaccount:prod:other"): grpc.StatusCode.PERMISSION_DENIED,
        secured.bearer(aud="elsewhere"): grpc.StatusCode.UNAUTHENTICATED,
        secured.bearer(exp=int(time.time()) - 60): grpc.StatusCode.UNAUTHENTICATED,
        secured.bearer(iss="https://evil.example"): grpc.StatusCode.UNAUTHENTICATED,
        foreign: grpc.StatusCode.UNAUTHENTICATED,
        "not.a.token": grpc.StatusCode.UNAUTHENTICATED,
    }
    with secured.channel(STRANGER) as channel:
        stub = revocation_pb2_grpc.RevocationServiceStub(channel)
        for token, code in cases.items():
            try:
                stub.GetVersion(request, timeout=LIMIT_S, metadata=(("authorization", f"Bearer {token}"),))
                found = grpc.StatusCode.OK
            except grpc.RpcError as error:
                found = error.code()
            assert found is code, token


def test_roles_and_certificates_are_read_anew(secured: Secured) -> None:
    """A changed roles file takes effect while streams and calls go on; a broken one changes nothing."""

    def may_check() -> bool:
        with secured.channel(STRANGER) as channel:
            message = pb.CheckRequest(realm="default", jti="j")
            return call(channel, "RevocationService", "Check", message) is grpc.StatusCode.OK

    assert not may_check()
    secured.write_roles([*ROLES, (STRANGER, "verifier", ["default"])])
    until(may_check, "the new roles are in force")
    (secured.folder / "roles.json").write_text("{broken")
    until(lambda: "roles_not_reloaded" in secured.replica.log() or not may_check(), "the broken file is reported")
    assert may_check()
    secured.write_roles(ROLES)
    until(lambda: not may_check(), "the roles are taken away again")
    secured.write_server_certificate()
    assert not may_check()
    until(lambda: "certificates_reloaded" in secured.replica.log(), "the new certificate is in use")


def a_stream(channel: grpc.Channel) -> Iterator[Any]:
    """A verifier that pings for as long as it is heard."""

    def said() -> Iterator[pb.WatchRequest]:
        yield pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1))
        for nonce in range(600):
            time.sleep(0.1)
            yield pb.WatchRequest(ping=pb.Ping(nonce=nonce))

    answers: Iterator[Any] = iter(revocation_pb2_grpc.RevocationServiceStub(channel).Watch(said(), timeout=60))
    assert next(answers).WhichOneof("kind") == "welcome"
    return answers


def an_audit(channel: grpc.Channel) -> Iterator[Any]:
    request = audit_pb2.FollowRequest(realm="default", follow=True)
    answers: Iterator[Any] = iter(audit_pb2_grpc.AuditServiceStub(channel).Follow(request, timeout=60))
    assert next(answers).WhichOneof("kind") == "start"
    return answers


def how_it_ends(answers: Iterator[Any]) -> str:
    """Reads a stream to its end."""
    with pytest.raises(grpc.RpcError) as ended:
        for _ in answers:
            pass
    code: grpc.StatusCode = ended.value.code()
    return code.name


@pytest.mark.parametrize(("role", "stream"), [("verifier", a_stream), ("auditor", an_audit)])
def test_a_stream_ends_with_the_role_that_allowed_it(
    secured: Secured, role: str, stream: Callable[[grpc.Channel], Iterator[Any]]
) -> None:
    """Other changes of the roles end nothing; the one that takes the role away does, within seconds."""
    identity = f"spiffe://test/former-{role}"
    held = (identity, role, ["default"])
    secured.write_roles([*ROLES, held])
    with secured.channel(identity) as channel:
        until(lambda: not refused(lambda: stream(channel)), "the role is there")
        answers = stream(channel)
        reloads = secured.replica.log().count("roles_reloaded")
        secured.write_roles([*ROLES, held, (STRANGER, "verifier", ["other"])])
        until(lambda: secured.replica.log().count("roles_reloaded") > reloads, "the roles are read anew")
        assert next(answers)
        secured.write_roles(ROLES)
        assert how_it_ends(answers) == "PERMISSION_DENIED"


@pytest.mark.parametrize(("role", "stream"), [("verifier", a_stream), ("auditor", an_audit)])
def test_a_stream_ends_with_the_certificate_that_opened_it(
    secured: Secured, role: str, stream: Callable[[grpc.Channel], Iterator[Any]]
) -> None:
    identity = f"spiffe://test/short-{role}"
    secured.write_roles([*ROLES, (identity, role, ["default"])])
    secured.files(identity, lasts_s=8)
    with secured.channel(identity) as channel:
        until(lambda: not refused(lambda: stream(channel)), "the role is there")
        assert how_it_ends(stream(channel)) == "UNAUTHENTICATED"
    secured.write_roles(ROLES)


def refused(begin: Callable[[], Any]) -> bool:
    try:
        begin()
    except grpc.RpcError:
        return True
    return False


def test_readiness_needs_no_identity(secured: Secured) -> None:
    """Probes ask over HTTP, which knows no callers and changes nothing."""
    assert secured.replica.ready()
