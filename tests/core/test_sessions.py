"""The session machine under random histories: clients, thieves, lost answers, a store that rolls back.

The store commits one step at a time by compare-and-set, so a history is a sequence. What interleaving does to it, the
tests of the service show on a real store.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from revocation.session.machine import (
    NO_END_MS,
    TOUCH_MS,
    Commit,
    Device,
    End,
    Keep,
    Look,
    Open,
    Policy,
    Refresh,
    Refusal,
    Session,
    Touch,
    Write,
    capped,
    decide,
    ended,
    last_token_s,
    may_refresh,
    token_expiry_s,
)
from revocation_sdk._judge import Versions

T0 = 1_800_000_000_000
POLICY = Policy(absolute_ms=3_600_000, idle_ms=600_000, grace_ms=10_000)
NONE: Versions = (0, 0, 0)


def opened(policy: Policy = POLICY, now: int = T0, versions: Versions = NONE) -> Session:
    command = Open("iss", "alice", "web", Device("phone"), policy, 600, "k1", b"open", b"secret")
    outcome = decide(None, command, now, versions)
    assert isinstance(outcome, Commit)
    return outcome.session


def step(session: Session, command: Refresh | Touch | Look | Keep, now: int, cutoffs: Versions = NONE) -> Commit:
    outcome = decide(session, command, now, cutoffs)
    assert isinstance(outcome, Commit), outcome
    return outcome


def refresh(generation: int, attempt: bytes = b"") -> Refresh:
    return Refresh(generation, "k1", attempt or b"attempt%d" % generation)


def test_a_refresh_moves_one_generation_on() -> None:
    commit = step(opened(), refresh(1), T0 + 5)
    assert commit.write is Write.PUT
    assert (commit.session.generation, commit.session.issued_ms, commit.session.seen_ms) == (2, T0 + 5, T0 + 5)


@pytest.mark.parametrize(("after", "write"), [(0, Write.COUNT), (9_999, Write.COUNT), (10_000, Write.END)])
def test_the_grace_window_counts_from_the_first_issue(after: int, write: Write) -> None:
    rotated = step(opened(), refresh(1), T0).session
    again = step(rotated, refresh(1, b"other"), T0 + after)
    assert again.write is write
    assert again.session.generation == 2


def test_retries_do_not_stretch_the_window() -> None:
    session = step(opened(), refresh(1), T0).session
    for after in range(1_000, 10_000, 1_000):
        session = step(session, refresh(1, b"again"), T0 + after).session
    assert step(session, refresh(1, b"again"), T0 + 10_000).write is Write.END


def test_a_repeated_answer_holds_until_the_window_ends() -> None:
    """The committing script looks at its own clock again."""
    rotated = step(opened(), refresh(1), T0).session
    assert step(rotated, refresh(1, b"other"), T0 + 1).until_ms == T0 + 10_000


def test_an_older_generation_is_theft_even_inside_the_window() -> None:
    session = step(step(opened(), refresh(1), T0).session, refresh(2), T0 + 1).session
    assert step(session, refresh(1, b"thief"), T0 + 2).write is Write.END


def test_no_grace_means_that_every_repetition_is_theft() -> None:
    session = step(opened(replace(POLICY, grace_ms=0)), refresh(1), T0).session
    assert step(session, refresh(1, b"other"), T0).write is Write.END


def test_a_call_that_repeats_itself_is_no_theft_even_without_grace() -> None:
    """The store's reply got lost, and the service looks again."""
    session = step(opened(replace(POLICY, grace_ms=0)), refresh(1, b"mine"), T0).session
    again = step(session, refresh(1, b"mine"), T0 + 60_000)
    assert (again.write, again.session.generation) == (Write.COUNT, 2)


def test_a_generation_above_the_record_moves_it_forward() -> None:
    commit = step(opened(), refresh(8), T0 + 1)
    assert (commit.write, commit.session.generation, commit.event) == (Write.PUT, 9, "store_rolled_back")


def test_where_a_rotation_was_lost_a_replay_passes_and_is_found_out_when_both_go_on() -> None:
    """Nobody remembers that the token had been exchanged. Whoever uses it gets the successor that is known already."""
    lost, fallen_back = step(opened(), refresh(1), T0).session, opened()
    thief = step(fallen_back, refresh(1, b"thief"), T0 + 60_000)
    assert (thief.write, thief.session.generation) == (Write.PUT, lost.generation)
    owner = step(thief.session, refresh(lost.generation, b"owner"), T0 + 120_000)
    assert (owner.write, owner.session.generation) == (Write.PUT, lost.generation + 1)
    assert step(owner.session, refresh(thief.session.generation, b"thief"), T0 + 180_000).write is Write.END
    passed_on = step(fallen_back, refresh(lost.generation), T0 + 1).session
    assert step(passed_on, refresh(1, b"thief"), T0 + 2).write is Write.END, "once the owner came, it is theft again"


