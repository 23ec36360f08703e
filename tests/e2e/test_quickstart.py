"""What a new user types: README's Python as it stands, and the roles file of docs/install.md, on a real service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import revocation_sdk
from revocation_sdk import (
    NotFresh,
    PermissionDenied,
    RevocationClient,
    StatusUnknown,
    TokenIssuer,
    TokenRevoked,
    Verifier,
)
from tests.e2e.installation import PATIENT_S, Installation
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.secured import Secured

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
README, INSTALL = (ROOT / "README.md").read_text(), (ROOT / "docs/install.md").read_text()
ME, AUDIENCE = "https://id.example", "api"
API, LOGIN, ADMIN = (f"spiffe://example.org/{name}" for name in ("api", "login", "admin"))


def test_the_readmes_python_runs_as_it_stands(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block after block; only the port is another one, since 50051 may be somebody else's on this machine."""
    replica = installation.add_embedded()

    def client(address: str) -> RevocationClient:
        assert address == "localhost:50051"
        made = installation.client(replica.address, max_staleness=PATIENT_S)
        made.wait_until_fresh(LIMIT_S)  # README waits 5 s, and the machine may be busy
        return made

    monkeypatch.setattr(revocation_sdk, "RevocationClient", client)
    blocks = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["claims"]["sub"] == "alice"
    with pytest.raises(TokenRevoked):
        names["verifier"].verify(names["login"].access_token)


def test_the_roles_file_of_the_page_gives_each_what_it_needs(installation: Installation) -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", INSTALL, re.MULTILINE | re.DOTALL)
    path = installation.folder / "roles.toml"
    path.write_text(text)
    secured = Secured(installation, [], realms={"default": {}}, roles=path)
    secured.embedded()
    key = ec.generate_private_key(ec.SECP256R1())
    with secured.client(API) as api, secured.client(LOGIN) as login, secured.client(ADMIN) as admin:
        verifier = Verifier(api, key=key.public_key(), algorithms=["ES256"], issuer=ME, audience=AUDIENCE)
        issuer = TokenIssuer(login, key=key, algorithm="ES256", issuer=ME, audience=AUDIENCE)
        for client in (api, login):
            client.wait_until_fresh(LIMIT_S)
        opened = issuer.refresh(issuer.login("alice").refresh_token)
        verifier.verify(opened.access_token)
        verifier.verify(issuer.issue("bob"))
        assert len(issuer.sessions("alice")) == 1
        issuer.logout(issuer.logout_others("alice", keep=opened.session_id).session_id)
        issuer.logout_everywhere("alice")
        with pytest.raises(PermissionDenied):
            api.revoke_subject("alice")
        with pytest.raises(PermissionDenied):
            login.revoke_key("k1")
        admin.revoke_key("k1")


def test_an_issuer_that_may_not_follow_logs_in_and_says_why_it_is_not_fresh(installation: Installation) -> None:
    """As docs/sdk.md warns: `session-manager` alone is enough for sessions, not for `issue`, and waiting ends."""
    secured = Secured(installation, [(LOGIN, "session-manager", ["default"])], realms={"default": {}})
    secured.embedded()
    key = ec.generate_private_key(ec.SECP256R1())
    with secured.client(LOGIN) as client:
        issuer = TokenIssuer(client, key=key, algorithm="ES256", issuer=ME, audience=AUDIENCE)
        issuer.logout(issuer.refresh(issuer.login("alice").refresh_token).session_id)
        until(lambda: why_not_fresh(client) == "permission_denied", "the service has refused to be followed")
        with pytest.raises(StatusUnknown) as issued:
            issuer.issue("alice")
        assert issued.value.reason == "permission_denied"


def why_not_fresh(client: RevocationClient) -> str:
    """The reason with which waiting ends."""
    with pytest.raises(NotFresh) as waited:
        client.wait_until_fresh(0.1)
    return waited.value.reason
