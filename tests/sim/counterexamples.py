"""For each planted mistake the schedule that shows it, found by the search and shrunk; some are made by hand.

They are the counterexamples of the models (H1-H13, D1-D11) as the simulator plays them: harmless to the product, and
with the mistake planted they break what is written beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.sim.schedule import Action, Schedule


@dataclass(frozen=True, slots=True)
class Counterexample:
    """A schedule, and what it breaks when the mistake is planted."""

    breaks: str
    schedule: Schedule


def _case(breaks: str, actions: str, **world: Any) -> Counterexample:
    """`actions` are "at kind which value", with a comma between them."""
    return Counterexample(breaks, Schedule(0, tuple(map(_action, actions.split(", "))), **world))


def _action(text: str) -> Action:
    at, kind, *numbers = text.split()
    which, value = [*numbers, "0", "0"][:2]
    return Action(float(at), kind, int(which), float(value))


COUNTEREXAMPLES = {
    "gate_by_history": _case(
        "level",
        "0.803 revoke, 1.345 cutoff 1, 1.52 cutoff 2, 1.611 cutoff 7, 1.623 failover 2 0.125, 2.064 revoke 1",
        nodes=3,
        services=3,
        clients=2,
        lag_s=1.0,
        delay_s=0.1,
    ),
    "put_first": _case(
        "I1",
        "0.865 prove 4, 0.949 revoke 3, 0.959 wipe_restart 2 0.99, 1.148 cutoff, 1.177 prove 4, "
        "1.234 revoke 1, 1.466 slow 3 0.093, 1.487 revoke 3, 1.807 revoke 2, 1.858 revoke, "
        "1.962 slow 0 1.224, 2.253 revoke 1, 2.523 wipe_restart 2 0.205, 2.561 revoke, 2.601 revoke 2",
        nodes=3,
        clients=2,
        copies=2,
        lag_s=0.02,
        delay_s=0.02,
    ),
    "ack_unfenced": _case(
        "level",
        "0.413 slow_reads 0 1.435, 0.671 cutoff 3",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "ack_while_healing": _case(
        "level",
        "0.413 slow_reads 0 1.435, 0.671 cutoff 3",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "ack_unread": _case(
        "level",
        "1.379 revoke 7",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "ack_from_memory": _case(
        "level",
        "0.456 revoke 4, 0.522 late 1 0.103, 0.692 split 0 0.437, 0.737 revoke, 0.738 revoke 7, "
        "0.95 cutoff, 0.988 late 2 0.641, 1.062 late 2 0.119",
        nodes=3,
        copies=2,
        lag_s=0.2,
        delay_s=0.005,
    ),
    "commit_unusable": _case(
        "I1",
        "0.822 split 2 0.183, 1.079 late 0 1.364, 1.349 cutoff 2, 1.722 revoke 4",
        nodes=3,
        lag_s=0.02,
        delay_s=0.02,
    ),
    "no_registry": _case(
        "I1",
        "0.326 slow_scripts 0 0.262, 0.417 revoke 3, 0.464 split 0 0.233, 0.474 revoke, 0.646 cutoff 5",
        services=3,
        lag_s=0.2,
        delay_s=0.005,
    ),
    "no_settle": _case(
        "I1",
        "0.608 cutoff 1, 0.683 wipe_late 3 0.689, 1.134 prove 5",
        nodes=3,
        copies=2,
        lag_s=0.2,
        delay_s=0.005,
    ),
    "settled_if_known": _case(
        "I1",
        "0.888 revoke 7, 0.906 wipe_late 1 1.572, 0.916 wipe_late 3 0.579, 1.302 prove 4",
        services=3,
        lag_s=0.2,
        delay_s=0.005,
    ),
    "confirm_alone": _case(
        "I1",
        "0.5 slow_reads, 0.55 revoke 1, 0.65 pause 1 0.6, 0.7 wipe_late, 1.56 prove 2",
        nodes=1,
        delay_s=0.02,
    ),
    "join_at_once": _case(
        "I1",
        "2.2 split 0 0.364, 2.327 late 1 0.624, 2.412 revoke 7, 2.511 late 2 0.617, 3.255 revoke",
        nodes=3,
        services=3,
        lag_s=0.02,
        delay_s=0.1,
    ),
    "readmit": _case(
        "I1",
        "0.859 freeze 2 0.448, 0.883 prove 2, 1.229 pause 3 1.277, 1.246 prove 2, 1.257 revoke, "
        "1.886 freeze 1 0.063, 2.43 cutoff 1, 2.431 prove 1, 2.497 prove 2, 2.584 split 3 1.241, "
        "2.62 freeze 0 0.981, 2.652 freeze 3 0.073, 2.669 revoke 1, 2.812 revoke 4, 2.874 prove 4, "
        "2.896 prove 4, 3.343 revoke 6",
        lag_s=0.2,
        delay_s=0.005,
    ),
    "leave_first": _case(
        "I2",
        "0.5 slow_reads 1 3, 0.55 slow_reads 1 3, 0.9 revoke, 0.95 revoke, 1 leave",
        lag_s=0.02,
        delay_s=0.02,
    ),
    "retry_writes_nothing": _case(
        "level",
        "0.303 cutoff, 0.463 revoke 3, 0.645 cutoff 2, 0.647 revoke 4, 1.542 freeze 1 1.056, "
        "1.571 prove 5, 1.575 revoke 2, 1.587 cutoff 3, 1.688 revoke 6, 1.741 slow 0 0.626, "
        "1.766 prove 5, 1.776 freeze 0 1.353, 2.129 cutoff 2",
        nodes=3,
        services=3,
        copies=2,
        lag_s=1.0,
        delay_s=0.1,
    ),
    "wait_for_connected": _case(
        "level",
        "0.5 split 0 1.2, 0.7 revoke, 0.8 revoke 1, 0.9 revoke 2, 1.1 revoke",
        copies=1,
    ),
    "back_to_the_old": _case(
        "unique",
        "0.453 flap 3 0.115, 1.12 slow_scripts 1 1.035",
        services=3,
        clients=2,
        lag_s=1.0,
        delay_s=0.005,
    ),
    "heal_the_suspect": _case(
        "I3",
        "0.413 failover 0 1.435, 0.839 skew_node 3 1.273, 1.468 prove 7",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "no_ops": _case(
        "op-id",
        "0.428 lose 2 0.919, 0.527 revoke 5, 0.653 cutoff 7, 0.828 cutoff 7, 1.59 revoke",
        nodes=3,
        services=3,
        clients=2,
        lag_s=1.0,
        delay_s=0.005,
    ),
    "learned_unstreamed": _case(
        "I1",
        "0.982 revoke 2, 1.001 cutoff, 1.116 trim 0 1.486, 1.903 revoke 2",
        services=3,
        copies=1,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "resume_at_the_end": _case(
        "gapless",
        "0.393 failover 1 0.108, 0.491 cutoff 3",
        lag_s=1.0,
        delay_s=0.1,
    ),
    "place_by_number": _case(
        "resumable",
        "0.393 failover 1 0.108",
        lag_s=1.0,
        delay_s=0.1,
    ),
    "lease_from_arrival": _case(
        "I1",
        "0.79 prove 7, 1.051 hold 0 0.989, 1.161 revoke 7, 1.333 revoke 3, 1.391 pause_client 3 0.452, "
        "1.449 revoke, 1.459 prove 6, 1.525 cutoff 7, 1.611 cutoff 6, 1.906 revoke 1",
        clients=2,
        copies=1,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "barrier_for_latecomers": _case(
        "I1",
        "0.39 revoke 4, 0.597 slow 1 1.083, 0.674 cutoff 6, 1.15 slow 1 1.204, 1.33 revoke 2, "
        "1.519 revoke, 1.691 slow 1 0.252, 1.934 prove 7, 1.936 prove 7, 1.981 prove 4, 2.094 cutoff 1",
        lag_s=0.2,
        delay_s=0.02,
    ),
    "prove_unread": _case(
        "I1",
        "0.79 prove 7, 1.051 slow 0 0.989, 1.333 revoke 3",
        clients=2,
        copies=1,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "progress_unflushed": _case(
        "ordered",
        "0.839 jam 3 1.273, 1.132 revoke 6",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "skip_trimmed": _case(
        "I1",
        "0.326 slow 0 0.262, 0.417 revoke 3, 0.474 revoke, 0.729 off 3 0.865, 0.888 revoke 7, "
        "0.906 trim 1 1.572, 1.343 prove 4",
        services=3,
        lag_s=0.2,
        delay_s=0.005,
    ),
    "scan_first": _case(
        "op-id",
        "0.303 cutoff, 0.645 cutoff 2, 1.741 wipe 0 0.626",
        services=3,
        copies=1,
        lag_s=1.0,
        delay_s=0.1,
    ),
    "subscribe_later": _case(
        "gapless",
        "0.671 cutoff 3, 0.743 revoke 4, 0.839 cut 3 1.273",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "increment_versions": _case(
        "versions",
        "0.3 cutoff 7, 0.37 cutoff 3, 0.402 failover 1 1.307, 0.769 cutoff, 0.844 revoke 6",
        lag_s=0.2,
        delay_s=0.02,
    ),
    "forget_ops": _case(
        "op-id",
        "0.303 cutoff, 0.463 revoke 3, 0.645 cutoff 2, 0.647 revoke 4, 1.542 cut 1 1.056, "
        "1.571 prove 5, 1.575 revoke 2, 1.587 cutoff 3, 1.688 revoke 6, 1.741 cut 0 0.626, "
        "1.766 prove 5, 1.776 cut 0 1.353, 2.129 cutoff 2",
        services=3,
        copies=1,
        lag_s=1.0,
        delay_s=0.1,
    ),
    "put_back_nothing": _case(
        "I2",
        "0.83 revoke 4, 0.842 cutoff 3, 0.942 wipe 3 1.461",
        clients=2,
        lag_s=0.2,
        delay_s=0.005,
    ),
    "never_settle": _case(
        "I3",
        "0.839 wipe 3 1.273",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "blur_fingerprints": _case(
        "I4",
        "1.379 revoke 7",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "put_twice": _case(
        "unique",
        "1.379 revoke 7",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "put_in_disorder": _case(
        "ordered",
        "0.839 jam 3 1.273, 1.132 revoke 6",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "put_and_drop": _case(
        "gapless",
        "0.367 revoke 3, 0.564 revoke, 0.671 cutoff 3, 0.743 revoke 4, 0.839 cut 3 1.273, "
        "0.868 revoke 6, 1.132 revoke 6, 1.189 revoke 1",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "reset_cursor": _case(
        "resumable",
        "0.647 hold 0 0.394, 0.648 revoke 5",
        clients=2,
        copies=1,
        lag_s=0.2,
        delay_s=0.02,
    ),
    "latest_ping": _case(
        "I1",
        "0.79 prove 7, 1.051 pause_client 0 0.989, 1.161 revoke 7, 1.333 revoke 3, 1.391 stall 3 0.452, "
        "1.449 revoke, 1.459 prove 6, 1.525 cutoff 7, 1.611 cutoff 6, 1.906 revoke 1",
        clients=2,
        copies=1,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "believe_progress": _case(
        "ordered",
        "0.839 jam 3 1.273, 1.132 revoke 6",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "swallow_failed_apply": _case(
        "I1",
        "0.839 fail_apply 3 1.273, 1.132 revoke 6",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "move_before_apply": _case(
        "resumable",
        "0.839 fail_apply 3 1.273, 1.132 revoke 6",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "replace_by_snapshot": _case(
        "I1",
        "0.4 revoke, 0.657 wipe_restart 0 0.1, 0.763 slow_reads 0 2, 0.841 cut 1",
        nodes=1,
        clients=2,
        delay_s=0.005,
    ),
    "replace_by_history": _case(
        "I1",
        "1.051 lose 0 0.989, 1.333 revoke 3, 1.391 lose 3 0.452",
        clients=2,
        copies=1,
        lag_s=0.2,
        delay_s=0.1,
    ),
    "ignore_gaps": _case(
        "gapless",
        "0.671 cutoff 3, 0.743 revoke 4, 0.839 cut 3 1.273",
        services=3,
        lag_s=0.2,
        delay_s=0.1,
    ),
}
