"""Every way to end a session, seen through every channel: its refresh and its access tokens end on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jwt
import pytest

from revocation_sdk import RevocationClient, SessionEnded, TokenExpired, TokenIssuer, TokenRevoked, Verifier
from revocation_sdk.types import ClientSettings, Login
from tests.e2e.installation import PATIENT_S, Installation
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.tokens import AUDIENCE, ISSUER

pytestmark = pytest.mark.e2e
LIFE_S = 300


class Service:
    """Two replicas on one store, an issuer, and a verifier that has been following all the time."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.replicas = installation.add_replicas(2, installation.store().url)
        self.keys = installation.signer.keys | type(installation.signer)("doomed").keys
        self.client = installation.client(max_staleness=PATIENT_S)
        self.follower = installation.client(self.replicas[1].address, max_staleness=PATIENT_S)
        for client in (self.client, self.follower):
            client.wait_until_fresh(LIMIT_S)

    def issuer(self, kid: str = "k1") -> TokenIssuer:
        return TokenIssuer(
            self.client, key=self.keys[kid], algorithm="ES256", issuer=ISSUER, audience=AUDIENCE, lifetime=LIFE_S,
            key_id=kid,
        )  # fmt: skip

    def verifier(self, client: RevocationClient, kid: str) -> Verifier:
        return Verifier(
            client, key=self.keys[kid].public_key(), key_id=kid, algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE,
            max_staleness=PATIENT_S,
        )  # fmt: skip


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Installation(tmp_path_factory.mktemp("sessions") / "installation") as installation:
        yield Service(installation)


@dataclass(frozen=True)
class Path:
    """A way to end the session of `login`; `reason` is what a refresh says then, None if it goes on."""

    end: Callable[[Service, Login, str, str], Login | None]
    reason: str | None
    target: str = "session"
    settings: ClientSettings | None = None


def _logout(service: Service, login: Login, _subject: str, _client: str) -> None:
    service.issuer().logout(login.session_id)


def _logout_by_handle(service: Service, _login: Login, subject: str, _client: str) -> None:
    (shown,) = service.issuer().sessions(subject)
    service.issuer().logout(shown.handle, sub=subject)


def _revoke_session(service: Service, login: Login, _subject: str, _client: str) -> None:
    service.client.revoke_session(login.session_id, issuer=ISSUER)


def _everywhere(service: Service, _login: Login, subject: str, _client: str) -> None:
    service.issuer().logout_everywhere(subject)


def _password_change(service: Service, _login: Login, subject: str, _client: str) -> None:
    """The user changes it elsewhere, and an administrator's tool knows no issuer."""
    service.client.revoke_subject(subject)


def _others(service: Service, _login: Login, subject: str, client: str) -> None:
    kept = service.issuer().login(subject, client)
    kept = service.issuer().logout_others(subject, keep=kept.session_id)
    service.verifier(service.client, "k1").verify(kept.access_token)
    service.issuer().refresh(kept.refresh_token)
    service.issuer().logout(kept.session_id)


def _client(service: Service, _login: Login, _subject: str, client: str) -> None:
    service.client.revoke_client(client, issuer=ISSUER)


def _key(service: Service, _login: Login, _subject: str, _client: str) -> None:
    service.client.revoke_key("doomed", issuer=ISSUER)


def _realm(service: Service, _login: Login, _subject: str, _client: str) -> None:
    service.client.revoke_realm()


def _eviction(service: Service, _login: Login, subject: str, client: str) -> None:
    newer = service.issuer().login(subject, client)
    service.client.revoke_session(newer.session_id)


def _reuse(service: Service, login: Login, _subject: str, _client: str) -> Login:
    issuer = service.issuer()
    newest = issuer.refresh(issuer.refresh(login.refresh_token).refresh_token)
    with pytest.raises(SessionEnded):
        issuer.refresh(login.refresh_token)
    return newest


