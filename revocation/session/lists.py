"""Lists of sessions: the live sessions of a subject, and one of them. Read behind a barrier; changes nothing."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace

from revocation.errors import InvalidField, SessionOver
from revocation.session.desk import Owner, Place, SessionDesk, over
from revocation.session.gate import Call, until
from revocation.session.handles import HANDLE_BYTES, handle_text, parse_handle
from revocation.session.keys import Name
from revocation.session.machine import End, Look, Session
from revocation.session.refresh import partition_of as partition_of_sid
from revocation.store.sessions import Entry, Seen
from revocation.store.sessions import Look as StoreLook

PAGE = 100
"""Sessions in one answer, at most and by default."""

Mark = tuple[int, bytes]
"""Where a page ends: when its last session was opened, and its handle."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A session as its owner sees it. `handle` names it without giving its sid away."""

    handle: str
    session: Session
    current: bool


class SessionLists(SessionDesk):
    """Reads."""

    async def get(self, owner: Owner, session: str, deadline: float) -> Shown:
        """One session, by its sid, or by its handle and owner. Raises SessionOver, InvalidField."""
        require_subject(owner, session)
        async with until(deadline, Call()):
            if partition_of_sid(session) is not None:
                place = self._place_of_sid(owner.realm, session)
                names = place.keys.names(session)
            else:
                place, entry, _, owner = await self._by_handle(owner, session)
                names = (named(entry),)
            found, _ = await self._decide(place, names, Look())
            self._require_theirs(found.session, owner)
            return Shown(handle_text(found.name.handle), found.session, current=False)

    async def page(
        self, owner: Owner, current: str, page_size: int, page_token: str, deadline: float
    ) -> tuple[list[Shown], str]:
        """The live sessions of a subject, newest first, and where to go on. Raises InvalidField, Unavailable."""
        self._revocations.realm(owner.realm)
        size = min(page_size or PAGE, PAGE)
        after = _parse_mark(page_token)
        own = {name.handle for name in self._keys[owner.realm].names(current)} if current else set()
        async with until(deadline, Call()):
            entries = await self._entries(owner)
            if after is not None:
                entries = [(place, entry) for place, entry in entries if _mark(entry) < after]
            page: list[Shown] = []
            while entries and len(page) < size:
                taken, entries = entries[: size - len(page)], entries[size - len(page) :]
                page += [
                    Shown(handle_text(entry.handle), session, entry.handle in own)
                    for entry, session in await self._live(taken)
                ]
                last = taken[-1][1]
            return page, _mark_text(_mark(last)) if entries else ""

    async def _entries(self, owner: Owner) -> list[tuple[Place, Entry]]:
        """All entries of a subject, newest first."""
        found = []
        issuers = self._issuers_met(owner.realm, owner.issuer)
        for place in self._places_of_subject(owner.realm, owner.subject):
            indexes = [name for issuer in issuers for name in place.keys.indexes(issuer, owner.subject)]
            seen = await self._look(place, StoreLook(place.realm.name, indexes=tuple(indexes)))
            found += [(place, entry) for entry, _ in seen.entries]
        return sorted(found, key=lambda item: _mark(item[1]), reverse=True)

    async def _live(self, entries: list[tuple[Place, Entry]]) -> list[tuple[Entry, Session]]:
        """Those whose session still lives, in the same order."""
        live: dict[bytes, Session] = {}
        for partition in {place.partition for place, _ in entries}:
            asked = [(place, entry) for place, entry in entries if place.partition == partition]
            place = asked[0][0]
            look = StoreLook(place.realm.name, records=tuple(entry.record for _, entry in asked))
            seen = await self._look(place, look)
            for (_, entry), sealed in zip(asked, seen.records, strict=True):
                session = self._lives(place, seen.now_ms, sealed, entry.handle) if sealed else None
                if session is not None:
                    live[entry.handle] = session
        return [(entry, live[entry.handle]) for _, entry in entries if entry.handle in live]

    async def _by_handle(self, owner: Owner, handle: str, op: str = "") -> tuple[Place, Entry | None, Seen, Owner]:
        """The entry of this handle among the owner's, and its issuer; or the answer of the op, if it has run before."""
        wanted = parse_handle(handle)
        for place in self._places_of_subject(owner.realm, owner.subject):
            for issuer in self._issuers_met(owner.realm, owner.issuer):
                indexes = place.keys.indexes(issuer, owner.subject)
                seen = await self._look(place, StoreLook(place.realm.name, indexes=indexes, op=op))
                entry = next((entry for entry, _ in seen.entries if entry.handle == wanted), None)
                if entry is not None or seen.op:
                    return place, entry, seen, replace(owner, issuer=issuer)
        raise over(End.UNKNOWN) if owner.issuer is not None else SessionOver(_NOT_AMONG, why=End.UNKNOWN)


def named(entry: Entry | None) -> Name:
    """The name in an entry. Raises SessionOver if there is none."""
    if entry is None:
        raise over(End.UNKNOWN)
    return Name("", entry.key_tag, entry.fingerprint, entry.handle)


def require_subject(owner: Owner, session: str) -> None:
    """A handle is looked for among the sessions of its subject. Raises InvalidField for one without."""
    if not owner.subject and parse_handle(session) is not None:
        raise InvalidField("subject", _HANDLE_ALONE)


_HANDLE_ALONE = (
    "must be given: what names the session has the form of a handle, and a handle needs its subject. If it is the sid "
    "of another issuer, revoke that session instead"
)
_NOT_AMONG = (
    "there is no such session, or not any more, among those without an issuer and those of issuers whose sessions this "
    "replica has met since its start; name its issuer (--issuer, issuer=)"
)


def _mark(entry: Entry) -> Mark:
    return entry.opened_ms, entry.handle


def _mark_text(mark: Mark) -> str:
    return base64.urlsafe_b64encode(mark[0].to_bytes(8, "big") + mark[1]).rstrip(b"=").decode()


def _parse_mark(text: str) -> Mark | None:
    if not text:
        return None
    try:
        packed = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        packed = b""
    if len(packed) != 8 + HANDLE_BYTES:
        raise InvalidField("page_token", "is not one that this service gave")
    return int.from_bytes(packed[:8], "big"), packed[8:]
