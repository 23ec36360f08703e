"""What applications do with sessions, case by case: the fake and the service must answer alike.

`test_testing.py` runs these cases on the fake, `e2e/test_test_kit.py` on a real service.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from revocation_sdk import InvalidRequest, RevocationClient, SessionEnded, TokenIssuer, TokenRevoked, Verifier
from tests.sdk.forge import AUDIENCE, EC, ISSUER


@dataclass(frozen=True)
class Desk:
    """A client that is fresh, and names that no other case uses."""

    client: RevocationClient
    subject: str
    other: str
    max_staleness: float = 15.0

    @property
    def issuer(self) -> TokenIssuer:
        return TokenIssuer(self.client, key=EC, algorithm="ES256", issuer=ISSUER, audience=AUDIENCE)

    def refused(self, token: str) -> bool:
        verifier = Verifier(
            self.client, key=EC.public_key(), algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE,
            max_staleness=self.max_staleness,
        )  # fmt: skip
        try:
            verifier.verify(token)
        except TokenRevoked:
            return True
        return False

    def foreign_sid_refused(self, sid: str) -> bool:
        now = self.client.clock.wall()
        claims = {"iss": ISSUER, "jti": f"of {self.subject}", "sid": sid, "iat": int(now), "exp": int(now) + 300}
        try:
            self.client.check(claims)
        except TokenRevoked:
            return True
        return False

    def ended(self, what: Callable[[], object]) -> str:
        """Why a session has ended, as the error says."""
        with pytest.raises(SessionEnded) as caught:
            what()
        return caught.value.reason


def revoke_session(desk: Desk) -> None:
    """A session that is revoked is over, and not its tokens alone."""
    login = desk.issuer.login(desk.subject)
    assert desk.client.revoke_session(login.session_id).stored
    assert desk.ended(lambda: desk.issuer.refresh(login.refresh_token)) == "logout"
    assert desk.ended(lambda: desk.client.touch_session(login.session_id)) == "logout"
    assert desk.issuer.sessions(desk.subject) == []
    assert desk.refused(login.access_token)


def logout_twice(desk: Desk) -> None:
    """Whoever presses the button twice, or whose first answer was lost, has logged out."""
    login = desk.issuer.login(desk.subject)
    for _ in range(2):
        assert desk.issuer.logout(login.session_id).stored
    assert desk.issuer.logout(login.session_id, sub=desk.subject).stored
    assert desk.client.revoke_session(login.session_id).stored
    assert desk.ended(lambda: desk.issuer.refresh(login.refresh_token)) == "logout"
    assert desk.refused(login.access_token)


def logout_of_a_session_that_a_cutoff_ended(desk: Desk) -> None:
    login = desk.issuer.login(desk.subject)
    desk.issuer.logout_everywhere(desk.subject)
    assert desk.issuer.logout(login.session_id).stored
    assert desk.issuer.sessions(desk.subject) == []


def logout_of_a_sid_that_nobody_knows(desk: Desk) -> None:
    """Another issuer's, or one of long ago: its tokens are taken back."""
    sid = f"session of {desk.subject}"
    assert not desk.foreign_sid_refused(sid)
    assert desk.issuer.logout(sid).stored
    assert desk.foreign_sid_refused(sid)
    assert desk.ended(lambda: desk.issuer.logout(sid, sub=desk.subject)) == "unknown"
    other = f"{sid}, too"
    assert desk.client.revoke_session(other).stored
    assert desk.foreign_sid_refused(other)


def logout_of_somebody_else(desk: Desk) -> None:
    """A subject that is given must be the session's; nothing happens to a session of another one."""
    login = desk.issuer.login(desk.subject)
    (shown,) = desk.issuer.sessions(desk.subject)
    assert desk.ended(lambda: desk.issuer.logout(login.session_id, sub=desk.other)) == "unknown"
    assert desk.ended(lambda: desk.issuer.logout(shown.handle, sub=desk.other)) == "unknown"
    with pytest.raises(InvalidRequest) as caught:
        desk.issuer.logout(shown.handle)
    assert caught.value.field == "subject"
    assert not desk.refused(login.access_token)
    assert desk.issuer.logout(shown.handle, sub=desk.subject).stored
    assert desk.refused(login.access_token)


def logout_of_the_others_by_somebody_else(desk: Desk) -> None:
    """Who names another's session as the one to keep gets nothing, and the other one loses nothing."""
    login = desk.issuer.login(desk.subject)
    for subject, issuer in ((desk.other, ISSUER), (desk.subject, None), (desk.subject, "https://other.example")):
        with pytest.raises(InvalidRequest) as caught:
            desk.client.end_other_sessions(subject, keep=login.session_id, issuer=issuer, access_token_life=60)
        assert caught.value.field == "keep"
    assert not desk.refused(login.access_token)
    assert desk.issuer.refresh(login.refresh_token).session_id == login.session_id


def logout_of_the_others_from_a_session_that_is_over(desk: Desk) -> None:
    login, other = desk.issuer.login(desk.subject), desk.issuer.login(desk.subject)
    desk.issuer.logout(login.session_id)
    assert desk.ended(lambda: desk.issuer.logout_others(desk.subject, keep=login.session_id)) == "logout"
    (shown,) = desk.issuer.sessions(desk.subject)
    assert desk.ended(lambda: desk.issuer.logout_others(desk.subject, keep=shown.handle)) == "unknown"
    assert not desk.refused(other.access_token)


def repetitions(desk: Desk) -> None:
    """An op id is executed once, whichever mutation of an issuer it is given to."""
    issuer, new = desk.issuer, desk.client._core.new_op_id
    login_id, others_id, logout_id, everywhere_id = new(), new(), new(), new()
    login = issuer.login(desk.subject, op_id=login_id)
    assert issuer.login(desk.subject, op_id=login_id).session_id == login.session_id
    assert len(issuer.sessions(desk.subject)) == 1
    kept = issuer.logout_others(desk.subject, keep=login.session_id, op_id=others_id)
    again = issuer.logout_others(desk.subject, keep=login.session_id, op_id=others_id)
    assert not desk.refused(kept.access_token)
    assert not desk.refused(again.access_token)
    first = issuer.logout_everywhere(desk.subject, op_id=everywhere_id, reason="stolen")
    assert first.cutoff is not None
    assert issuer.logout_everywhere(desk.subject, op_id=everywhere_id, reason="stolen").cutoff == first.cutoff
    last = issuer.login(desk.subject)
    for _ in range(2):
        assert issuer.logout(last.session_id, op_id=logout_id).op_id == logout_id


CASES: dict[str, Callable[[Desk], None]] = {
    case.__name__: case
    for case in (
        revoke_session,
        logout_twice,
        logout_of_a_session_that_a_cutoff_ended,
        logout_of_a_sid_that_nobody_knows,
        logout_of_somebody_else,
        logout_of_the_others_by_somebody_else,
        logout_of_the_others_from_a_session_that_is_over,
        repetitions,
    )
}
