"""Random concurrent histories of a few sessions on a real store and two replicas, judged afterwards.

Callers refresh with any token they ever got, lose answers, repeat, end, revoke; time passes; each replica signs under
another server key. What happened is judged by what the callers knew when they asked: the store alone decides the order.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from revocation.errors import Overloaded, SessionOver
from revocation.session.desk import Grant
from revocation_sdk._lattice import Kind
from tests.revocation.session_nodes import Caller, Nodes, running

CALLERS, STEPS, GRACE_S = 8, 25, 10
OLD, NEW = "k1:" + "A" * 43, "k2:" + "B" * 43


@dataclass
class Chain:
    """What all callers together know of one session."""

    sid: str
    tokens: dict[int, set[str]] = field(default_factory=dict)
    acknowledged: int = 0
    """The newest generation that anybody got."""
    over: bool = False
    """Its end was acknowledged, or its theft."""
    grants: list[Grant] = field(default_factory=list)
    ends: set[str] = field(default_factory=set)

    def learn(self, grant: Grant) -> None:
        self.tokens.setdefault(grant.generation, set()).add(grant.refresh_token)
        self.acknowledged = max(self.acknowledged, grant.generation)
        self.grants.append(grant)


class History:
    """Runs callers and judges every answer."""

    def __init__(self, nodes: Nodes, seed: int) -> None:
        self.nodes, self.chance = nodes, random.Random(seed)
        self.chains: list[Chain] = []

    async def run(self) -> None:
        for number in range(3):
            grant = await self.nodes.caller(number % 2).open()
            chain = Chain(grant.sid)
            chain.learn(grant)
            self.chains.append(chain)
        await asyncio.gather(*(self._caller(number) for number in range(CALLERS)))
        await self._judge()

    async def _caller(self, number: int) -> None:
        for _ in range(STEPS):
            caller, chain = self.nodes.caller(number % 2), self.chance.choice(self.chains)
            match self.chance.choices(("new", "old", "touch", "end", "revoke", "wait"), (60, 4, 20, 1, 1, 2))[0]:
                case "new":
                    await self._refresh(caller, chain, chain.acknowledged)
                case "old":
                    await self._refresh(caller, chain, self.chance.randint(1, chain.acknowledged))
                case "touch":
                    await self._touch(caller, chain)
                case "end":
                    await caller.end(chain.sid)
                    chain.over = True
                case "revoke":
                    doomed = list(self.chains)
                    await caller.revoke(Kind.SUBJECT, "alice")
                    for one in doomed:
                        one.over = True
                case "wait":
                    await self.nodes.advance(self.chance.choice((1, GRACE_S, 60)))

    async def _refresh(self, caller: Caller, chain: Chain, generation: int) -> None:
        known, was_over = chain.acknowledged, chain.over
        token = self.chance.choice(sorted(chain.tokens[generation])) if generation in chain.tokens else None
        if token is None:
            return
        try:
            grant = await caller.refresh(token)
        except SessionOver as error:
            chain.over = True
            chain.ends.add(error.why)
            return
        except Overloaded:
            return  # this generation was answered too often
        assert not was_over, "an ended session was refreshed"
        assert generation >= known - 1, "a replay of an older token went unnoticed"
        assert grant.generation == generation + 1
        if self.chance.random() < 0.7:  # else the answer gets lost
            chain.learn(grant)

    async def _touch(self, caller: Caller, chain: Chain) -> None:
        was_over = chain.over
        try:
            await caller.touch(chain.sid)
        except SessionOver:
            chain.over = True
            return
        assert not was_over, "an ended session was touched"

    async def _judge(self) -> None:
        for chain in self.chains:
            signed = {number: {token.split(".", 1)[1] for token in tokens} for number, tokens in chain.tokens.items()}
            assert all(len(tokens) == 1 for tokens in chain.tokens.values()), ("a fork", signed)
            if not chain.over:
                continue
            for grant in chain.grants:
                assert self.nodes.verdict(grant, 0) is not None or chain.ends <= {"idle", "absolute"}
            newest = next(iter(chain.tokens[chain.acknowledged]))
            for number in (0, 1):
                with pytest.raises(SessionOver):
                    await self.nodes.caller(number).refresh(newest)


@pytest.mark.parametrize("seed", range(6))
async def test_random_histories(redis_url: str, seed: int) -> None:
    async with running(redis_url, count=2, secrets=[f"{OLD},{NEW}", f"{NEW},{OLD}"]) as nodes:
        await History(nodes, seed).run()


async def test_what_two_honest_tabs_do_is_never_taken_for_theft(redis_url: str) -> None:
    """Each goes on only when the other has what it has: retries and lost answers, but nothing older."""
    async with running(redis_url, count=2) as nodes:
        newest = await nodes.caller().open()
        for _ in range(30):
            answers = await asyncio.gather(*(nodes.caller(n % 2).refresh(newest) for n in range(4)))
            assert len({answer.refresh_token for answer in answers}) == 1
            newest = answers[0]
            await nodes.advance(GRACE_S + 1)
        assert newest.generation == 31
