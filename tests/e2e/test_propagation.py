"""A revocation made anywhere is refused everywhere, and nothing else is."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from revocation_sdk import RevocationClient, Unavailable
from revocation_sdk._clock import Clock
from revocation_sdk.errors import TokenExpired, TokenRevoked
from revocation_sdk.issuer import TokenIssuer
from revocation_sdk.types import Receipt
from tests.e2e.installation import MAX_STALENESS_S, Installation
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.tokens import AUDIENCE, ISSUER, Signer

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An embedded store with an owner, two replicas, and verifiers of both kinds, each at one replica only."""
    with Installation(tmp_path_factory.mktemp("propagation")) as made:
        made.signer = Signer("main", "stolen-1", "stolen-2")
        made.owner()
        for replica, kind in zip(
            made.add_replicas(2, made.owner_url, ack="fsynced"), ("thread", "asyncio"), strict=True
        ):
            made.add_verifier(kind, addresses=replica.address)
        yield made


@pytest.fixture(scope="module")
def client(installed: Installation) -> RevocationClient:
    client = installed.client(installed.replicas[0].address)
    client.wait_until_fresh(30)
    return client


@pytest.fixture(scope="module")
def issuer(installed: Installation, client: RevocationClient) -> TokenIssuer:
    return TokenIssuer(
        client, key=installed.signer.keys["main"], key_id="main", algorithm="ES256", issuer=ISSUER, audience=AUDIENCE
    )


@pytest.fixture
def mint(installed: Installation, client: RevocationClient) -> Callable[..., str]:
    """Signs tokens that no earlier realm cutoff hits."""
    realm = client.get_version("nobody").version[2:]
    version = [0, 0, *realm] if realm else [0]

    def sign(**claims: Any) -> str:
        return installed.signer.sign(**{"tver": version, **claims})

    return sign


def test_each_target_is_refused_by_old_and_new_verifiers_and_nothing_else_is(
    installed: Installation, client: RevocationClient, issuer: TokenIssuer, mint: Callable[..., str]
) -> None:
    expires_at = int(time.time()) + 600
    sid, sub, app = secrets.token_hex(8), "subject-1", "app-1"
    revoked: dict[str, tuple[str, Callable[[], Receipt]]] = {
        "token": (by_jti := mint(), lambda: client.revoke_token(by_jti)),
        "token by jti": (
            mint(jti="a-jti", exp=expires_at),
            lambda: client.revoke_token(jti="a-jti", issuer=ISSUER, expires_at=expires_at),
        ),
        "token without jti": (without := mint(jti=None), lambda: client.revoke_token(without)),
        "session": (mint(sid=sid), lambda: client.revoke_session(sid, issuer=ISSUER)),
        "subject": (mint(sub=sub), lambda: client.revoke_subject(sub)),
        "client": (mint(client_id=app), lambda: client.revoke_client(app)),
        "key by kid": (mint(kid="stolen-1"), lambda: client.revoke_key("stolen-1")),
        "key by thumbprint": (
            mint(kid="stolen-2"),
            lambda: client.revoke_key(thumbprint=installed.signer.thumbprint("stolen-2")),
        ),
    }
    others = [mint(), mint(jti=None), mint(sid=sid[::-1]), mint(sub=sub + "0"), mint(client_id=app + "0")]
    for token, _ in revoked.values():
        installed.accepted_everywhere(token)
    for what, (token, revoke) in revoked.items():
        receipt = revoke()
        assert receipt.stored, what
        installed.refused_everywhere([token])
        target = what.split()[0]
        assert {verifier.verify(token).get("target") for verifier in installed.verifiers} == {target}, what
    installed.add_verifier("thread")
    installed.add_verifier("asyncio")
    installed.refused_everywhere(token for token, _ in revoked.values())
    installed.accepted_everywhere(*others)

    client.revoke_realm()
    installed.refused_everywhere(others)
    installed.accepted_everywhere(issuer.issue("subject-2"))


def test_a_login_right_after_a_cutoff_is_valid_at_once_and_the_old_one_is_not(
    installed: Installation, client: RevocationClient, issuer: TokenIssuer
) -> None:
    for round_ in range(20):
        sub = f"user-{round_}"
        old, old_login = issuer.issue(sub), issuer.login(sub).access_token
        client.revoke_subject(sub)
        new = [issuer.issue(sub), issuer.login(sub).access_token]
        # "At once" is for every verifier, whether or not the cutoff has reached it.
        for verifier in installed.verifiers:
            assert [verifier.verdict(token) for token in new] == ["accepted"] * 2, (round_, verifier.name)
        installed.refused_everywhere([old, old_login])
        installed.accepted_everywhere(*new)


