"""Which losses docs/guarantees.md allows: only of what the store lost while the one who acknowledged it was killed.

Nothing else is excused: no stale accept (I1) before that, no loss by a replica that was asked to end (it hands over
what it holds), none by a fault that leaves the store's primary alone. No fault lasts long enough for a strike by force.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tests.chaos.faults import Fault

NEAR_S = 8.0
"""So long may it take until the services have left an old primary that comes back, and until another replica has read
what one of them holds."""

CALL_S = 3.0
"""An answer may be on its way for as long as the load waits for one: who gave it may be dead when it arrives."""


def lost_at(ack: str, at: float, faults: Collection[Fault], acknowledgers: Iterable[str]) -> float | None:
    """From when on what was acknowledged at `at` may be gone; None: never. `acknowledgers`: who is known to have.

    It is as if nobody had asked for it, then: accepted by fresh views, unknown to `Check`, and done anew by a retry.
    """
    kills = [fault for fault in faults if fault.kills and at - CALL_S <= fault.begun <= at + NEAR_S]
    if not kills or not {fault.what for fault in kills}.issuperset(acknowledgers):
        return None  # somebody lives who held it
    if ack.startswith("replicated"):  # on every node: only what empties all of them takes it
        gone = any(fault.store == "all" and at - CALL_S <= fault.begun <= at + NEAR_S for fault in faults)
    else:
        gone = any(fault.store and fault.begun - NEAR_S <= at <= fault.ended + NEAR_S for fault in faults)
    return min(fault.begun for fault in kills) if gone else None
