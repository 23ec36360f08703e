"""The audit: what is recorded of a change, sealed so that the store cannot read it and nobody else can make it.

A record goes to the store in the script that commits the change; what shares a script shares an entry. Into each entry
goes an earlier point of its chain that this replica knows (`seen`): the number that an entry gets is known to the
script only, so that it cannot be part of what is authenticated, and this takes its place. After a loss the replica that
remembers more than the store has says so.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from revocation.keys.keyring import Keyring
from revocation.model import Operation, Target
from revocation.observability.telemetry import request_id
from revocation.store import Op
from revocation.store.audit import Remembered, StoredEntry
from revocation_sdk._audit import Action, AuditEntry, AuditLoss, AuditPoint, AuditRecord

INSTALLATION = "*"
"""Stands for a realm where something is about the installation; no realm can have this name."""

_FORMAT = 1
_NONCE_BYTES = 12
_DAY_MS = 86_400_000
_COMPRESS_FROM = 400
_MOST_CIPHERS = 4_096
_DEFAULTS = tuple(AuditRecord(0))
_REVOKED = int(Action.REVOKED)
_OP_ID = AuditRecord._fields.index("op_id")
_OFTEN = AuditRecord._fields.index("sessions")
"""From here on most records have nothing to say."""


class NotSealedHere(Exception):
    """`reason`: "key" if the master secret is not in the list, else "forged"."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Auditor:
    """Seals and opens the audit of all realms of one service process, and remembers where the chains stand."""

    def __init__(self, keyring: Keyring, realms: Iterable[str], wall_ms: Callable[[], int], *, on: bool = True) -> None:
        self.on = on
        self.realms = (*realms, INSTALLATION)
        self._keyring = keyring
        self._wall_ms = wall_ms
        self._heads: dict[tuple[int, str], tuple[str, AuditPoint]] = {}
        self._ciphers: dict[tuple[str, str, int], AESGCM] = {}

    # -- records ------------------------------------------------------------------------------------------------

    def revoked(
        self, operation: Operation, target: Target, asked: int, stored: int, part: tuple[int, int] = (0, 0)
    ) -> AuditRecord | None:
        """The record of a revocation, or of a part of one (which, of how many); of a batch it names no token."""
        if not self.on or operation.realm not in self.realms:
            return None
        approval = operation.shared.rpartition(" ")[2] if operation.shared else ""
        # By place: there is one for every revocation, and names cost as much as all the rest of it.
        return AuditRecord(
            _REVOKED, int(target.kind), operation.caller, operation.role, target.issuer,
            target.value if asked == 1 else "", operation.op_id.hex, operation.reason, request_id.get(), asked, stored,
            None, *part, approval,
        )  # fmt: skip

    def record(self, action: Action, operation: Operation | None, **facts: Any) -> AuditRecord | None:
        """A record of what an operation does; None if there is no audit, or none of this realm (the canary's)."""
        if not self.on or (operation is not None and operation.realm not in self.realms):
            return None
        if operation is not None:
            approval = operation.shared.rpartition(" ")[2]
            who = by(operation.caller, operation.role, operation.reason)
            facts = {"op_id": operation.op_id.hex, "approval": approval, **who, **facts}
        return AuditRecord(int(action), request_id=request_id.get(), **facts)

    # -- sealing ------------------------------------------------------------------------------------------------

    def seal_round(self, partition: int, log_id: str, ops: Sequence[Op]) -> Mapping[str, bytes]:
        """What goes into the audit of each realm for the operations of one script."""
        records: dict[str, list[AuditRecord]] = {}
        for op in ops:
            if op.audit is not None:
                records.setdefault(op.realm, []).append(op.audit)
        return {realm: self.seal(partition, log_id, realm, of_realm) for realm, of_realm in records.items()}

    def seal(self, partition: int, log_id: str, realm: str, records: Sequence[AuditRecord | None]) -> bytes:
        """An entry for these records, committed in the history `log_id`; nothing without a record."""
        made = [record for record in records if record is not None]
        noted, point = self._heads.get((partition, realm), ("", AuditPoint()))
        # What was known of the chain in another history may not be part of this one.
        return self._seal(partition, realm, log_id, point if noted == log_id else AuditPoint(), made) if made else b""

    def note(self, partition: int, log_id: str, realm: str, point: AuditPoint | None) -> None:
        """Takes notice of where a chain stands in a history."""
        if point is None or not point.number:
            return
        noted, known = self._heads.get((partition, realm), ("", AuditPoint()))
        if noted != log_id or known.number < point.number:
            self._heads[partition, realm] = log_id, point

    def remembered(self, partition: int, log_id: str, realms: Sequence[str]) -> list[Remembered]:
        """What is known of these chains of a partition, with what to say if the store does not know it any more."""
        found = []
        for realm in realms:
            noted, point = self._heads.get((partition, realm), ("", AuditPoint()))
            declaration = b""
            if point.number and self.on:
                declaration = self._seal(partition, realm, log_id, point, [], AuditLoss(point, noted))
            found.append(Remembered(realm, point, declaration))
        return found

    def _seal(
        self,
        partition: int,
        realm: str,
        log_id: str,
        seen: AuditPoint,
        records: list[AuditRecord],
        loss: AuditLoss | None = None,
    ) -> bytes:
        kid, day = self._keyring.current_kid, self._wall_ms() // _DAY_MS & 0xFFFF
        nonce = os.urandom(_NONCE_BYTES)
        body = _pack(log_id, seen, records, loss)
        sealed = self._cipher(kid, realm, day).encrypt(nonce, body, _bound(partition, realm))
        return struct.pack("<BB", _FORMAT, len(kid)) + kid.encode() + struct.pack("<H", day) + nonce + sealed

    def open(self, partition: int, realm: str, stored: StoredEntry) -> AuditEntry:
        """An entry with what is in it, or why that cannot be read."""
        entry = AuditEntry(
            partition, stored.number, stored.time_ms, stored.log_seq, stored.extra, stored.sealed, stored.digest
        )
        try:
            return _unpack(entry, self._open(partition, realm, stored.sealed))
        except NotSealedHere as error:
            return _with(entry, unreadable=error.reason)

    def _open(self, partition: int, realm: str, sealed: bytes) -> bytes:
        """Raises NotSealedHere."""
        if len(sealed) < 2 or sealed[0] != _FORMAT or len(sealed) < 4 + sealed[1] + _NONCE_BYTES:
            raise NotSealedHere("forged")
        start = 2 + sealed[1]
        kid = sealed[2:start].decode("latin-1")
        if kid not in self._keyring.kids:
            raise NotSealedHere("key")
        (day,) = struct.unpack_from("<H", sealed, start)
        nonce, rest = sealed[start + 2 : start + 2 + _NONCE_BYTES], sealed[start + 2 + _NONCE_BYTES :]
        try:
            return self._cipher(kid, realm, day).decrypt(nonce, rest, _bound(partition, realm))
        except InvalidTag:
            raise NotSealedHere("forged") from None

    def _cipher(self, kid: str, realm: str, day: int) -> AESGCM:
        # A key for each day: so random nonces never come near the bound of one key (NIST SP 800-38D, 2^32).
        cipher = self._ciphers.get((kid, realm, day))
        if cipher is None:
            if len(self._ciphers) >= _MOST_CIPHERS:
                self._ciphers.clear()
            key = self._keyring.audit_key(kid, realm)
            cipher = AESGCM(hashlib.blake2b(struct.pack("<H", day), digest_size=32, key=key).digest())
            self._ciphers[kid, realm, day] = cipher
        return cipher


