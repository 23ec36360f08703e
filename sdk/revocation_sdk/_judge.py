"""The verdict: is a token with these facts revoked, as far as this view knows?

Pure: no I/O, no clock. Every target that applies is compared, with the token's issuer and with the absent one, under
every realm key; none takes precedence over another (I1). What is compared: WHAT A VERDICT COMPARES in
`proto/revocation_api/v1/revocation.proto`.

`now`, in seconds, is the *smaller* of the clocks one knows: it decides whether an entry is still in force.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from revocation_sdk._lattice import FIRST_CUTOFF_KIND, NEVER, Cutoff, Kind, RealmKey
from revocation_sdk._recent import Recent
from revocation_sdk._view import View

Versions = tuple[int, int, int]
Found = Sequence[tuple[int, Cutoff]]
"""Entries with the numbers of their kinds."""
NO_VERSIONS: Versions = (0, 0, 0)
MAX_VERSION = 2**64 - 1

_REMEMBERED = 20_000


class Facts(NamedTuple):
    """What a verdict needs to know of a token; the names of what it can be revoked by."""

    issuer: str | None = None
    token_id: str | None = None
    """`jti`; for a token without one "sha256:" and the digest of its signing input."""
    sid: str | None = None
    subject: str | None = None
    client_id: str | None = None
    versions: Versions | None = NO_VERSIONS
    """[subject, client, realm]; None for a token of a foreign issuer, which `issued_at` stands for."""
    issued_at: float | None = None
    kid: str | None = None
    """The kid under which one's own key set lists the key that verified; never the header's alone."""
    thumbprint: str | None = None
    """Of the key that verified, RFC 7638; a kid as well."""
    issuer_skew_s: float = 0.0
    more_kids: tuple[str, ...] = ()
    """Further kids of the same key, where a key set lists it twice."""


class Revoked(NamedTuple):
    """Why a token is refused. `since_ms` is 0 for tokens, sessions and keys, whose rows do not say."""

    target: Kind
    since_ms: int


class Prints:
    """The fingerprints of some facts, each worked out when a view first has a table for it.

    And what the last look at a view found for them, which holds as long as that view has not changed.
    """

    __slots__ = ("_by_table", "facts", "keys", "last")

    def __init__(self, keys: tuple[RealmKey, ...], facts: Facts) -> None:
        self.keys = keys
        self.facts = facts
        self.last: tuple[object, Found] = (None, ())
        """The generation that was looked at and what there was; one reference, so that threads see both or neither."""
        self._by_table: dict[tuple[int, int], list[int]] = {}

    def look(self, view: View) -> Found:
        """The entries of a view for these facts, in force or not."""
        generation = view.generation  # before the tables: a change meanwhile makes the next one look again
        found = [
            (place[0], entry) for place, table in view.tables().items() for entry in table.find_all(self.of(place))
        ]
        self.last = generation, found
        return found

    def of(self, place: tuple[int, int]) -> list[int]:
        """What to look up in the table of this kind and key tag."""
        prints = self._by_table.get(place)
        if prints is None:
            prints = self._by_table[place] = self._make(*place)
        return prints

    def _make(self, number: int, tag: int) -> list[int]:
        names = _NAMES.get(number)
        if names is None:  # a kind of a later version: skipped, says the contract
            return []
        kind, found = _KINDS[number], names(self.facts)
        make = _shared_fingerprint if number in _SHARED else RealmKey.fingerprint
        return [make(key, kind, issuer, value) for key in self.keys if key.tag == tag for issuer, value in found]


_prints: Recent[Facts, Prints] = Recent(_REMEMBERED)
_shared: Recent[tuple[bytes, int, str | None, str], int] = Recent(_REMEMBERED)


def judge(view: View, keys: tuple[RealmKey, ...], facts: Facts, now: float, margin_s: float) -> Revoked | None:
    """The verdict on one token. Of several reasons, the narrowest is named; any one suffices to refuse."""
    return judge_prints(view, prints_of(keys, facts), now, margin_s)


def prints_of(keys: tuple[RealmKey, ...], facts: Facts) -> Prints:
    """The fingerprints of these facts, from memory if they were seen lately under the same keys."""
    prints = _prints.get(facts)
    if prints is None or (prints.keys is not keys and prints.keys != keys):
        prints = Prints(keys, facts)
        _prints.put(facts, prints)
    return prints


def judge_prints(view: View, prints: Prints, now: float, margin_s: float) -> Revoked | None:
    """As `judge`, for somebody who keeps the fingerprints with the token."""
    generation, entries = prints.last
    if generation is not view.generation:
        entries = prints.look(view)
    found: Revoked | None = None
    for kind, entry in entries:
        if _kills(entry, kind, prints.facts, now, margin_s):
            found = _narrower(found, Revoked(_KINDS[kind], entry.at_ms))
    return found


def versions_for(
    view: View,
    keys: tuple[RealmKey, ...],
    issuer: str | None,
    subject: str | None,
    client_id: str | None,
    now: float,
) -> Versions:
    """The versions to mint into a token: the highest cutoffs in force.

    To the very end of each entry, while verdicts stop a margin earlier, so that nobody mints a version that some
    verifier still refuses.
    """
    facts = Facts(issuer=issuer, subject=subject, client_id=client_id)
    prints = prints_of(keys, facts)
    highest = [0, 0, 0]
    for place, table in view.tables().items():
        index = place[0] - FIRST_CUTOFF_KIND
        if index < 0:
            continue
        for entry in table.find_all(prints.of(place)):
            if entry.expires_at > now:
                highest[index] = max(highest[index], entry.version)
    return highest[0], highest[1], highest[2]


def versions_of(claim: object) -> Versions | None:
    """The versions that a token carries, zeros added at the end; None if the claim is not what it should be."""
    if not isinstance(claim, list | tuple) or len(claim) > 3:
        return None
    if not all(type(number) is int and 0 <= number <= MAX_VERSION for number in claim):
        return None
    padded = (*claim, 0, 0, 0)
    return padded[0], padded[1], padded[2]


def _narrower(found: Revoked | None, other: Revoked) -> Revoked:
    return other if found is None or other.target < found.target else found


def _kills(entry: Cutoff, kind: int, facts: Facts, now: float, margin_s: float) -> bool:
    if kind < FIRST_CUTOFF_KIND:
        return entry.expires_at > now or entry.expires_at == NEVER
    if entry.expires_at - margin_s <= now:  # an issuer looks until the very end: see versions_for
        return False
    if facts.versions is not None:
        return facts.versions[kind - FIRST_CUTOFF_KIND] < entry.version
    return issued_before(facts.issued_at, entry.at_ms, facts.issuer_skew_s)


def issued_before(issued_at: float | None, at_ms: int, skew_s: float) -> bool:
    """Whether a foreign token may have been issued before a cutoff.

    `iat` counts as the beginning of its second, and the cutoff as the end of its millisecond, so that a token from
    just before never slips through; one issued in the same second after it is refused too.
    """
    if issued_at is None or not math.isfinite(issued_at):
        return True
    return math.floor(issued_at * 1000) <= at_ms + math.ceil(skew_s * 1000)


Names = list[tuple[str | None, str]]


def _both_issuers(issuer: str | None, value: str | None) -> Names:
    if not value:
        return []
    return [(None, value)] if issuer is None else [(issuer, value), (None, value)]


def _key_names(facts: Facts) -> Names:
    # The thumbprint is a kid, too: the one that our issuers write unless they are given another.
    kids = dict.fromkeys(kid for kid in (facts.kid, *facts.more_kids, facts.thumbprint) if kid)
    names = [name for kid in kids for name in _both_issuers(facts.issuer, "kid:" + kid)]
    return names + ([(None, "jkt:" + facts.thumbprint)] if facts.thumbprint else [])


_NAMES: dict[int, Callable[[Facts], Names]] = {
    Kind.TOKEN: lambda facts: _both_issuers(facts.issuer, facts.token_id),
    Kind.SESSION: lambda facts: _both_issuers(facts.issuer, facts.sid),
    Kind.KEY: _key_names,
    Kind.SUBJECT: lambda facts: _both_issuers(facts.issuer, facts.subject),
    Kind.CLIENT: lambda facts: _both_issuers(facts.issuer, facts.client_id),
    Kind.REALM: lambda facts: [(None, "")],
}
"""The (issuer, value) pairs under which a token can be revoked, by kind of target."""

_KINDS: dict[int, Kind] = {int(kind): kind for kind in Kind}
_SHARED = frozenset((Kind.KEY, Kind.CLIENT, Kind.REALM))
"""Kinds whose values many tokens share: their fingerprints are remembered by themselves."""


def _shared_fingerprint(key: RealmKey, kind: Kind, issuer: str | None, value: str) -> int:
    name = (key.key, kind, issuer, value)
    known = _shared.get(name)
    if known is None:
        known = key.fingerprint(kind, issuer, value)
        _shared.put(name, known)
    return known
