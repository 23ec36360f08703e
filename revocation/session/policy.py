"""How sessions of a realm and of one client live. The realm's settings are the default for a client, and the cap."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from dataclasses import asdict, dataclass

from revocation.audit.seal import Auditor
from revocation.callers.roles import Caller
from revocation.errors import InvalidField, Overloaded
from revocation.realms import RealmSettings
from revocation.replication.replica import NotReady, Replica
from revocation.session.keys import SessionKeys
from revocation.session.machine import Policy
from revocation.store import Closed, StoreUnavailable
from revocation.store.sessions import ClientSettings, SessionStore
from revocation_sdk._audit import Action, AuditPoint, AuditRecord
from revocation_sdk._lattice import Kind

REMEMBERED_S = 5.0
"""So long another replica may go on with older settings of a client."""

MOST_CLIENTS = 10_000
"""Clients of a realm with settings of their own."""

MOST_SESSIONS = 10_000
"""Sessions of one subject where the settings name no limit: a list stays something that one can read."""

_MOST_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Timeouts in seconds, grace in milliseconds; 0 is: no idle timeout, no grace, no limit."""

    absolute_timeout_s: int
    idle_timeout_s: int
    grace_ms: int
    max_sessions_per_subject: int
    max_sessions_per_subject_and_client: int
    evict_oldest: bool

    @property
    def policy(self) -> Policy:
        """What a session opened now takes along."""
        return Policy(self.absolute_timeout_s * 1000, self.idle_timeout_s * 1000, self.grace_ms)


def of_realm(settings: RealmSettings) -> SessionSettings:
    """What holds for clients without settings of their own."""
    return SessionSettings(
        absolute_timeout_s=settings.absolute_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
        grace_ms=settings.grace_ms,
        max_sessions_per_subject=settings.max_sessions_per_subject,
        max_sessions_per_subject_and_client=settings.max_sessions_per_subject_and_client,
        evict_oldest=settings.overflow == "evict_oldest",
    )


def capped(settings: SessionSettings, cap: SessionSettings) -> SessionSettings:
    """The settings of a client as far as its realm allows, which may have become stricter since."""
    absolute = min(settings.absolute_timeout_s, cap.absolute_timeout_s)
    return SessionSettings(
        absolute_timeout_s=absolute,
        idle_timeout_s=min(_tighter(settings.idle_timeout_s, cap.idle_timeout_s), absolute),
        grace_ms=min(settings.grace_ms, cap.grace_ms),
        max_sessions_per_subject=_tighter(settings.max_sessions_per_subject, cap.max_sessions_per_subject),
        max_sessions_per_subject_and_client=_tighter(
            settings.max_sessions_per_subject_and_client, cap.max_sessions_per_subject_and_client
        ),
        evict_oldest=settings.evict_oldest,
    )


def require_allowed(settings: SessionSettings, cap: SessionSettings) -> None:
    """Refuses settings beyond what the realm allows; nothing is clamped in silence. Raises InvalidField."""
    allowed = capped(settings, cap)
    for name, value in asdict(settings).items():
        most = getattr(allowed, name)
        if value != most:
            raise InvalidField(f"settings.{name}", f"must be within what the realm allows: at most {most}")


def _tighter(value: int, cap: int) -> int:
    """The smaller of two limits, where 0 is none."""
    return min(value or cap, cap or value)


class ClientPolicies:
    """The settings of clients, kept in the store and remembered for a few seconds."""

    def __init__(self, replica: Replica, store: SessionStore, auditor: Auditor) -> None:
        self._replica = replica
        self._auditor = auditor
        self._store = store
        self._known: dict[tuple[str, str], tuple[float, SessionSettings | None]] = {}
        self._asking = asyncio.Lock()

    async def get(self, keys: SessionKeys, cap: SessionSettings, client_id: str) -> SessionSettings:
        """What holds for sessions that the client opens now."""
        known = self._lately(keys, client_id)
        if known is None:
            async with self._asking:  # one call, however many logins wait for it
                known = self._lately(keys, client_id)
                if known is None:
                    kept = await self._ask(keys, client_id, "")
                    known = self._remember(keys, client_id, _parse(kept.text) if kept and kept.text else cap)
        return capped(known, cap)

    def _lately(self, keys: SessionKeys, client_id: str) -> SessionSettings | None:
        until, known = self._known.get((keys.realm, client_id), (0.0, None))
        return known if time.monotonic() < until else None

    async def put(
        self, keys: SessionKeys, cap: SessionSettings, client_id: str, settings: SessionSettings, caller: Caller
    ) -> AuditPoint | None:
        """Settings for sessions from now on; on other replicas a few seconds later. Returns where the audit has it.

        Raises InvalidField, Overloaded.
        """
        require_allowed(settings, cap)
        text = json.dumps(asdict(settings), separators=(",", ":"))
        record = self._auditor.record(
            Action.CLIENT_SETTINGS, None, kind=int(Kind.CLIENT), value=client_id, actor=caller.name, role=caller.role
        )
        kept = await self._ask(keys, client_id, text, record)
        if kept is None:
            text = f"{MOST_CLIENTS} clients of this realm have settings already"
            raise Overloaded(text, retry_after_ms=60_000, limit="clients")
        self._remember(keys, client_id, settings)
        return kept.audit

    async def _ask(
        self, keys: SessionKeys, client_id: str, new: str, record: AuditRecord | None = None
    ) -> ClientSettings | None:
        while True:
            with contextlib.suppress(NotReady):
                log_id = self._replica.standing().log_id
                names = keys.settings_names(client_id)
                audit = self._auditor.seal(0, log_id, keys.realm, [record])
                reply = await self._store.client_settings(log_id, keys.realm, names, new, MOST_CLIENTS, audit)
                if not isinstance(reply, Closed):
                    self._auditor.note(0, log_id, keys.realm, reply.audit if reply else None)
                    return reply
                self._replica.doubt()
            await wait_usable(self._replica)

    def _remember(self, keys: SessionKeys, client_id: str, settings: SessionSettings) -> SessionSettings:
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[keys.realm, client_id] = (time.monotonic() + REMEMBERED_S, settings)
        return settings


def _parse(text: str) -> SessionSettings:
    return SessionSettings(**json.loads(text))


async def wait_usable(replica: Replica) -> None:
    """Waits until it is worth another try. Raises StoreUnavailable if nobody answers."""
    if replica.state == "unreachable":
        raise StoreUnavailable("unreachable")
    await asyncio.sleep(0.01)
    with contextlib.suppress(NotReady):
        await replica.usable(1.0)