def by(actor: str, role: str, reason: str = "") -> dict[str, str]:
    """Who does it, and why, as fields of a record."""
    return {"actor": actor, "role": role, "reason": reason}


def _bound(partition: int, realm: str) -> bytes:
    """The associated data: an entry is worth nothing in another realm or partition."""
    return struct.pack("<H", partition) + realm.encode()


def _pack(log_id: str, seen: AuditPoint, records: list[AuditRecord], loss: AuditLoss | None) -> bytes:
    fields: list[Any] = [_short(log_id), seen.number, _short(seen.digest), [_fields(record) for record in records]]
    if loss is not None:
        fields.append([loss.remembered.number, _short(loss.remembered.digest), _short(loss.log_id)])
    body = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
    return b"z" + zlib.compress(body, 1) if len(body) >= _COMPRESS_FROM else b"j" + body


def _unpack(entry: AuditEntry, body: bytes) -> AuditEntry:
    """What was authenticated is not doubted."""
    text = zlib.decompress(body[1:]) if body[:1] == b"z" else body[1:]
    log_id, number, digest, records, *more = json.loads(text.decode("utf-8", "surrogatepass"))
    loss = AuditLoss(AuditPoint(more[0][0], _long(more[0][1])), _long(more[0][2])) if more else None
    # Fields that a later version appended are left out.
    found = [AuditRecord(*fields[: len(_DEFAULTS)]) for fields in records]
    found = [record._replace(op_id=_long(record.op_id)) for record in found]
    if _are_marks(entry.extra, found):
        found = [record._replace(repeated=mark == "0") for record, mark in zip(found, entry.extra, strict=True)]
    seen = AuditPoint(number, _long(digest))
    return _with(entry, log_id=_long(log_id), seen=seen, records=tuple(found), loss=loss)


def _are_marks(extra: str, records: list[AuditRecord]) -> bool:
    """Whether the store's word says which records are repetitions, and not how many sessions were evicted."""
    evictions = any(record.action == Action.SESSIONS_EVICTED for record in records)
    return not evictions and len(extra) == len(records) and set(extra) <= {"0", "1"}


def _fields(record: AuditRecord) -> list[Any]:
    """Without the defaults at the end."""
    fields = list(record)
    fields[_OP_ID] = _short(record.op_id)
    if record[_OFTEN:] == _DEFAULTS[_OFTEN:]:
        del fields[_OFTEN:]
    while fields and fields[-1] == _DEFAULTS[len(fields) - 1]:
        fields.pop()
    return fields


def _with(entry: AuditEntry, **found: Any) -> AuditEntry:
    return replace(entry, **found)


def _short(text: str) -> str:
    """Hexadecimal digits in fewer characters."""
    return base64.urlsafe_b64encode(bytes.fromhex(text)).rstrip(b"=").decode()


def _long(text: str) -> str:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).hex()
