"""No op id runs twice, and no approval either: the store's record outlives whoever may come with them."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from revocation.app import _store
from revocation.config.settings import Config, load
from revocation.keys.keyring import Keyring, new_secret
from revocation.limits import APPROVAL_S, FUTURE_OP_ID_MS, LONGEST_CALL_S
from revocation.node import _options
from revocation.store import OpState
from tests.store.world import MemoryWorld, alone, operation, tokens

HELD_MS = int(LONGEST_CALL_S * 1000)


def configured(**flags: Any) -> Config:
    return load({"redis_url": "redis://127.0.0.1", **flags})


@pytest.mark.parametrize("retention_s", [60, 600])
@pytest.mark.parametrize("margin_s", [2, 60, 300])
async def test_an_id_from_a_fast_clock_does_not_run_twice(retention_s: int, margin_s: int) -> None:
    """It is committed at once, and comes again, held for a minute, when it is just not too old for a slow clock."""
    config = configured(op_retention_s=retention_s, realms={"default": {"margin_s": margin_s}})
    world = MemoryWorld(op_retention_ms=config.op_record_s * 1000)
    actor, apart_ms = await alone(world), margin_s * 500
    op = operation(1, tokens(world.now // 1000 + 86_400))
    made_ms = world.now + apart_ms + FUTURE_OP_ID_MS
    await actor.commit(op)
    last_ms = made_ms + retention_s * 1000 + apart_ms + HELD_MS
    await world.advance(last_ms - 1 - world.now)
    assert (await actor.commit(op)).results[0].state is OpState.AGAIN


async def test_an_approval_does_not_run_twice(tmp_path: Path) -> None:
    """Its first order is committed as soon as it is there, its second one a minute after its end."""
    roles = tmp_path / "roles.json"
    roles.touch()
    config = configured(op_retention_s=60, roles=roles, realms={"default": {"two_person": True, "margin_s": 2}})
    world = MemoryWorld(op_retention_ms=config.op_record_s * 1000)
    actor, op = await alone(world), operation(1, tokens(world.now // 1000 + 86_400))
    await actor.commit(op)
    await world.advance(APPROVAL_S * 1000 + HELD_MS)
    assert (await actor.commit(op)).results[0].state is OpState.AGAIN


@pytest.mark.parametrize("margin_s", [60, 3600])
async def test_store_and_log_keep_records_as_long_as_that(margin_s: int) -> None:
    config = configured(realms={"default": {"margin_s": margin_s}})
    async with AsyncExitStack() as stack:
        store = await _store(config, None, stack)
        assert store._op_retention_ms == config.op_record_s * 1000
    options = _options(config, Keyring.parse(new_secret()), "r", alone=False)
    assert options.log_retention_s >= max(config.op_record_s, config.log_retention_s)