@pytest.mark.parametrize(
    ("now", "cutoffs", "end"),
    [
        (T0 + 600_000, NONE, End.IDLE),
        (T0 + 3_600_000, NONE, End.ABSOLUTE),
        (T0, (1, 0, 0), End.SUBJECT),
        (T0, (0, 1, 0), End.CLIENT),
        (T0, (0, 0, 1), End.REALM),
        (T0 + 3_600_000, (1, 1, 1), End.SUBJECT),
    ],
)
@pytest.mark.parametrize("command", [refresh(1), Touch(), Look(), Keep(9, "k1", b"")])
def test_an_ended_session_is_refused(
    command: Refresh | Touch | Look | Keep, now: int, cutoffs: Versions, end: End
) -> None:
    assert decide(opened(), command, now, cutoffs) == Refusal(end)


def test_a_session_that_is_not_there_is_unknown_and_not_stolen() -> None:
    assert decide(None, refresh(1), T0, NONE) == Refusal(End.UNKNOWN)


def test_a_session_opened_after_a_cutoff_lives() -> None:
    session = opened(versions=(5, 6, 7))
    assert ended(session, T0, (5, 6, 7)) is None
    assert ended(session, T0, (5, 6, 8)) is End.REALM


def test_the_one_that_is_kept_survives_the_cutoff_that_ends_the_others() -> None:
    kept = step(opened(), Keep(9, "k1", b"keep"), T0 + 1).session
    assert ended(kept, T0 + 1, (9, 0, 0)) is None
    assert ended(opened(), T0 + 1, (9, 0, 0)) is End.SUBJECT
    assert kept.generation == 2, "whoever else had its refresh token is found out"


def test_touches_are_written_now_and_then() -> None:
    session = opened(replace(POLICY, idle_ms=2 * 3_600_000, absolute_ms=3 * 3_600_000))
    assert step(session, Touch(), T0 + TOUCH_MS - 1).write is Write.NOTHING
    assert step(session, Touch(), T0 + TOUCH_MS).session.seen_ms == T0 + TOUCH_MS
    short = opened(replace(POLICY, idle_ms=1_000))
    assert step(short, Touch(), T0 + 99).write is Write.NOTHING
    assert step(short, Touch(), T0 + 100).write is Write.PUT


def test_a_session_without_an_idle_timeout_only_ends_absolutely() -> None:
    session = opened(replace(POLICY, idle_ms=0))
    assert session.idle_end_ms == NO_END_MS
    assert session.due_ms == T0 + POLICY.absolute_ms


def test_no_token_outlives_its_session() -> None:
    session = opened()
    assert token_expiry_s(session, T0, 300) == T0 // 1000 + 300
    assert token_expiry_s(session, T0, 86_400) == T0 // 1000 + 600, "the life at the opening is the longest"
    late = replace(session, seen_ms=T0 + 3_599_000)
    assert token_expiry_s(late, T0 + 3_599_000, 600) == T0 // 1000 + 3_600
    idle = opened(replace(POLICY, idle_ms=60_000))
    assert token_expiry_s(idle, T0, 600) == T0 // 1000 + 60


def test_a_lowered_limit_of_the_realm_holds_at_once() -> None:
    assert capped(opened(), 1_000).ends_ms == T0 + 1_000
    assert capped(opened(), 10**10).ends_ms == T0 + POLICY.absolute_ms


@pytest.mark.parametrize("absolute_ms", [1_000, 60_000, 10**10])
def test_an_end_is_remembered_for_every_token_minted_before_the_limit_was_lowered(absolute_ms: int) -> None:
    """The tokens did not become shorter with the session."""
    minted = token_expiry_s(opened(), T0 + 500, 600)
    assert last_token_s(capped(opened(), absolute_ms), T0 + 500) > minted


def test_what_a_caller_does_not_say_about_the_device_stays() -> None:
    commit = step(opened(), Refresh(1, "k1", b"", Device(address="198.51.100.7")), T0)
    assert commit.session.device == Device("phone", "198.51.100.7")


@pytest.mark.parametrize("issuer", [None, "iss", "other", ""])
@pytest.mark.parametrize("client_id", [None, "web", "app", ""])
def test_a_refresh_token_belongs_to_the_issuer_and_the_client_of_its_session(
    issuer: str | None, client_id: str | None
) -> None:
    """The session is of issuer "iss" and client "web"; who does not say who it is is not asked."""
    asked = Refresh(1, "k1", b"", issuer=issuer, client_id=client_id)
    assert may_refresh(opened(), asked) == (issuer in {None, "iss"} and client_id in {None, "web"})


