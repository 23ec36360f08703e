"""What a replica does next about the history and its members (rules H2, H3, H7, H10, H11 of the model). Pure."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, field
from enum import Enum

from revocation.store import Closed, Registry
from revocation_sdk._view import ANY_TAG


class Step(Enum):
    """The next step towards a usable history."""

    OPEN = "open"
    HEAL = "heal"
    SETTLE = "settle"
    RECONNECT = "reconnect"
    STOP = "stop"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class Timing:
    """Milliseconds by the store's clock. `detect_ms`: silence after which a member is suspected."""

    settle_ms: int = 2_000
    detect_ms: int = 3_000
    strike_after_ms: int = 30_000


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """Intervals in seconds; `copies` is what the ack level asks of WAIT."""

    member: str
    heartbeat_s: float = 0.5
    timing: Timing = field(default_factory=Timing)
    log_retention_s: float = 900.0
    longest_log: int = 1_000_000
    op_record_s: float = 900.0
    copies: int = 0
    tags: Callable[[str], Container[int]] = lambda _realm: ANY_TAG
    """Of which keys of a realm this process has the secret, by their tags."""


@dataclass(frozen=True, slots=True)
class Strike:
    """A member to take off the registry: quietly (H10), or by force (H11)."""

    member: str
    forced: bool


_STEPS = {
    Closed.REOPEN: Step.OPEN,
    Closed.HEAL: Step.HEAL,
    Closed.DEMOTED: Step.RECONNECT,
    Closed.FENCED: Step.STOP,
    Closed.CLOCK: Step.WAIT,
}


def next_step(registry: Registry, timing: Timing) -> Step:
    """What to do after having seen `registry`."""
    if registry.closed is not None:
        return _STEPS.get(registry.closed, Step.WAIT)
    if not registry.settled and registry.now_ms - registry.opened_ms >= timing.settle_ms:
        return Step.SETTLE
    return Step.WAIT


def strikes(registry: Registry, own: str, timing: Timing) -> list[Strike]:
    """Whom to strike off, as a member in good standing.

    While the history is usable a silent member's memory is not needed. While the history waits for it, striking it
    off can cost what only its memory holds; so only after a long time.
    """
    if registry.closed is not None:
        return []
    found = []
    for name, member in registry.members.items():
        silent_ms = registry.now_ms - member.beat_ms
        if name == own or silent_ms < timing.detect_ms:
            continue
        if registry.usable:
            # By force in the end, because it may be what a newcomer's activation waits for (H8).
            found.append(Strike(name, forced=silent_ms >= timing.strike_after_ms))
        elif member.log_id != registry.log_id and silent_ms >= timing.strike_after_ms:
            found.append(Strike(name, forced=True))
    return found


def waiting_for(registry: Registry) -> list[str]:
    """The members whose confirmation the history lacks."""
    return sorted(name for name, member in registry.members.items() if member.log_id != registry.log_id)


def may_vouch(registry: Registry, own: str) -> bool:
    """Whether `own` may acknowledge and answer barriers (H6, H8). The scripts check the same again."""
    member = registry.members.get(own)
    return registry.closed is None and registry.usable and member is not None and member.active
