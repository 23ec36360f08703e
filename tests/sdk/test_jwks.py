"""Key sets, given and fetched: from a real HTTP server on this host that misbehaves on demand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from revocation_sdk import ConfigError, StatusUnknown, TokenRejected
from revocation_sdk import _jwks as module
from revocation_sdk._jwks import (
    COOL_DOWN_S,
    MAX_BYTES,
    MAX_STALE_S,
    REFRESH_AFTER_S,
    BadKeySet,
    JwksUrl,
    parse_key_set,
)
from revocation_sdk._keys import MAX_KEYS, RSA_ALGORITHMS, KeySet, make_key
from tests.sdk.forge import EC, EC384, ED, OTHER_EC, RSA, SECRET, b64, claims, fake, sign, verifier_of
from tests.sdk.publisher import WAIT_S, Publisher, document, jwk

ES = frozenset(["ES256", "ES384"])


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    running = Publisher()
    yield running
    running.close()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def source_of(publisher: Publisher) -> tuple[JwksUrl, Clock]:
    clock = Clock()
    return JwksUrl(publisher.url, ES, clock=clock), clock


def settled(source: JwksUrl) -> KeySet | None:
    """What there is once the fetch under way has ended."""
    source._flights.wait(WAIT_S)
    return source.current()


def names(keys: KeySet | None) -> set[str]:
    return {kid for key in keys.keys for kid in key.kids} if keys else set()


# Documents


def test_what_a_set_may_hold_beside_good_keys() -> None:
    """RFC 7517 section 5: what one does not understand is left out."""
    good = parse_key_set(document(jwk(EC, kid="a"), jwk(EC384)), ES)
    noise = [
        jwk(OTHER_EC, use="enc"),
        jwk(OTHER_EC, key_ops=["encrypt"]),
        jwk(OTHER_EC, key_ops="verify"),
        jwk(OTHER_EC, alg="ES384"),
        jwk(OTHER_EC, alg=7),
        {"kty": "oct", "k": b64(SECRET)},
        {"kty": "new"},
        "no key",
        None,
        {},
    ]
    noisy = parse_key_set(document(*noise, jwk(EC, kid="a"), jwk(EC384)), ES)  # type: ignore[arg-type]
    assert noisy.keys == good.keys
    assert len(good.keys) == 2


def test_private_members_are_not_kept() -> None:
    (key,) = parse_key_set(document(jwk(EC, d="AAAA")), ES).keys
    assert key.material == EC.public_key()


def test_alg_narrows_what_a_key_is_for() -> None:
    numbers = RSA.public_key().public_numbers()
    members = {"kty": "RSA", "n": b64(numbers.n.to_bytes(256, "big")), "e": "AQAB"}
    (narrow,) = parse_key_set(document({**members, "alg": "PS256"}), frozenset(RSA_ALGORITHMS)).keys
    assert narrow.algorithms == {"PS256"}
    (wide,) = parse_key_set(document({**members, "use": "sig"}), frozenset(["RS256", "PS256"])).keys
    assert wide.algorithms == {"RS256", "PS256"}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"{}", b'{"keys":{}}', b"[" * 100_000, b"\xff", b'"keys"', b"null"])
def test_documents_that_are_none(text: bytes) -> None:
    with pytest.raises(BadKeySet):
        parse_key_set(text, ES)


def test_too_many_keys() -> None:
    parse_key_set(document(*[jwk(EC)] * MAX_KEYS), ES)
    with pytest.raises(BadKeySet):
        parse_key_set(document(*[jwk(EC)] * (MAX_KEYS + 1)), ES)


# Fetching


def test_the_first_use_waits_and_the_next_ones_do_not(publisher: Publisher) -> None:
    source, _ = source_of(publisher)
    assert source.current() is None
    assert names(source.wait(WAIT_S)) == {"a"}
    assert names(source.current()) == {"a"}
    assert publisher.requests == 1


def test_many_at_once_fetch_once(publisher: Publisher) -> None:
    source, _ = source_of(publisher)
    publisher.gate.clear()
    found: list[set[str]] = []
    threads = [threading.Thread(target=lambda: found.append(names(source.wait(WAIT_S)))) for _ in range(20)]
    for thread in threads:
        thread.start()
    assert publisher.arrived.acquire(timeout=WAIT_S)
    publisher.gate.set()
    for thread in threads:
        thread.join(WAIT_S)
    assert found == [{"a"}] * 20
    assert publisher.requests == 1


def test_a_stale_set_is_used_while_the_new_one_comes(publisher: Publisher) -> None:
    source, clock = source_of(publisher)
    source.wait(WAIT_S)
    publisher.publish(jwk(OTHER_EC, kid="b"))
    clock.now += REFRESH_AFTER_S
    assert names(source.current()) == {"a"}
    assert publisher.requests == 1
    publisher.gate.clear()
    clock.now += 1
    assert names(source.current()) == {"a"}  # at once, although the answer is still to come
    publisher.gate.set()
    assert names(settled(source)) == {"b"}


@pytest.mark.parametrize("trouble", ["status", "garbage", "large", "redirect", "closed"])
def test_a_failed_refresh_changes_nothing(publisher: Publisher, trouble: str) -> None:
    source, clock = source_of(publisher)
    source.wait(WAIT_S)
    clock.now += REFRESH_AFTER_S + 1
    match trouble:
        case "status":
            publisher.status = 503
        case "garbage":
            publisher.body = b"<html>"
        case "large":
            publisher.body = b" " * MAX_BYTES + publisher.body
        case "redirect":
            publisher.status, publisher.headers = 302, {"Location": publisher.url + "/elsewhere"}
        case "closed":
            publisher.close()
    assert names(source.current()) == {"a"}
    assert names(settled(source)) == {"a"}
    clock.now += MAX_STALE_S
    settled(source)
    assert source.current() is None  # for so long nobody has confirmed that these keys are good


def test_failures_are_followed_by_a_pause(publisher: Publisher) -> None:
    source, clock = source_of(publisher)
    publisher.status = 500
    for _ in range(50):
        assert source.wait(WAIT_S) is None
    assert publisher.requests == 1
    for _ in range(20):
        clock.now += COOL_DOWN_S / 100
        source.wait(WAIT_S)
    assert 1 < publisher.requests < 5
    publisher.status = 200
    clock.now += COOL_DOWN_S
    assert names(source.wait(WAIT_S)) == {"a"}


def test_keys_that_nobody_has_heard_of_start_few_fetches(publisher: Publisher) -> None:
    """Anybody can write a new `kid` into a header; that is no lever to make us hammer the issuer."""
    source, clock = source_of(publisher)
    source.wait(WAIT_S)
    for _ in range(100):
        source.unknown_key()
    assert publisher.requests == 1
    clock.now += COOL_DOWN_S + 0.1
    for _ in range(100):
        source.unknown_key()
    settled(source)
    assert publisher.requests == 2


@pytest.mark.parametrize("where", ["HTTP/1.0 200 ", "HTTP/1.0 200 OK\r\nX: ", "HTTP/1.0 200 OK\r\n\r\n"])
def test_a_server_that_drips_is_left(publisher: Publisher, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Each byte comes in time, all of them never do: neither the status nor the headers nor the document."""
    monkeypatch.setattr(module, "FETCH_TIMEOUT_S", 0.2)
    source, clock = source_of(publisher)
    publisher.drip = where.encode()
    assert source.wait(WAIT_S) is None
    assert source._flights._landed.is_set()
    publisher.drip = b""
    monkeypatch.setattr(module, "FETCH_TIMEOUT_S", WAIT_S)
    clock.now += COOL_DOWN_S
    assert names(source.wait(WAIT_S)) == {"a"}


