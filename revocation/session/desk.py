"""What all use cases of sessions share: find a session, decide on one view, say who may have it, tell the audit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from revocation.audit.seal import Auditor
from revocation.errors import InvalidField, SessionOver
from revocation.replication.barrier import Barrier
from revocation.replication.replica import NotReady, Replica
from revocation.service import Realm, Revocations
from revocation.session.dry_runs import DryRuns
from revocation.session.gate import SessionGate, Turnstile
from revocation.session.handles import handle_text
from revocation.session.keys import Name, NotOurs, SessionKeys
from revocation.session.machine import (
    Command,
    Commit,
    End,
    Refusal,
    Session,
    capped,
    decide,
    ended,
    last_token_s,
    token_expiry_s,
)
from revocation.session.policy import ClientPolicies, SessionSettings, of_realm, wait_usable
from revocation.session.refresh import make_token
from revocation.session.refresh import partition_of as partition_of_sid
from revocation.store import Durability
from revocation.store.rails import DeskStore
from revocation.store.sessions import Entry, Finish, Look, Put, Sealed, Seen, Stepped
from revocation_sdk._audit import AuditRecord, points_text
from revocation_sdk._judge import Versions
from revocation_sdk._lattice import DENIAL, Kind
from revocation_sdk._position import NOWHERE, Position

audit = structlog.get_logger("revocation.audit")
_BY_CUTOFF = (End.SUBJECT, End.CLIENT, End.REALM)
_MOST_ISSUERS = 64
_ENDS = {str(end): end for end in End}


@dataclass(frozen=True, slots=True)
class Place:
    """A realm with its session keys, and the partition that a call is about."""

    realm: Realm
    keys: SessionKeys
    partition: int


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose sessions. No issuer: whichever; no subject, with a sid: not said."""

    realm: str
    issuer: str | None
    subject: str


@dataclass(frozen=True, slots=True)
class Found:
    """A session as the store had it at `now_ms`, and the view that it is judged by: the log up to `applied`."""

    name: Name
    stamp: bytes
    session: Session
    now_ms: int
    clock: int
    looked: int
    log_id: str
    applied: int
    cutoffs: Versions
    denied: bool
    """By a row of its own. Such a row ends the record, too: so either it came after the look, or a key was lost."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What an issuer needs to mint an access token, and the next refresh token. Times in seconds."""

    sid: str
    refresh_token: str = field(repr=False)
    subject: str = field(repr=False)
    issuer: str | None
    client_id: str
    versions: Versions
    issued_at: int
    expires_at: int
    session_expires_at: int
    generation: int
    rows: bytes
    positions: tuple[Position, ...]


