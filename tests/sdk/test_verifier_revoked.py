"""What a verifier refuses because it was taken back, and what it says when it cannot know."""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from revocation_sdk import (
    ConfigError,
    RevocationClient,
    StatusUnknown,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    Verifier,
)
from revocation_sdk._judge import Revoked, judge_prints
from revocation_sdk._messages import RealmSettings
from revocation_sdk.testing import FakeRevocations
from revocation_sdk.types import OnStale
from tests.sdk.forge import (
    EC,
    EC384,
    ISSUER,
    OTHER_EC,
    START,
    b64,
    claims,
    fake,
    issuer_of,
    read,
    reason,
    sign,
    times,
    unb64,
    verifier_of,
)
from tests.sdk.publisher import document, jwk

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture
def client() -> FakeRevocations:
    return fake()


# Revocation


TARGETS: dict[str, Callable[[FakeRevocations], object]] = {
    "token": lambda client: client.revoke_token(jti="token-1", expires_at=START + 600),
    "session": lambda client: client.revoke_session("session-1", issuer=ISSUER),
    "subject": lambda client: client.revoke_subject("alice"),
    "client": lambda client: client.revoke_client("app", issuer=ISSUER),
    "realm": lambda client: client.revoke_realm(),
    "key": lambda client: client.revoke_key("k1", issuer=ISSUER),
}


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("target", TARGETS)
def test_everything_that_can_be_revoked(client: FakeRevocations, target: str, seen: bool) -> None:
    """Each target kills the token, whether it was seen before or not, and the error names it."""
    verifier, token = verifier_of(client, key_id="k1"), sign(claims())
    if seen:
        verifier.verify(token)
    TARGETS[target](client)
    with pytest.raises(TokenRevoked) as caught:
        verifier.verify(token)
    assert caught.value.target == target
    assert (caught.value.since == START) == (target in ("subject", "client", "realm"))


@pytest.mark.parametrize("target", TARGETS)
def test_others_are_not_concerned(client: FakeRevocations, target: str) -> None:
    """I4: a token that nobody revoked is not refused."""
    TARGETS[target](client)
    other = claims(jti="2", sid="2", sub="bob", client_id="other", tver=[0, 0, START * 1000])
    verifier = verifier_of(client, key=OTHER_EC.public_key(), key_id="k2")
    assert reason(verifier, sign(other, key=OTHER_EC)) == ""


def test_a_thief_of_a_key_writes_any_kid(client: FakeRevocations) -> None:
    """The key that verified is judged, by its thumbprint and the name that our own set gives it."""
    verifier = verifier_of(client, key_id="k1")
    client.revoke_key("k1")
    for header in ({"alg": "ES256"}, {"alg": "ES256", "kid": "k2"}, {"alg": "ES256", "kid": ""}):
        assert reason(verifier, sign(claims(), header=header)) == "revoked"


def test_a_kid_in_the_header_alone_revokes_nothing(client: FakeRevocations) -> None:
    client.revoke_key("k2")
    assert reason(verifier_of(client, key_id="k1"), sign(claims(), header={"alg": "ES256", "kid": "k2"})) == ""


KEYS: dict[str, dict[str, Any]] = {
    "key=": {},
    "key= and key_id=": {"key_id": "k1"},
    "a set without names": {"key": None, "jwks": document(jwk(EC))},
    "a set with another name": {"key": None, "jwks": document(jwk(EC, kid="a"))},
    "a set of several": {"key": None, "jwks": document(jwk(OTHER_EC), jwk(EC), jwk(EC384, kid="c"))},
}


