"""Sessions that nobody uses any more vanish from the store by themselves: record, entry and index.

`REVOCATION_TEST_SESSIONS` says how many are opened; 100,000 if it is not set.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest
import redis
from redis.asyncio import Redis

from revocation.store import Standing
from revocation.store.redis import RedisStore
from revocation.store.redis_sessions import _arguments
from revocation.store.sessions import Entry, Put, Step
from tests.servers import until

COUNT = int(os.environ.get("REVOCATION_TEST_SESSIONS", "100000"))
SUBJECTS = max(COUNT // 10, 1)
AT_ONCE = 500
LASTS_MS = 8_000
"""Longer than the store takes for AT_ONCE of them, also on a machine that does other things."""
LOG = "0a" * 16


async def standing(store: RedisStore) -> Standing:
    """The one member of a fresh store."""
    now = time.time_ns() // 1_000_000
    await store.open_history(0, "", LOG, 0, ["a"])
    incarnation = await store.confirm(0, LOG, "a", None, now, ["a"])
    assert isinstance(incarnation, int)
    who = Standing(LOG, "a", incarnation)
    for read in (0, 9):
        registry = await store.beat(0, who, "a", now, read, 0)
    assert registry.usable
    return who


def step(number: int, now: int) -> Step:
    fingerprint = number.to_bytes(8, "little")
    entry = Entry(now, b"c" * 8, 7, fingerprint, 600, number.to_bytes(16, "big"))
    put = Put(b"x" * 300, number.to_bytes(12, "big"), now + LASTS_MS + 1_000, now + LASTS_MS)
    return Step("r", 0, b"", entry.record, b"", put, entry.pack(), (f"subject-{number % SUBJECTS:026}",))


@pytest.mark.slow
@pytest.mark.timeout(1_800)
async def test_a_hundred_thousand_sessions_leave_nothing(redis_url: str) -> None:
    raw, store = Redis.from_url(redis_url), RedisStore.from_url(redis_url)
    await store.start()
    who = await standing(store)
    baseline = await raw.dbsize()
    key, sha = store._key(0, "meta"), store._shas["session"]
    most = 0
    for start in range(0, COUNT, AT_ONCE):
        now = time.time_ns() // 1_000_000
        pipeline = raw.pipeline(transaction=False)
        for number in range(start, min(start + AT_ONCE, COUNT)):
            opening = step(number, now)
            # Opened, and refreshed once.
            for one in (opening, replace(opening, expect=number.to_bytes(12, "big"))):
                flat = [part for pair in _arguments(one) for part in pair]
                head = [who.log_id, who.member, who.incarnation, now, 30_000, 600_000, 1_000_000]
                pipeline.execute_command("EVALSHA", sha, 1, key, *head, *flat)
        replies = await pipeline.execute()
        assert all(reply[0] == b"ok" for reply in replies)
        most = max(most, await raw.dbsize())
    assert most > baseline + min(COUNT, AT_ONCE)
    await raw.aclose()
    await store.close()
    with redis.Redis.from_url(redis_url) as client:
        until(lambda: client.dbsize() == baseline, "everything has expired", timeout=60)
