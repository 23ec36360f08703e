"""Master secrets that this replica lacks: which they are, what that means, and what to do. Said once, and loudly."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

import structlog

from revocation.replication.replica import SECRET_MISSING, Replica
from revocation.store import Store, StoreUnavailable

log = structlog.get_logger("revocation.secrets")
_LOOK_S = 2.0


class Lacking:
    """Looks whether the partitions hold what was made under a master secret that this process does not have."""

    def __init__(self, replicas: Sequence[Replica], store: Store, commitments: Mapping[str, str]) -> None:
        self._replicas = replicas
        self._store = store
        self._commitments = dict(commitments)
        self._told = (False, 0)
        self.kids: tuple[str, ...] = ()
        """While something is lacking: the key ids that the store has seen and this process does not have."""

    async def watch(self) -> None:
        """Looks again and again. Raises StoreRefused if the store knows another secret under a key id of ours."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_S)

    async def look(self) -> None:
        """Looks once, and says in the log what is new."""
        missing = any(replica.state == SECRET_MISSING for replica in self._replicas)
        orphans = sum(history.orphans for replica in self._replicas for history in replica.partition.realms.values())
        if not missing and not orphans:
            self.kids = ()
        elif not self.kids or self._told != (missing, orphans):
            with suppress(StoreUnavailable):
                self.kids = await self._store.agree_on_secret(self._commitments)
        self._tell(missing, orphans)

    def _tell(self, missing: bool, orphans: int) -> None:
        told, self._told = self._told, (missing, orphans)
        kids = ", ".join(self.kids)
        if missing and not told[0]:
            log.error(
                "secret_missing", kids=kids,
                hint="entries are made under a master secret that this replica lacks, so it answers for nothing: give "
                "it the master secrets (REVOCATION_SECRET_FILE) of the other replicas, and start it again",
            )  # fmt: skip
        if orphans and orphans != told[1]:
            log.error(
                "keys_not_refused", count=orphans, kids=kids,
                hint="so many signing keys were revoked under a master secret that this replica does not have: revoke "
                "them again (revocation revoke key), or put the secret back as the last one; until then they pass",
            )  # fmt: skip
