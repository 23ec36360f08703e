"""Questions between replicas through the store: sealed, bounded, and silent towards strangers."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from revocation.errors import Overloaded
from revocation.fanout.asks import MOST_QUESTIONS, QUESTIONS, Asks, Body, Question, Sealer, Tell
from revocation.keys.keyring import Keyring, new_secret
from revocation.store import StoreUnavailable
from revocation.store.memory import MemoryStore

SECRET = new_secret()
LIMIT_S = 20.0


def sealer(secret: str = SECRET) -> Sealer:
    return Sealer(Keyring.parse(secret))


@asynccontextmanager
async def talking(store: MemoryStore, *names: str, secret: str = SECRET) -> AsyncIterator[list[Asks]]:
    replicas = [Asks(name, store, sealer(secret)) for name in names]
    tasks = [asyncio.create_task(replica.run()) for replica in replicas]
    try:
        for replica in replicas:
            await replica.reading.wait()
        yield replicas
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def a_store() -> MemoryStore:
    return MemoryStore(lambda: 1_000_000)


async def twice(body: Body, deadline: float, tell: Tell) -> None:
    await tell({"echo": body["word"], "number": 1})
    await tell({"echo": body["word"], "number": 2})


async def test_everybody_is_asked_the_asker_too_and_each_may_answer_more_than_once() -> None:
    async with talking(a_store(), "a", "b", "c") as replicas:
        for replica in replicas:
            replica.register("echo", twice)
        async with asyncio.timeout(LIMIT_S), replicas[0].ask("echo", {"word": "x"}, LIMIT_S) as question:
            answers = [await question.answers.get() for _ in range(6)]
        assert sorted((who, body["number"]) for who, body in answers) == [
            (name, number) for name in "abc" for number in (1, 2)
        ]
        assert {body["echo"] for _, body in answers} == {"x"}


async def test_who_asks_no_longer_ends_the_answering() -> None:
    ended = asyncio.Event()

    async def long(body: Body, deadline: float, tell: Tell) -> None:
        await tell({})
        try:
            await asyncio.sleep(LIMIT_S)
        finally:
            ended.set()

    async with talking(a_store(), "a", "b") as (one, other):
        other.register("long", long)
        async with asyncio.timeout(LIMIT_S):
            async with one.ask("long", {}, LIMIT_S) as question:
                await question.answers.get()
            await ended.wait()


async def test_a_stranger_with_access_to_the_store_is_neither_heard_nor_understood() -> None:
    store = a_store()
    heard: list[Body] = []
    arrived = asyncio.Event()

    def hear(body: Body) -> None:
        heard.append(body)
        arrived.set()

    async with talking(store, "a") as (one,), talking(store, "stranger", secret=new_secret()) as (stranger,):
        one.listen("told", hear)
        stranger.listen("told", lambda body: pytest.fail("it could read"))
        await stranger._tell("told", {"lie": True})
        for garbage in (b"", b"k1:", b"k1:" + bytes(40), b"\xff\xfe"):
            await store.post(QUESTIONS, garbage, 10, 1_000)
        # What was sealed for one box is nothing in another.
        await store.post(QUESTIONS, sealer().seal({"do": "told", "body": {"replayed": True}}, "answers:a"), 10, 1_000)
        await one._tell("told", {"truth": True})
        async with asyncio.timeout(LIMIT_S):
            await arrived.wait()
    assert heard == [{"truth": True}]


async def test_what_an_answerer_raises_ends_nothing_else() -> None:
    async def broken(body: Body, deadline: float, tell: Tell) -> None:
        raise RuntimeError("planted")

    async with talking(a_store(), "a") as (one,):
        one.register("broken", broken)
        one.register("echo", twice)
        async with asyncio.timeout(LIMIT_S):
            async with one.ask("broken", {}, LIMIT_S):
                pass
            async with one.ask("echo", {"word": "y"}, LIMIT_S) as question:
                assert (await question.answers.get())[1]["echo"] == "y"


async def test_one_realm_leaves_places_to_ask_and_to_answer_for_another() -> None:
    """A realm has its share of the places of its replica, and of those of all that it asks (I6)."""
    answering: list[str] = []

    async def forever(body: Body, deadline: float, tell: Tell) -> None:
        answering.append(body["realm"])
        await tell({})
        await asyncio.sleep(LIMIT_S)

    async with talking(a_store(), "a", "b", "answers") as (one, other, answers), AsyncExitStack() as stack:
        answers.register("forever", forever)

        async def ask(asker: Asks, realm: str) -> Question:
            return await stack.enter_async_context(asker.ask("forever", {"realm": realm}, LIMIT_S))

        for asker in (one, other):
            for _ in range(MOST_QUESTIONS // 2):
                await ask(asker, "greedy")
            with pytest.raises(Overloaded) as refused:
                await ask(asker, "greedy")
            assert (refused.value.limit, refused.value.retry_after_ms) == ("questions", 1_000)
        async with asyncio.timeout(LIMIT_S):
            for asker in (one, other):
                await (await ask(asker, "modest")).answers.get()
        assert Counter(answering) == {"greedy": MOST_QUESTIONS // 2, "modest": 2}


async def test_a_question_that_is_over_gives_its_places_back() -> None:
    async def at_once(body: Body, deadline: float, tell: Tell) -> None:
        await tell({})

    async with talking(a_store(), "a") as (one,), asyncio.timeout(LIMIT_S):
        one.register("at once", at_once)
        for _ in range(2 * MOST_QUESTIONS):
            async with one.ask("at once", {"realm": "r"}, LIMIT_S) as question:
                await question.answers.get()


async def test_it_goes_on_with_a_store_that_went_away_and_forgot_everything() -> None:
    now = [1_000_000]
    store = MemoryStore(lambda: now[0])
    async with talking(store, "a") as (one,):
        one.register("echo", twice)
        async with asyncio.timeout(LIMIT_S), one.ask("echo", {"word": "before"}, LIMIT_S) as question:
            await question.answers.get()
        store.up = False
        with pytest.raises(StoreUnavailable):
            async with one.ask("echo", {"word": "lost"}, LIMIT_S):
                pass
        store.wipe("another")
        store.up, now[0] = True, now[0] + 5_000
        async with asyncio.timeout(LIMIT_S), one.ask("echo", {"word": "z"}, LIMIT_S) as question:
            assert (await question.answers.get())[1]["echo"] == "z"


async def test_notes_are_sealed_for_their_place() -> None:
    store = a_store()
    one = Asks("a", store, sealer())
    await one.put_note("n", "a", {"x": 1})
    await store.put_note("n", "b", (await store.notes("n"))["a"])  # copied by somebody
    assert await one.notes("n") == {"a": {"x": 1}, "b": {}}
    await one.put_note("n", "a", None)
    assert set(await one.notes("n")) == {"b"}