@pytest.mark.parametrize("issuer", [None, ISSUER])
@pytest.mark.parametrize("policy", ["deny", "check"])
@pytest.mark.parametrize("keys", KEYS)
def test_the_kid_that_an_issuer_writes_by_default_revokes_its_key(
    client: FakeRevocations, keys: str, policy: OnStale, issuer: str | None
) -> None:
    """Whoever copies it from the header of a token: it is the key's thumbprint, whatever the verifier calls it."""
    verifier, token = verifier_of(client, on_stale=policy, **KEYS[keys]), issuer_of(client).issue("alice")
    other = sign(claims(), key=OTHER_EC)
    several = verifier_of(client, key=None, jwks=document(jwk(EC), jwk(OTHER_EC)))
    verifier.verify(token)
    if policy == "check":
        client.go_stale()
        elsewhere(client).revoke_key(read(token)[0]["kid"], issuer=issuer)
    else:
        client.revoke_key(read(token)[0]["kid"], issuer=issuer)
    with pytest.raises(TokenRevoked) as caught:
        verifier.verify(token)
    assert caught.value.target == "key"
    client.go_fresh()
    assert reason(several, other) == "", "another key of the same set is none of it"
    assert reason(several, sign(claims(), key=OTHER_EC, header=read(token)[0])) == "signature"
    thumbprint = read(token)[0]["kid"]
    with pytest.raises(TokenRevoked):
        client.check(claims(), thumbprint=thumbprint)


def rewritten(token: str) -> str:
    """The same token with a signature that somebody without the key can make of the first (ECDSA n - s)."""
    signing_input, _, signature = token.rpartition(".")
    raw = unb64(signature)
    s = P256_ORDER - int.from_bytes(raw[32:], "big")
    return f"{signing_input}.{b64(raw[:32] + s.to_bytes(32, 'big'))}"


@pytest.mark.parametrize("jti", ["token-1", ..., ""])
def test_a_rewritten_signature_is_the_same_token(client: FakeRevocations, jti: object) -> None:
    """It verifies, so a hash of the whole token would not do: `jti`, or the hash of the signing input, is revoked."""
    verifier, token = verifier_of(client), sign(claims(jti=jti))
    twin = rewritten(token)
    assert twin != token
    assert reason(verifier, token) == reason(verifier, twin) == ""
    client.revoke_token(token)
    assert reason(verifier, token) == reason(verifier, twin) == "revoked"
    assert reason(verifier_of(client), twin) == "revoked"


def test_revoke_verifies_first(client: FakeRevocations) -> None:
    """A forged token with a victim's `jti` revokes nobody; an expired or stale one is no obstacle."""
    verifier = verifier_of(client)
    with pytest.raises(TokenInvalid):
        verifier.revoke(sign(claims(), key=OTHER_EC))
    assert reason(verifier, sign(claims())) == ""
    client.go_stale()
    assert verifier.revoke(sign(claims())).stored
    client.go_fresh()
    assert reason(verifier, sign(claims())) == "revoked"
    times(client).pass_by(100_000)
    assert not verifier.revoke(sign(claims())).stored


def test_what_is_accepted_can_be_revoked(client: FakeRevocations) -> None:
    """Though claims that this verifier does not look at are not what others expect there."""
    verifier, token = verifier_of(client, client_claim="cid"), sign(claims(client_id=["app", "web"], cid="app"))
    assert reason(verifier, token) == ""
    verifier.revoke(token)
    assert reason(verifier, token) == "revoked"
    other = sign(claims(jti="2", client_id=["app", "web"], cid="app"))
    client.revoke_token(other)
    assert reason(verifier, other) == "revoked"
    with pytest.raises(TokenInvalid):
        client.revoke_token(sign(claims(exp=...)))


def test_a_token_without_an_issuer_is_revoked_as_such() -> None:
    """The client's own default issuer is not written over it."""
    client = fake(issuer="https://default.example")
    verifier, token = verifier_of(client, issuer=None), sign(claims(iss=...))
    verifier.revoke(token)
    assert reason(verifier, token) == "revoked"


@pytest.mark.parametrize(
    ("iat", "skew", "expected"),
    [(START, 0, "revoked"), (START + 1, 0, ""), (START + 1, 1, "revoked"), (START + 2, 1, ""), (..., 0, "revoked")],
)
def test_foreign_tokens_are_judged_by_iat(client: FakeRevocations, iat: Any, skew: float, expected: str) -> None:
    verifier = verifier_of(client, version_claim=None, issuer_skew=skew)
    client.start()
    times(client).pass_by(0.5)
    client.revoke_subject("alice", issuer=ISSUER)
    times(client).pass_by(5)
    assert reason(verifier, sign(claims(iat=iat, tver=[2**63]))) == expected


def test_the_client_claim_can_be_another(client: FakeRevocations) -> None:
    verifier = verifier_of(client, client_claim="cid")
    client.revoke_client("app")
    assert reason(verifier, sign(claims())) == ""
    assert reason(verifier, sign(claims(cid="app"))) == "revoked"
    assert reason(verifier, sign(claims(azp="app"))) == "revoked"


