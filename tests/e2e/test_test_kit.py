"""The fake of `revocation_sdk.testing` and the service end sessions alike: here the cases run on the service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from revocation_sdk import ConfigError, RevocationClient, TokenIssuer
from tests.e2e.installation import PATIENT_S, Installation
from tests.e2e.processes import LIMIT_S
from tests.sdk.forge import AUDIENCE, EC, ISSUER
from tests.sdk.likeness import CASES, Desk

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("kit") / "installation") as running:
        running.add_replicas(1, running.store().url)
        yield running


@pytest.fixture(scope="module")
def client(installation: Installation) -> RevocationClient:
    client = installation.client(max_staleness=PATIENT_S)
    client.wait_until_fresh(LIMIT_S)
    return client


@pytest.mark.parametrize("name", [*CASES])
def test_sessions_end_as_the_fake_says(client: RevocationClient, name: str) -> None:
    CASES[name](Desk(client, f"user of {name}", f"other of {name}", PATIENT_S))


def test_a_lifetime_above_the_realms_is_a_mistake_before_a_view_is_there(installation: Installation) -> None:
    """The service knows the limit, and the issuer says the same as it does later on."""
    client = RevocationClient(installation.addresses)  # which follows nothing
    issuer = TokenIssuer(client, key=EC, algorithm="ES256", issuer=ISSUER, audience=AUDIENCE, lifetime=86_401)
    with pytest.raises(ConfigError) as caught:
        issuer.login("alice")
    assert caught.value.reason == "lifetime"
    assert not client.follower.keys
    client.close()
