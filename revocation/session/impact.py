"""What a revocation would end, counted before anybody orders it: "48,213 sessions of 16,020 users".

A cutoff ends sessions without going through them, so that only counting has to. It goes through the indexes in small
scripts, opens every record, and asks the same question as a refresh would: does this session live, and would the
revocation end it? After COUNT_S, or a little before the caller's deadline, it stops, and says "at least".
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from revocation.errors import InvalidField, Unavailable
from revocation.limits import COUNT_S, GUARD_COUNT_S
from revocation.model import Target
from revocation.session.desk import Place, SessionDesk
from revocation.session.gate import Call, until
from revocation.session.machine import Session
from revocation.store import Closed
from revocation.store.rails import IndexPart
from revocation.store.sessions import Look
from revocation_sdk._lattice import Kind

T = TypeVar("T")
COUNTED = (Kind.SUBJECT, Kind.CLIENT, Kind.KEY, Kind.REALM)
"""The kinds of targets that may end more than one session."""

_NAMES_AT_ONCE = 500
_ENTRIES_AT_ONCE = 250
"""Entries of one script, which takes about as long as a commit."""


@dataclass(frozen=True, slots=True)
class Impact:
    """What would end. Not `exact`: at least so many, or with `at_most` at most so many.

    `finished`: not stopped by the time. So is also the count of a subject whose issuer nobody named, under those that
    this replica has met; there it says "at least" all the same.
    """

    sessions: int
    subjects: int
    exact: bool
    at_most: bool = False
    finished: bool = True


@dataclass(slots=True)
class _Count:
    hits: Callable[[Session], bool]
    clients: bytes = b""
    sessions: int = 0
    subjects: set[tuple[str | None, str]] = field(default_factory=set)
    finished: bool = False
    everywhere: bool = True


class SessionCounts(SessionDesk):
    """Counts sessions."""

    async def impact(self, realm_name: str, target: Target, deadline: float, *, quick: bool = False) -> Impact:
        """What revoking `target` would end now. Raises InvalidField, Unavailable.

        `quick`, for the guard, which waits for nobody's dry run: a subject costs one look. Named without an issuer it
        is looked for under those that this replica has met, if it has met any; so there are at least so many.
        """
        if target.kind not in COUNTED:
            raise InvalidField("dry_run", "is for a subject, a client, a key or the whole realm")
        count = self._begin(realm_name, target)
        async with until(deadline, Call()):
            await self._revocations.prove(deadline)
            if quick:
                await self._within(GUARD_COUNT_S, deadline, self._count_quickly(realm_name, target, count))
            elif target.kind is Kind.SUBJECT and target.issuer is not None:
                await self._within(COUNT_S, deadline, self._count_subject(realm_name, target, count))
            else:
                async with self._dry_runs.turn(realm_name):
                    await self._within(COUNT_S, deadline, self._count_all(realm_name, target, count))
        return _impact(target, count)

    async def ran_before(self, realm_name: str, partition: int, op: str, deadline: float) -> bool:
        """Whether an operation has been committed: then its retry gets its answer, whatever the guards think now."""
        async with until(deadline, Call()):
            return bool((await self._gates[partition].look(Look(realm_name, op=op))).op)

    def _begin(self, realm_name: str, target: Target) -> _Count:
        match target.kind:
            case Kind.SUBJECT:
                return _Count(lambda session: session.subject == target.value and _of(target.issuer, session))
            case Kind.CLIENT:
                clients = self._keys[realm_name].clients(target.value)
                return _Count(
                    lambda session: session.client_id == target.value and _of(target.issuer, session), clients
                )
            case _:
                return _Count(lambda session: True)

    async def _within(self, most_s: float, deadline: float, counting: Coroutine[None, None, None]) -> None:
        """Counts for so long at most, and a little less than the caller waits."""
        now = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(now + most_s, now + 0.9 * (deadline - now))):
                await counting

    async def _count_quickly(self, realm_name: str, target: Target, count: _Count) -> None:
        if target.kind is Kind.SUBJECT and self._issuers_met(realm_name, target.issuer) != [None]:
            await self._count_subject(realm_name, target, count)
        else:
            async with self._guards[realm_name]:
                await self._count_all(realm_name, target, count)

    async def _count_all(self, realm_name: str, target: Target, count: _Count) -> None:
        if target.kind is Kind.SUBJECT:
            places = self._places_of_subject(realm_name, target.value)
        else:
            realm = self._revocations.realm(realm_name)
            places = [Place(realm, self._keys[realm_name], index) for index in range(len(self._replicas))]
        for place in places:
            await self._count_place(place, count)
        count.finished = True

    async def _count_subject(self, realm_name: str, target: Target, count: _Count) -> None:
        issuers = self._issuers_met(realm_name, target.issuer)
        for place in self._places_of_subject(realm_name, target.value):
            names = [name for issuer in issuers for name in place.keys.indexes(issuer, target.value)]
            await self._count_indexes(place, names, count)
        count.finished, count.everywhere = True, target.issuer is not None

    async def _count_place(self, place: Place, count: _Count) -> None:
        cursor, seen = 0, set[str]()
        while True:
            found = await self._store.index_names(
                place.partition, self._log_id(place), place.realm.name, cursor, _NAMES_AT_ONCE
            )
            cursor, names = self._usable(place, found)
            fresh = [name for name in names if name not in seen]
            seen.update(fresh)
            await self._count_indexes(place, fresh, count)
            if not cursor:
                return

    async def _count_indexes(self, place: Place, names: Sequence[str], count: _Count) -> None:
        wanted = [(name, 0) for name in names]
        while wanted:
            asked = wanted[:_ENTRIES_AT_ONCE]
            found = await self._store.index_entries(
                place.partition, self._log_id(place), place.realm.name, asked, count.clients, _ENTRIES_AT_ONCE
            )
            now_ms, parts = self._usable(place, found)
            # Beside the event loop: the views may be read while they change, and what is counted is a moment anyway.
            await asyncio.to_thread(self._count_parts, place, now_ms, parts, count)
            left, unfinished = _ENTRIES_AT_ONCE, []
            for (name, offset), part in zip(asked, parts, strict=True):
                if part.count == left:  # also if nothing was left to go through
                    unfinished.append((name, offset + part.count))
                left -= part.count
            wanted = unfinished + wanted[_ENTRIES_AT_ONCE:]

    def _count_parts(self, place: Place, now_ms: int, parts: Sequence[IndexPart], count: _Count) -> None:
        for entry, sealed in (pair for part in parts for pair in part.live):
            session = self._lives(place, now_ms, sealed, entry.handle)
            if session is not None and count.hits(session):
                count.sessions += 1
                count.subjects.add((session.issuer, session.subject))

    def _log_id(self, place: Place) -> str:
        return self._replicas[place.partition].standing().log_id

    def _usable(self, place: Place, found: T | Closed) -> T:
        if isinstance(found, Closed):
            self._replicas[place.partition].doubt()
            raise Unavailable("the history of the store has changed while counting; ask again")
        return found


def _of(issuer: str | None, session: Session) -> bool:
    return issuer is None or session.issuer == issuer


def _impact(target: Target, count: _Count) -> Impact:
    sessions, subjects, finished = count.sessions, len(count.subjects), count.finished
    if target.kind is Kind.KEY:
        return Impact(sessions, subjects, exact=False, at_most=finished, finished=finished)
    return Impact(sessions, subjects, exact=finished and count.everywhere, finished=finished)
