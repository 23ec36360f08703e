"""What must hold, and whether it did. Knows all that nobody in the world may know: true time, and every copy.

I1: whoever says "complete as of t" holds all that was acknowledged before t. So neither a client that calls itself
    fresh nor a replica that proves it ever lacks anything; and that is checked at each lease and each proof, not only
    when somebody asks about a token.
I2: what was acknowledged survives as long as one copy does. It is excused once there is a moment at which neither
    the primary nor the memory of any living replica holds it; at level `replicated` only if a wipe is behind that.
I4: a view holds nothing that nobody asked for; each new cutoff is above every version given out before it was asked.
Op ids: an acknowledged operation has one answer for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from revocation_sdk._lattice import CUTOFF, DENIAL, FIRST_CUTOFF_KIND, Kind, parse_groups
from revocation_sdk._view import View


@dataclass(slots=True)
class Fact:
    """Something that was acknowledged."""

    kind: Kind
    tag: int
    fp: int
    version: int
    at: float
    """True time of the acknowledgement."""
    by: str
    lost: bool = False
    """No copy is left: neither I1 nor I2 can be asked for."""
    hidden: bool = False
    """Nobody who could ask knows of the copies that are left: I1 cannot be asked for, I2 in the end can."""

    def __str__(self) -> str:
        what = f"{self.kind.name.lower()} {self.fp:016x} (version {self.version})"
        return f"{what} acknowledged by {self.by} at {self.at:.3f}"


def holds(view: View, fact: Fact) -> bool:
    entry = view.cutoff(fact.kind, fact.tag, fact.fp, 0)
    return entry is not None and entry.version >= fact.version


@dataclass(slots=True)
class Witness:
    """How much of the acknowledged somebody was already found to hold. Views only grow."""

    seen: int = 0


@dataclass
class Oracle:
    """The judge of one run."""

    now: Callable[[], float]
    views: Callable[[], Iterable[View]]
    """Memories of the replicas that live."""
    stored: Callable[[], View]
    """What the primary holds."""
    excuses: bool = True
    """Whether a fact that has no copy left is excused. At level `replicated` only after a wipe."""
    tag: int = 0
    """Of the key under which everything is asked for."""
    facts: list[Fact] = field(default_factory=list)
    asked: set[tuple[int, int]] = field(default_factory=set)
    answers: dict[str, tuple[int, int]] = field(default_factory=dict)
    highest: int = 0
    excused: int = 0
    apart: bool = False
    """Somebody who lives is outside of a history that is used, and nobody inside can know (docs/guarantees.md, what is
    not survived): I1 cannot be asked for, the rest can."""
    checked: int = 0
    violations: list[str] = field(default_factory=list)

    def fail(self, text: str) -> None:
        """An invariant is broken."""
        if len(self.violations) < 20:
            self.violations.append(f"{self.now():.3f} {text}")

    def ask(self, kind: Kind, fp: int) -> int:
        """Somebody is about to ask for this; returns the highest version given out until now."""
        self.asked.add((kind, fp))
        return self.highest

    def acknowledge(self, op: str, floor: int, fact: Fact, short: str = "") -> None:
        """The service has said that it is done. `short`: what it lacks that the level promises."""
        if short:
            self.fail(f"level: {fact}, {short}")
        known = self.answers.setdefault(op, (fact.version, fact.fp))
        if known != (fact.version, fact.fp) and not self._was_lost(known[0]):
            self.fail(f"op-id: {op} was answered with version {known[0]}, then with {fact.version}")
        if known[0] and known[0] <= floor:
            self.fail(f"versions: {known[0]} is not above {floor}, which was given out before")
        self.answers[op] = (fact.version, fact.fp)
        self.highest = max(self.highest, fact.version)
        self.facts.append(fact)

    def _was_lost(self, version: int) -> bool:
        return any((fact.lost or fact.hidden) and fact.version == version for fact in self.facts)

    def copies_vanished(self) -> None:
        """A node or a memory is gone: what has no copy any more is excused."""
        if not self.excuses:
            return
        pending = [fact for fact in self.facts if not fact.lost]
        for view in (*self.views(), self.stored()) if pending else ():
            pending = [fact for fact in pending if not holds(view, fact)]
        for fact in pending:
            fact.lost = True
            self.excused += 1

    def hide(self, found: Iterable[View]) -> None:
        """What none of these views holds is out of everybody's reach for a while."""
        pending = [fact for fact in self.facts if not fact.lost and not fact.hidden]
        for view in (*found, self.stored()) if pending else ():
            pending = [fact for fact in pending if not holds(view, fact)]
        for fact in pending:
            fact.hidden = True
            self.excused += 1

    def handed_over(self, who: str, view: View, others: Iterable[View]) -> None:
        """Somebody leaves, and his memory with him."""
        pending = [fact for fact in self.facts if not fact.lost and not fact.hidden and holds(view, fact)]
        for other in others if pending else ():
            pending = [fact for fact in pending if not holds(other, fact)]
        for fact in pending:
            self.fail(f"I2: {who} leaves, and no other replica holds {fact}")

    def complete(self, who: str, view: View, witness: Witness, as_of: float) -> None:
        """Somebody says that this view is complete as of `as_of`."""
        self.checked += 1
        while witness.seen < len(self.facts):
            fact = self.facts[witness.seen]
            if fact.at >= as_of:
                break
            if not self.apart and not fact.lost and not fact.hidden and not holds(view, fact):
                self.fail(f"I1: {who} is complete as of {as_of:.3f} and lacks {fact}")
            witness.seen += 1

    def survived(self, where: str, view: View, until: float) -> None:
        """At the end everybody holds everything that was acknowledged before `until`."""
        for fact in self.facts:
            if fact.at < until and not fact.lost and not holds(view, fact):
                self.fail(f"I2: {where} lacks {fact}")

    def exact(self, who: str, view: View) -> None:
        """Nothing is in a view that nobody asked for."""
        found = sum(view.cutoff(Kind(kind), self.tag, fp, 0) is not None for kind, fp in self.asked)
        if found == len(view):
            return
        for chunk in view.chunks():
            for group in parse_groups(chunk):
                row = DENIAL if group.kind < FIRST_CUTOFF_KIND else CUTOFF
                for fields in row.iter_unpack(group.rows):
                    if (group.kind, fields[0]) not in self.asked:
                        self.fail(f"I4: {who} refuses {fields[0]:016x}, which nobody revoked")