def _time(service: Service, _login: Login, subject: str, _client: str) -> None:
    until(lambda: not service.issuer().sessions(subject), "the session has ended by itself")


# Long enough to see the access token accepted before.
SHORT_IDLE = ClientSettings(absolute_timeout_s=60, idle_timeout_s=5, grace_ms=1_000)
SHORT_LIFE = ClientSettings(absolute_timeout_s=5, idle_timeout_s=5, grace_ms=1_000)
ONE_SESSION = ClientSettings(3_600, 600, max_sessions_per_subject_and_client=1, evict_oldest=True)

PATHS = {
    "logout": Path(_logout, "logout"),
    "logout by handle": Path(_logout_by_handle, "logout"),
    "revoke_session": Path(_revoke_session, "logout"),
    "logout everywhere": Path(_everywhere, "subject", "subject"),
    "password change": Path(_password_change, "subject", "subject"),
    "others only": Path(_others, "subject", "subject"),
    "client": Path(_client, "client", "client"),
    "key": Path(_key, None, "key"),
    "eviction": Path(_eviction, "limit", settings=ONE_SESSION),
    "reuse": Path(_reuse, "reuse"),
    "idle": Path(_time, "idle", "", SHORT_IDLE),
    "absolute": Path(_time, "absolute", "", SHORT_LIFE),
    "realm": Path(_realm, "realm", "realm"),
}


@pytest.mark.parametrize("name", [*PATHS])
def test_every_end_reaches_every_channel(service: Service, name: str) -> None:
    path, subject, client, kid = (
        PATHS[name],
        f"user of {name}",
        f"client of {name}",
        "doomed" if name == "key" else "k1",
    )
    if path.settings is not None:
        service.client.set_client_settings(client, path.settings)
    login = service.issuer(kid).login(subject, client)
    service.verifier(service.follower, kid).verify(login.access_token)
    newest = path.end(service, login, subject, client) or login

    _refresh(service, path, newest)
    _verify(service, path, newest.access_token, kid)
    _check(service, path, newest.access_token, kid)
    assert len(service.issuer().sessions(subject)) == (0 if path.reason else 1)


def _refresh(service: Service, path: Path, login: Login) -> None:
    for replica in service.replicas:
        client = service.installation.client(replica.address)
        issuer = TokenIssuer(client, key=service.keys["k1"], algorithm="ES256", issuer=ISSUER, audience=AUDIENCE)
        if path.reason is None:
            service.verifier(service.client, "k1").verify(issuer.refresh(login.refresh_token).access_token)
            continue
        with pytest.raises(SessionEnded) as caught:
            issuer.refresh(login.refresh_token)
        # A session that timed out is named for a while, and then it is just not there.
        assert caught.value.reason in {path.reason, *(["unknown"] if not path.target else [])}


def _verify(service: Service, path: Path, token: str, kid: str) -> None:
    """A verifier that followed all the time refuses soon; one that starts now, with its first answer."""

    def refused_as(verifier: Verifier) -> str | None:
        try:
            verifier.verify(token)
        except TokenRevoked as error:
            return error.target
        except TokenExpired:
            return ""
        return None

    following = service.verifier(service.follower, kid)
    until(lambda: refused_as(following) is not None, "the follower refuses the token")
    assert refused_as(following) == path.target
    late = service.installation.client(service.replicas[1].address, max_staleness=PATIENT_S)
    late.wait_until_fresh(LIMIT_S)
    assert refused_as(service.verifier(late, kid)) == path.target


def _check(service: Service, path: Path, token: str, kid: str) -> None:
    if not path.target:
        return  # Check is about revocation: that the token's time is over, whoever asks knows, and _verify has shown
    claims = jwt.decode(token, options={"verify_signature": False})
    for replica in service.replicas:
        client = service.installation.client(replica.address)
        with pytest.raises(TokenRevoked):
            client.check_remote(claims, token=token, key_id=kid, timeout=LIMIT_S)
