"""Which losses docs/guarantees.md allows: only of what the store lost while the one who acknowledged it was killed.

Nothing else is excused: no stale accept (I1), no loss by a replica that was asked to end (it hands over what it holds),
none by a fault that leaves the store's primary alone. No fault lasts long enough for a strike by force.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tests.chaos.faults import Fault

NEAR_S = 8.0
"""An old primary that comes back takes commits for so long, until Sentinel tells it that it is none any more. So long,
too, may it take until another replica has read what one of them holds."""

CALL_S = 3.0
"""An answer may be on its way for as long as the load waits for one: who gave it may be dead when it arrives."""


def may_be_lost(ack: str, at: float, faults: Collection[Fault], acknowledgers: Iterable[str]) -> bool:
    """Whether what was acknowledged at `at` may be lost; `acknowledgers`: who is known to have said so."""
    killed = {fault.what for fault in faults if fault.kills and at - CALL_S <= fault.begun <= at + NEAR_S}
    if not killed or not killed.issuperset(acknowledgers):
        return False  # somebody lives who held it
    if ack.startswith("replicated"):  # on every node: only what empties all of them takes it
        return any(fault.store == "all" and at - CALL_S <= fault.begun <= at + NEAR_S for fault in faults)
    return any(fault.store and fault.begun - NEAR_S <= at <= fault.ended + NEAR_S for fault in faults)
