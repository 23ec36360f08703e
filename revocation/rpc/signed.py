"""Signing what a stream sends, for those who want it. What all of them get is signed once; nobody else pays."""

from __future__ import annotations

from collections import OrderedDict

from revocation.errors import InvalidField
from revocation.keys.signing import SigningKey
from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1 import signed_pb2
from revocation_sdk._signed import CHALLENGE_BYTES, is_bound

_SHARED_BYTES = 32 * 1024 * 1024
_KINDS = {field.number: field.name for field in pb.WatchResponse.DESCRIPTOR.oneofs_by_name["kind"].fields}


class SharedSeals:
    """The latest messages of one realm that were signed for all."""

    def __init__(self, key: SigningKey, realm: str) -> None:
        self._key = key
        self._realm = realm
        # By the identity of the message, which the hub gives to all subscribers alike; kept here, so that no other
        # message can get the same.
        self._sealed: OrderedDict[int, tuple[bytes, bytes]] = OrderedDict()
        self._bytes = 0

    def seal(self, message: bytes, challenge: bytes) -> bytes:
        """The message, an encoded WatchResponse, signed for one stream or for all, as its kind wants it."""
        if is_bound(_KINDS[message[0] >> 3]):  # all are fields below 16: the tag is one byte
            return self._signed(message, challenge)
        known = self._sealed.get(id(message))
        if known is not None:
            return known[1]
        sealed = self._signed(message, b"")
        self._sealed[id(message)] = message, sealed
        self._bytes += len(sealed)
        while self._bytes > _SHARED_BYTES and len(self._sealed) > 1:
            _, (_, oldest) = self._sealed.popitem(last=False)
            self._bytes -= len(oldest)
        return sealed

    def _signed(self, message: bytes, challenge: bytes) -> bytes:
        signature = self._key.sign(self._realm, challenge, message)
        signed = signed_pb2.Signed(body=message, signature=signature, key_id=self._key.id)
        return pb.WatchResponse(signed=signed).SerializeToString()


def challenge_of(hello: pb.Hello) -> bytes:
    """The challenge of a stream that wants signatures; else empty. Raises InvalidField."""
    if len(hello.challenge) not in {0, CHALLENGE_BYTES}:
        raise InvalidField("hello.challenge", f"has {len(hello.challenge)} bytes, not {CHALLENGE_BYTES}")
    return hello.challenge
