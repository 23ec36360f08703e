"""Questions from one replica to all, and their answers, through boxes of the store.

A question goes into the box `asks`, which every replica reads, its own asker too; answers go into the box of the
replica that asked. One question may have several answers of one replica, each newer than the one before. All is
sealed with a key of the installation (AES-GCM): the store learns nothing, and nobody who can write to it is believed.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from revocation.errors import Overloaded
from revocation.fairness.places import Places
from revocation.keys.keyring import Keyring
from revocation.store import StoreUnavailable
from revocation.store.mailbox import MailStore, Post

log = structlog.get_logger("revocation.asks")

QUESTIONS = "asks"
MOST_QUESTIONS = 128
"""Questions of this replica, and of all others, that are open at the same time; realms share them."""

_KEPT = 512
_KEEP_MS = 120_000
_READ_COUNT = 64
_MOST_ANSWERS = 1_024
_BLOCK_MS = 1_000
_RETRY_S = 0.2
_NONCE_BYTES = 12

Body = Mapping[str, Any]
Tell = Callable[[Body], Awaitable[None]]
Answerer = Callable[[Body, float, Tell], Awaitable[None]]
"""Answers a question `(body, deadline in event-loop time, tell)` as often as it likes; cancelled when it is over."""


class Sealer:
    """Seals what replicas tell each other."""

    def __init__(self, keyring: Keyring) -> None:
        self._current = keyring.current_kid
        self._keys = {kid: AESGCM(keyring.mail_key(kid)) for kid in keyring.kids}

    def seal(self, what: Body, place: str) -> bytes:
        """Sealed under the current key, for this place only."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        sealed = self._keys[self._current].encrypt(nonce, json.dumps(what).encode(), place.encode())
        return self._current.encode() + b":" + nonce + sealed

    def open(self, content: bytes, place: str) -> dict[str, Any] | None:
        """What was sealed for this place; None for anything else."""
        kid, _, rest = content.partition(b":")
        key = self._keys.get(kid.decode("ascii", "replace"))
        if key is None or len(rest) < _NONCE_BYTES:
            return None
        try:
            found = json.loads(key.decrypt(rest[:_NONCE_BYTES], rest[_NONCE_BYTES:], place.encode()))
        except (InvalidTag, ValueError):
            return None
        return found if isinstance(found, dict) else None


@dataclass(slots=True)
class Question:
    """An open question of this replica: answers come as (replica, body)."""

    id: str
    answers: asyncio.Queue[tuple[str, Body]] = field(default_factory=lambda: asyncio.Queue(_MOST_ANSWERS))


