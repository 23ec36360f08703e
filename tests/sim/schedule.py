"""What happens in one run: a seed, the size of the world, and what is done to it when. Made from a seed; shrinkable."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random


@dataclass(frozen=True, slots=True)
class Action:
    """Something done to the world, or asked of it. What the numbers mean depends on the kind: see world.py."""

    at: float
    kind: str
    which: int = 0
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """One run. The seed decides all delays."""

    seed: int
    actions: tuple[Action, ...]
    nodes: int = 2
    services: int = 2
    clients: int = 1
    copies: int = 0
    """The acknowledgement level: 0 is `memory`, n is `replicated(n)`."""
    lag_s: float = 0.05
    """How far store replicas are behind, about."""
    delay_s: float = 0.01
    strike_after_s: float = 1_000.0

    def without(self, start: int, count: int) -> Schedule:
        """The same with fewer actions."""
        return replace(self, actions=self.actions[:start] + self.actions[start + count :])

    def __str__(self) -> str:
        lines = [f"Schedule(\n    seed={self.seed},\n    actions=("]
        for action in self.actions:
            lines.append(f"        Action({action.at}, {action.kind!r}, {action.which}, {action.value}),")
        rest = ", ".join(
            f"{name}={getattr(self, name)}"
            for name in ("nodes", "services", "clients", "copies", "lag_s", "delay_s", "strike_after_s")
        )
        return "\n".join([*lines, f"    ),\n    {rest},\n)"])


FAULTS = {
    "failover": 2,
    "restart": 2,
    "wipe": 1,
    "wipe_restart": 1,
    "split": 3,
    "freeze": 3,
    "crash": 2,
    "pause": 2,
    "pause_client": 1,
    "stall": 1,
    "off": 2,
    "slow": 1,
    "slow_reads": 2,
    "slow_scripts": 2,
    "slow_commits": 3,
    "flap": 2,
    "wipe_late": 1,
    "lose": 4,
    "cut": 2,
    "hold": 1,
    "jam": 1,
    "late": 1,
    "leave": 1,
    "trim": 1,
    "retarget": 2,
    "fail_apply": 1,
    "skew_node": 1,
    "skew_service": 1,
    "skew_client": 1,
}
"""Kinds of faults and how often they are chosen."""

_BEGIN_S = 0.3
"""By then the first heartbeats are over and clients are connected."""


def make(seed: int, focus: tuple[str, ...] = (), replicated: bool = False) -> Schedule:
    """A schedule from a number; with `focus` of these faults only. Most are short, some are long."""
    random = Random(seed)
    kinds_of = dict.fromkeys(focus, 1) if focus else FAULTS
    length = random.choice((0.8, 1.2, 1.6, 2.4))
    kinds = random.choices(list(kinds_of), list(kinds_of.values()), k=random.choice((1, 2, 2, 2, 3, 3, 4, 6)))
    faults = [
        Action(_at(random, length), kind, random.randrange(4), round(random.uniform(0.05, 1.6), 3)) for kind in kinds
    ]
    asked = [
        Action(_near(random, faults, length), kind, random.randrange(8))
        for kind, counts in ASKED.items()
        for _ in range(random.choice(counts))
    ]
    nodes = random.choice((2, 3) if replicated else (1, 2, 2, 3))
    return Schedule(
        seed,
        tuple(sorted(faults + asked, key=lambda action: action.at)),
        nodes=nodes,
        services=random.choice((2, 2, 3)),
        clients=random.choice((1, 1, 1, 2)),
        copies=nodes - 1 if replicated else random.choice((0, 0, nodes - 1)),
        lag_s=random.choice((0.02, 0.2, 1.0)),
        delay_s=random.choice((0.005, 0.02, 0.1)),
    )


ASKED = {"revoke": (3, 4, 5, 8), "cutoff": (1, 2, 2, 4), "prove": (1, 2, 3, 6)}
"""What is asked of the service, and how often in a schedule."""


def _at(random: Random, length: float) -> float:
    return round(random.uniform(_BEGIN_S, _BEGIN_S + length), 3)


def _near(random: Random, faults: list[Action], length: float) -> float:
    """Most is asked while something goes wrong."""
    if random.random() < 0.4:
        return _at(random, length)
    return round(max(_BEGIN_S, random.choice(faults).at + random.uniform(-0.3, 0.8)), 3)
