"""One look at the lease, the view and the clock, in this order.

Any other order accepts a revoked token if the thread is suspended between two of the steps (model D11): a lease read
last vouches for an older look-up, and a clock read before the look-up hides a pause after it. Pure; the clocks come in.
"""

from __future__ import annotations

from typing import NamedTuple

from revocation_sdk._clock import Clock
from revocation_sdk._follower import Follower, Lease
from revocation_sdk._judge import Facts, Prints, Revoked, judge_prints, prints_of


class Sight(NamedTuple):
    """What was seen."""

    revoked: Revoked | None
    age_s: float | None
    """How long ago the view was known to be complete; None: not known."""
    now: float
    """The larger of both clocks, ours and the store's: what `exp` is judged by."""
    lease: Lease | None


def look(follower: Follower, clock: Clock, facts: Facts, prints: Prints | None = None) -> Sight:
    """Looks for everything that could have revoked a token. `prints`: the fingerprints, if the caller keeps them."""
    lease = follower.lease  # first the lease
    keys = follower.keys
    if prints is None or prints.keys is not keys:
        prints = prints_of(keys, facts)
    # Whether an entry is still in force is judged by the smaller clock, read too early rather than too late: both
    # keep entries longer.
    in_force = clock.wall()
    if lease is not None:
        in_force = min(in_force, lease.store_time_at_least(clock.mono()))
    revoked = judge_prints(follower.view, prints, in_force, follower.settings.margin_s)  # then the view
    mono, wall = clock.mono(), clock.wall()  # and then the clock
    if lease is None:
        return Sight(revoked, None, wall, None)
    age = lease.age(mono, wall) if clock.mono_counts_suspend else None
    return Sight(revoked, age, max(wall, lease.store_time_at_most(mono)), lease)
