"""The measured promise: a throw-away token is revoked every few seconds, and the time until it is refused is taken.

The whole way is walked: a call of the SDK, the service, the store, the log, the hub, a stream, a follower, its view, a
verdict. The token lives in a realm of its own, whose name no configuration can have, at a listener of its own: a unix
socket in a directory that only this process's user may enter, where only the bearer of a secret that never leaves this
process is let in, and only to follow and to revoke tokens there. No other listener knows the realm.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from revocation.callers.roles import Caller
from revocation.errors import Denied, InvalidField
from revocation.realms import RealmSettings
from revocation_sdk import RevocationClient, RevocationError, StatusUnknown, TokenRejected, TokenRevoked

log = structlog.get_logger("revocation.canary")

REALM = "-canary"
"""Reserved: the name of a realm begins with a letter or a digit."""

LIFE_S = 30
SETTINGS = RealmSettings(max_token_life_s=2 * LIFE_S, max_leeway_s=0)
_PATIENCE_S = 10.0
_PING_S = 1.0
_STALENESS_S = 5.0
_LOOK_S = 0.0005
_LONGEST_LOOK_S = 0.01
_METHODS = frozenset(("Watch", "Revoke:token"))


class CanaryAuthorizer:
    """Lets the canary in, and nobody else."""

    generation = 0

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}"

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        """The canary. Raises Denied."""
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        if not (isinstance(given, str) and secrets.compare_digest(given.encode(), self._expected.encode())):
            raise Denied("this listener is the service's own", reason="UNAUTHENTICATED")
        if realm != REALM or method not in _METHODS:
            raise Denied("not here")
        return Caller("canary")


class Reserved:
    """An authorizer for all other listeners: no role reaches the canary's realm, not even in every realm."""

    def __init__(self, authorizer: Any) -> None:
        self._authorizer = authorizer

    @property
    def generation(self) -> int:
        """That of the authorizer behind it."""
        generation: int = self._authorizer.generation
        return generation

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        """As the authorizer says. Raises Denied; InvalidField for the reserved realm."""
        caller: Caller = await self._authorizer.authorize(context, method, realm)
        if realm == REALM:
            raise InvalidField("realm", "is not a realm of this service", reason="UNKNOWN_REALM")
        return caller


@dataclass(frozen=True, slots=True)
class Beat:
    """One measurement: how long it took, or why not (see telemetry.CANARY_FAILURES). `at`: by the monotonic clock."""

    at: float
    seconds: float = 0.0
    failure: str = ""


class Canary:
    """Measures, again and again. `last` is what came of it."""

    def __init__(self, every_s: float, observe: Callable[[Beat], None]) -> None:
        self.last: Beat | None = None
        self._every_s = every_s
        self._observe = observe

    async def run(self, address: str, token: str) -> None:
        """Until cancelled."""
        options: dict[str, Any] = {"realm": REALM, "token": token, "name": "canary"}
        # What the caller revokes is in its own view at once: so one revokes and another one looks.
        caller = RevocationClient(address, **options)
        follower = RevocationClient(address, ping_interval=_PING_S, max_staleness=_STALENESS_S, **options)
        try:
            with suppress(RevocationError):
                await asyncio.to_thread(follower.wait_until_fresh, _PATIENCE_S)
            while True:
                self._take(await asyncio.to_thread(measure, caller, follower))
                await asyncio.sleep(self._every_s)
        finally:
            await asyncio.to_thread(_close, caller, follower)

    def _take(self, beat: Beat) -> None:
        before = self.last.failure if self.last is not None else ""
        if beat.failure != before:
            level = log.warning if beat.failure else log.info
            level("canary_failed" if beat.failure else "canary_well", why=beat.failure)
        self.last = beat
        self._observe(beat)


def measure(caller: RevocationClient, follower: RevocationClient, patience_s: float = _PATIENCE_S) -> Beat:
    """Revokes a token through one client and looks at it through another. Blocks."""
    now = time.time()
    jti = secrets.token_hex(16)
    claims: dict[str, Any] = {"jti": jti, "iat": now, "exp": now + LIFE_S}
    failure = _before(follower, claims)
    if failure:
        return Beat(time.monotonic(), failure=failure)
    begun = time.monotonic()
    try:
        caller.revoke_token(jti=jti, expires_at=claims["exp"], timeout=patience_s)
    except RevocationError:
        return Beat(begun, failure="not_revoked")
    pause_s = _LOOK_S
    while not _refused(follower, claims):
        if time.monotonic() - begun > patience_s:
            return Beat(begun, failure="not_refused")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_LOOK_S)
    return Beat(begun, time.monotonic() - begun)


def _before(follower: RevocationClient, claims: dict[str, Any]) -> str:
    try:
        follower.check(claims)
    except StatusUnknown:
        return "not_fresh"
    except TokenRejected:
        return "refused_before"
    return ""


def _refused(follower: RevocationClient, claims: dict[str, Any]) -> bool:
    try:
        follower.check(claims)
    except TokenRevoked:
        return True
    except StatusUnknown:
        return False
    return False


def _close(*clients: RevocationClient) -> None:
    for client in clients:
        client.close()


@asynccontextmanager
async def private_place() -> AsyncIterator[str]:
    """An address that only this process's user can reach: a unix socket in a directory of its own. Raises OSError."""
    folder = Path(tempfile.mkdtemp(prefix="revocation-"))  # mode 0700
    try:
        yield f"unix:{folder / 'canary'}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
