"""Boxes and notes: the same on every store."""

from __future__ import annotations

import asyncio
from typing import cast

from revocation.store.mailbox import MailStore
from tests.store.world import World


def mail(world: World) -> MailStore:
    return cast(MailStore, world.store)


async def test_what_is_posted_is_read_once_in_order_by_everybody(world: World) -> None:
    store = mail(world)
    places = await store.last_places(["a", "b"])
    for number in range(5):
        await store.post("a", bytes([number]), 100, 60_000)
    await store.post("b", b"\x00\xff", 100, 60_000)
    for _ in range(2):  # two readers
        posts = await store.read_boxes(places, 100, 0)
        assert [post.content for post in posts if post.box == "a"] == [bytes([number]) for number in range(5)]
        assert [post.content for post in posts if post.box == "b"] == [b"\x00\xff"]
        after = {**places, **{post.box: post.place for post in posts}}
        assert await store.read_boxes(after, 100, 0) == []
    assert after == await store.last_places(["a", "b"])


async def test_a_reader_who_begins_at_the_end_sees_only_what_comes(world: World) -> None:
    store = mail(world)
    await store.post("a", b"before", 100, 60_000)
    places = await store.last_places(["a"])
    await store.post("a", b"after", 100, 60_000)
    assert [post.content for post in await store.read_boxes(places, 100, 0)] == [b"after"]


async def test_who_waits_is_woken_by_a_post(world: World) -> None:
    store = mail(world)
    places = await store.last_places(["a", "b"])
    reading = asyncio.create_task(store.read_boxes(places, 10, 2_000))
    await asyncio.sleep(0)
    await store.post("b", b"now", 100, 60_000)
    assert [(post.box, post.content) for post in await reading] == [("b", b"now")]


async def test_nothing_comes_where_nothing_is(world: World) -> None:
    assert await mail(world).read_boxes({"a": "0-0"}, 10, 10) == []


async def test_a_box_keeps_about_as_many_as_it_may(world: World) -> None:
    store = mail(world)
    for number in range(600):
        await store.post("a", str(number).encode(), 100, 60_000)
    left = [post.content for post in await store.read_boxes({"a": "0-0"}, 1_000, 0)]
    assert 100 <= len(left) < 300
    assert left[-1] == b"599"


async def test_notes_are_written_read_and_taken_away(world: World) -> None:
    store = mail(world)
    assert await store.notes("n") == {}
    await store.put_note("n", "one", b"\x001")
    await store.put_note("n", "two", b"2")
    await store.put_note("other", "one", b"3")
    await store.put_note("n", "two", b"22")
    assert await store.notes("n") == {"one": b"\x001", "two": b"22"}
    await store.put_note("n", "one", None)
    assert await store.notes("n") == {"two": b"22"}


async def test_a_store_that_forgets_everything_forgets_these_too(world: World) -> None:
    store = mail(world)
    await store.post("a", b"x", 100, 60_000)
    await store.put_note("n", "one", b"1")
    await world.lose()
    assert await store.last_places(["a"]) == {"a": "0-0"}
    assert await store.notes("n") == {}
