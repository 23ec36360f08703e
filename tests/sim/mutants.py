"""Planted mistakes: each is a rule left out, and each must be found by the simulator.

The names of rules are those of the models (H1-H13, D1-D11). `focus` are the kinds of faults that a search for it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from revocation.commit import Committer
from revocation.fanout.hub import Hub, RealmHub, Subscriber
from revocation.replication import healing
from revocation.replication.barrier import Barrier
from revocation.replication.departures import Departures
from revocation.replication.history import RealmHistory
from revocation.replication.replica import Replica
from revocation.store.memory import MemoryStore
from revocation.store.memory_data import Data
from tests.sim import mistakes_delivery as in_delivery
from tests.sim import mistakes_healing as in_healing
from tests.sim import mistakes_store as in_store
from tests.sim.store import SimStore

Change = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake."""

    rule: str
    what: str
    changes: Callable[[], Sequence[Change]]
    focus: tuple[str, ...] = ()
    copies: bool = False
    """Shows at level `replicated` only."""


def _one(target: Any, name: str, value: Any) -> Callable[[], Sequence[Change]]:
    return lambda: [(target, name, value)]


SPLIT = ("split", "split", "slow_reads", "slow_scripts", "late", "retarget", "off")
FAILOVER = ("lose", "lose", "slow_reads", "slow_commits", "slow_scripts")
WIPE = ("wipe", "wipe_restart", "failover", "late", "slow")