class Asks:
    """One replica's part in the talk. `run` keeps it going."""

    def __init__(self, replica: str, store: MailStore, sealer: Sealer) -> None:
        self._replica = replica
        self._store = store
        self._sealer = sealer
        self._answerers: dict[str, Answerer] = {}
        self._listeners: dict[str, Callable[[Body], None]] = {}
        self._telling: set[asyncio.Task[None]] = set()
        self._open: dict[str, Question] = {}
        self._answering: dict[str, asyncio.Task[None]] = {}
        self._places_to_ask, self._places_to_answer = Places(MOST_QUESTIONS), Places(MOST_QUESTIONS)
        self.reading = asyncio.Event()

    def register(self, kind: str, answerer: Answerer) -> None:
        """Who answers questions of a kind."""
        self._answerers[kind] = answerer

    def listen(self, kind: str, listener: Callable[[Body], None]) -> None:
        """Who takes what is told to all."""
        self._listeners[kind] = listener

    def tell(self, kind: str, body: Body) -> None:
        """Tells all replicas, this one too, soon and without certainty."""
        if len(self._telling) < MOST_QUESTIONS:
            task = asyncio.create_task(self._tell(kind, body), name="tell")
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def _tell(self, kind: str, body: Body) -> None:
        with suppress(StoreUnavailable):
            await self._say(QUESTIONS, "", do=kind, body=body)

    @asynccontextmanager
    async def ask(self, kind: str, body: Body, timeout_s: float) -> AsyncIterator[Question]:
        """Asks all replicas, this one too. Raises StoreUnavailable, or Overloaded at the limit of the body's realm."""
        realm = _realm(body)
        if not self._places_to_ask.take(realm):
            text = "as many calls of this realm wait for verifiers as this replica takes"
            raise Overloaded(text, retry_after_ms=1_000, limit="questions")
        question = Question(secrets.token_hex(16))
        self._open[question.id] = question
        try:
            async with asyncio.timeout(timeout_s):
                await self.reading.wait()  # or the answers could come before anybody reads them
            await self._say(QUESTIONS, question.id, do=kind, left_ms=int(timeout_s * 1000), body=body)
            yield question
        finally:
            del self._open[question.id]
            self._places_to_ask.leave(realm)
            with suppress(StoreUnavailable):
                await self._say(QUESTIONS, question.id, do="over")

    async def put_note(self, name: str, field: str, what: Body | None) -> None:
        """Writes a note, or takes it away (None). Raises StoreUnavailable."""
        value = None if what is None else self._sealer.seal(what, f"{name}/{field}")
        await self._store.put_note(name, field, value)

    async def notes(self, name: str) -> dict[str, dict[str, Any]]:
        """All notes of a name; one that cannot be read says nothing. Raises StoreUnavailable."""
        found = await self._store.notes(name)
        return {field: self._sealer.open(value, f"{name}/{field}") or {} for field, value in found.items()}

    async def run(self) -> None:
        """Reads questions and answers until cancelled."""
        boxes = (QUESTIONS, self._own)
        places: dict[str, str] = {}
        try:
            while True:
                try:
                    if not places:
                        places = await self._store.last_places(boxes)
                    self.reading.set()
                    for post in await self._store.read_boxes(places, _READ_COUNT, _BLOCK_MS):
                        places[post.box] = post.place
                        self._take(post)
                except StoreUnavailable:
                    # Perhaps it comes back as another one, whose places are others.
                    places = {}
                    self.reading.clear()
                    await asyncio.sleep(_RETRY_S)
        finally:
            for task in self._answering.values():
                task.cancel()

    @property
    def _own(self) -> str:
        return f"answers:{self._replica}"

    async def _say(self, box: str, question: str, **more: object) -> None:
        content = self._sealer.seal({"id": question, "from": self._replica, **more}, box)
        await self._store.post(box, content, _KEPT, _KEEP_MS)

    def _take(self, post: Post) -> None:
        message = self._sealer.open(post.content, post.box)
        try:
            if message is None:
                log.warning("mail_unreadable", box=post.box, hint="sealed with another secret, or by nobody of ours")
            elif post.box == self._own:
                question = self._open.get(message["id"])
                if question is not None and not question.answers.full():
                    question.answers.put_nowait((message["from"], message["body"]))
            elif message["do"] in self._listeners:
                self._listeners[message["do"]](message["body"])
            elif message["do"] == "over":
                self._over(message["id"])
            else:
                self._begin(message)
        except (KeyError, TypeError, ValueError):
            log.warning("mail_malformed", box=post.box)

    def _begin(self, message: dict[str, Any]) -> None:
        answerer = self._answerers.get(message["do"])
        realm = _realm(message["body"])
        question, box = message["id"], f"answers:{message['from']}"
        deadline = asyncio.get_running_loop().time() + min(message["left_ms"], _KEEP_MS) / 1000
        if answerer is None or not self._places_to_answer.take(realm):
            return  # the asker counts this replica as silent

        async def tell(body: Body) -> None:
            await self._say(box, question, body=body)

        task = asyncio.create_task(self._answer(answerer, message["body"], deadline, tell), name="answer")
        self._answering[question] = task
        task.add_done_callback(lambda _: self._answered(question, realm))

    def _answered(self, question: str, realm: str) -> None:
        self._answering.pop(question, None)
        self._places_to_answer.leave(realm)

    @staticmethod
    async def _answer(answerer: Answerer, body: Body, deadline: float, tell: Tell) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await answerer(body, deadline, tell)
        except (TimeoutError, StoreUnavailable):
            pass
        except Exception:
            log.exception("answer_failed")

    def _over(self, question: str) -> None:
        task = self._answering.pop(question, None)
        if task is not None:
            task.cancel()


def _realm(body: Body) -> str:
    """Whose question it is."""
    return str(body.get("realm", ""))
