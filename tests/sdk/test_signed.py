"""Signed streams without a network: a recorded one, mutated in every way a relay could, through the real follower."""

from __future__ import annotations

import base64
import hashlib

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from revocation.keys.signing import SigningKey
from revocation.rpc import stream
from revocation.rpc.signed import SharedSeals
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._follower import Follower, Resync
from revocation_sdk._lattice import DENIAL, Group, Kind, RealmKey, join_groups
from revocation_sdk._messages import Changes, Intent, PartitionIntent, RealmSettings, SnapshotEnd
from revocation_sdk._position import NOWHERE, Position
from revocation_sdk._signed import Seal, SigningKeys, Unsigned, key_id, signed_text
from revocation_sdk._view import View
from revocation_sdk._wire import MalformedMessage, unsealed, watch_message
from revocation_sdk.errors import ConfigError

KEY = SigningKey(b"s" * 32)
REALM_KEY = RealmKey(7, b"k" * 32)
MINE, OTHER = b"m" * 16, b"o" * 16
START = Position(b"L" * 16, 0, bytes(20))


def rows(number: int) -> bytes:
    return join_groups([Group(Kind.TOKEN, 7, DENIAL.pack(number, 2_000_000_000))])


def history(length: int) -> list[Position]:
    """Positions of a chain of so many records."""
    places = [START]
    for number in range(length):
        places.append(places[-1].advance(rows(number)))
    return places


def recorded(challenge: bytes, nonce: int, length: int, realm: str = "r", key: SigningKey = KEY) -> list[bytes]:
    """A stream as the service sends it: welcome, an empty snapshot, changes one by one, and the answer to a ping."""
    seals, places = SharedSeals(key, realm), history(length)
    plain = [
        stream.welcome([PartitionIntent(Intent.SNAPSHOT, "first", NOWHERE)], RealmSettings(), [REALM_KEY], 1, "x"),
        stream.snapshot_end(SnapshotEnd(0, START, 0, hashlib.sha256().digest())),
        *(
            stream.changes(Changes(0, places[number], places[number + 1], (rows(number),)))
            for number in range(length)
        ),
        stream.progress(nonce, [places[-1]], 1),
    ]  # fmt: skip
    return [seals.seal(message, challenge) for message in plain]


class Verifier:
    """A follower that takes signed messages only."""

    def __init__(self) -> None:
        self.follower = Follower("r", View())
        self.seal = Seal(SigningKeys([KEY.text]), "r", MINE)
        self.follower.hello()
        self.nonce = self.follower.ping(10.0, 10.0, step=12_345).nonce

    def take(self, message: bytes) -> None:
        self.follower.receive(watch_message(unsealed(pb.WatchResponse.FromString(message), self.seal)), 11.0)

    def follow(self, messages: list[bytes]) -> bool:
        """Takes a stream in, up to what it refuses. Whether it is fresh then."""
        try:
            for message in messages:
                self.take(message)
        except (Unsigned, Resync, MalformedMessage, DecodeError):  # the last ends the stream inside of gRPC
            self.follower.lease = None
        return self.follower.lease is not None


@settings(deadline=None, max_examples=20)
@given(length=st.integers(0, 6))
def test_what_was_signed_for_a_stream_makes_it_fresh(length: int) -> None:
    verifier = Verifier()
    assert verifier.follow(recorded(MINE, verifier.nonce, length))
    assert len(verifier.follower.view) == length


