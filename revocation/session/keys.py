"""Names and seals of sessions: everything about them that needs a key of the server.

What the store gets to see is a name that only a keyholder can compute, and a record that only a keyholder can open
(I7). A record stays under the key id it was opened with; refresh tokens are signed under the current one. So a new
master secret logs nobody out, as long as the old one stays in the list for the longest session life.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from revocation.keys.keyring import Keyring
from revocation.session.handles import HANDLE_BYTES
from revocation.session.machine import Device, Policy, Session
from revocation.session.refresh import make_sid
from revocation.store.sessions import STAMP_BYTES, Sealed, record_name
from revocation_sdk._lattice import Kind, RealmKey, fingerprint_input

_FORMAT = 1


class NotOurs(Exception):
    """A record that was not sealed for this session by one of our keys."""


@dataclass(frozen=True, slots=True)
class Name:
    """A session under one key id: as its rows, its record and its handle name it."""

    kid: str
    key_tag: int
    fingerprint: bytes
    handle: bytes

    @property
    def record(self) -> str:
        """The name of its record in the store."""
        return record_name(self.key_tag, self.fingerprint)


class SessionKeys:
    """The session keys of one realm. `realm_keys` and the key ids go together, the current one first."""

    def __init__(self, keyring: Keyring, realm: str, realm_keys: Sequence[RealmKey]) -> None:
        self.realm = realm
        self.current_kid = keyring.current_kid
        self._kids = keyring.kids
        self._realm_keys = dict(zip(keyring.kids, realm_keys, strict=True))
        self._keys = {
            (kid, purpose): keyring.session_key(kid, purpose)
            for kid in keyring.kids
            for purpose in ("refresh", "seal", "handle", "index", "client", "sid")
        }

    def signing_key(self, kid: str) -> bytes:
        """The key of t1 in refresh tokens. Raises KeyError for a key id that is not ours."""
        return self._keys[kid, "refresh"]

    def knows(self, kid: str) -> bool:
        """Whether the key id is still in the list."""
        return kid in self._realm_keys

    def names(self, sid: str) -> tuple[Name, ...]:
        """What a session may be called: by the current key, and by the older ones."""
        return tuple(self.name(kid, sid) for kid in self._kids)

    def name(self, kid: str, sid: str) -> Name:
        """What a session is called under one key id. Always with the absent issuer: a sid of ours is unique."""
        key = self._realm_keys[kid]
        fingerprint = key.fingerprint(Kind.SESSION, None, sid).to_bytes(8, "little")
        return Name(kid, key.tag, fingerprint, self._hash(kid, "handle", HANDLE_BYTES, sid))

    def indexes(self, issuer: str | None, subject: str) -> tuple[str, ...]:
        """The names of the indexes of a subject, by key id. Two issuers may both have a subject "1"."""
        return tuple(self.index(kid, issuer, subject) for kid in self._kids)

    def index(self, kid: str, issuer: str | None, subject: str) -> str:
        """The name of the subject's index under one key id."""
        data = self._text(fingerprint_input(Kind.SUBJECT, issuer, subject))
        return hashlib.blake2b(data, digest_size=16, key=self._keys[kid, "index"]).hexdigest()

    def client(self, client_id: str, kid: str) -> bytes:
        """The name of a client in entries of the index, 8 bytes."""
        return self._hash(kid, "client", 8, client_id)

    def clients(self, client_id: str) -> bytes:
        """Its names under all key ids, one after the other."""
        return b"".join(self.client(client_id, kid) for kid in self._kids)

    def settings_names(self, client_id: str) -> tuple[str, ...]:
        """The names under which the settings of a client are kept."""
        return tuple(self._hash(kid, "client", 16, client_id).hex() for kid in self._kids)

    def sids(self, partition: int, operation: bytes) -> Iterator[tuple[str, Name]]:
        """The session that an operation opens, by key id: always the same, so that a retry opens no second one."""
        for kid in self._kids:
            random = hashlib.blake2b(self._text(operation), digest_size=16, key=self._keys[kid, "sid"]).digest()
            sid = make_sid(partition, random)
            yield sid, self.name(kid, sid)

    # -- records ------------------------------------------------------------------------------------------------

    def seal(self, session: Session, name: Name) -> tuple[bytes, bytes]:
        """(stamp, body) of a record; the stamp is the nonce, new each time."""
        stamp = os.urandom(STAMP_BYTES)
        sealed = self._cipher(name.kid, name.handle).encrypt(stamp, _encode(session), self._bound(name.handle))
        kid = name.kid.encode()
        return stamp, bytes((_FORMAT, len(kid))) + kid + sealed

    def open(self, sealed: Sealed, handle: bytes) -> Session:
        """The session in a record. Raises NotOurs if it is another's, was changed, or its key is gone."""
        body = sealed.body
        if len(body) < 2 or body[0] != _FORMAT:
            raise NotOurs
        kid, rest = body[2 : 2 + body[1]], body[2 + body[1] :]
        try:
            cipher = self._cipher(kid.decode("ascii"), handle)
            return _decode(cipher.decrypt(sealed.stamp, rest, self._bound(handle)))
        except (KeyError, InvalidTag, UnicodeDecodeError):
            raise NotOurs from None

    def _cipher(self, kid: str, handle: bytes) -> AESGCM:
        # A key for each session: so random nonces never come near the bound of one key (NIST SP 800-38D, 2^32).
        return AESGCM(hashlib.blake2b(self._text(handle), digest_size=32, key=self._keys[kid, "seal"]).digest())

    def _bound(self, handle: bytes) -> bytes:
        """The associated data: a record is worth nothing under another name or in another realm."""
        return self._text(handle)

    def _hash(self, kid: str, purpose: str, size: int, value: str) -> bytes:
        data = self._text(value.encode("utf-8", "surrogatepass"))
        return hashlib.blake2b(data, digest_size=size, key=self._keys[kid, purpose]).digest()

    def _text(self, value: bytes) -> bytes:
        realm = self.realm.encode()
        return len(realm).to_bytes(2, "big") + realm + value


def _encode(session: Session) -> bytes:
    device, policy = session.device, session.policy
    fields = [
        session.issuer, session.subject, session.client_id,
        [device.label, device.address, device.user_agent],
        [policy.absolute_ms, policy.idle_ms, policy.grace_ms],
        session.opened_ms, session.ends_ms, session.seen_ms, session.life_s, session.versions,
        session.generation, session.issued_ms, session.kid, session.attempt.hex(), session.secret.hex(),
    ]  # fmt: skip
    return json.dumps(fields, separators=(",", ":")).encode()


def _decode(data: bytes) -> Session:
    """The inverse of `_encode`; what was authenticated is not doubted."""
    issuer, subject, client_id, device, policy, *times, life_s, versions, generation, issued, kid, attempt, secret = (
        json.loads(data)
    )
    opened_ms, ends_ms, seen_ms = times
    return Session(
        issuer=issuer,
        subject=subject,
        client_id=client_id,
        device=Device(*device),
        policy=Policy(*policy),
        opened_ms=opened_ms,
        ends_ms=ends_ms,
        seen_ms=seen_ms,
        life_s=life_s,
        versions=(versions[0], versions[1], versions[2]),
        generation=generation,
        issued_ms=issued,
        kid=kid,
        attempt=bytes.fromhex(attempt),
        secret=bytes.fromhex(secret),
    )
