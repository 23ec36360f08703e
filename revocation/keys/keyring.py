"""The master secrets and every key derived from them.

One list of master secrets, `kid:base64`, is all that an operator keeps: the first is current, the others are
looked up until what was made under them has expired. Realm keys (fingerprints), session keys (MACs, encryption)
and the commitments that the store holds come from it by HKDF-SHA256 (RFC 5869), each under its own label, so that
one derived key says nothing about another. Nothing here reaches a log, a `repr` or the store but commitments.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from revocation_sdk._lattice import RealmKey

KEY_BYTES = 32
"""Size of every derived key, and the least size of a master secret."""

LONGEST_SECRET_BYTES = 1024
MOST_SECRETS = 16
_KID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_LABEL = b"revocation/v1"


class SecretInvalid(ValueError):
    """The master secrets cannot be used. The message says what to do and never contains a secret."""


@dataclass(frozen=True, slots=True)
class MasterSecret:
    """One master secret under its key id."""

    kid: str
    value: bytes = field(repr=False)


def parse_secret(text: str) -> tuple[MasterSecret, ...]:
    """Reads `kid:base64` items separated by commas or white space; lines starting with # are comments.

    Base64 may be standard or URL-safe, padded or not. Raises SecretInvalid if there is no item, or if one is
    malformed, shorter than 32 bytes or there twice.
    """
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    items = " ".join(lines).replace(",", " ").split()
    if not items:
        raise SecretInvalid("holds no master secret; write `k1:` followed by `openssl rand -base64 32`")
    if len(items) > MOST_SECRETS:
        raise SecretInvalid(f"holds more than {MOST_SECRETS} master secrets; drop the oldest ones")
    masters = tuple(_parse_item(number, item) for number, item in enumerate(items, 1))
    kids = [master.kid for master in masters]
    for number, kid in enumerate(kids, 1):
        if kids.index(kid) < number - 1:
            earlier = kids.index(kid) + 1
            raise SecretInvalid(f"items {earlier} and {number} have one key id; every master secret needs its own")
    if len({master.value for master in masters}) < len(masters):
        raise SecretInvalid("has one secret under two key ids; a new key id needs a new secret")
    return masters


def _parse_item(number: int, item: str) -> MasterSecret:
    # Messages say which item by its number: what stands where a kid belongs may be a piece of a secret.
    kid, colon, encoded = item.partition(":")
    if not colon or not _KID.fullmatch(kid):
        raise SecretInvalid(f"item {number} is not kid:base64 with a kid of 1 to 16 characters A-Z a-z 0-9 _ -")
    try:
        padded = encoded.rstrip("=") + "=" * (-len(encoded.rstrip("=")) % 4)
        value = base64.b64decode(padded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        # No cause: its message is about the secret.
        raise SecretInvalid(f"item {number} is not base64 after the colon") from None
    if not KEY_BYTES <= len(value) <= LONGEST_SECRET_BYTES:
        raise SecretInvalid(
            f"item {number} has {len(value)} bytes, not {KEY_BYTES} to {LONGEST_SECRET_BYTES}; "
            "make one with `openssl rand -base64 32`"
        )
    return MasterSecret(kid, value)


def new_secret(kid: str = "k1") -> str:
    """A fresh master secret as text that `parse_secret` reads."""
    return f"{kid}:{base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()}"


def secret_of_directory(directory: Path) -> str:
    """The master secret kept in `directory`/secret, made on first use: mode 0600, on disk before it is used.

    The caller holds the lock of the directory. Raises SecretInvalid if others may read the file, or if it cannot be
    read or written.
    """
    path = directory / "secret"
    try:
        if not path.exists():
            _write_secret(path, new_secret())
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise SecretInvalid(f"{path} is open to other users; run chmod 600 on it, or replace the secret")
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise SecretInvalid(f"cannot keep the master secret in {path}: {reason}") from None


def _write_secret(path: Path, text: str) -> None:
    """Writes beside `path` and renames: a crash leaves the whole secret or none."""
    draft = path.with_name("secret.draft")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    fd = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class Keyring:
    """Derives every key of the service. Thread-safe and immutable; `repr` shows key ids only."""

    def __init__(self, masters: Iterable[MasterSecret]) -> None:
        self._masters = tuple(masters)
        if not self._masters:
            raise SecretInvalid("holds no master secret")
        self._by_kid = {master.kid: master.value for master in self._masters}

    @classmethod
    def parse(cls, text: str) -> Keyring:
        """A keyring from the text of REVOCATION_SECRET or its file. Raises SecretInvalid."""
        return cls(parse_secret(text))

    def __repr__(self) -> str:
        return f"Keyring({', '.join(self.kids)})"

    @property
    def kids(self) -> tuple[str, ...]:
        """Key ids, the current one first."""
        return tuple(self._by_kid)

    @property
    def current_kid(self) -> str:
        """The key id under which new things are made."""
        return self._masters[0].kid

    def realm_keys(self, realm: str) -> list[RealmKey]:
        """The fingerprint keys of a realm, the current one first.

        Raises SecretInvalid if two of them have the same 16-bit tag, by which rows name their key; with two
        secrets that happens to one realm in 65,536, and only another new secret helps.
        """
        keys: dict[int, RealmKey] = {}
        for master in self._masters:
            key = _realm_key(master, realm)
            tag = _tag(key)
            if tag in keys:
                raise SecretInvalid(
                    f"the keys of realm {realm} under {master.kid} and an earlier secret have the same tag; "
                    "replace the secret that you added last by another new one"
                )
            keys[tag] = RealmKey(tag, key)
        return list(keys.values())

    def realm_tags(self, realm: str) -> frozenset[int]:
        """The tags of a realm's keys, also of a realm that is not served here."""
        return frozenset(_tag(_realm_key(master, realm)) for master in self._masters)

    def session_key(self, kid: str, purpose: str) -> bytes:
        """The 32-byte key for `purpose` ("mac", "seal", ...) under master secret `kid`.

        Raises KeyError for an unknown kid: what was made under it cannot be checked any more.
        """
        return _derive(self._by_kid[kid], b"session", purpose.encode())

    def mail_key(self, kid: str) -> bytes:
        """The 32-byte key that seals what replicas tell each other. Raises KeyError for an unknown kid."""
        return _derive(self._by_kid[kid], b"mail")

    def audit_key(self, kid: str, realm: str) -> bytes:
        """The 32-byte key from which the audit of a realm is sealed. Raises KeyError for an unknown kid."""
        return _derive(self._by_kid[kid], b"audit", realm.encode())

    def signing_seed(self, kid: str) -> bytes:
        """The 32 bytes that the signing key of the stream is made from. Raises KeyError for an unknown kid."""
        return _derive(self._by_kid[kid], b"signing")

    def commitments(self) -> dict[str, str]:
        """Key id -> hex that proves knowledge of the secret without giving it away.

        The store keeps them, so that a replica with another secret under the same id is noticed at its start.
        A master secret has 256 random bits, so a commitment cannot be searched backwards.
        """
        return {master.kid: _derive(master.value, b"commitment", master.kid.encode()).hex() for master in self._masters}


def _realm_key(master: MasterSecret, realm: str) -> bytes:
    return _derive(master.value, b"realm", realm.encode())


def _tag(key: bytes) -> int:
    return int.from_bytes(hashlib.sha256(key).digest()[:2], "little")


def _derive(master: bytes, *labels: bytes) -> bytes:
    # Every label with its length: ("realm", "a") and ("realma", "") must not meet.
    info = b"".join(len(label).to_bytes(2, "big") + label for label in (_LABEL, *labels))
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(master)