@pytest.mark.parametrize(
    ("ours", "stores", "expected"),
    [(100, 100, "revoked"), (200, 100, "revoked"), (100, 200, "revoked"), (200, 200, "")],
)
def test_an_entry_is_in_force_by_the_smaller_clock(ours: int, stores: int, expected: str) -> None:
    """Here one that was given an `exp` too early, so that it ends at START + 130."""
    client = fake()
    client.start()
    client.revoke_token(jti="token-1", issuer=ISSUER, expires_at=START + 10)
    assert client.follower.lease is not None
    client.follower.view.drop_expired = lambda now: None  # type: ignore[method-assign]
    times(client).wall, times(client).store_ahead = START + ours, stores - ours
    assert reason(verifier_of(client), sign(claims())) == expected


# Freshness


def test_a_stale_view_vouches_for_nothing(client: FakeRevocations) -> None:
    verifier, token = verifier_of(client), sign(claims())
    verifier.verify(token)
    client.go_stale()
    with pytest.raises(StatusUnknown) as caught:
        verifier.verify(token)
    assert caught.value.age_s is not None
    assert caught.value.age_s > 15


def test_known_revoked_is_reported_when_stale(client: FakeRevocations) -> None:
    verifier = verifier_of(client)
    client.start()
    client.revoke_subject("alice")
    client.go_stale(reachable=False)
    for policy in ("deny", "check", "allow"):
        with pytest.raises(TokenRevoked):
            verifier.verify(sign(claims()), on_stale=policy)


def test_max_staleness_per_call(client: FakeRevocations) -> None:
    verifier, token = verifier_of(client), sign(claims())
    client.start()
    client.go_stale()
    assert verifier.verify(token, max_staleness=100_000).freshness.fresh
    for bad in (3.9, -1, float("nan"), float("inf")):
        with pytest.raises(ConfigError):
            verifier.verify(token, max_staleness=bad)


def test_an_age_is_counted_by_both_clocks(client: FakeRevocations) -> None:
    """A machine that slept on a clock that stood still shows in the time of day."""
    verifier, token = verifier_of(client), sign(claims())
    verifier.verify(token)
    client._core.stream.severed = True
    times(client).wall += 14
    assert verifier.verify(token).freshness.age_s == 14
    times(client).wall += 2
    with pytest.raises(StatusUnknown):
        verifier.verify(token)


def test_a_pause_between_two_steps_accepts_nothing(client: FakeRevocations, monkeypatch: pytest.MonkeyPatch) -> None:
    """D11: stopped after the look-up, while a revocation and a new lease come in. Neither the lease of after the
    pause nor the clock of before it may vouch for what was looked up."""
    verifier, token = verifier_of(client), sign(claims())
    verifier.verify(token)

    def paused(*args: Any) -> Revoked | None:
        verdict = judge_prints(*args)
        times(client).pass_by(16)
        elsewhere(client).revoke_subject("alice")
        assert client.follower.lease is not None  # renewed: a follower needs no verifier
        return verdict

    monkeypatch.setattr("revocation_sdk._sight.judge_prints", paused)
    with pytest.raises(StatusUnknown):
        verifier.verify(token)


def test_before_the_first_answer_nothing_is_known() -> None:
    client = fake(settings=RealmSettings(max_token_life_s=100_000))
    client.go_stale()
    verifier, token = verifier_of(client), sign(claims(exp=START + 90_000))
    with pytest.raises(StatusUnknown):  # and not TokenInvalid: nobody knows the realm's limits yet
        verifier.verify(token)
    assert not verifier.verify(token, on_stale="allow").freshness.fresh
    client.go_fresh()
    assert verifier.verify(token).freshness.fresh


def test_allow_counts_and_logs_without_names(client: FakeRevocations, caplog: pytest.LogCaptureFixture) -> None:
    verifier, token = verifier_of(client, on_stale="allow"), sign(claims())
    client.go_stale(reachable=False)
    with caplog.at_level(logging.WARNING, "revocation_sdk"):
        for _ in range(5):
            assert not verifier.verify(token).freshness.fresh
    assert verifier.allowed_stale == 5
    assert len(caplog.records) == 1
    assert "alice" not in caplog.text
    assert token[:20] not in caplog.text