class SessionDesk:
    """The parts of the sessions of one service process.

    `ends` and `lives`: how durable steps are that revoke something, and those that do not. `count` takes the name of
    every event.
    """

    def __init__(
        self,
        revocations: Revocations,
        replicas: Sequence[Replica],
        barriers: Sequence[Barrier],
        store: DeskStore,
        keys: Mapping[str, SessionKeys],
        *,
        ends: Durability,
        lives: Durability,
        auditor: Auditor,
        count: Callable[[str], None] = lambda _event: None,
    ) -> None:
        self._revocations = revocations
        self._replicas = replicas
        self._barriers = barriers
        self._keys = keys
        self._count = count
        self._store = store
        self._dry_runs = DryRuns()
        self._guards = {realm: asyncio.Semaphore(1) for realm in keys}
        """A guard counts beside dry runs, and beside the guards of other realms."""
        self._issuers: dict[str, set[str | None]] = {}
        """Of sessions that passed by here, by realm: who revokes a subject whichever its issuer means all of them."""
        self._auditor = auditor
        turnstile = Turnstile()
        self._gates = [SessionGate(replica, store, turnstile, ends, lives, auditor) for replica in replicas]
        self._policies = ClientPolicies(replicas[0], store, auditor)

    # -- finding ------------------------------------------------------------------------------------------------

    def _place_of_sid(self, realm_name: str, sid: str) -> Place:
        """Where a session of ours lies. Raises SessionOver for the sid of somebody else."""
        realm = self._revocations.realm(realm_name)
        partition = partition_of_sid(sid)
        if partition is None or partition >= len(self._replicas):
            raise over(End.UNKNOWN)
        return Place(realm, self._keys[realm.name], partition)

    def _places_of_subject(self, realm_name: str, subject: str) -> list[Place]:
        """Where the sessions of a subject lie, new ones in the first; several only while keys change."""
        realm = self._revocations.realm(realm_name)
        prints = (key.fingerprint(Kind.SUBJECT, None, subject) for key in realm.keys)
        partitions = dict.fromkeys(fingerprint % len(self._replicas) for fingerprint in prints)
        return [Place(realm, self._keys[realm.name], partition) for partition in partitions]

    def _require_life(self, place: Place, life_s: int) -> None:
        most = place.realm.settings.max_token_life_s
        if not 0 < life_s <= most:
            raise InvalidField("access_token_life_s", f"must be 1 to {most}, the realm's max_token_life")

    async def _look(self, place: Place, look: Look, *, opens: bool = False) -> Seen:
        """Reads in the partition behind a barrier that begins now; the views that decide on clients and realms, too."""
        looking = self._gates[place.partition].look(look, opens=opens)
        seen, _ = await asyncio.gather(looking, self._prove_others(place))
        return seen

    async def _prove_others(self, place: Place) -> None:
        # Cutoffs of clients and realms lie in the first partition; while keys change, a subject's may be in any.
        wanted = range(len(self._barriers)) if len(place.realm.keys) > 1 else range(1)
        while others := [index for index in wanted if index != place.partition]:
            with contextlib.suppress(NotReady):
                await asyncio.gather(*(self._barriers[index].prove() for index in others))
                return
            for index in others:
                await wait_usable(self._replicas[index])

    async def _find(self, place: Place, names: Sequence[Name]) -> Found:
        """A live record under one of these names. Raises SessionOver."""
        seen = await self._look(place, Look(place.realm.name, tuple(name.record for name in names)))
        return self._found(place, names, seen)

    def _found(self, place: Place, names: Sequence[Name], seen: Seen) -> Found:
        for name, sealed in zip(names, seen.records, strict=True):
            if sealed is not None:
                return self._opened(place, name, sealed, seen)
        raise over(End.UNKNOWN)

    def _opened(self, place: Place, name: Name, sealed: Sealed, seen: Seen) -> Found:
        session = self._session(place, sealed, name.handle)
        partition = self._replicas[place.partition].partition
        view, fingerprint = partition.realm(place.realm.name).view, int.from_bytes(name.fingerprint, "little")
        return Found(
            name=name,
            stamp=sealed.stamp,
            session=session,
            now_ms=seen.now_ms,
            clock=seen.clock,
            looked=seen.seq,
            log_id=partition.log_id,
            applied=partition.seq,
            cutoffs=self._cutoffs(place, session, seen.now_ms),
            denied=view.denied(Kind.SESSION, name.key_tag, fingerprint, seen.now_ms / 1000),
        )

    def _session(self, place: Place, sealed: Sealed, handle: bytes) -> Session:
        """What is in a record. Raises SessionOver if that is over, or not readable with the keys that we have."""
        if sealed.ended:
            raise over(_ENDS.get(sealed.ended, End.UNKNOWN))
        try:
            session = place.keys.open(sealed, handle)
        except NotOurs:
            audit.warning("session_not_readable", realm=place.realm.name, session=handle_text(handle))
            raise over(End.UNKNOWN) from None
        self._learn(place, session)
        return capped(session, place.realm.settings.absolute_timeout_s * 1000)

    def _learn(self, place: Place, session: Session) -> None:
        known = self._issuers.setdefault(place.realm.name, {None})
        if len(known) < _MOST_ISSUERS:
            known.add(session.issuer)

    def _issuers_met(self, realm: str, issuer: str | None) -> list[str | None]:
        """Whose sessions are meant: those of this issuer; or of none, and of all whose sessions passed by here."""
        return [issuer] if issuer is not None else sorted(self._issuers.get(realm, {None}), key=lambda met: met or "")

    def _require_theirs(self, session: Session, owner: Owner) -> None:
        """If the owner is said. Raises SessionOver, as if there were no such session."""
        theirs = session.subject == owner.subject and owner.issuer in (None, session.issuer)
        if owner.subject and not theirs:
            raise over(End.UNKNOWN)

    def _lives(self, place: Place, now_ms: int, sealed: Sealed, handle: bytes) -> Session | None:
        """The session in a record, if it is still one."""
        try:
            session = self._session(place, sealed, handle)
        except SessionOver:
            return None
        return session if ended(session, now_ms, self._cutoffs(place, session, now_ms)) is None else None

    def _cutoffs(self, place: Place, session: Session, now_ms: int) -> Versions:
        return self._revocations.cutoffs(place.realm, session.issuer, session.subject, session.client_id, now_ms)

    # -- deciding -----------------------------------------------------------------------------------------------

    async def _decide(self, place: Place, names: Sequence[Name], command: Command) -> tuple[Found, Commit]:
        """The session and what the command makes of it. Raises SessionOver."""
        before = b""
        while True:
            found = await self._find(place, names)
            outcome = decide(found.session, command, found.now_ms, found.cutoffs)
            if found.denied:
                outcome = Refusal(End.LOGOUT)
            if isinstance(outcome, Commit):
                return found, outcome
            # After the look, the view may have learned of a cutoff that was made to spare this very session, or of an
            # end that the record explains. A look that began later and shows the same record settles it.
            by_view = found.denied or outcome.end in _BY_CUTOFF
            if not by_view or found.applied == found.looked or found.stamp == before:
                raise over(outcome.end)
            before = found.stamp

    def _watched(self, place: Place, session: Session) -> bytes:
        """The fingerprints whose later rows change the decision about a session."""
        names = [
            (kind, issuer, value)
            for kind, value in ((Kind.SUBJECT, session.subject), (Kind.CLIENT, session.client_id), (Kind.REALM, ""))
            for issuer in {session.issuer if kind is not Kind.REALM else None, None}
        ]
        keys = place.realm.keys
        return b"".join(key.fingerprint(*name).to_bytes(8, "little") for key in keys for name in names)

    def _record(self, place: Place, name: Name, session: Session) -> Put:
        """The record, sealed. It stays a little longer than the session, to say how that ended."""
        self._learn(place, session)
        stamp, body = place.keys.seal(session, name)
        return Put(body, stamp, session.due_ms + place.realm.settings.margin_s * 1000, session.due_ms)

    def _entry(self, place: Place, name: Name, session: Session) -> bytes:
        client = place.keys.client(session.client_id, name.kid)
        return Entry(session.opened_ms, client, name.key_tag, name.fingerprint, session.life_s, name.handle).pack()

    def _index(self, place: Place, name: Name, session: Session) -> tuple[str, ...]:
        return (place.keys.index(name.kid, session.issuer, session.subject),)

    def _finish(self, place: Place, fingerprint: bytes, last_token_s: int, why: End) -> Finish:
        """The row that ends a session, until the last of its access tokens has expired."""
        expires_at = last_token_s + place.realm.slack_s
        return Finish(DENIAL.pack(int.from_bytes(fingerprint, "little"), expires_at), why)

    def _finish_session(self, place: Place, found: Found, why: End) -> Finish:
        return self._finish(place, found.name.fingerprint, last_token_s(found.session, found.now_ms), why)

    def _audit(self, place: Place, log_id: str, record: AuditRecord | None) -> bytes:
        """An entry for the audit, if the step that it goes with revokes something."""
        return self._auditor.seal(place.partition, log_id, place.realm.name, [record])

    def _audited(self, place: Place, stepped: Stepped) -> str:
        """Where the audit tells of a step, for its log line."""
        return points_text([(place.partition, stepped.audit)] if stepped.audit else [])

    # -- answering ----------------------------------------------------------------------------------------------

    def _settings(self, place: Place) -> SessionSettings:
        return of_realm(place.realm.settings)

    def _positions(self, place: Place) -> tuple[Position, ...]:
        """Where this replica's own view stands, in which the change is."""
        positions = [NOWHERE] * len(self._replicas)
        replica = self._replicas[place.partition]
        positions[place.partition] = replica.partition.realm(place.realm.name).position
        return tuple(positions)

    def _grant(
        self,
        place: Place,
        sid: str,
        session: Session,
        now_ms: int,
        *,
        life_s: int,
        rows: bytes = b"",
        generation: int = 0,
    ) -> Grant:
        """A grant at the store's time `now_ms`, for the newest generation if none is named."""
        generation = generation or session.generation
        kid = session.kid if place.keys.knows(session.kid) else place.keys.current_kid
        token = make_token(sid, generation, kid, place.realm.name, place.keys.signing_key(kid), session.secret)
        return Grant(
            sid=sid,
            refresh_token=token,
            subject=session.subject,
            issuer=session.issuer,
            client_id=session.client_id,
            versions=session.versions,
            issued_at=now_ms // 1000,
            expires_at=token_expiry_s(session, now_ms, life_s),
            session_expires_at=session.ends_ms // 1000,
            generation=generation,
            rows=rows,
            positions=self._positions(place),
        )

    def _tell(self, event: str, place: Place, handle: bytes, owner: Owner | Session, **facts: object) -> None:
        """One line of the audit; of whom it is about, fingerprints only (I7)."""
        if not event:
            return
        self._count(event)
        subject = place.realm.keys[0].fingerprint(Kind.SUBJECT, owner.issuer, owner.subject)
        level = audit.warning if event in _ALARMS else audit.debug if event in _EVERYDAY else audit.info
        level(event, realm=place.realm.name, session=handle_text(handle), subject_fp=f"{subject:016x}", **facts)


_EVERYDAY = frozenset(("session_refreshed",))
_ALARMS = frozenset(("refresh_reused", "refresh_forged", "store_rolled_back"))


def over(end: End, reason: str | None = None) -> SessionOver:
    """The error of a session that is over."""
    return SessionOver(_TEXTS.get(end, f"the session has ended ({end})"), why=end, reason=reason)


_TEXTS = {
    End.UNKNOWN: "there is no such session, or not any more",
    End.REUSE: "an older refresh token was replayed; the session was ended everywhere",
}
