"""Sessions: what the service does, free of gRPC and of Redis. Ending is in `ends.py`.

Every use case is the same loop: look, decide, step; once more if what it was decided on has changed. A look is a
barrier, and the step is refused if the log meanwhile brought a cutoff that matters: so a refresh in flight never
outlives a revoke.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

from revocation.audit.seal import by
from revocation.callers.roles import NOBODY, Caller
from revocation.errors import InvalidField, Overloaded
from revocation.model import Operation
from revocation.session.desk import Found, Grant, Place, audit, over
from revocation.session.ends import SessionEnds
from revocation.session.gate import Call, until
from revocation.session.handles import handle_text
from revocation.session.impact import SessionCounts
from revocation.session.lists import Shown
from revocation.session.machine import Commit, Device, End, Look, Open, Refresh, Touch, Write, decide, may_refresh
from revocation.session.policy import MOST_SESSIONS, SessionSettings
from revocation.session.refresh import Claim, RefreshInvalid, belongs, parse
from revocation.store.sessions import Again, Count, Finish, Limits, Put, Seen, Step, Stepped, Turned
from revocation.store.sessions import Look as StoreLook
from revocation_sdk._audit import Action, points_text
from revocation_sdk._lattice import Kind

OPEN_WITHIN_MS = 30_000
"""A session whose opening was decided longer ago is opened with another time."""

_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Opening:
    """Who wants a session."""

    operation: Operation
    issuer: str | None
    subject: str = field(repr=False)
    client_id: str
    device: Device
    life_s: int


@dataclass(frozen=True, slots=True)
class Renewal:
    """Who wants to exchange a refresh token. `issuer` and `client_id` must be the session's; None: not said."""

    realm: str
    token: str = field(repr=False)
    life_s: int
    device: Device
    issuer: str | None = None
    client_id: str | None = None


