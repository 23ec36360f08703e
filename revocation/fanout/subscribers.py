"""The verifiers of all replicas: who follows, how far they are, and waiting until they have applied something.

Every replica knows its own streams (`landing.Roster`); `asks.py` brings them together. A replica that is gone cannot be
asked, and its verifiers may be fresh for a while by what it told them. So each replica keeps a note in the store: the
longest max_staleness among its verifiers. Until that is over, a replica that has left the registry counts as silent;
and one that has come back says that it cannot know all of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from revocation.errors import InvalidField, Unavailable
from revocation.fanout.asks import Asks, Body, Question, Tell
from revocation.fanout.hub import Hub, RealmHub
from revocation.fanout.landing import (
    MOST_NAMED,
    Landing,
    Owed,
    Report,
    Roster,
    Tally,
    Verifier,
    lag,
    reached,
    renewed,
)
from revocation.rpc import stream
from revocation.service import Revocations
from revocation.store import StoreUnavailable
from revocation_sdk._position import Position, decode_positions, encode_positions

WATCHED = "watched"
_TEND_S = 1.0
_SETTLE_S = 0.005
_EACH_S = 2e-5
_TELL_EVERY_S = 0.1
_POLL_AGAIN_S = 0.5
_LOOK_S = 0.25
_GATHER_S = 0.02
_WELCOME_S = 1.0
"""So long a stream waits for the note before it is welcomed all the same; its pings then wait."""
_WRITE_S, _NOTES_S = 2.0, 3.0
"""A store that hangs is asked again, on another connection."""
_REFUSALS = frozenset(("memory", "disk", "replicas", "rights"))
"""Troubles in which the store answers, also to barriers, and takes no note."""
MOST_TRACES = 50
"""Revocations of one replica in a second whose traces are carried to the verifiers; of more, not all are."""


@dataclass(frozen=True, slots=True)
class Page:
    """A part of all subscribers, described; `next` is where the next part begins, empty at the end."""

    shown: tuple[Mapping[str, Any], ...]
    next: str
    total: int
    silent: tuple[str, ...]


class Subscribers:
    """Use cases about the verifiers of an installation, and this replica's answers to the others."""

    def __init__(
        self,
        replica: str,
        service: Revocations,
        hub: Hub,
        asks: Asks,
        present: Callable[[], set[str]],
    ) -> None:  # fmt: skip
        """`present`: the replicas that the registry lists."""
        self._replica = replica
        self._service = service
        self._hub = hub
        self._asks = asks
        self._members = present
        self._waiting: dict[str, set[asyncio.Event]] = {name: set() for name in hub.realms}
        self._traced: list[float] = []
        self._noted: dict[str, float] | None = None
        """What the note says at least, whatever becomes of a write that is under way."""
        self._refused = False
        self._next_note: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._gone: dict[str, tuple[float, dict[str, float]]] = {}
        hub.may_tell = self.known
        asks.register("applied", self._answer_applied)
        asks.register("list", self._answer_list)
        asks.listen("trace", self._on_trace)

    def _present(self) -> set[str]:
        return self._members() | {self._replica}

    # -- what watch.py tells ------------------------------------------------------------------------------------

    async def begin(self, hub: RealmHub, verifier: Verifier) -> None:
        """A stream begins. Returns when others could know what it may be owed if this replica dies, or soon."""
        hub.roster.begin(verifier)
        self.heard(hub.realm)
        if self._noted is not None and not self.known(hub.realm, verifier):
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(_WELCOME_S):
                    await self._note_together()

    def known(self, realm: str, verifier: Verifier) -> bool:
        """Whether others could know what it may be owed if this replica dies; before, no ping of it is answered.

        A store that answers and refuses to write is the exception: until it takes notes again, nobody can ask either.
        """
        if self._noted is not None and verifier.staleness_s <= self._noted.get(realm, 0.0):
            return True
        if self._noted is not None and not self._refused:
            self._note_soon()
        return self._refused

    def end(self, hub: RealmHub, verifier: Verifier) -> None:
        """A stream has ended."""
        hub.roster.end(verifier, _now())
        self.heard(hub.realm)

    def heard(self, realm: str) -> None:
        """Something about the verifiers of a realm has changed."""
        for event in self._waiting[realm]:
            event.set()

    # -- use cases ----------------------------------------------------------------------------------------------

    async def await_applied(
        self, realm: str, wanted: Sequence[Position], verifiers: int, deadline: float, until: float
    ) -> Landing:
        """Waits until `until` at most (event-loop time) for a position. Raises ServiceError."""
        self._service.realm(realm)
        while True:
            targets = renewed(wanted, await self._service.current(realm, deadline))
            if len(wanted) != len(self._hub.realms[realm].histories):
                raise InvalidField("position", "is not a position of this service")
            if targets is None:
                raise Unavailable("the position is ahead of the log", reason="POSITION_NOT_REACHED")
            landing = await self._round(realm, targets, verifiers, until)
            if landing is not None:
                return landing

    async def _round(self, realm: str, targets: tuple[Position, ...], verifiers: int, until: float) -> Landing | None:
        """One question; None if the history changed and it must be asked anew."""
        hub, tally = self._hub.realms[realm], Tally(self._present(), verifiers)
        histories = [position.log_id for position in hub.positions()]
        body = {"realm": realm, "position": encode_positions(targets)}
        try:
            async with self._asks.ask("applied", body, max(0.01, until - _now())) as question:
                while True:
                    landing = tally.landing(_now(), self._present(), self._gone_from(realm))
                    if landing.complete or _now() >= until:
                        return landing
                    if histories != [position.log_id for position in hub.positions()]:
                        return None
                    answer = await _next(question, min(until, _now() + _LOOK_S))
                    if answer is not None:
                        tally.add(answer[0], _report_from(answer[1]), _now())
        except TimeoutError:
            return tally.landing(_now(), self._present(), self._gone_from(realm))
        except StoreUnavailable:
            raise Unavailable("the store cannot be reached", reason="STORE_UNAVAILABLE") from None

    async def page(self, realm: str, after: str, size: int, until: float) -> Page:
        """A page of all subscribers of a realm. Raises ServiceError."""
        self._service.realm(realm)
        asked = self._present()
        found: dict[str, Mapping[str, Any]] = {}
        total, heard = 0, set[str]()
        try:
            body = {"realm": realm, "after": after, "size": size}
            async with self._asks.ask("list", body, max(0.01, until - _now())) as question:
                while heard < asked and (answer := await _next(question, until)) is not None:
                    replica, told = answer
                    heard.add(replica)
                    total += int(told["total"])
                    for key, shown in told["page"].items():
                        if key not in found or shown["connected"]:
                            found[key] = shown
        except TimeoutError:
            pass
        except StoreUnavailable:
            raise Unavailable("the store cannot be reached", reason="STORE_UNAVAILABLE") from None
        keys = sorted(found)[:size]
        silent = sorted((asked - heard) | set(self._gone_from(realm)))
        following = keys[-1] if len(keys) == size else ""
        return Page(tuple(found[key] for key in keys), following, total, tuple(silent))

    # -- answers ------------------------------------------------------------------------------------------------

    async def _answer_applied(self, body: Body, deadline: float, tell: Tell) -> None:
        hub = self._hub.realms.get(body["realm"])
        if hub is None:
            return  # another configuration: the asker counts us as silent
        event = asyncio.Event()
        self._waiting[hub.realm].add(event)
        try:
            await _Watch(self._replica, hub, decode_positions(body["position"]), event, tell).run(deadline)
        finally:
            self._waiting[hub.realm].discard(event)

    async def _answer_list(self, body: Body, _: float, tell: Tell) -> None:
        hub = self._hub.realms.get(body["realm"])
        if hub is None:
            return
        now, current = _now(), hub.positions()
        by_key: dict[str, Verifier] = {}
        for verifier in sorted(hub.roster.all(now), key=lambda verifier: verifier.connected):
            by_key[verifier.key.hex()] = verifier
        keys = sorted(key for key in by_key if key > body["after"])[: min(int(body["size"]), MOST_NAMED)]
        page = {key: describe(by_key[key], self._replica, current, now) for key in keys}
        await tell({"total": len(by_key), "page": page})

    # -- traces -------------------------------------------------------------------------------------------------

    def trace(self, realm: str, position: Sequence[Position], traceparent: str) -> None:
        """A revocation that was committed belongs to a trace: all verifiers are told, as far as that is cheap."""
        now = _now()
        self._traced = [at for at in self._traced if at > now - 1.0]
        if len(self._traced) < MOST_TRACES:
            self._traced.append(now)
            body = {"realm": realm, "position": encode_positions(tuple(position)), "traceparent": traceparent}
            self._asks.tell("trace", body)

    def _on_trace(self, body: Body) -> None:
        hub = self._hub.realms.get(body["realm"])
        if hub is None:
            return
        message = stream.trace(decode_positions(body["position"]), str(body["traceparent"])[:64])
        for subscriber in hub.subscribers:
            if subscriber.verifier is not None and subscriber.verifier.polled:
                subscriber.put(message)

    # -- notes --------------------------------------------------------------------------------------------------

    async def tend(self) -> None:
        """Keeps the note, and watches those of others, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_NOTES_S):
                    await self._look_at_notes()
            except TimeoutError:
                pass
            except StoreUnavailable as error:
                self._refused = error.kind in _REFUSALS
            await asyncio.sleep(_TEND_S)

    async def _look_at_notes(self) -> None:
        told = await self._asks.notes(WATCHED)
        notes = {name: {realm: float(longest) for realm, longest in note.items()} for name, note in told.items()}
        now, present, own = _now(), self._present(), notes.pop(self._replica, {})
        if self._noted is None:  # what an earlier process under this id may have left behind
            for realm, longest_s in own.items():
                if realm in self._hub.realms:
                    self._hub.realms[realm].roster.crowded_until = now + longest_s
        self._gone = {
            name: self._gone.get(name, (now, longest)) for name, longest in notes.items() if name not in present
        }
        for name, (since, longest) in list(self._gone.items()):
            if present and now > since + max(longest.values(), default=0.0):
                await self._asks.put_note(WATCHED, name, None)
        for hub in self._hub.realms.values():
            hub.roster.forget(now)
        if own != self._longest(now) or self._noted is None:
            await self._write_note()

    async def _note_together(self) -> None:
        """One write for all whose streams begin at the same moment: thousands come back at once."""
        await asyncio.shield(self._note_soon())

    def _note_soon(self) -> asyncio.Task[None]:
        if self._next_note is None:
            self._next_note = asyncio.create_task(self._write_next_note(), name="note")
            # Who waited may have gone on.
            self._next_note.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._next_note

    async def _write_next_note(self) -> None:
        await asyncio.sleep(_GATHER_S)
        async with self._writing:
            self._next_note = None  # who comes from now on is not in what is written now
            await self._write(self._longest(_now()))

    async def _write_note(self) -> None:
        async with self._writing:
            await self._write(self._longest(_now()))

    async def _write(self, wanted: dict[str, float]) -> None:
        if self._noted is not None:
            self._noted = {realm: min(longest_s, wanted.get(realm, 0.0)) for realm, longest_s in self._noted.items()}
        try:
            async with asyncio.timeout(_WRITE_S):
                await self._asks.put_note(WATCHED, self._replica, wanted or None)
        except TimeoutError:
            self._refused = False
            raise StoreUnavailable("a note could not be written in time", kind="timeout") from None
        except StoreUnavailable as error:
            self._refused = error.kind in _REFUSALS
            raise
        self._noted, self._refused = wanted, False

    def _longest(self, now: float) -> dict[str, float]:
        found = {name: _longest(hub.roster, now) for name, hub in self._hub.realms.items()}
        return {name: longest_s for name, longest_s in found.items() if longest_s}

    def _gone_from(self, realm: str) -> list[str]:
        now = _now()
        return [name for name, (since, longest) in self._gone.items() if now <= since + longest.get(realm, 0.0)]


class _Watch:
    """This replica's answer to one question: reports what changes until all of its verifiers are done."""

    def __init__(
        self, replica: str, hub: RealmHub, wanted: tuple[Position, ...], event: asyncio.Event, tell: Tell
    ) -> None:
        self._replica, self._hub, self._wanted, self._event, self._tell = replica, hub, wanted, event, tell
        self._seen: set[Verifier] = set()
        self._pending: set[Verifier] = set()
        self._done: set[bytes] = set()
        self._untold: set[bytes] | None = None
        self._told_at = _now() - _TELL_EVERY_S / 2

    async def run(self, deadline: float) -> None:
        """Until the deadline; the asker ends it earlier."""
        poll_at = 0.0
        while (now := _now()) < deadline:
            if not reached(self._hub.positions(), self._wanted):
                await asyncio.sleep(_SETTLE_S)  # our own reader is behind: nobody who follows us could know yet
                continue
            changed = self._look(now)
            if now >= poll_at:
                self._poll()
                poll_at = now + _POLL_AGAIN_S
            open_ones = any(verifier.connected for verifier in self._pending)
            if (changed or self._untold is None) and (not open_ones or now - self._told_at >= _TELL_EVERY_S):
                await self._report(now)
            await self._wait(min(poll_at, deadline))

    def _look(self, now: float) -> bool:
        """Takes in what has changed since the last look; whether there is something to tell."""
        roster = self._hub.roster
        new = {*roster.open, *roster.left.values()} - self._seen
        self._seen |= new
        self._pending |= new
        settled = [
            verifier
            for verifier in self._pending
            if reached(verifier.applied, self._wanted) or not (verifier.connected or verifier.fresh_until > now)
        ]
        self._pending.difference_update(settled)
        done = {verifier.key for verifier in settled if reached(verifier.applied, self._wanted)} - self._done
        self._done |= done
        if self._untold is not None:
            self._untold |= done
        return bool(new or settled or self._untold)

    def _poll(self) -> None:
        for subscriber in self._hub.subscribers:
            verifier = subscriber.verifier
            if verifier is not None and verifier.polled and verifier in self._pending:
                subscriber.put(stream.POLL)

    async def _report(self, now: float) -> None:
        untold = self._done if self._untold is None else self._untold
        self._untold, self._told_at = set(), now
        current = self._hub.positions()
        owed = sorted(self._pending, key=lambda verifier: verifier.connected, reverse=True)
        await self._tell(
            {
                "done": [key.hex() for key in untold],
                "owed": [
                    {
                        "key": verifier.key.hex(),
                        "left_s": None if verifier.connected else max(0.0, verifier.fresh_until - now),
                        "shown": describe(verifier, self._replica, current, now),
                    }
                    for verifier in owed[:MOST_NAMED]
                ],
                "more": max(0, len(owed) - MOST_NAMED),
                "crowded": self._hub.roster.crowded_until > now,
            }
        )

    async def _wait(self, until: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(until, _now() + _TELL_EVERY_S)):
                await self._event.wait()
        self._event.clear()
        await asyncio.sleep(_SETTLE_S + _EACH_S * len(self._pending))  # many report at the same time


