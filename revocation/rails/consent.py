"""Safety rails of revocations that hit many: a confirmation above some number of sessions, and two persons."""

from __future__ import annotations

from dataclasses import dataclass

from revocation.callers.roles import Caller
from revocation.errors import Guarded
from revocation.model import Operation, Target
from revocation.rails.approvals import Approvals
from revocation.service import Revocations
from revocation.session.impact import COUNTED, Impact
from revocation.session.service import Sessions
from revocation_sdk._lattice import Kind


@dataclass(frozen=True, slots=True)
class Consent:
    """What the caller gives besides the order: the number of sessions that it has seen, or an approval's name."""

    confirm: int | None = None
    approval: str = ""


class Rails:
    """Decides what an order needs before it is carried out."""

    def __init__(self, service: Revocations, sessions: Sessions, approvals: Approvals) -> None:
        self._service = service
        self._sessions = sessions
        self._approvals = approvals

    async def impact(self, realm: str, target: Target, deadline: float) -> Impact:
        """What the order would end. Raises ServiceError."""
        return await self._sessions.impact(realm, target, deadline)

    async def admit(
        self, operation: Operation, target: Target, caller: Caller, consent: Consent, deadline: float
    ) -> Operation:
        """The operation to commit. Raises Guarded: CONFIRMATION_REQUIRED, APPROVAL_REQUIRED or APPROVAL_INVALID."""
        settings = self._service.realm(operation.realm).settings
        two_persons = settings.two_person and target.kind is Kind.REALM
        if two_persons and consent.approval:
            return await self._approvals.approved(operation, target, consent.approval, caller, deadline)
        if settings.confirm_above and target.kind in COUNTED:
            await self._confirmed(settings.confirm_above, operation, target, consent, deadline)
        if two_persons:
            self._service.check_op_id(operation)
            name = await self._approvals.ask(operation, target, caller, deadline)
            text = "another identity must order the same with this approval, within 10 minutes"
            raise Guarded(text, reason="APPROVAL_REQUIRED", metadata={"approval": name})
        return operation

    async def _confirmed(
        self, most: int, operation: Operation, target: Target, consent: Consent, deadline: float
    ) -> None:
        partition = self._service.partition_of(self._service.realm(operation.realm), target)
        if await self._sessions.ran_before(operation.realm, partition, operation.key(), deadline):
            return  # a retry, which is answered as the first time
        found = await self._sessions.impact(operation.realm, target, deadline, quick=True)
        seen = consent.confirm or 0
        # Who has seen 1,000 has agreed to 1,100: people log in while one reads. What could not be counted may be more.
        unseen = not found.finished and consent.confirm is None
        if unseen or found.sessions > max(most, seen + seen // 10):
            counted = "" if found.finished else "; counting did not finish in time"
            raise Guarded(
                f"this would end {in_words(found)}{counted}; more than {most} need a confirmation",
                reason="CONFIRMATION_REQUIRED",
                metadata={"sessions": str(found.sessions)},
            )


def in_words(impact: Impact) -> str:
    """As people say it."""
    bound = "" if impact.exact else "at most " if impact.at_most else "at least "
    return f"{bound}{impact.sessions:,} sessions of {bound}{impact.subjects:,} users"