class Sessions(SessionEnds, SessionCounts):
    """All that callers may do with sessions."""

    # -- opening ------------------------------------------------------------------------------------------------

    async def open(self, opening: Opening, deadline: float) -> Grant:
        """Opens a session; a retry with the same op id gets the same. Raises ServiceError."""
        self._revocations.check_op_id(opening.operation)
        place = self._places_of_subject(opening.operation.realm, opening.subject)[0]
        self._require_life(place, opening.life_s)
        call = Call()
        async with until(deadline, call):
            settings = await self._policies.get(place.keys, self._settings(place), opening.client_id)
            command = Open(
                opening.issuer, opening.subject, opening.client_id, opening.device, settings.policy, opening.life_s,
                place.keys.current_kid, os.urandom(8), os.urandom(32),
            )  # fmt: skip
            while True:
                grant = await self._open_once(call, place, opening, command, settings)
                if grant is not None:
                    return grant

    async def _open_once(
        self, call: Call, place: Place, opening: Opening, command: Open, settings: SessionSettings
    ) -> Grant | None:
        op = opening.operation
        indexes = place.keys.indexes(opening.issuer, opening.subject)
        look = StoreLook(
            place.realm.name, indexes=indexes, at_least=_threshold(settings), with_records=True, op=op.key()
        )
        seen = await self._look(place, look, opens=not settings.evict_oldest)
        if seen.op:
            return await self._opened_before(place, opening, seen.op[0])
        forget = await self._dead_entries(place, seen)
        # From here to the step nothing is awaited: one moment of the view, and the log up to there.
        partition = self._replicas[place.partition].partition
        log_id, applied = partition.log_id, partition.seq
        cutoffs = self._revocations.cutoffs(
            place.realm, opening.issuer, opening.subject, opening.client_id, seen.now_ms
        )
        commit = decide(None, command, seen.now_ms, cutoffs)
        assert isinstance(commit, Commit)
        sid, name = next(place.keys.sids(place.partition, _seed(op)))
        session = commit.session
        step = Step(
            place.realm.name, applied, self._watched(place, session), name.record, b"",
            self._record(place, name, session), self._entry(place, name, session), indexes,
            until_ms=seen.now_ms + OPEN_WITHIN_MS, op=op.key(), digest=op.digest,
            limits=_limits(place, settings, opening.client_id, forget),
            audit=self._evicting(place, log_id, opening) if settings.evict_oldest else b"",
        )  # fmt: skip
        result = await self._gates[place.partition].step(call, log_id, step)
        match result:
            case Again():
                return await self._opened_before(place, opening, op.digest)
            case Stepped():
                self._tell(
                    commit.event, place, name.handle, session,
                    evicted=len(result.rows) // 19, audit=self._audited(place, result),
                )  # fmt: skip
                return self._grant(place, sid, session, result.now_ms, life_s=opening.life_s, rows=result.rows)
            case Turned.LIMIT:
                self._count("session_denied")
                text = "the subject has as many sessions as it may"
                raise Overloaded(text, retry_after_ms=0, reason="SESSION_LIMIT")
        return None

    def _evicting(self, place: Place, log_id: str, opening: Opening) -> bytes:
        """The entry for the audit in case that others must make room; how many, the script says."""
        record = self._auditor.record(
            Action.SESSIONS_EVICTED, opening.operation, kind=int(Kind.SUBJECT), issuer=opening.issuer,
            value=opening.subject, reason="limit",
        )  # fmt: skip
        return self._audit(place, log_id, record)

    async def _opened_before(self, place: Place, opening: Opening, digest: str) -> Grant:
        """The session that this op id has opened: its first grant again. Raises SessionOver if it has ended since."""
        if digest != opening.operation.digest:
            raise InvalidField("op_id", "was used before, with another content", reason="OP_ID_REUSED")
        candidates = dict(place.keys.sids(place.partition, _seed(opening.operation)))
        found, _ = await self._decide(place, tuple(candidates.values()), Look())
        sid = next(sid for sid, name in candidates.items() if name == found.name)
        return self._grant(place, sid, found.session, found.now_ms, life_s=opening.life_s, generation=1)

    async def _dead_entries(self, place: Place, seen: Seen) -> bytes:
        """Entries of sessions that a cutoff has ended, without anybody having gone through them."""
        dead = []
        for number, (entry, sealed) in enumerate(seen.entries, 1):
            if sealed is None or not self._lives(place, seen.now_ms, sealed, entry.handle):
                dead.append(entry.pack())
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        return b"".join(dead)

    # -- refreshing ---------------------------------------------------------------------------------------------

    async def refresh(self, renewal: Renewal, deadline: float, caller: Caller = NOBODY) -> Grant:
        """Exchanges a refresh token. Raises InvalidField (REFRESH_INVALID), SessionOver, Overloaded, ..."""
        realm = self._revocations.realm(renewal.realm)
        try:
            claim = parse(renewal.token, realm.name, self._keys[realm.name].signing_key)
        except RefreshInvalid:
            self._count("refresh_invalid")
            raise _invalid() from None
        place = self._place_of_sid(realm.name, claim.sid)
        self._require_life(place, renewal.life_s)
        command = Refresh(
            claim.generation, place.keys.current_kid, os.urandom(8), renewal.device, renewal.issuer, renewal.client_id
        )
        call = Call()
        async with until(deadline, call):
            while True:
                grant = await self._refresh_once(call, place, claim, command, renewal.life_s, caller)
                if grant is not None:
                    return grant

    async def _refresh_once(
        self, call: Call, place: Place, claim: Claim, command: Refresh, life_s: int, caller: Caller
    ) -> Grant | None:
        found, commit = await self._decide(place, place.keys.names(claim.sid), command)
        if not belongs(claim, found.session.secret):
            # t1 was right: somebody has the server key, or the record was put back from elsewhere.
            self._tell("refresh_forged", place, found.name.handle, found.session)
            raise _invalid()
        if not may_refresh(found.session, command):
            # Before anything is done: it is no theft that another issuer or client cannot use the token.
            self._count("refresh_invalid")
            raise _invalid()
        audit = self._replayed(place, found, claim, caller) if commit.write is Write.END else b""
        result = await self._step(call, place, found, commit, audit)
        if result is Turned.CAPPED:
            text = "this refresh token has been sent again and again; go on with its successor"
            raise Overloaded(text, retry_after_ms=1_000)
        if not isinstance(result, Stepped):
            return None
        if commit.write is Write.END:
            self._tell(
                commit.event, place, found.name.handle, found.session,
                generation=found.session.generation, replayed=claim.generation, address=command.device.address,
                audit=self._audited(place, result),
            )  # fmt: skip
            raise over(End.REUSE, "REFRESH_REUSED")
        self._tell(
            commit.event, place, found.name.handle, commit.session,
            generation=commit.session.generation, answers=result.count,
        )  # fmt: skip
        return self._grant(place, claim.sid, commit.session, result.now_ms, life_s=life_s)

    def _replayed(self, place: Place, found: Found, claim: Claim, caller: Caller) -> bytes:
        record = self._auditor.record(
            Action.REFRESH_REUSED, None, kind=int(Kind.SESSION), issuer=found.session.issuer, value=claim.sid,
            stored=1, sessions=1, **by(caller.name, caller.role, "an older refresh token was replayed"),
        )  # fmt: skip
        return self._audit(place, found.log_id, record)

    async def _step(
        self, call: Call, place: Place, found: Found, commit: Commit, audit: bytes = b""
    ) -> Stepped | Again | Turned:
        action: Put | Count | Finish
        match commit.write:
            case Write.PUT:
                action = self._record(place, found.name, commit.session)
            case Write.END:
                action = self._finish_session(place, found, End.REUSE)
            case _:
                action = Count()
        session, name = found.session, found.name
        step = Step(
            place.realm.name, found.applied, self._watched(place, session), name.record, found.stamp, action,
            self._entry(place, name, session), self._index(place, name, session), until_ms=commit.until_ms,
            audit=audit,
        )  # fmt: skip
        return await self._gates[place.partition].step(call, found.log_id, step)

    # -- looking ------------------------------------------------------------------------------------------------

    async def touch(self, realm_name: str, sid: str, deadline: float) -> Shown:
        """Says that a session is in use; writes it down now and then. Raises SessionOver."""
        place = self._place_of_sid(realm_name, sid)
        call = Call()
        async with until(deadline, call):
            while True:
                found, commit = await self._decide(place, place.keys.names(sid), Touch())
                if commit.write is Write.NOTHING or isinstance(await self._step(call, place, found, commit), Stepped):
                    return Shown(handle_text(found.name.handle), commit.session, current=False)

    async def client_settings(self, realm_name: str, client_id: str, deadline: float) -> SessionSettings:
        """What holds for sessions that the client opens from now on."""
        place = Place(self._revocations.realm(realm_name), self._keys[realm_name], 0)
        async with until(deadline, Call()):
            return await self._policies.get(place.keys, self._settings(place), client_id)

    async def set_client_settings(
        self, realm_name: str, client_id: str, settings: SessionSettings, deadline: float, caller: Caller = NOBODY
    ) -> SessionSettings:
        """Changes it. Raises InvalidField beyond what the realm allows."""
        place = Place(self._revocations.realm(realm_name), self._keys[realm_name], 0)
        async with until(deadline, Call(tried=True)):
            point = await self._policies.put(place.keys, self._settings(place), client_id, settings, caller)
        audit.info(
            "client_settings_changed", realm=realm_name, evict_oldest=settings.evict_oldest, actor=caller.name,
            audit=points_text([(0, point)] if point else []),
        )  # fmt: skip
        return settings


def _seed(operation: Operation) -> bytes:
    """What the session id of an opening is made from: the op id, whose it is, and what was asked."""
    return bytes.fromhex(operation.key()) + operation.digest.encode()


def _threshold(settings: SessionSettings) -> int:
    """From how many entries on it matters which of them live."""
    limits = (settings.max_sessions_per_subject, settings.max_sessions_per_subject_and_client)
    return min((limit for limit in limits if limit), default=MOST_SESSIONS)


def _limits(place: Place, settings: SessionSettings, client_id: str, forget: bytes) -> Limits:
    return Limits(
        of_subject=settings.max_sessions_per_subject or MOST_SESSIONS,
        of_client=settings.max_sessions_per_subject_and_client,
        evict=settings.evict_oldest,
        clients=place.keys.clients(client_id),
        slack_s=place.realm.slack_s,
        forget=forget,
    )


def _invalid() -> InvalidField:
    return InvalidField("refresh_token", "is not a refresh token of this realm", reason="REFRESH_INVALID")
