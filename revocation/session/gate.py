"""Looks and steps at the store, in good standing, again and again until the caller's deadline.

What was committed is acknowledged in the history in which it was committed only, and when the own view holds it (rule
H5); else it is decided anew on what the store says then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from revocation.audit.seal import Auditor
from revocation.errors import InvalidField, OutcomeUnknown, Overloaded, Unavailable
from revocation.replication.replica import Fenced, NotReady, Replica
from revocation.session.policy import wait_usable
from revocation.store import Closed, Durability, StoreUnavailable
from revocation.store.hints import FULL
from revocation.store.sessions import Again, Behind, Finish, Look, Seen, SessionStore, Step, Stepped, Turned

_RETRY = "retry, with the same op id if there is one"
_NO_ROOM = {"session_queue", *(limit for limit, _, _ in FULL.values())}
"""Limits by which an attempt is refused before it has done anything."""


@dataclass(slots=True)
class Call:
    """One call of a client. `tried`: something may have been committed that nobody has acknowledged."""

    tried: bool = False


@contextlib.contextmanager
def in_doubt(call: Call) -> Iterator[None]:
    """That nothing was done is true of the last attempt only; one before it, in another history, may have done it."""
    try:
        yield
    except (Unavailable, Overloaded) as error:
        if call.tried and (isinstance(error, Unavailable) or error.limit in _NO_ROOM):
            raise OutcomeUnknown(f"{error.message}; an attempt before may have done it: {_RETRY}") from None
        raise


@contextlib.asynccontextmanager
async def until(deadline: float, call: Call) -> AsyncIterator[None]:
    """Ends the body at `deadline` (event-loop time), and turns what the store does not answer into a ServiceError."""
    try:
        with in_doubt(call):
            async with asyncio.timeout_at(deadline):
                yield
    except (TimeoutError, NotReady):
        if call.tried:
            raise OutcomeUnknown(
                "the store did not answer in time; retry, with the same op id if there is one"
            ) from None
        raise Unavailable("the store is not usable at the moment") from None
    except StoreUnavailable:
        if call.tried:
            raise OutcomeUnknown(f"the store went away; {_RETRY}") from None
        raise Unavailable("the store cannot be reached", reason="STORE_UNAVAILABLE") from None


def refuse_if_full(reply: Closed) -> None:
    """Raises Overloaded if the store refused because it is full."""
    if reply in FULL:
        limit, text, _ = FULL[reply]
        raise Overloaded(text, retry_after_ms=1_000, limit=limit)


AT_ONCE = 32
"""Calls to the store about sessions at the same time: each takes a connection, and heartbeats must find one, too."""

MOST_WAITING = 20_000


class Turnstile:
    """Lets a few through at a time; the others wait in line, up to a bound."""

    def __init__(self, at_once: int = AT_ONCE, most_waiting: int = MOST_WAITING) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._room = most_waiting

    async def __aenter__(self) -> None:
        if self._room == 0:
            text = "too many calls about sessions are waiting for the store"
            raise Overloaded(text, retry_after_ms=200, limit="session_queue")
        self._room -= 1
        try:
            await self._free.acquire()
        finally:
            self._room += 1

    async def __aexit__(self, *_: object) -> None:
        self._free.release()


class SessionGate:
    """The sessions of one partition.

    `ends` is the durability of steps that revoke something, `lives` of those that only open or refresh. A look vouches
    like a barrier, and waits as one does.
    """

    def __init__(
        self,
        replica: Replica,
        store: SessionStore,
        turnstile: Turnstile,
        ends: Durability,
        lives: Durability,
        auditor: Auditor,
    ) -> None:
        self.replica = replica
        self._store = store
        self._auditor = auditor
        self._turnstile = turnstile
        self._ends = ends
        self._lives = lives
        self._waits = Durability(replicas=ends.replicas)

    async def look(self, look: Look, *, opens: bool = False) -> Seen:
        """What the store holds, once the own view holds all that was committed before. Raises StoreUnavailable.

        If the op id of `look` has run before, who asks again is answered by that; so it must be where it should be, as
        for the first answer (`opens`: as an opening that ends nobody). Else raises OutcomeUnknown.
        """
        level = self._lives if opens else self._ends
        seen = await self._look(look, self._waits)
        if not seen.op or not (level.fsync or level.replicas > self._waits.replicas):
            return seen
        try:
            return await self._look(look, level)
        except StoreUnavailable:
            raise OutcomeUnknown(f"the store went away; {_RETRY}") from None

    async def _look(self, look: Look, wanted: Durability) -> Seen:
        while True:
            with contextlib.suppress(NotReady, Fenced):
                async with self._turnstile:
                    who = self.replica.standing()
                    seen = await self._store.look_sessions(
                        self.replica.index, who, self.replica.clock.wall_ms(), look, wanted
                    )
                if isinstance(seen, Seen) and wanted is not self._waits:
                    self._require_copies(seen, wanted)  # some look went before: who may have to hear "unknown" hears it
                if isinstance(seen, Seen) and seen.copies >= wanted.replicas:
                    await self.replica.applied(who.log_id, seen.seq)
                    return seen
                self.replica.doubt()
            await wait_usable(self.replica)

    async def step(self, call: Call, log_id: str, step: Step) -> Stepped | Again | Turned:
        """Commits a step that was decided in the history `log_id`.

        Turned.CHANGED also if it must be decided anew for another reason. Raises StoreUnavailable or ServiceError.
        """
        try:
            async with self._turnstile:
                who = self.replica.standing()
                if who.log_id != log_id:
                    return Turned.CHANGED
                before, call.tried = call.tried, True
                reply = await self._store.step_session(
                    self.replica.index, who, self.replica.clock.wall_ms(), step, self._durability(step)
                )
            if isinstance(reply, Stepped):
                self._auditor.note(self.replica.index, log_id, step.realm, reply.audit)
            match reply:
                case Stepped() | Again():
                    await self.replica.applied(log_id, reply.seq)
                    self._require_copies(reply, self._durability(step))
                    return reply
                case Behind():
                    call.tried = before
                    await self.replica.applied(log_id, reply.seq)
                    return Turned.CHANGED
                case Turned():
                    call.tried = before
                    return self._turned(reply)
                case Closed():
                    call.tried = before
                    await self._closed(reply)
        except (NotReady, Fenced):
            await wait_usable(self.replica)
        return Turned.CHANGED

    def _durability(self, step: Step) -> Durability:
        revokes = isinstance(step.action, Finish) or step.cutoff or (step.limits and step.limits.evict)
        return self._ends if revokes else self._lives

    def _require_copies(self, reply: Stepped | Again | Seen, wanted: Durability) -> None:
        if reply.copies < max(wanted.replicas, int(wanted.fsync)):
            raise OutcomeUnknown(f"the copies asked for were not reached; {_RETRY}")

    def _turned(self, reply: Turned) -> Turned:
        if reply is Turned.CONFLICT:
            raise InvalidField("op_id", "was used before, with another content", reason="OP_ID_REUSED")
        return Turned.CHANGED if reply is Turned.LATE else reply

    async def _closed(self, reply: Closed) -> None:
        refuse_if_full(reply)
        self.replica.doubt()
        await wait_usable(self.replica)
