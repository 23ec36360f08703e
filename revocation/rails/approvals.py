"""Two persons: what a first identity has asked for waits in the store until a second one orders the same.

Bound to realm, target and the first one's identities; kept for ten minutes, also across a restart of replicas. The
op record of an approved operation has the approval's name: so it is committed once, whoever orders it how often.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import replace

from revocation.audit.seal import Auditor
from revocation.callers.roles import Caller
from revocation.errors import Guarded
from revocation.limits import APPROVAL_S
from revocation.model import Operation, Target, request_digest
from revocation.replication.replica import NotReady, Replica
from revocation.session.gate import Call, refuse_if_full, until
from revocation.session.policy import wait_usable
from revocation.store import Closed
from revocation.store.rails import RailsStore
from revocation_sdk._audit import Action, AuditRecord

_NAME_CHARACTERS = 32
_INVALID = (
    "there is no such approval: it is older than 10 minutes, of another realm or for another target, or you asked for "
    "it yourself"
)


class Approvals:
    """Pending operations, in the first partition of the store."""

    def __init__(self, replica: Replica, store: RailsStore, auditor: Auditor) -> None:
        self._replica = replica
        self._auditor = auditor
        self._store = store

    async def ask(self, operation: Operation, target: Target, caller: Caller, deadline: float) -> str:
        """Notes what the caller asks for; the name of it, the same for a retry."""
        name = operation.key()
        kept = " ".join((_digest(target), *(_who(name, identity) for identity in caller.names)))
        record = self._auditor.record(
            Action.APPROVAL_ASKED, operation, kind=int(target.kind), issuer=target.issuer, value=target.value, asked=1,
            approval=name,
        )  # fmt: skip
        await self._kept(operation.realm, name, kept, deadline, record)
        return name

    async def approved(
        self, operation: Operation, target: Target, name: str, caller: Caller, deadline: float
    ) -> Operation:
        """The operation to commit if the caller is a second person. Raises Guarded."""
        kept = ""
        if len(name) == _NAME_CHARACTERS and name.isascii() and name.isalnum():
            kept = await self._kept(operation.realm, name, "", deadline)
        digest, _, first = kept.partition(" ")
        themselves = {_who(name, identity) for identity in caller.names}
        # One text for all: who guesses names learns nothing.
        if not kept or digest != _digest(target) or themselves & set(first.split()):
            raise Guarded(_INVALID, reason="APPROVAL_INVALID")
        return replace(operation, shared=f"{operation.realm} {name}", digest=digest)

    async def _kept(self, realm: str, name: str, new: str, deadline: float, record: AuditRecord | None = None) -> str:
        async with until(deadline, Call()):
            while True:
                with contextlib.suppress(NotReady):
                    log_id = self._replica.standing().log_id
                    audit = self._auditor.seal(0, log_id, realm, [record])
                    kept = await self._store.approval(log_id, realm, name, APPROVAL_S * 1000, new, audit)
                    if not isinstance(kept, Closed):
                        return kept
                    refuse_if_full(kept)
                    self._replica.doubt()
                await wait_usable(self._replica)


def _digest(target: Target) -> str:
    """Of what is ordered, without the op id and the consent that each person gives anew."""
    return request_digest(repr((target.kind.name, target.issuer, target.value)).encode("utf-8", "surrogatepass"))


def _who(name: str, identity: str) -> str:
    """An identity as the store sees it: comparable within one approval, and no name (I7)."""
    text = f"{name} {identity}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16, person=b"revocation asks").hexdigest()