# Asking the service


def elsewhere(client: FakeRevocations) -> FakeRevocations:
    return FakeRevocations(client.service)


def test_check_asks_the_service(client: FakeRevocations) -> None:
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    client.go_stale()
    assert verifier.verify(token).freshness.fresh
    elsewhere(client).revoke_session("session-1")
    assert reason(verifier, sign(claims(jti="2"))) == "revoked"


def test_an_answer_is_remembered_while_it_is_worth_something(client: FakeRevocations) -> None:
    """It is a lease from the moment of the question: a revocation shows at most max_staleness later."""
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    client.go_stale()
    verifier.verify(token)
    client.go_stale(reachable=False)
    times(client).pass_by(15)
    assert verifier.verify(token).freshness.age_s == 15
    times(client).pass_by(0.1)
    with pytest.raises(StatusUnknown):
        verifier.verify(token)


def test_a_revocation_found_is_remembered(client: FakeRevocations) -> None:
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    client.go_stale()
    elsewhere(client).revoke_subject("alice")
    assert reason(verifier, token) == "revoked"
    client.go_stale(reachable=False)
    assert reason(verifier, token) == "revoked"
    (known,) = verifier._remote._known._young.values()
    assert known.revoked == ("subject", START), "and none of the frames in which it was found"


def test_an_answer_that_took_too_long_is_none(client: FakeRevocations, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process stopped between question and answer must not believe the answer."""
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    client.go_stale()
    ask = client._core.ask

    def slowly(*args: Any) -> Any:
        answer = ask(*args)
        times(client).pass_by(16)
        return answer

    monkeypatch.setattr(client._core, "ask", slowly)
    with pytest.raises(StatusUnknown):
        verifier.verify(token)


def test_so_many_questions_at_once(client: FakeRevocations, monkeypatch: pytest.MonkeyPatch) -> None:
    """I8: whoever comes when all places are taken is refused at once."""
    verifier = verifier_of(client, on_stale="check")
    client.go_stale()
    gate = asyncio.Event()
    core = client._core

    async def slowly(*args: Any) -> Any:
        await gate.wait()
        return core.ask(*args)

    monkeypatch.setattr(core, "ask_async", slowly)

    async def many() -> list[Any]:
        tokens = [sign(claims(jti=str(number))) for number in range(33)]
        tasks = [asyncio.ensure_future(verifier.verify_async(token)) for token in tokens]
        refused = await asyncio.gather(tasks[32], return_exceptions=True)
        gate.set()
        return [*refused, *await asyncio.gather(*tasks[:32])]

    refused, *others = asyncio.run(many())
    assert isinstance(refused, StatusUnknown)
    assert refused.reason == "overloaded"
    assert all(verified.freshness.fresh for verified in others)
    assert verifier.verify(sign(claims(jti="again"))).freshness.fresh  # the places are free again


async def test_verify_async_is_the_same(client: FakeRevocations) -> None:
    verifier, token = verifier_of(client), sign(claims())
    assert (await verifier.verify_async(token)).claims == claims()
    await verifier.revoke_async(token)
    with pytest.raises(TokenRevoked):
        await verifier.verify_async(token)


def test_after_invalidate_older_answers_count_for_nothing(client: FakeRevocations) -> None:
    """I1: a machine frozen and restored, whose clocks cannot tell."""
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    client.go_stale()
    verifier.verify(token)
    elsewhere(client).revoke_subject("alice")
    client.go_stale(reachable=False)
    client.invalidate()
    with pytest.raises(StatusUnknown):
        verifier.verify(token)
    client._core.reachable = True
    assert reason(verifier, token) == "revoked"


def test_a_question_under_way_at_invalidate_is_answered_for_nothing(
    client: FakeRevocations, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    client.go_stale()
    ask = client._core.ask

    def frozen(*args: Any) -> Any:
        answer = ask(*args)
        client.invalidate()
        return answer

    monkeypatch.setattr(client._core, "ask", frozen)
    with pytest.raises(StatusUnknown):
        verifier.verify(token)


def test_in_a_child_older_answers_count_for_nothing(client: FakeRevocations) -> None:
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    client.go_stale()
    verifier.verify(token)
    client.go_stale(reachable=False)
    client._core.following.after_fork()
    with pytest.raises(StatusUnknown):
        verifier.verify(token)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_expiry_is_judged_by_the_service_that_answers(asynchronous: bool) -> None:
    """I1: without a lease only our clock is known, and one that lags would revive a token whose entry is gone."""
    client = fake()
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    elsewhere(client).revoke_token(jti="token-1", issuer=ISSUER, expires_at=START + 600)
    client._core.stream.severed = True  # it has just begun to follow
    times(client).store_ahead = 3600

    def verify() -> Any:
        return asyncio.run(verifier.verify_async(token)) if asynchronous else verifier.verify(token)

    for _ in range(2):  # asked, and remembered
        with pytest.raises(TokenExpired):
            verify()


def test_a_clock_that_runs_ahead_of_the_service_changes_nothing(client: FakeRevocations) -> None:
    verifier, token = verifier_of(client, on_stale="check"), sign(claims(nbf=START))
    client._core.stream.severed = True
    times(client).store_ahead = -3600
    assert verifier.verify(token).freshness.fresh


def test_all_names_of_a_key_share_one_deadline(client: FakeRevocations, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {"keys": [jwk(EC, kid=kid) for kid in ("a", "b", "c")]}
    verifier, token = verifier_of(client, key=None, jwks=keys, on_stale="check"), sign(claims())
    client.go_stale()
    ask, given = client._core.ask, list[float]()

    def slowly(facts: Any, timeout: float) -> Any:
        given.append(timeout)
        times(client).pass_by(0.2)
        return ask(facts, timeout)

    monkeypatch.setattr(client._core, "ask", slowly)
    assert verifier.verify(token).freshness.fresh
    assert given == pytest.approx([0.5, 0.3, 0.1])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_credential_that_cannot_be_read_just_now_is_no_mistake_of_the_request(
    tmp_path: Path, asynchronous: bool
) -> None:
    """Its file is being replaced: the status is unknown, for a reason, and a later question may be answered."""
    empty = tmp_path / "token"
    empty.write_text("")
    cases: list[tuple[dict[str, Any], str]] = [({"ca": str(tmp_path / "ca")}, "tls"), ({"token": empty}, "credentials")]
    token = sign(claims(time.time()))
    for given, why in cases:
        with RevocationClient("127.0.0.1:1", **given) as client:
            verifier = verifier_of(client, on_stale="check")  # type: ignore[arg-type]

            def verify(verifier: Verifier = verifier) -> object:
                return asyncio.run(verifier.verify_async(token)) if asynchronous else verifier.verify(token)

            with pytest.raises(StatusUnknown) as caught:
                verify()
            assert caught.value.reason == why


def test_a_place_is_given_back_where_it_was_taken(client: FakeRevocations, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a forked child, two threads may begin the count anew, one while the other's question is under way."""
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    client.go_stale()
    ask = client._core.ask

    def overtaken(*args: Any) -> Any:
        verifier._remote._free.__init__()  # type: ignore[misc]
        return ask(*args)

    monkeypatch.setattr(client._core, "ask", overtaken)
    assert verifier.verify(token).freshness.fresh


def test_an_unanswered_question_says_how_old_the_view_is(client: FakeRevocations) -> None:
    verifier, token = verifier_of(client, on_stale="check"), sign(claims())
    assert verifier.verify(token).freshness.fresh
    client.go_stale(reachable=False)
    with pytest.raises(StatusUnknown) as asked:
        verifier.verify(token)
    with pytest.raises(StatusUnknown) as denied:
        verifier.verify(token, on_stale="deny")
    assert asked.value.age_s == denied.value.age_s
    assert asked.value.age_s is not None


def test_the_service_signs_no_answers_so_asking_contradicts_signing_keys() -> None:
    client = RevocationClient("localhost:1", signing_keys=[base64.b64encode(bytes(31) + b"\1").decode()])
    with pytest.raises(ConfigError) as caught:
        verifier_of(client, on_stale="check")  # type: ignore[arg-type]
    assert caught.value.reason == "on_stale"
    verifier = verifier_of(client)  # type: ignore[arg-type]
    with pytest.raises(ConfigError):
        verifier.verify(sign(claims()), on_stale="check")
    client.close()
