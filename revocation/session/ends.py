"""Ending sessions. One script ends the record, the entry in the index and, by a row in the log, the access tokens."""

from __future__ import annotations

import os
from typing import NamedTuple

from revocation.errors import InvalidField
from revocation.model import Operation, Receipt, Target
from revocation.session.desk import Found, Grant, Owner, Place, over
from revocation.session.gate import Call, in_doubt, until
from revocation.session.lists import SessionLists, require_subject
from revocation.session.machine import Commit, End, Keep, last_token_s
from revocation.session.refresh import partition_of as partition_of_sid
from revocation.store.sessions import Again, Entry, Look, Seen, Step, Stepped, SubjectCutoff, Turned
from revocation_sdk._audit import Action
from revocation_sdk._lattice import CUTOFF, DENIAL, Group, Kind, join_groups


class Named(NamedTuple):
    """A session as the caller called it, and whose it is."""

    owner: Owner
    session: str


class SessionEnds(SessionLists):
    """Ends."""

    async def end(self, operation: Operation, owner: Owner, session: str, deadline: float) -> Receipt:
        """Ends a session by its sid, or by its handle and owner; idempotent. Raises ServiceError.

        A sid that is not ours, or of which there is no record any more, has its tokens revoked all the same. With a
        subject the session must be that subject's; what has the form of a handle needs one.
        """
        self._revocations.check_op_id(operation)
        require_subject(owner, session)
        partition = partition_of_sid(session)
        ours = partition is not None and partition < len(self._replicas)
        call = Call()
        async with until(deadline, call):
            receipt = None
            while receipt is None and (ours or owner.subject):
                if not ours:
                    receipt = await self._end_by_handle(call, operation, owner, session)
                    continue
                found = await self._end_by_sid(call, operation, owner, session)
                if found is _NOTHING_THERE:
                    break
                receipt = found
        if receipt is not None:
            return receipt
        with in_doubt(call):
            return await self._revocations.revoke(operation, Target(Kind.SESSION, owner.issuer, session), deadline)

    async def _end_by_sid(self, call: Call, operation: Operation, owner: Owner, sid: str) -> Receipt | None:
        place = self._place_of_sid(operation.realm, sid)
        names = place.keys.names(sid)
        seen = await self._look(place, Look(place.realm.name, tuple(name.record for name in names), op=operation.key()))
        if seen.op:
            row = (names[0].key_tag, names[0].fingerprint)
            return self._again(place, operation, seen.op, row)
        records = [(name, sealed) for name, sealed in zip(names, seen.records, strict=True) if sealed]
        for name, sealed in records:
            if owner.subject and not sealed.ended:
                self._require_theirs(self._session(place, sealed, name.handle), owner)
            session = self._lives(place, seen.now_ms, sealed, name.handle)
            if session is not None:
                entry = self._entry(place, name, session)
                last_s = last_token_s(session, seen.now_ms)
                owner = Owner(place.realm.name, session.issuer, session.subject)
                return await self._finish_now(call, place, operation, entry, last_s, Named(owner, sid))
        return _NOTHING_THERE

    async def _end_by_handle(self, call: Call, operation: Operation, owner: Owner, handle: str) -> Receipt | None:
        place, entry, seen, owner = await self._by_handle(owner, handle, operation.key())
        if seen.op:
            row = (entry.key_tag, entry.fingerprint) if entry else None
            return self._again(place, operation, seen.op, row)
        if entry is None:
            raise over(End.UNKNOWN)
        last_s = seen.now_ms // 1000 + entry.life_s + 1
        return await self._finish_now(call, place, operation, entry.pack(), last_s, Named(owner, handle))

    async def _finish_now(
        self, call: Call, place: Place, operation: Operation, packed: bytes, last_s: int, named: Named
    ) -> Receipt | None:
        """Ends it whatever its record is by then: an end needs no compare."""
        entry, owner = Entry.unpack(packed), named.owner
        log_id = self._replicas[place.partition].partition.log_id
        record = self._auditor.record(
            Action.SESSION_ENDED, operation, kind=int(Kind.SESSION), issuer=owner.issuer, value=named.session, asked=1,
            stored=1, sessions=1,
        )  # fmt: skip
        step = Step(
            place.realm.name, 0, b"", entry.record, None, self._finish(place, entry.fingerprint, last_s, End.LOGOUT),
            packed, place.keys.indexes(owner.issuer, owner.subject), op=operation.key(), digest=operation.digest,
            audit=self._audit(place, log_id, record),
        )  # fmt: skip
        result = await self._gates[place.partition].step(call, log_id, step)
        if not isinstance(result, Stepped):
            return None  # an Again is found by the next look
        self._tell(
            "session_ended", place, entry.handle, owner, actor=operation.caller, audit=self._audited(place, result)
        )
        return Receipt(self._positions(place), stored=True, cutoff=None, rows=result.rows)

    def _again(
        self, place: Place, operation: Operation, fields: tuple[str, ...], row: tuple[int, bytes] | None
    ) -> Receipt:
        """The receipt of an end that has run before."""
        digest, _, _, expires_at, *_ = fields
        if digest != operation.digest:
            raise InvalidField("op_id", "was used before, with another content", reason="OP_ID_REUSED")
        rows = b""
        if row is not None and int(expires_at):
            packed = DENIAL.pack(int.from_bytes(row[1], "little"), int(expires_at))
            rows = join_groups([Group(Kind.SESSION, row[0], packed)])
        return Receipt(self._positions(place), stored=True, cutoff=None, rows=rows)

    # -- all others ---------------------------------------------------------------------------------------------

    async def end_others(self, operation: Operation, owner: Owner, keep: str, life_s: int, deadline: float) -> Grant:
        """Ends all sessions of a subject but one, by a cutoff, and raises that one above it in the same script.

        Raises SessionOver if `keep` has ended, InvalidField if it is another subject's.
        """
        self._revocations.check_op_id(operation)
        place = self._place_of_sid(operation.realm, keep)
        self._require_life(place, life_s)
        call = Call()
        async with until(deadline, call):
            while True:
                above = await self._revocations.drawn_elsewhere(place.realm, deadline)
                grant = await self._end_others_once(call, place, operation, (owner, keep), life_s, above)
                if grant is not None:
                    return grant

    async def _end_others_once(
        self, call: Call, place: Place, operation: Operation, kept: tuple[Owner, str], life_s: int, above: int
    ) -> Grant | None:
        owner, keep = kept
        names = place.keys.names(keep)
        look = Look(place.realm.name, op=operation.key())
        seen = await self._look(place, look)
        version = max(seen.clock + 1, seen.now_ms, above + 1)
        found, commit = await self._decide(place, names, Keep(version, place.keys.current_kid, os.urandom(8)))
        self._require_owner(found, owner)
        if seen.op:
            rows = self._others_rows(place, operation, owner, seen)
            return self._grant(place, keep, found.session, found.now_ms, life_s=life_s, rows=rows)
        result = await self._keep(call, place, operation, found, commit, version)
        if not isinstance(result, Stepped):
            return None
        self._tell(
            "others_ended", place, found.name.handle, owner, actor=operation.caller, audit=self._audited(place, result)
        )
        return self._grant(place, keep, commit.session, result.now_ms, life_s=life_s, rows=result.rows)

    async def _keep(
        self, call: Call, place: Place, operation: Operation, found: Found, commit: Commit, version: int
    ) -> Stepped | Again | Turned:
        session, key = found.session, place.realm.keys[0]
        fingerprint = key.fingerprint(Kind.SUBJECT, session.issuer, session.subject).to_bytes(8, "little")
        record = self._auditor.record(
            Action.OTHERS_ENDED, operation, kind=int(Kind.SUBJECT), issuer=session.issuer, value=session.subject,
            asked=1, stored=1,
        )  # fmt: skip
        step = Step(
            place.realm.name, found.applied, self._watched(place, session), found.name.record, found.stamp,
            self._record(place, found.name, commit.session), self._entry(place, found.name, session),
            self._index(place, found.name, session), until_ms=commit.until_ms, op=operation.key(),
            digest=operation.digest,
            cutoff=SubjectCutoff(version, key.tag, place.realm.horizon_s, fingerprint),
            audit=self._audit(place, found.log_id, record),
        )  # fmt: skip
        return await self._gates[place.partition].step(call, found.log_id, step)

    def _require_owner(self, found: Found, owner: Owner) -> None:
        if (found.session.issuer, found.session.subject) != (owner.issuer, owner.subject):
            raise InvalidField("keep", "is not a session of this subject")

    def _others_rows(self, place: Place, operation: Operation, owner: Owner, seen: Seen) -> bytes:
        digest, version, at_ms, expires_at, *_ = seen.op
        if digest != operation.digest:
            raise InvalidField("op_id", "was used before, with another content", reason="OP_ID_REUSED")
        key = place.realm.keys[0]
        fingerprint = key.fingerprint(Kind.SUBJECT, owner.issuer, owner.subject)
        row = CUTOFF.pack(fingerprint, int(expires_at), int(version), int(at_ms))
        return join_groups([Group(Kind.SUBJECT, key.tag, row)])


_NOTHING_THERE = Receipt((), stored=False, cutoff=None, rows=b"")