def describe(verifier: Verifier, replica: str, current: Sequence[Position], now: float) -> dict[str, Any]:
    """A verifier as others are told of it."""
    return {
        "instance": verifier.instance.hex(),
        "name": verifier.name,
        "identity": verifier.identity,
        "sdk_version": verifier.sdk_version,
        "replica": replica,
        "applied": encode_positions(verifier.applied),
        "lag": lag(verifier.applied, current),
        "answered_ms_ago": -1 if verifier.answered < 0 else int((now - verifier.answered) * 1000),
        "max_staleness_ms": int(verifier.staleness_s * 1000),
        "fresh": verifier.fresh_until > now,
        "connected_ms_ago": int((now - verifier.since) * 1000),
        "connected": verifier.connected,
    }


def _report_from(told: Body) -> Report:
    owed = tuple(
        Owed(bytes.fromhex(one["key"]), float("inf") if one["left_s"] is None else one["left_s"], one["shown"])
        for one in told["owed"]
    )
    return Report(frozenset(map(bytes.fromhex, told["done"])), owed, told["more"], told["crowded"])


async def _next(question: Question, until: float) -> tuple[str, Body] | None:
    try:
        async with asyncio.timeout_at(until):
            return await question.answers.get()
    except TimeoutError:
        return None


def _longest(roster: Roster, now: float) -> float:
    left = roster.crowded_until - now
    return max(roster.longest_s(now), left if left > 0 else 0.0)


def _now() -> float:
    return asyncio.get_running_loop().time()