class Chain(RuleBasedStateMachine):
    """Clients and thieves hold copies of refresh tokens; the machine hands out successors.

    The model says, from the tokens alone, what is a retry and what is theft.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = T0
        self.session: Session | None = None
        self.held: set[int] = set()
        self.successors: dict[int, int] = {}
        self.first_issue: dict[int, int] = {}
        self.exchanged: set[int] = set()
        self.latest = 1
        self.cutoff = 0
        self.attempts = 0
        self.snapshot: Session | None = None
        self.rolled_back = False

    @initialize(grace=st.sampled_from([0, 1_000, 10_000]), idle=st.sampled_from([0, 20_000, 600_000]))
    def open(self, grace: int, idle: int) -> None:
        self.session = opened(Policy(3_600_000, idle, grace))
        self.held, self.first_issue = {1}, {1: T0}

    @rule(ms=st.one_of(st.integers(0, 15_000), st.integers(0, 700_000)))
    def time_passes(self, ms: int) -> None:
        self.now += ms

    def _attempt(self) -> bytes:
        self.attempts += 1
        return b"%d" % self.attempts

    @precondition(lambda self: self.session is not None)
    @rule(data=st.data(), lost=st.booleans())
    def somebody_refreshes(self, data: st.DataObject, lost: bool) -> None:
        """With any token that was ever handed out. The answer may get lost; the token may be a thief's copy."""
        assert self.session is not None
        before, generation = self.session, data.draw(st.sampled_from(sorted(self.held)))
        outcome = decide(before, refresh(generation, self._attempt()), self.now, (self.cutoff, 0, 0))
        if self._over(before):
            assert isinstance(outcome, Refusal)
            self.session = None
            return
        assert isinstance(outcome, Commit)
        assert before.generation == self.latest or self.rolled_back
        if generation >= before.generation:
            assert outcome.write is Write.PUT
            self._issued(generation, outcome.session, lost)
        elif self._is_retry(generation, before):
            assert outcome.write is Write.COUNT, "false theft"
            assert outcome.session == before
            assert outcome.session.generation == self.successors[generation]
        else:
            assert outcome.write is Write.END, "a replay went unnoticed"
            self.session = None

    def _is_retry(self, generation: int, before: Session) -> bool:
        """The token before the newest, whose successor came out a moment ago and nobody used."""
        if generation + 1 != before.generation or before.generation in self.exchanged:
            return False
        return self.now < self.first_issue[before.generation] + before.policy.grace_ms

    def _issued(self, generation: int, session: Session, lost: bool) -> None:
        assert session.generation == generation + 1
        assert self.successors.setdefault(generation, session.generation) == session.generation, "a fork"
        self.session, self.latest = session, session.generation
        self.exchanged.add(generation)
        self.first_issue[session.generation] = self.now
        if not lost:
            self.held.add(session.generation)
        else:
            # Whoever asked does not know it, but the retry below gets it.
            self._retry_after_loss(generation, session)

    def _retry_after_loss(self, generation: int, session: Session) -> None:
        again = decide(session, refresh(generation, self._attempt()), self.now, (self.cutoff, 0, 0))
        assert isinstance(again, Commit)
        if session.policy.grace_ms:
            assert (again.write, again.session.generation) == (Write.COUNT, session.generation)
            self.held.add(session.generation)
        else:
            assert again.write is Write.END
            self.session = None

    @precondition(lambda self: self.session is not None)
    @rule()
    def touched(self) -> None:
        assert self.session is not None
        outcome = decide(self.session, Touch(), self.now, (self.cutoff, 0, 0))
        if self._over(self.session):
            assert isinstance(outcome, Refusal)
        else:
            assert isinstance(outcome, Commit)
            self.session = outcome.session

    @precondition(lambda self: self.session is not None)
    @rule()
    def others_are_ended(self) -> None:
        assert self.session is not None
        outcome = decide(self.session, Keep(self.cutoff + 1, "k1", self._attempt()), self.now, (self.cutoff, 0, 0))
        if isinstance(outcome, Commit):
            self.cutoff += 1
            self._issued(self.session.generation, outcome.session, lost=False)

    @precondition(lambda self: self.session is not None and not self._over(self.session))
    @rule()
    def the_subject_is_revoked(self) -> None:
        self.cutoff += 1

    @precondition(lambda self: self.session is not None)
    @rule()
    def remember(self) -> None:
        self.snapshot = self.session

    @precondition(lambda self: self.session is not None and self.snapshot is not None)
    @rule()
    def the_store_rolls_back(self) -> None:
        """It forgets rotations; cutoffs are healed."""
        assert self.snapshot is not None
        assert self.session is not None
        if self.snapshot.versions[0] == self.session.versions[0] and self.snapshot.generation < self.session.generation:
            self.session, self.rolled_back = self.snapshot, True
            # What nobody remembers, nobody can find out; but from here on everything is as before.
            forgotten = {known for known in self.successors if known >= self.session.generation}
            self.exchanged -= forgotten
            self.successors = {a: b for a, b in self.successors.items() if a not in forgotten}
            self.first_issue[self.session.generation] = self.session.issued_ms

    def _over(self, session: Session) -> bool:
        return ended(session, self.now, (self.cutoff, 0, 0)) is not None

    @invariant()
    def one_chain(self) -> None:
        """Every generation has one successor, and the newest has none."""
        assert all(later == earlier + 1 for earlier, later in self.successors.items())
        if self.session is not None:
            assert self.session.generation not in self.successors
            assert self.rolled_back or self.session.generation >= max(self.held)

    @invariant()
    def its_end_is_fixed(self) -> None:
        if self.session is not None:
            assert self.session.ends_ms == T0 + 3_600_000
            assert last_token_s(self.session, self.now) * 1000 >= token_expiry_s(self.session, self.now, 86_400) * 1000


TestChain = Chain.TestCase
TestChain.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
