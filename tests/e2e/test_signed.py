"""Signed streams: whatever a relay in between does, a view is never fresh by it, and takes nothing in from it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest

from revocation.cli import main
from revocation.keys.keyring import Keyring
from revocation.keys.signing import SigningKey, signing_keys
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1 import signed_pb2
from revocation_sdk import NotFresh, RevocationClient, TokenRevoked, Unavailable
from revocation_sdk.errors import StatusUnknown
from tests.e2e.installation import Installation
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.relay import Relay, inner, kind

pytestmark = pytest.mark.e2e

SECRET = "k2:" + "B" * 43 + ",k1:" + "A" * 43
KEY = signing_keys(Keyring.parse(SECRET))[0][1].text


@dataclass
class Relayed:
    """A service, a relay in front of it, a client behind the relay, and one that has the service itself."""

    installation: Installation
    relay: Relay
    honest: RevocationClient

    def client(self, **options: object) -> RevocationClient:
        given = {"signing_keys": [KEY], "max_staleness": 1.5, **options}
        return self.installation.client(self.relay.address, **given)


@pytest.fixture
def relayed(installation: Installation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relayed]:
    secret = tmp_path_factory.mktemp("secret") / "secret"
    secret.write_text(SECRET.replace(",", "\n"))
    secret.chmod(0o600)
    replica = installation.add_embedded(secret_file=secret)
    with Relay(replica.address) as relay:
        yield Relayed(installation, relay, installation.client(replica.address))


def claims(subject: str) -> dict[str, object]:
    now = time.time()
    return {"iss": "https://id.example", "sub": subject, "jti": "j", "iat": int(now) - 10, "exp": int(now) + 300}


def is_revoked(client: RevocationClient, subject: str) -> bool:
    try:
        client.check({**claims(subject), "tver": [0, 0, 0]})
    except TokenRevoked:
        return True
    except StatusUnknown:
        pass
    return False


def never_fresh(relayed: Relayed, client: RevocationClient, reason: str | None = None) -> None:
    """It does not get fresh, for this reason; it may need a while to hear anything at all."""

    def refused() -> bool:
        with pytest.raises(NotFresh) as error:
            client.wait_until_fresh(2)
        return bool(relayed.relay.seen) and reason in {None, error.value.reason}

    until(refused, f"it is told why: {reason}")


def test_a_signed_stream_brings_snapshot_changes_and_freshness(relayed: Relayed) -> None:
    relayed.honest.revoke_subject("before")
    client = relayed.client()
    client.wait_until_fresh(LIMIT_S)
    relayed.honest.revoke_subject("after")
    until(lambda: is_revoked(client, "before") and is_revoked(client, "after"), "both are known")
    client.wait_until_fresh(LIMIT_S)
    assert {response.WhichOneof("kind") for response in relayed.relay.seen} == {"signed"}
    assert {kind(response) for response in relayed.relay.seen} >= {"welcome", "changes", "progress", "snapshot_end"}


def test_who_wants_no_signatures_gets_none(relayed: Relayed) -> None:
    relayed.client(signing_keys=None).wait_until_fresh(LIMIT_S)
    assert "signed" not in {response.WhichOneof("kind") for response in relayed.relay.seen}


def test_of_several_keys_one_must_fit(relayed: Relayed) -> None:
    other = SigningKey(b"o" * 32)
    relayed.client(signing_keys=[other.pem, KEY]).wait_until_fresh(LIMIT_S)
    never_fresh(relayed, relayed.client(signing_keys=[other.text]), "unknown_signing_key")


def test_shared_messages_are_signed_once(relayed: Relayed) -> None:
    clients = [relayed.client() for _ in range(3)]
    for client in clients:
        client.wait_until_fresh(LIMIT_S)
    relayed.relay.seen.clear()
    relayed.honest.revoke_subject("alice")
    until(lambda: all(is_revoked(client, "alice") for client in clients), "all know")
    signatures = [response.signed.signature for response in relayed.relay.seen if kind(response) == "changes"]
    assert len(signatures) == 3
    assert len(set(signatures)) == 1


Meddle = Callable[[pb.WatchResponse], list[pb.WatchResponse]]


def _unsigned(response: pb.WatchResponse) -> list[pb.WatchResponse]:
    return [inner(response)]


def _altered(response: pb.WatchResponse) -> list[pb.WatchResponse]:
    changed = pb.WatchResponse()
    changed.CopyFrom(response)
    body = bytearray(changed.signed.body)
    body[-1] ^= 1
    changed.signed.body = bytes(body)
    return [changed]


def _forged(response: pb.WatchResponse) -> list[pb.WatchResponse]:
    """Signed by a key of the relay's own, under the name of the right one."""
    changed = pb.WatchResponse()
    changed.CopyFrom(response)
    changed.signed.signature = SigningKey(b"r" * 32).sign("default", b"", response.signed.body)
    return [changed]


def _only(what: str, meddle: Meddle) -> Meddle:
    return lambda response: meddle(response) if kind(response) == what else [response]