MUTANTS: dict[str, Mutant] = {
    "gate_by_history": Mutant(
        "H1",
        "scripts compare the history only",
        _one(MemoryStore, "_gate", in_store.gate_by_history),
        ("split", "failover", "freeze"),
    ),
    "put_first": Mutant(
        "H2",
        "put back, then opened",
        _one(Replica, "_open", in_healing.put_first),
        ("failover", "wipe_restart", "slow"),
    ),
    "ack_unfenced": Mutant(
        "H5",
        "acknowledged as soon as the reply comes",
        _one(Committer, "_acknowledge", in_store.acknowledge_unfenced),
        FAILOVER,
    ),
    "ack_while_healing": Mutant(
        "H5",
        "the fence compares histories only",
        _one(Committer, "_acknowledge", in_store.acknowledge_while_healing),
        FAILOVER,
    ),
    "ack_unread": Mutant(
        "H5",
        "acknowledged before applied",
        _one(Committer, "_acknowledge", in_store.acknowledge_unread),
        FAILOVER,
    ),
    "ack_from_memory": Mutant(
        "H5", "acknowledged from memory", in_store.commit_from_memory, ("split", "late", "slow", "off")
    ),
    "commit_unusable": Mutant(
        "H5",
        "commits and vouches in a history that is not usable",
        in_store.commit_unusable,
        SPLIT,
    ),
    "no_registry": Mutant(
        "H6",
        "usable although members are missing",
        _one(Data, "note_usable", in_store.note_usable_without_members),
        SPLIT,
    ),
    "no_settle": Mutant("H7", "a wiped store is not given time", in_store.open_settled, ("wipe_late", "slow_scripts")),
    "settled_if_known": Mutant(
        "H7",
        "the time ends when the history is opened again",
        in_store.open_settled_if_known,
        ("wipe_late", "wipe_late", "slow_scripts", "restart", "pause"),
    ),
    "confirm_alone": Mutant(
        "H4",
        "confirms without naming the members it knows",
        in_store.confirm_alone,
        ("wipe_late", "wipe_late", "pause", "off", "wipe_restart"),
    ),
    "join_at_once": Mutant(
        "H8",
        "a newcomer is active at once",
        lambda: in_store.confirm(lambda *_: True),
        ("split", "late", "freeze"),
    ),
    "readmit": Mutant(
        "H8",
        "one that was struck off comes back as active",
        lambda: in_store.confirm(lambda listed, inc: not listed and inc is not None),
        ("split", "off", "pause", "freeze", "failover"),
    ),
    "leave_first": Mutant(
        "H9",
        "leaves before another holds what it holds",
        _one(Departures, "_leave", in_healing.leave_first),
        ("leave", "failover", "lose", "slow_reads", "slow_scripts"),
    ),
    "retry_writes_nothing": Mutant(
        "H12",
        "a retry writes nothing, so that WAIT waits for nothing",
        _one(SimStore, "retry_writes", False),
        ("failover", "crash", "slow", "freeze"),
        True,
    ),
    "wait_for_connected": Mutant(
        "H12", "WAIT for those who are connected", in_store.wait_for_connected, ("split", "crash", "freeze"), True
    ),
    "back_to_the_old": Mutant(
        "H2",
        "goes back into a history that it has left",
        _one(Replica, "_is_past", in_healing.never),
        ("flap", "flap", "slow_scripts"),
    ),
    "heal_the_suspect": Mutant(
        "H1",
        "heals a history that is to be opened anew",
        in_store.heal_before_suspect,
        ("skew_node", "failover", "split"),
    ),
    "no_ops": Mutant("H3", "op ids are not put back", in_healing.propose_without_ops, FAILOVER),
    "learned_unstreamed": Mutant(
        "H13",
        "what a merge taught is not streamed",
        in_healing.adopt_without_streaming,
        ("failover", "wipe_restart", "split", "freeze", "trim"),
    ),
    "resume_at_the_end": Mutant(
        "H13",
        "an unknown history resumes",
        in_delivery.resume_at_the_end,
        ("failover", "cut", "crash", "restart"),
    ),
    "place_by_number": Mutant(
        "H13",
        "the number is looked up without its history",
        _one(RealmHistory, "_place", in_delivery.place_by_number),
        ("failover", "cut", "crash", "freeze"),
    ),
    "lease_from_arrival": Mutant(
        "D1", "fresh as of the arrival of the answer", in_delivery.lease_from_arrival, ("hold", "pause_client")
    ),
    "barrier_for_latecomers": Mutant(
        "D2",
        "a barrier covers pings that came after it began",
        _one(Hub, "_answer", in_delivery.answer_latecomers),
        ("slow",),
    ),
    "prove_unread": Mutant(
        "D3",
        "proof before the tail is reached",
        _one(Barrier, "_once", in_delivery.prove_unread),
        ("slow", "freeze"),
    ),
    "progress_unflushed": Mutant(
        "D4", "progress overtakes changes", _one(RealmHub, "progress", in_delivery.progress_unflushed), ("jam", "cut")
    ),
    "skip_trimmed": Mutant(
        "D7", "a trimmed range is skipped", in_healing.apply_over_gaps, ("trim", "slow", "off", "pause", "trim")
    ),
    "scan_first": Mutant(
        "D8",
        "scanned, then noted the tail",
        _one(healing, "_merge_all", in_healing.scan_first),
        ("late", "crash", "wipe", "trim"),
    ),
    "subscribe_later": Mutant(
        "D9", "subscribed after the snapshot was taken", in_delivery.subscribe_later, ("cut", "cut", "crash")
    ),
    "increment_versions": Mutant(
        "versions", "INCR instead of the clock", in_store.increment_versions, ("lose", "wipe_restart", "failover")
    ),
    "forget_ops": Mutant("op ids", "a retry runs again", in_store.forget_ops, ("slow_commits", "cut")),
    "put_back_nothing": Mutant(
        "H3",
        "nothing is put back into a store that lost something",
        _one(healing, "_propose", in_healing.put_back_nothing),
        ("wipe", "wipe_restart", "lose"),
    ),
    "never_settle": Mutant("I3", "a history never settles", in_store.never_settle, ("wipe", "wipe_restart")),
    "blur_fingerprints": Mutant("I4", "a view refuses more than was revoked", in_store.blur_fingerprints, ("cut",)),
    "put_twice": Mutant("unique", "a message is sent twice", in_delivery.put_twice, ("cut",)),
    "put_in_disorder": Mutant(
        "ordered",
        "messages overtake each other",
        _one(Subscriber, "put", in_delivery.put_in_disorder),
        ("jam", "hold", "pause"),
    ),
    "put_and_drop": Mutant("gapless", "a full queue drops a message", in_delivery.put_and_drop, ("cut",)),
    "reset_cursor": Mutant(
        "resumable",
        "on a new stream both go on from wherever the server is",
        in_delivery.reset_cursor,
        ("cut", "hold", "crash"),
    ),
    "latest_ping": Mutant(
        "D1",
        "an answer counts for the latest ping",
        in_delivery.latest_ping,
        ("hold", "pause_client", "stall", "slow_scripts"),
    ),
    "believe_progress": Mutant(
        "D4",
        "progress overtakes changes, and the client does not compare",
        in_delivery.believe_progress,
        ("jam", "jam", "cut"),
    ),
    "swallow_failed_apply": Mutant(
        "D5", "a failed apply is forgotten", in_delivery.swallow_failed_apply, ("fail_apply", "fail_apply", "cut")
    ),
    "move_before_apply": Mutant(
        "D5",
        "the cursor has moved when the apply fails",
        in_delivery.move_before_apply,
        ("fail_apply", "fail_apply", "cut"),
    ),
    "replace_by_snapshot": Mutant(
        "D6",
        "a snapshot replaces the view, and the lease goes on",
        in_delivery.replace_by_snapshot,
        ("wipe", "wipe_restart", "trim", "crash", "slow_reads"),
    ),
    "replace_by_history": Mutant(
        "D10",
        "a new history replaces the view by what it brings",
        in_delivery.replace_by_history,
        ("failover", "lose", "wipe_restart"),
    ),
    "ignore_gaps": Mutant(
        "D9",
        "subscribed late, and the client does not compare where a change begins",
        in_delivery.ignore_gaps,
        ("cut", "cut", "crash"),
    ),
}


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """The mistake of this name, while it lasts."""
    with ExitStack() as stack:
        for target, attribute, value in MUTANTS[name].changes() if name else ():
            stack.enter_context(patch.object(target, attribute, value))
        yield