def test_a_batch_of_ten_thousand(installed: Installation, client: RevocationClient, mint: Callable[..., str]) -> None:
    expires_at = int(time.time()) + 600
    jtis = [f"batch-{number}" for number in range(10_000)]
    tokens = [mint(jti=jtis[number], exp=expires_at) for number in (0, 499, 500, 5_000, 9_999)]
    other = mint(jti="batch-10000", exp=expires_at)
    receipt = client.revoke_tokens([(jti, expires_at) for jti in jtis], issuer=ISSUER)
    assert receipt.stored
    installed.refused_everywhere(tokens)
    installed.accepted_everywhere(other)
    again = client.revoke_tokens([(jti, expires_at) for jti in jtis], issuer=ISSUER, op_id=receipt.op_id)
    assert again.position == receipt.position
    entries = client.status().entries
    installed.add_verifier("thread")
    installed.refused_everywhere(tokens)
    until(lambda: installed.verifiers[-1].ask(do="state")["entries"] >= entries, "the new verifier has all entries")


def test_the_service_answers_behind_a_position_that_another_replica_gave(
    installed: Installation, client: RevocationClient, issuer: TokenIssuer, mint: Callable[..., str]
) -> None:
    other = installed.client(installed.replicas[1].address)
    for round_ in range(20):
        sub = f"checked-{round_}"
        claims = {"iss": ISSUER, "sub": sub, "jti": f"jti-{round_}", "exp": int(time.time()) + 600}
        version = list(client.get_version(sub).version)
        receipt = client.revoke_subject(sub)
        assert receipt.cutoff is not None
        with pytest.raises(TokenRevoked) as refused:
            other.check_remote({**claims, "tver": version}, not_older_than=receipt.position, timeout=LIMIT_S)
        assert refused.value.target == "subject"
        found = other.get_version(sub)
        assert found.version[0] == receipt.cutoff.version
        assert abs(found.now_ms / 1000 - time.time()) < 30
        assert other.check_remote(
            {**claims, "tver": list(found.version)}, not_older_than=receipt.position, timeout=LIMIT_S
        ).fresh


def test_who_asks_judges_expiry_by_the_services_clock_too(installation: Installation) -> None:
    (replica,) = installation.add_replicas(1, installation.store().url)
    lagging = Clock(time.monotonic, lambda: time.time() - 3600)
    client = installation.client(replica.address, clock=lagging)
    with pytest.raises(TokenExpired):
        client.check_remote({"iss": ISSUER, "jti": "y", "exp": int(time.time()) - 600}, timeout=5)
    assert client.check_remote({"iss": ISSUER, "jti": "y", "exp": int(time.time()) + 600}, timeout=5).fresh


def test_a_position_that_is_not_reached_is_an_error_and_no_answer(
    installed: Installation, client: RevocationClient
) -> None:
    from revocation_sdk._position import Position, decode_positions, encode_positions

    receipt = client.revoke_session("somebody")
    (position,) = decode_positions(receipt.position)
    ahead = encode_positions((Position(position.log_id, position.seq + 1_000_000, position.digest),))
    claims = {"iss": ISSUER, "sub": "x", "jti": "y", "exp": int(time.time()) + 60}
    with pytest.raises(Unavailable) as failed:
        client.check_remote(claims, not_older_than=ahead, timeout=1.0)
    assert failed.value.reason in {"position_not_reached", "deadline_exceeded"}


def test_a_revocation_is_refused_within_the_freshness_bound(
    installed: Installation, client: RevocationClient, mint: Callable[..., str]
) -> None:
    """I1, in the case in which nothing is broken; in practice it takes milliseconds."""
    tokens = {f"token-{number}": mint() for number in range(200)}
    for verifier in installed.verifiers:
        verifier.ask(do="sample", tokens=tokens)
    acknowledged = {}
    for name, token in tokens.items():
        client.revoke_token(token)
        acknowledged[name] = time.monotonic()
    installed.refused_everywhere(tokens.values())
    for verifier in installed.verifiers:
        accepted = verifier.ask(do="report")["accepted_at"]
        late = [name for name, at in accepted.items() if at > acknowledged[name] + MAX_STALENESS_S]
        assert not late, (verifier.name, late)
