"""Bearer identity: an issuer's keys that are renewed and taken back, and tokens as Kubernetes makes them."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from revocation.callers.auth import RoleAuthorizer
from revocation.callers.roles import RolesInvalid
from revocation.errors import Denied, ServiceError, Unavailable
from revocation_sdk._jwks import COOL_DOWN_S, MAX_STALE_S, REFRESH_AFTER_S
from tests.sdk.publisher import Publisher, jwk

ISSUER = "https://kubernetes.default.svc.cluster.local"
LOGIN = "system:serviceaccount:prod:login"
OWN_TOKEN = "the-projected-token-of-the-service"


class Cluster(Publisher):
    """A Kubernetes API server as far as tokens go: keys over HTTPS for who shows a token, service-account tokens."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        ca = trustme.CA()
        self.ca, self.token_file = folder / "ca.crt", folder / "token"
        ca.cert_pem.write_to_path(str(self.ca))
        self.token_file.write_text(OWN_TOKEN + "\n")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("127.0.0.1").configure_cert(context)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = self.url.replace("http:", "https:")
        self.keys: dict[str, Any] = {}
        self.rotate("first")
        self._demand(OWN_TOKEN)

    def _demand(self, token: str) -> None:
        handler: Any = self.server.RequestHandlerClass
        answer = handler.do_GET

        def do_GET(request: Any) -> None:
            if request.headers["Authorization"] != f"Bearer {token}":
                request.send_error(401)
            else:
                answer(request)

        handler.do_GET = do_GET

    def rotate(self, *kids: str) -> None:
        """From now on these keys are published."""
        self.keys = {kid: self.keys.get(kid) or ec.generate_private_key(ec.SECP256R1()) for kid in kids}
        self.publish(*(jwk(key, kid=kid) for kid, key in self.keys.items()))

    def token(self, kid: str = "first", key: Any = None, algorithm: str = "ES256", **changed: Any) -> str:
        """The claims of a projected service-account token."""
        now = int(time.time())
        namespace, name = LOGIN.split(":")[2:]
        claims = {
            "aud": ["revocation"], "exp": now + 3_607, "iat": now, "nbf": now, "iss": ISSUER, "sub": LOGIN,
            "jti": "6d4c8a6e-8f0e-4f0e-9d3b-0c8c1d1f6f5e",
            "kubernetes.io": {
                "namespace": namespace,
                "node": {"name": "node-1", "uid": "e0f9c3b1-0000-4000-8000-000000000001"},
                "pod": {"name": "login-7c9d", "uid": "e0f9c3b1-0000-4000-8000-000000000002"},
                "serviceaccount": {"name": name, "uid": "e0f9c3b1-0000-4000-8000-000000000003"},
                "warnafter": now + 3_600,
            },
        }  # fmt: skip
        return jwt.encode(claims | changed, key or self.keys[kid], algorithm, headers={"kid": kid})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Context:
    """What of a call is looked at."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_context(self) -> dict[str, Any]:
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),)


class Desk:
    """The service's side."""

    def __init__(self, folder: Path, **bearer: Any) -> None:
        self.path, self.clock, self.bearer = folder / "roles.json", Clock(), bearer
        self.write()
        self.authorizer = RoleAuthorizer(self.path, self.clock)

    def write(self, identity: str = f"{ISSUER}#{LOGIN}") -> None:
        bind = {"identity": identity, "roles": ["revoker"], "realms": ["default"]}
        bearer = {"issuer": ISSUER, "audience": "revocation"} | self.bearer
        self.path.write_text(json.dumps({"bearer": [bearer], "bind": [bind]}))

    async def why(self, token: str) -> str:
        """ "in", or the reason why not."""
        try:
            caller = await self.authorizer.authorize(Context(token), "Revoke:token", "default")
        except ServiceError as error:
            return error.reason
        assert caller.name == f"{ISSUER}#{LOGIN}"
        return "in"


async def comes_to(desk: Desk, token: str, why: str) -> None:
    """Once the keys that are fetched in the background are here."""
    for _ in range(6_000):
        if await desk.why(token) == why:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within a minute: {why}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@pytest.fixture
def desk(cluster: Cluster, tmp_path: Path) -> Desk:
    return Desk(tmp_path, jwks_url=cluster.url, jwks_ca=str(cluster.ca), jwks_token_file=str(cluster.token_file))


async def test_a_service_account_token_is_an_identity(cluster: Cluster, desk: Desk) -> None:
    assert await desk.why(cluster.token()) == "in"
    foreign = ec.generate_private_key(ec.SECP256R1())
    for token in (
        cluster.token(key=foreign), cluster.token(aud=["other"]), cluster.token(exp=int(time.time()) - 60),
        cluster.token(nbf=int(time.time()) + 600), cluster.token(iss="https://elsewhere"),
        cluster.token("unheard-of", foreign),
        cluster.token(key="a-shared-secret-of-thirty-two-bytes", algorithm="HS256"),
        cluster.token(key=rsa.generate_private_key(65_537, 2_048), algorithm="RS256"),
    ):  # fmt: skip
        assert await desk.why(token) == "UNAUTHENTICATED"
    assert await desk.why(cluster.token(sub="system:serviceaccount:prod:other")) == "PERMISSION_DENIED"


