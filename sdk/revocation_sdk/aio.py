"""The client for programs that run on event loops: the names of `client.py`, awaitable where they need the network.

Judging does not: `check` is the same plain call. The follower is a thread here too, so any number of event loops may
share a client, and a loop that is busy does not make it stale.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

from revocation_sdk._client import BaseClient
from revocation_sdk._core import CALL_TIMEOUT_S, CHECK_TIMEOUT_S, FRESH_TIMEOUT_S, IMPACT_TIMEOUT_S, WAIT_TIMEOUT_S
from revocation_sdk._requests import MAX_PAGE, Consent
from revocation_sdk._session_requests import MAX_PAGES, shown
from revocation_sdk.types import (
    AckLevel,
    ClientSettings,
    Freshness,
    Grant,
    Impact,
    Landed,
    Member,
    Receipt,
    ServiceStatus,
    SessionInfo,
    Subscriber,
    Subscribers,
    Versions,
    WaitFor,
)


class AsyncRevocationClient(BaseClient):
    """Follows one realm, and revokes. Safe to share between event loops, and across forks."""

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the follower and all connections, for good."""
        await asyncio.to_thread(self._core.close)

    async def wait_until_fresh(self, timeout: float = FRESH_TIMEOUT_S) -> None:
        """Returns once the view is fresh. Raises NotFresh, which says why, if it is not in time."""
        await self._core.following.wait_until_fresh_async(timeout, self._core.max_staleness)

    async def revoke_token(
        self,
        token: str | None = None,
        *,
        jti: str | None = None,
        issuer: str | None = None,
        expires_at: float | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
        min_ack: AckLevel | None = None,
        wait_for: WaitFor | None = None,
        wait_timeout: float = WAIT_TIMEOUT_S,
    ) -> Receipt:
        """Takes one token back: the token itself, or its `jti` with `expires_at`.

        The token is *not* verified: one forged with a victim's `jti` would log the victim out. Pass what a Verifier
        accepted, or use `verifier.revoke(token)`.
        """
        asked = self._core.requests.revoke_token(token, jti, issuer, expires_at, op_id, reason)
        return await self._core.revoke_async(asked.at_least(min_ack), timeout, wait_for, wait_timeout)

    async def revoke_tokens(
        self,
        tokens: Iterable[tuple[str, float]],
        *,
        issuer: str | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
        min_ack: AckLevel | None = None,
        wait_for: WaitFor | None = None,
        wait_timeout: float = WAIT_TIMEOUT_S,
    ) -> Receipt:
        """Takes up to 10,000 tokens of one issuer back, given as (jti, expires_at)."""
        return await self._core.revoke_async(
            self._core.requests.revoke_tokens(tokens, issuer, op_id, reason).at_least(min_ack),
            timeout,
            wait_for,
            wait_timeout,
        )

    async def revoke_session(
        self,
        sid: str,
        *,
        issuer: str | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
        min_ack: AckLevel | None = None,
        wait_for: WaitFor | None = None,
        wait_timeout: float = WAIT_TIMEOUT_S,
    ) -> Receipt:
        """Takes all tokens of a session back. `sid` is what they carry; a handle is ended by `end_session`."""
        return await self._core.revoke_async(
            self._core.requests.revoke_session(sid, issuer, op_id, reason).at_least(min_ack),
            timeout,
            wait_for,
            wait_timeout,
        )

    async def revoke_subject(
        self,
        subject: str,
        *,
        issuer: str | None = None,
        confirm: int | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
        min_ack: AckLevel | None = None,
        wait_for: WaitFor | None = None,
        wait_timeout: float = WAIT_TIMEOUT_S,
    ) -> Receipt:
        """Takes back all tokens that a user has until now, and ends the user's sessions."""
        return await self._core.revoke_async(
            self._core.requests.revoke_subject(subject, issuer, op_id, reason, Consent(confirm)).at_least(min_ack),
            timeout,
            wait_for,
            wait_timeout,
        )

    async def revoke_client(
        self,
        client_id: str,
        *,
        issuer: str | None = None,
        confirm: int | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
        min_ack: AckLevel | None = None,
        wait_for: WaitFor | None = None,
        wait_timeout: float = WAIT_TIMEOUT_S,
    ) -> Receipt:
        """Takes back all tokens that were issued to a client until now, and ends their sessions."""
        return await self._core.revoke_async(
            self._core.requests.revoke_client(client_id, issuer, op_id, reason, Consent(confirm)).at_least(min_ack),
            timeout,
            wait_for,
            wait_timeout,
        )

    async def revoke_key(
        self,
        kid: str | None = None,
        *,
        thumbprint: str | None = None,
        issuer: str | None = None,
        confirm: int | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
        min_ack: AckLevel | None = None,
        wait_for: WaitFor | None = None,
        wait_timeout: float = WAIT_TIMEOUT_S,
    ) -> Receipt:
        """Refuses every token signed by a key, for good: by its `kid`, or by its RFC 7638 thumbprint."""
        asked = self._core.requests.revoke_key(kid, thumbprint, issuer, op_id, reason, Consent(confirm))
        return await self._core.revoke_async(asked.at_least(min_ack), timeout, wait_for, wait_timeout)

    async def revoke_realm(
        self,
        *,
        confirm: int | None = None,
        approval: str | None = None,
        op_id: str | None = None,
        min_ack: AckLevel | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
        wait_for: WaitFor | None = None,
        wait_timeout: float = WAIT_TIMEOUT_S,
    ) -> Receipt:
        """Takes everything back that was issued in this realm until now.

        Where the realm demands two persons, the first one gets ApprovalRequired, and the second one gives what that
        says as `approval=`. Where it demands a confirmation, see `impact` and give the number as `confirm=`.
        """
        asked = self._core.requests.revoke_realm(op_id, reason, Consent(confirm, approval))
        return await self._core.revoke_async(asked.at_least(min_ack), timeout, wait_for, wait_timeout)

    async def impact(
        self,
        *,
        subject: str | None = None,
        client_id: str | None = None,
        kid: str | None = None,
        thumbprint: str | None = None,
        issuer: str | None = None,
        timeout: float = IMPACT_TIMEOUT_S,
    ) -> Impact:
        """What revoking a subject, client or key would end; with none of them, the whole realm. Changes nothing.

        The service counts for a good part of a third of `timeout`; what it has not seen by then makes it inexact.
        """
        return await self._core.run_async(
            self._core.requests.impact(subject, client_id, (kid, thumbprint), issuer), timeout
        )

    async def check_remote(
        self,
        claims: Mapping[str, Any],
        *,
        token: str | None = None,
        key_id: str | None = None,
        thumbprint: str | None = None,
        not_older_than: str | None = None,
        version_claim: str | None = "tver",
        client_claim: str = "client_id",
        issuer_skew: float = 0,
        timeout: float = CHECK_TIMEOUT_S,
    ) -> Freshness:
        """Asks the service about a token, as `check` asks the view. The answer is as old as the question.

        `not_older_than`: the position of a receipt, which the service must have reached. The rest is as for `check`.

        Raises:
            TokenInvalid: These claims cannot be judged, or outlive the realm's limits, where those are known.
            TokenExpired: Expired for longer than any leeway, by our clock or the service's.
            TokenRevoked: Taken back.
            ServiceError: No answer in time.
        """
        reading = (key_id, thumbprint, version_claim, client_claim, issuer_skew)
        asked = self._core.checker.claims(claims, token, reading)
        return await self._core.check_remote_async(asked, timeout, not_older_than)

    async def get_version(
        self,
        subject: str,
        *,
        client_id: str | None = None,
        issuer: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Versions:
        """The versions to mint into a token now, with the store's time to mint it by."""
        return await self._core.run_async(self._core.requests.get_version(subject, client_id, issuer), timeout)

    async def status(self, *, timeout: float = CALL_TIMEOUT_S) -> ServiceStatus:
        """Health and state of the replica that answers."""
        return await self._core.run_async(self._core.requests.status(), timeout)

    async def members(self, *, timeout: float = CALL_TIMEOUT_S) -> list[Member]:
        """The service replicas that the store's registry lists."""
        return await self._core.run_async(self._core.requests.members(), timeout)

    async def await_applied(
        self, position: str, *, wait_for: WaitFor = "all", wait_timeout: float = WAIT_TIMEOUT_S
    ) -> Landed:
        """Waits until verifiers have applied the position of a receipt, or says which have not. Raises nothing for it.

        A verifier counts while it follows, and afterwards for as long as it could still be fresh (`max_staleness`). One
        with `on_stale="check"` may have been stale and asked before the revocation: what it was answered, it may go by
        for one `max_staleness` more.
        """
        return await self._core.landed_async(position, wait_for, wait_timeout)

    async def subscribers(self, *, limit: int = 1_000, timeout: float = CALL_TIMEOUT_S) -> Subscribers:
        """The verifiers that follow the realm, at all replicas: the first `limit` of them, and how many there are."""
        found: list[Subscriber] = []
        page, last = "", Subscribers((), 0, ())
        while len(found) < limit:
            asked = self._core.requests.subscribers(min(limit - len(found), MAX_PAGE), page)
            last, page = await self._core.run_async(asked, timeout)
            found += last.subscribers
            if not page:
                break
        return replace(last, subscribers=tuple(found))

    async def strike_member(self, member_id: str, *, timeout: float = CALL_TIMEOUT_S) -> None:
        """Takes a silent replica off the registry by force; docs/guarantees.md says what that can cost."""
        await self._core.run_async(self._core.requests.strike_member(member_id), timeout)

    async def open_session(
        self,
        subject: str,
        *,
        issuer: str | None = None,
        client_id: str | None = None,
        device: str | None = None,
        address: str | None = None,
        user_agent: str | None = None,
        access_token_life: int,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Grant:
        """Opens a session. Raises SessionLimit if the subject has as many as it may."""
        asked = self._core.sessions.open_session(
            subject,
            issuer=issuer,
            client_id=client_id,
            shown=shown(device, address, user_agent),
            access_token_life=access_token_life,
            op_id=op_id,
        )
        return await self._core.run_async(asked, timeout)

    async def refresh_session(
        self,
        refresh_token: str,
        *,
        access_token_life: int,
        issuer: str | None = None,
        client_id: str | None = None,
        device: str | None = None,
        address: str | None = None,
        user_agent: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Grant:
        """Exchanges a refresh token for its successor. Raises SessionEnded, or RefreshReused for an old one.

        With `issuer` or `client_id`, only a token of that issuer's or client's session is exchanged; for any other,
        nothing happens but SessionEnded. The client "" stands for none.

        It has no op id: the token itself names the exchange, and a repetition inside the grace window gets the same
        successor.
        """
        asked = self._core.sessions.refresh_session(
            refresh_token,
            issuer=issuer,
            client_id=client_id,
            shown=shown(device, address, user_agent),
            access_token_life=access_token_life,
        )
        return await self._core.run_async(asked, timeout)

    async def get_session(
        self,
        session: str,
        *,
        subject: str | None = None,
        issuer: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> SessionInfo:
        """One session, by its id, or by its handle and subject. A subject that is given must be the session's."""
        return await self._core.run_async(self._core.sessions.get_session(session, subject, issuer), timeout)

    async def list_sessions(
        self,
        subject: str,
        *,
        issuer: str | None = None,
        current: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> list[SessionInfo]:
        """The live sessions of a subject, newest first; `current` is the id of the one that asks.

        Without an issuer: the sessions that have none, and those of issuers whose sessions the replica has met since
        its start; name the issuer where none may be missing.
        """
        found: list[SessionInfo] = []
        page = ""
        for _ in range(MAX_PAGES):
            asked = self._core.sessions.list_sessions(subject, issuer, current, page)
            sessions, page = await self._core.run_async(asked, timeout)
            found += sessions
            if not page:
                break
        return found

    async def end_session(
        self,
        session: str,
        *,
        subject: str | None = None,
        issuer: str | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
    ) -> Receipt:
        """Ends a session, by its id, or by its handle and subject. A subject that is given must be the session's.

        An id that is not known, or that of a session that has ended already, has its tokens taken back all the same.

        Raises SessionEnded for a handle that is none of the subject's, and for the live session of another one;
        InvalidRequest for a handle without a subject.
        """
        asked = self._core.sessions.end_session(session, subject, issuer, op_id, reason)
        return await self._core.run_async(asked, timeout)

    async def end_other_sessions(
        self,
        subject: str,
        *,
        keep: str,
        access_token_life: int,
        issuer: str | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Grant:
        """Ends all sessions of a subject but the one with the id `keep`, which gets a new grant.

        Raises SessionEnded if `keep` has ended, InvalidRequest if it is not a session of this subject and issuer.
        """
        asked = self._core.sessions.end_other_sessions(subject, keep, issuer, access_token_life, op_id)
        return await self._core.run_async(asked, timeout)

    async def touch_session(self, sid: str, *, timeout: float = CALL_TIMEOUT_S) -> SessionInfo:
        """Says that a session is in use, so that it does not end by idleness. To say it twice does no harm."""
        return await self._core.run_async(self._core.sessions.touch_session(sid), timeout)

    async def set_client_settings(
        self, client_id: str, settings: ClientSettings, *, timeout: float = CALL_TIMEOUT_S
    ) -> ClientSettings:
        """How sessions of a client live; holds for those opened from then on. The last one to say so is right."""
        return await self._core.run_async(self._core.sessions.set_client_settings(client_id, settings), timeout)

    async def get_client_settings(self, client_id: str, *, timeout: float = CALL_TIMEOUT_S) -> ClientSettings:
        """How sessions of a client live."""
        return await self._core.run_async(self._core.sessions.get_client_settings(client_id), timeout)