@pytest.mark.parametrize(
    ("meddle", "reason"),
    [
        (_unsigned, "unsigned"),
        (_altered, None),
        (_forged, "bad_signature"),
        (_only("progress", _unsigned), "unsigned"),
        (_only("progress", _forged), "bad_signature"),
        (_only("snapshot_end", lambda _: []), None),
        (_only("progress", lambda _: []), None),
        (_only("welcome", lambda response: [response, response]), "protocol"),
        (lambda response: [pb.WatchResponse(signed=signed_pb2.Signed(body=response.SerializeToString()))], None),
    ],
    ids=["unsigned", "altered", "forged", "progress unsigned", "progress forged", "end withheld", "progress withheld",
         "welcome twice", "signed in signed"],
)  # fmt: skip
def test_what_a_relay_makes_of_a_stream_is_never_fresh(relayed: Relayed, meddle: Meddle, reason: str | None) -> None:
    relayed.relay.meddle = meddle
    client = relayed.client()
    never_fresh(relayed, client, reason)
    assert client.follower.lease is None


def test_a_stream_recorded_for_another_is_refused(relayed: Relayed) -> None:
    """All of it is the service's own word, only not to this client."""
    relayed.client().wait_until_fresh(LIMIT_S)
    recorded = list(relayed.relay.seen)
    replay = iter(recorded)
    relayed.relay.meddle = lambda _: [next(replay, recorded[-1])]
    never_fresh(relayed, relayed.client(), "bad_signature")


def test_a_revocation_that_is_withheld_costs_freshness(relayed: Relayed) -> None:
    client = relayed.client()
    client.wait_until_fresh(LIMIT_S)
    relayed.relay.meddle = _only("changes", lambda _: [])
    relayed.honest.revoke_subject("alice")
    until(lambda: not client.follower.lease or client.state.value != "fresh", "it is noticed")
    with pytest.raises(StatusUnknown):
        client.check({**claims("bob"), "tver": [0, 0, 0]})
    relayed.relay.meddle = lambda response: [response]
    until(lambda: is_revoked(client, "alice"), "it recovers")


def test_an_old_snapshot_with_a_new_welcome_is_never_fresh(relayed: Relayed) -> None:
    """Snapshots are signed for all and so can be replayed; that something is missing shows in the progress."""
    relayed.client().wait_until_fresh(LIMIT_S)
    old = [response for response in relayed.relay.seen if kind(response).startswith("snapshot")]
    assert old
    relayed.honest.revoke_subject("alice")
    parts = iter(old)

    def meddle(response: pb.WatchResponse) -> list[pb.WatchResponse]:
        what = kind(response)
        if what == "snapshot_end":
            return list(parts)
        return [] if what in {"snapshot_chunk", "changes"} else [response]

    relayed.relay.meddle = meddle
    relayed.relay.seen.clear()
    client = relayed.client()
    never_fresh(relayed, client)
    until(lambda: "snapshot_end" in map(kind, relayed.relay.seen), "the old snapshot was played")
    never_fresh(relayed, client)
    assert client.follower.lease is None


def test_an_answer_asked_for_in_advance_is_worth_nothing(relayed: Relayed) -> None:
    """A relay that could guess nonces would ask first, withhold what is revoked then, and answer when it is asked."""
    client = relayed.client()
    client.wait_until_fresh(LIMIT_S)
    asked: list[int] = []

    def in_advance(request: pb.WatchRequest) -> list[pb.WatchRequest]:
        if request.WhichOneof("kind") != "ping":
            return [request]
        asked.append(request.ping.nonce)
        guesses = [pb.WatchRequest(ping=pb.Ping(nonce=request.ping.nonce + step)) for step in range(1, 20)]
        return [request, *guesses]

    relayed.relay.change_request = in_advance
    until(lambda: len(asked) > 5, "some pings")
    guessed = {nonce + step for nonce in asked for step in range(1, 20)}
    assert guessed.isdisjoint(asked)
    assert all(later - earlier > 1_000 for earlier, later in pairwise(asked))


def test_receipts_and_checks_are_not_taken_for_signed_words(relayed: Relayed) -> None:
    replica = relayed.installation.replicas[0]
    client = relayed.installation.client(replica.address, signing_keys=[KEY])
    client.wait_until_fresh(LIMIT_S)
    client.revoke_subject("alice")
    until(lambda: is_revoked(client, "alice"), "the stream has brought it")
    with pytest.raises(Unavailable) as refused:
        client.check_remote(claims("bob"))
    assert refused.value.reason == "unsigned"


def test_the_command_prints_the_keys(
    relayed: Relayed, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REVOCATION_SECRET", SECRET)
    assert main(["signing-key", "--json"]) == 0
    keys = json.loads(capsys.readouterr().out)["keys"]
    assert keys[0]["key"] == KEY
    assert [key["kid"] for key in keys] == ["k2", "k1"]
    assert main(["signing-key", "--pem"]) == 0
    pem = capsys.readouterr().out
    relayed.client(signing_keys=[pem[: pem.index("-----END") + len("-----END PUBLIC KEY-----")]]).wait_until_fresh(
        LIMIT_S
    )
    assert main(["signing-key"]) == 0
    assert KEY in capsys.readouterr().out
    monkeypatch.delenv("REVOCATION_SECRET")
    assert main(["signing-key"]) == 2
    assert main(["signing-key", "--secret-file", "/nowhere"]) == 2
    address = relayed.relay.address
    assert main(["watch", "--for", "0.5", "--address", address, "--signing-key", KEY]) == 0
    assert main(["watch", "--for", "0.5", "--timeout", "2", "--address", address, "--signing-key", _OTHER]) == 3


_OTHER = SigningKey(b"o" * 32).text