@st.composite
def meddled(draw: st.DrawFn) -> tuple[int, list[bytes]]:
    """A stream to which a relay has done something, out of what it has recorded of this and of other streams."""
    nonce, length = 12_345, draw(st.integers(1, 5))
    honest = recorded(MINE, nonce, length)
    foreign = [
        *recorded(OTHER, nonce, length),  # another verifier's
        *recorded(MINE, nonce, length, realm="s"),  # of another realm
        *recorded(MINE, nonce, length, key=SigningKey(b"r" * 32)),  # signed by the relay
        *recorded(MINE, nonce + 1, length - 1),  # an answer to a ping that was never sent
    ]
    messages = list(honest)
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(messages) - 1)) if messages else 0
        match draw(st.sampled_from(["drop", "twice", "swap", "foreign", "flip", "strip", "cut"])):
            case "drop" if messages:
                del messages[place]
            case "twice" if messages:
                messages.insert(place, messages[place])
            case "swap" if messages:
                other = draw(st.integers(0, len(messages) - 1))
                messages[place], messages[other] = messages[other], messages[place]
            case "foreign":
                message = draw(st.sampled_from(foreign))
                messages[place : place + draw(st.integers(0, 1))] = [message]
            case "flip" if messages:
                messages[place] = flipped(draw, messages[place])
            case "strip" if messages:
                messages[place] = pb.WatchResponse.FromString(messages[place]).signed.body
            case "cut":
                messages = messages[:place]
    return length, messages


def flipped(draw: st.DrawFn, message: bytes) -> bytes:
    """One bit of body, signature or key id otherwise."""
    changed = pb.WatchResponse.FromString(message)
    field = draw(st.sampled_from(["body", "signature", "key_id"]))
    value = bytearray(getattr(changed.signed, field))
    if value:
        bit = draw(st.integers(0, len(value) * 8 - 1))
        value[bit // 8] ^= 1 << bit % 8
        setattr(changed.signed, field, bytes(value))
    return changed.SerializeToString()


@settings(deadline=None, max_examples=300)
@given(case=meddled())
def test_whatever_a_relay_does_a_fresh_view_is_complete(case: tuple[int, list[bytes]]) -> None:
    """Fresh only with every record of the chain, and with nothing that the service has not said."""
    length, messages = case
    verifier = Verifier()
    fresh = verifier.follow(messages)
    known = {number for number in range(length) if verifier.follower.view.denied(Kind.TOKEN, 7, number, 0)}
    assert len(verifier.follower.view) == len(known), "nothing made up"
    if fresh:
        assert known == set(range(length))
        assert verifier.follower.positions == (history(length)[-1],)


def test_the_text_that_is_signed_cannot_be_read_in_two_ways() -> None:
    texts = {
        signed_text("r", b"", b"body"), signed_text("rb", b"", b"ody"), signed_text("r", MINE, b"body"),
        signed_text("r", b"", MINE + b"body"), signed_text("", b"", b"body"),
    }  # fmt: skip
    assert len(texts) == 5


def test_the_contract_of_names_and_texts() -> None:
    """What clients in other languages compute; the numbers are written down here once."""
    key = SigningKey(bytes(range(32)))
    assert key.public.hex() == "03a107bff3ce10be1d70dd18e74bc09967e4d6309ba50d5f1ddc8664125531b8"
    assert key_id(key.public).hex() == key.id.hex()
    assert signed_text("shop", b"c" * 2, b"x") == b"revocation watch v1\0\x04shop\x02ccx"


@pytest.mark.parametrize("keys", [[], ["short"], ["AAAA"], [b"x" * 31], ["-----BEGIN nonsense"], [KEY.text] * 17])
def test_keys_that_are_none(keys: list[str | bytes]) -> None:
    with pytest.raises(ConfigError) as error:
        SigningKeys(keys)
    assert error.value.reason == "signing_keys"


def test_keys_in_all_forms() -> None:
    url = base64.urlsafe_b64encode(KEY.public).rstrip(b"=").decode()
    for form in (KEY.text, KEY.pem, KEY.public, url, KEY.pem.encode(), f" {KEY.text}\n"):
        SigningKeys([form]).verify(KEY.id, KEY.sign("r", b"", b"x"), signed_text("r", b"", b"x"))
    rsa = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n"
    with pytest.raises(ConfigError):
        SigningKeys([rsa])


def test_a_nonce_that_runs_out_begins_anew_with_the_next_stream() -> None:
    follower = Follower("r", View())
    follower.hello()
    follower.ping(0.0, 0.0, step=1 << 63)
    assert follower.worn
    follower.hello()
    assert not follower.worn
    assert follower.ping(0.0, 0.0).nonce == 1
