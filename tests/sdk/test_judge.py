"""The verdict against a naive reference: a list of everything ever revoked, searched from end to end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from revocation_sdk._judge import (
    NO_VERSIONS,
    Facts,
    Prints,
    Revoked,
    issued_before,
    judge,
    judge_prints,
    versions_for,
    versions_of,
)
from revocation_sdk._lattice import CUTOFF, DENIAL, NEVER, Group, Kind, RealmKey, join_groups
from revocation_sdk._recent import Recent
from revocation_sdk._view import View

OLD, NEW = RealmKey(1, b"o" * 32), RealmKey(2, b"n" * 32)
KEYS = (OLD, NEW)
MARGIN = 60
NOW = 1_000_000
CUTOFF_KINDS = (Kind.SUBJECT, Kind.CLIENT, Kind.REALM)


class Entry(NamedTuple):
    kind: Kind
    key: RealmKey
    issuer: str | None
    value: str
    expires_at: int
    version: int = 0
    at_ms: int = 0

    @property
    def rows(self) -> bytes:
        fp = self.key.fingerprint(self.kind, self.issuer, self.value)
        if self.kind in CUTOFF_KINDS:
            row = CUTOFF.pack(fp, self.expires_at, self.version, self.at_ms)
        else:
            row = DENIAL.pack(fp, self.expires_at)
        return join_groups([Group(self.kind, self.key.tag, row)])


def view_of(*entries: Entry) -> View:
    view = View()
    for entry in entries:
        view.merge(entry.rows)
    return view


@dataclass
class Reference:
    """The contract, read aloud."""

    entries: list[Entry]

    def names(self, facts: Facts, kind: Kind) -> set[tuple[str | None, str]]:
        values: dict[Kind, list[str | None]] = {
            Kind.TOKEN: [facts.token_id],
            Kind.SESSION: [facts.sid],
            Kind.SUBJECT: [facts.subject],
            Kind.CLIENT: [facts.client_id],
            Kind.KEY: ["kid:" + kid for kid in (facts.kid, *facts.more_kids, facts.thumbprint) if kid],
        }
        if kind is Kind.REALM:
            return {(None, "")}
        names = {(issuer, value) for value in values[kind] if value for issuer in (facts.issuer, None)}
        if kind is Kind.KEY and facts.thumbprint:
            names.add((None, "jkt:" + facts.thumbprint))
        return names

    def revoked(self, facts: Facts, now: float) -> set[Kind]:
        found = set()
        for kind in Kind:
            names = self.names(facts, kind)
            of_target: dict[tuple[object, ...], list[Entry]] = {}
            for entry in self.entries:
                if entry.kind is kind and (entry.issuer, entry.value) in names:
                    of_target.setdefault((entry.key, entry.issuer, entry.value), []).append(entry)
            if any(self.kills(entries, facts, now) for entries in of_target.values()):
                found.add(kind)
        return found

    def kills(self, entries: list[Entry], facts: Facts, now: float) -> bool:
        expires_at = max(entry.expires_at for entry in entries)
        if entries[0].kind not in CUTOFF_KINDS:
            return expires_at > now
        if not now < expires_at - MARGIN:
            return False
        if facts.versions is None:
            at_ms = max(entry.at_ms for entry in entries)
            return facts.issued_at is None or facts.issued_at * 1000 < at_ms + 1 + facts.issuer_skew_s * 1000
        return facts.versions[CUTOFF_KINDS.index(entries[0].kind)] < max(entry.version for entry in entries)


# Few values, so that they meet. "a" occurs as every kind of value: kinds must not be mistaken for each other.
values = st.sampled_from(["a", "b", "kid:a", "jkt:a", ""])
issuers = st.sampled_from([None, "a", "issuer"])
small = st.integers(0, 3)
entries = st.builds(
    lambda kind, key, issuer, value, expires, version, at: Entry(
        kind,
        key,
        None if kind is Kind.REALM or value.startswith("jkt:") else issuer,
        "" if kind is Kind.REALM else ("kid:" + value if kind is Kind.KEY and ":" not in value else value),
        expires,
        version if kind in CUTOFF_KINDS else 0,
        at if kind in CUTOFF_KINDS else 0,
    ),
    st.sampled_from(Kind),
    st.sampled_from(KEYS),
    issuers,
    values,
    st.sampled_from([NOW - 1, NOW, NOW + 1, NOW + MARGIN, NOW + MARGIN + 1, NOW + 9999, NEVER]),
    small,
    st.integers(0, 3).map(lambda n: n * 500),
)
maybe = st.none() | values
facts = st.builds(
    Facts,
    issuer=issuers,
    token_id=maybe,
    sid=maybe,
    subject=maybe,
    client_id=maybe,
    versions=st.none() | st.tuples(small, small, small),
    issued_at=st.none() | st.integers(0, 4).map(lambda n: n / 2),
    kid=maybe,
    thumbprint=maybe,
    issuer_skew_s=st.sampled_from([0.0, 1.0]),
    more_kids=st.lists(values, max_size=2).map(tuple),
)


@settings(deadline=None)
@given(st.lists(entries, max_size=12), facts)
def test_agrees_with_the_reference(known: list[Entry], token: Facts) -> None:
    """Refused exactly if some target that applies was revoked, and the narrowest of them is named."""
    expected = Reference(known).revoked(token, NOW)
    verdict = judge(view_of(*known), KEYS, token, NOW, MARGIN)
    assert (verdict.target if verdict else None) == min(expected, default=None)


@settings(deadline=None)
@given(st.lists(entries, max_size=12), st.lists(facts, max_size=4))
def test_what_is_remembered_makes_no_difference(known: list[Entry], tokens: list[Facts]) -> None:
    """A view that grows between two looks at the same token is believed the second time."""
    view = View()
    for number, entry in enumerate([None, *known]):
        if entry is not None:
            view.merge(entry.rows)
        for token in tokens:
            expected = Reference(known[:number]).revoked(token, NOW)
            verdict = judge(view, KEYS, token, NOW, MARGIN)
            assert (verdict is not None) == bool(expected)


changes = st.one_of(
    st.tuples(st.just("merge"), entries), st.tuples(st.just("drop"), st.integers(NOW - 2, NOW + 2 * MARGIN))
)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), changes), max_size=12), st.lists(facts, min_size=1, max_size=3))
def test_a_look_that_is_remembered_equals_a_new_one(
    schedule: list[tuple[bool, tuple[str, Any]]], tokens: list[Facts]
) -> None:
    """Of two views that change and expire by turns, with the same tokens asked of both."""
    views = View(), View()
    kept = [Prints(KEYS, token) for token in tokens]
    for which, (what, value) in schedule:
        if what == "merge":
            views[which].merge(value.rows)
        else:
            views[which].drop_expired(value)
        for view in (*views, views[0]):
            for prints in kept:
                new = judge_prints(view, Prints(KEYS, prints.facts), NOW, MARGIN)
                assert judge_prints(view, prints, NOW, MARGIN) == new


def test_a_revocation_that_comes_during_a_look_is_seen_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """I1: the look began before it, so that what it found must not stand for the view after it."""
    view, prints = view_of(Entry(Kind.TOKEN, OLD, None, "other", NEVER)), Prints(KEYS, Facts(token_id="a"))
    tables = view.tables()
    before = {place: type("Before", (), {"find_all": lambda self, fps: []})() for place in tables}

    def late() -> Any:
        monkeypatch.undo()
        view.merge(Entry(Kind.TOKEN, OLD, None, "a", NEVER).rows)
        return before

    monkeypatch.setattr(view, "tables", late)
    assert judge_prints(view, prints, NOW, MARGIN) is None
    assert judge_prints(view, prints, NOW, MARGIN) == Revoked(Kind.TOKEN, 0)


@settings(deadline=None)
@given(st.lists(entries, max_size=8), issuers, maybe, maybe, st.integers(NOW - 2, NOW + 2 * MARGIN))
def test_a_minted_version_is_never_refused(
    known: list[Entry], issuer: str | None, subject: str | None, client: str | None, now: int
) -> None:
    """An issuer looks until the end of a cutoff, a verdict a margin less, so their clocks may be a margin apart."""
    cutoffs = [entry for entry in known if entry.kind in CUTOFF_KINDS]
    view = view_of(*cutoffs)
    versions = versions_for(view, KEYS, issuer, subject, client, now)
    token = Facts(issuer=issuer, subject=subject, client_id=client, versions=versions)
    assert judge(view, KEYS, token, now - MARGIN, MARGIN) is None


def test_versions_are_those_in_force() -> None:
    """Each is the highest of its own target, under whichever key and issuer."""
    view = view_of(
        Entry(Kind.SUBJECT, OLD, "issuer", "u", NOW + 100, version=5),
        Entry(Kind.SUBJECT, NEW, None, "u", NOW + 100, version=7),
        Entry(Kind.CLIENT, OLD, None, "c", NOW, version=9),
        Entry(Kind.REALM, OLD, None, "", NOW + 1, version=3),
    )
    assert versions_for(view, KEYS, "issuer", "u", "c", NOW) == (7, 0, 3)
    assert versions_for(view, KEYS, "issuer", None, None, NOW) == (0, 0, 3)


def test_a_key_is_known_by_thumbprint_and_by_every_name() -> None:
    """A thief of a key writes any `kid`; a key set may list a key twice."""
    token = Facts(issuer="issuer", kid="k1", more_kids=("k2",), thumbprint="print")
    names = (("kid:k1", "issuer"), ("kid:k2", None), ("kid:print", "issuer"), ("kid:print", None), ("jkt:print", None))
    for value, issuer in names:
        view = view_of(Entry(Kind.KEY, OLD, issuer, value, NEVER))
        assert judge(view, KEYS, token, NOW, MARGIN) == Revoked(Kind.KEY, 0)
    assert judge(view_of(Entry(Kind.KEY, OLD, "other", "kid:k1", NEVER)), KEYS, token, NOW, MARGIN) is None


def test_says_since_when() -> None:
    """The time of a cutoff is told; denials have none."""
    view = view_of(Entry(Kind.SUBJECT, OLD, None, "u", NOW + 9999, 1, 123_456))
    assert judge(view, KEYS, Facts(subject="u"), NOW, MARGIN) == Revoked(Kind.SUBJECT, 123_456)


def test_entries_under_a_key_that_came_later_count() -> None:
    """A key rotation between two looks at the same token."""
    view = view_of(Entry(Kind.TOKEN, NEW, None, "t", NOW + 9))
    token = Facts(token_id="t")
    assert judge(view, (OLD,), token, NOW, MARGIN) is None
    assert judge(view, KEYS, token, NOW, MARGIN) is not None


def test_unknown_kinds_are_skipped() -> None:
    """A newer service may send kinds that this SDK does not know."""
    view = view_of(Entry(Kind.TOKEN, OLD, None, "t", NOW + 9))
    row = DENIAL.pack(1, NOW + 9)
    view.merge(join_groups([Group(9, 1, row), Group(99, 1, CUTOFF.pack(1, NOW + 9, 1, 1))]))
    assert judge(view, KEYS, Facts(token_id="u"), NOW, MARGIN) is None


@pytest.mark.parametrize(
    ("issued_at", "at_ms", "skew", "before"),
    [
        (10, 10_000, 0, True),  # the same millisecond: may have been just before
        (10, 10_001, 0, True),
        (10, 9_999, 0, False),
        (10.5, 10_499, 0, False),
        (10.5, 10_500, 0, True),
        (11, 10_500, 0, False),
        (11, 10_500, 1, True),
        (12, 10_500, 1, False),
        (None, 0, 0, True),
        (float("nan"), 0, 0, True),
        (float("inf"), 0, 0, True),
    ],
)
def test_issued_before(issued_at: float | None, at_ms: int, skew: float, before: bool) -> None:
    assert issued_before(issued_at, at_ms, skew) is before


@pytest.mark.parametrize("claim", [[1, 2, 3, 4], [-1], [True], [1.0], ["1"], "123", {"0": 1}, 5, None, [2**64]])
def test_versions_of_nonsense(claim: object) -> None:
    assert versions_of(claim) is None


def test_versions_of_a_short_list() -> None:
    """Zeros at the end may be left out."""
    assert versions_of([]) == NO_VERSIONS
    assert versions_of([4]) == (4, 0, 0)
    assert versions_of([4, 0, 2**64 - 1]) == (4, 0, 2**64 - 1)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=200), st.integers(2, 12))
def test_recent_is_bounded_and_never_wrong(steps: list[tuple[bool, int]], limit: int) -> None:
    """It may forget, but never more than it must, and never makes anything up."""
    recent: Recent[int, str] = Recent(limit)
    order: list[int] = []
    for put, key in steps:
        value = recent.get(key)
        assert value in (None, str(key))
        if put:
            recent.put(key, str(key))
        if put or value is not None:
            order = [*(k for k in order if k != key), key]
        assert len(recent) <= 2 * max(1, limit // 2)
    for key in order[-(limit // 2) :] if limit >= 2 else []:
        assert recent.get(key) == str(key) or limit // 2 < 1