async def test_a_new_key_is_taken_up_at_once_but_made_up_ones_fetch_little(cluster: Cluster, desk: Desk) -> None:
    assert await desk.why(cluster.token()) == "in"
    cluster.rotate("first", "second")
    desk.clock.now += COOL_DOWN_S + 1
    assert await desk.why(cluster.token("second")) == "in", "without a refusal in between"
    fetched = cluster.requests
    foreign = ec.generate_private_key(ec.SECP256R1())
    for number in range(50):
        assert await desk.why(cluster.token(f"made-up-{number}", foreign)) == "UNAUTHENTICATED"
    assert cluster.requests <= fetched + 1


async def test_a_key_that_is_taken_back_is_honoured_for_tokens_seen_before_too(cluster: Cluster, desk: Desk) -> None:
    cluster.rotate("first", "second")
    stolen, good = cluster.token("first"), cluster.token("second")
    assert await desk.why(stolen) == await desk.why(good) == "in"
    cluster.rotate("second")
    desk.clock.now += REFRESH_AFTER_S + 1

    await comes_to(desk, stolen, "UNAUTHENTICATED")
    assert await desk.why(good) == "in"


async def test_an_issuer_that_is_down_locks_nobody_out_for_a_day_and_then_everybody(
    cluster: Cluster, desk: Desk
) -> None:
    token = cluster.token()
    assert await desk.why(token) == "in"
    cluster.status = 500
    desk.clock.now += MAX_STALE_S - 1
    assert await desk.why(token) == "in"
    assert await desk.why(cluster.token(jti="another")) == "in"
    desk.write()  # a change of the roles does not throw the keys away
    desk.authorizer._next_look = 0
    assert await desk.why(token) == "in"
    desk.clock.now += 2
    assert await desk.why(token) == "NOT_READY"
    cluster.status = 200
    desk.clock.now += COOL_DOWN_S

    await comes_to(desk, token, "in")


async def test_without_the_token_or_the_ca_there_are_no_keys(cluster: Cluster, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    trustme.CA().cert_pem.write_to_path(str(other))
    for bearer in (
        {"jwks_ca": str(cluster.ca)},
        {"jwks_ca": str(other), "jwks_token_file": str(cluster.token_file)},
        {"jwks_token_file": str(cluster.token_file)},
    ):
        assert await Desk(tmp_path, jwks_url=cluster.url, **bearer).why(cluster.token()) == "NOT_READY"


async def test_waiting_for_keys_does_not_hold_up_the_event_loop(cluster: Cluster, desk: Desk) -> None:
    cluster.gate.clear()
    waiting = asyncio.create_task(desk.why(cluster.token()))
    await asyncio.to_thread(cluster.arrived.acquire)
    with pytest.raises(Denied):  # somebody else is answered meanwhile
        await desk.authorizer.authorize(Context("not.a.token"), "Revoke:token", "default")
    assert not waiting.done()
    cluster.gate.set()
    assert await waiting == "in"
    assert threading.active_count() < 50


async def test_a_key_set_file_is_read_anew_when_it_changes(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(cluster.body)
    desk = Desk(tmp_path, jwks_file=str(path))
    token = cluster.token()
    assert await desk.why(token) == "in"
    cluster.rotate("second", "third")
    path.write_bytes(cluster.body)
    desk.authorizer._next_look = 0
    assert await desk.why(token) == "UNAUTHENTICATED"
    assert await desk.why(cluster.token("second")) == "in"
    path.write_text("{broken")
    desk.authorizer._next_look = 0
    assert await desk.why(cluster.token("second")) == "in", "the last good one stays in force"


@pytest.mark.parametrize(
    "bearer",
    [
        {"jwks_url": "http://elsewhere.example/keys"},
        {"jwks_url": "file:///etc/passwd"},
        {"jwks_url": "https://elsewhere.example/keys", "jwks_ca": "/nowhere/ca.crt"},
        {"jwks_url": "https://elsewhere.example/keys", "algorithms": ["HS256"]},
        {"jwks_url": "https://elsewhere.example/keys", "algorithms": ["none"]},
        {"jwks_file": "/nowhere/jwks.json"},
        {"jwks_file": "/nowhere/jwks.json", "jwks_ca": "/nowhere/ca.crt"},
    ],
)
def test_what_cannot_be_a_source_of_keys_is_refused_at_the_start(tmp_path: Path, bearer: dict[str, Any]) -> None:
    with pytest.raises(RolesInvalid):
        Desk(tmp_path, **bearer)


def test_unavailable_is_no_denial() -> None:
    """The SDK tries again on the one and not on the other."""
    assert not issubclass(Unavailable, Denied)


async def test_a_token_that_is_being_verified_while_the_roles_change_is_judged_by_the_new_ones(
    cluster: Cluster, tmp_path: Path
) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(cluster.body)
    desk = Desk(tmp_path, jwks_file=str(path))
    token, arrived, go_on, verify = cluster.token(), threading.Event(), threading.Event(), desk.authorizer._verify

    def slowly(token: str) -> Any:
        verified = verify(token)
        arrived.set()
        assert go_on.wait(60)
        return verified

    desk.authorizer._verify = slowly  # type: ignore[method-assign]
    waiting = asyncio.create_task(desk.why(token))
    await asyncio.to_thread(arrived.wait, 60)
    desk.bearer["audience"] = "another"
    desk.write()
    desk.authorizer._next_look = 0
    generation = desk.authorizer.generation
    go_on.set()

    assert await waiting == "UNAUTHENTICATED"
    assert await desk.why(token) == "UNAUTHENTICATED"
    assert await desk.why(cluster.token(aud=["another"])) == "in"
    assert generation == desk.authorizer.generation > 1