@pytest.mark.parametrize(
    "url",
    [
        "http://id.example/keys",
        "http://127.0.0.1.example/keys",
        "http://localhost.example/keys",
        "https:///keys",
        "file:///keys",
        "ftp://127.0.0.1/keys",
        "//127.0.0.1/keys",
        "http://[::1/keys",
        "",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigError):
        JwksUrl(url, ES)


@pytest.mark.parametrize(
    "url", ["https://id.example/keys", "http://localhost:1/", "http://127.9.9.9/", "http://[::1]/"]
)
def test_urls_that_are_taken(url: str) -> None:
    JwksUrl(url, ES)


# With a verifier


def test_a_verifier_follows_its_issuer(publisher: Publisher) -> None:
    client = fake()
    verifier = verifier_of(client, key=None, jwks_url=publisher.url)
    old, new = sign(claims()), sign(claims(), key=OTHER_EC, header={"alg": "ES256", "kid": "b"})
    assert verifier.verify(old).claims["sub"] == "alice"
    with pytest.raises(TokenRejected) as caught:
        verifier.verify(new)
    assert caught.value.reason == "unknown_key"
    publisher.publish(jwk(OTHER_EC, kid="b"))
    client.advance(0)
    client.service.times.mono += COOL_DOWN_S + 1  # type: ignore[attr-defined]
    with pytest.raises(TokenRejected):
        verifier.verify(new)  # starts the fetch, and does not wait for it
    verifier._keys._flights.wait(WAIT_S)  # type: ignore[attr-defined]
    assert verifier.verify(new).claims["sub"] == "alice"
    with pytest.raises(TokenRejected):
        verifier.verify(old)  # its key was taken off the list


def test_without_any_keys_nothing_is_known(publisher: Publisher) -> None:
    """That is no fault of the token's."""
    publisher.status = 500
    verifier = verifier_of(fake(), key=None, jwks_url=publisher.url)
    with pytest.raises(StatusUnknown) as caught:
        verifier.verify(sign(claims()))
    assert caught.value.reason == "no_keys"


async def test_the_first_fetch_does_not_block_the_loop(publisher: Publisher) -> None:
    verifier = verifier_of(fake(), key=None, jwks_url=publisher.url)
    publisher.gate.clear()
    task = asyncio.create_task(verifier.verify_async(sign(claims())))
    await asyncio.to_thread(publisher.arrived.acquire, timeout=WAIT_S)
    assert not task.done()  # the loop runs, and came here
    publisher.gate.set()
    assert (await task).claims["sub"] == "alice"


def test_a_secret_is_not_published(publisher: Publisher) -> None:
    with pytest.raises(ConfigError):
        verifier_of(fake(), key=None, jwks_url=publisher.url, algorithms=["HS256"])
    secrets = document({"kty": "oct", "k": b64(SECRET), "kid": "s"})
    verifier = verifier_of(fake(), key=None, jwks=secrets, algorithms=["HS256"])
    assert verifier.verify(sign(claims(), key=SECRET, algorithm="HS256")).claims["sub"] == "alice"


def test_a_thumbprint_is_a_name(publisher: Publisher) -> None:
    """Our own issuer's default `kid`, also where the set names the key otherwise."""
    verifier = verifier_of(fake(), key=None, jwks=document(jwk(EC, kid="a"), jwk(OTHER_EC, kid="b")))
    kid = make_key(EC.public_key()).thumbprint
    assert verifier.verify(sign(claims(), header={"alg": "ES256", "kid": kid})).claims["sub"] == "alice"


def test_ed25519_in_a_set() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    x = b64(ED.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    keys = document({"kty": "OKP", "crv": "Ed25519", "x": x})
    verifier = verifier_of(fake(), key=None, jwks=keys, algorithms=["EdDSA"])
    assert verifier.verify(sign(claims(), key=ED, algorithm="EdDSA")).claims["sub"] == "alice"
