"""A verifier that remembers tokens says exactly what one that has never seen them says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revocation_sdk import RevocationError
from revocation_sdk._jwks import StaticKeys
from revocation_sdk._keys import KeySet, check_algorithms, static_key
from revocation_sdk.testing import FakeRevocations
from revocation_sdk.verifier import CACHED_TOKENS, MAX_CACHED_BYTES, Verifier
from tests.sdk.forge import EC, OTHER_EC, START, claims, fake, reason, sign, times, verifier_of

ES256 = check_algorithms(["ES256"])


def key_set(*named: tuple[Any, str]) -> KeySet:
    keys = [static_key(key.public_key(), ES256, kid).keys[0] for key, kid in named]
    return KeySet(keys)


KEY_SETS = [
    key_set((EC, "k1"), (OTHER_EC, "k2")),
    key_set((EC, "k1")),
    key_set((EC, "renamed"), (OTHER_EC, "k2")),
    key_set((OTHER_EC, "k2")),
    key_set((EC, "k1"), (EC, "k3")),
    key_set(),
]
TOKENS = [
    sign(claims()),
    sign(claims(jti="2", sid="2", exp=START + 30)),
    sign(claims(jti=..., sub="bob", client_id=..., nbf=START + 20)),
    sign(claims(tver=[START * 1000 + 10_000])),
    sign(claims(jti="k2"), key=OTHER_EC),
    sign(claims(iss="https://other.example")),
    sign(claims(iat=..., exp=START + 86_450)),
]
REVOCATIONS: list[Callable[[FakeRevocations], object]] = [
    lambda client: client.revoke_token(TOKENS[0]),
    lambda client: client.revoke_token(TOKENS[2]),
    lambda client: client.revoke_session("2"),
    lambda client: client.revoke_subject("alice"),
    lambda client: client.revoke_client("app"),
    lambda client: client.revoke_key("k1"),
    lambda client: client.revoke_key("k3"),
    lambda client: client.revoke_key(thumbprint=KEY_SETS[3].keys[0].thumbprint),
    lambda client: client.revoke_realm(),
]
steps = st.one_of(
    st.tuples(st.just("verify"), st.integers(0, len(TOKENS) - 1)),
    st.tuples(st.just("revoke"), st.integers(0, len(REVOCATIONS) - 1)),
    st.tuples(st.just("keys"), st.integers(0, len(KEY_SETS) - 1)),
    st.tuples(st.just("pass"), st.sampled_from([1, 14, 40, 600, 90_000])),
    st.tuples(st.just("ahead"), st.sampled_from([-50, 0, 20, 700])),
    st.tuples(st.just("stale"), st.sampled_from([0, 1])),
)


def outcome(verifier: Verifier, token: str) -> tuple[object, ...]:
    try:
        verified = verifier.verify(token)
    except RevocationError as error:
        return type(error), error.reason, getattr(error, "target", None), getattr(error, "since", None)
    return verified.claims, verified.freshness.fresh, verified.freshness.position


configured = st.fixed_dictionaries(
    {
        "on_stale": st.sampled_from(["deny", "allow"]),
        "leeway": st.sampled_from([0, 5, 60]),
        "max_staleness": st.sampled_from([4.0, 15.0]),
        "version_claim": st.sampled_from(["tver", None]),
        "issuer_skew": st.sampled_from([0, 2]),
    }
)


@settings(deadline=None)
@given(st.lists(steps, max_size=30), configured)
def test_equals_a_verifier_without_a_memory(schedule: list[tuple[str, int]], options: dict[str, Any]) -> None:
    client = fake()
    source = StaticKeys(KEY_SETS[0])

    def verifier() -> Verifier:
        made = verifier_of(client, **options)
        made._keys = source
        return made

    remembers = verifier()
    for what, value in [*schedule, *(("verify", number) for number in range(len(TOKENS)))]:
        match what:
            case "verify":
                assert outcome(remembers, TOKENS[value]) == outcome(verifier(), TOKENS[value])
            case "revoke":
                REVOCATIONS[value](client)
            case "keys":
                source._keys = KEY_SETS[value]
            case "pass":
                times(client).pass_by(value)
            case "ahead":
                times(client).store_ahead = value
            case "stale":
                (client.go_stale if value else client.go_fresh)()


def test_a_removed_key_ends_its_tokens() -> None:
    """Seen before, and signed by a key that the issuer has taken off its list."""
    verifier, token = verifier_of(fake()), TOKENS[0]
    verifier._keys = source = StaticKeys(KEY_SETS[0])
    assert reason(verifier, token) == ""
    source._keys = KEY_SETS[3]
    assert reason(verifier, token) == "signature"
    source._keys = KEY_SETS[5]
    assert reason(verifier, token) == "unknown_key"


def test_the_signature_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = verifier_of(fake())
    calls: list[object] = []

    def counted(*args: Any) -> Any:
        calls.append(args)
        return Verifier._signer(verifier, *args)

    monkeypatch.setattr(verifier, "_signer", counted)
    for _ in range(3):
        verifier.verify(TOKENS[0])
    assert len(calls) == 1


def test_what_is_refused_is_not_remembered() -> None:
    """I8: nobody without a key puts anything into the memory."""
    verifier = verifier_of(fake())
    for token in (TOKENS[4], TOKENS[5], "a.b.c", sign(claims(pad="x" * MAX_CACHED_BYTES))):
        reason(verifier, token)
    assert len(verifier._seen) == 0


def test_the_memory_is_bounded() -> None:
    verifier = verifier_of(fake())
    seen: Any = object()
    for number in range(2 * CACHED_TOKENS):
        verifier._seen.put(str(number), seen)
    assert len(verifier._seen) <= CACHED_TOKENS
