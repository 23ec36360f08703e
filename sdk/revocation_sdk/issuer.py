"""Issues access tokens, with and without sessions behind them.

    issuer = TokenIssuer(client, key=private_key, algorithm="ES256", issuer="https://id.example", audience="api")
    login = issuer.login("alice", device="Alice's phone")
    login = issuer.refresh(login.refresh_token)
    issuer.logout(login.session_id)

Whatever ends a session, ends its refresh *and* its access tokens, everywhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from revocation_sdk._core import CALL_TIMEOUT_S, MAX_STALENESS_S
from revocation_sdk._mint import Mint
from revocation_sdk.aio import AsyncRevocationClient
from revocation_sdk.client import RevocationClient
from revocation_sdk.errors import InvalidRequest
from revocation_sdk.types import Grant, Login, Receipt, SessionInfo

LIFETIME_S = 600

Claims = Mapping[str, Any] | None
ClaimsOf = Claims | Callable[[Grant], Claims]
"""Claims of the application's own, or a function that finds them once the subject is known."""
AsyncClaimsOf = Claims | Callable[[Grant], Claims | Awaitable[Claims]]
"""The same; the function may be an asynchronous one."""


class TokenIssuer:
    """Mints tokens for one issuer and audience. Safe to share between threads."""

    def __init__(
        self,
        client: RevocationClient,
        *,
        key: object,
        algorithm: str,
        issuer: str,
        audience: str | Iterable[str],
        lifetime: int = LIFETIME_S,
        key_id: str | None = None,
        version_claim: str = "tver",
        max_staleness: float = MAX_STALENESS_S,
    ) -> None:
        """Sets up an issuer; does no I/O.

        Args:
            client: Knows the revocations, and reaches the service for sessions.
            key: The private key: PEM, an object of the `cryptography` package, or an HMAC secret.
            algorithm: What it signs by, e.g. "ES256".
            issuer: The `iss` of the tokens.
            audience: Their `aud`.
            lifetime: Seconds that a token lives; at most the realm's max_token_life.
            key_id: The `kid` of the key; default: its RFC 7638 thumbprint.
            version_claim: The claim that carries the versions.
            max_staleness: How old the view may be for `issue`, which asks nobody.

        Raises:
            ConfigError: Something does not fit together, or the key is too weak for the algorithm.
        """
        self._client = client
        self._mint = Mint(
            client,
            key=key,
            algorithm=algorithm,
            issuer=issuer,
            audience=audience,
            lifetime=lifetime,
            key_id=key_id,
            version_claim=version_claim,
            max_staleness=max_staleness,
        )

    def issue(self, sub: str, client_id: str | None = None, claims: Claims = None) -> str:
        """A token without a session, from memory. It ends by its `exp`, or with its subject, client or realm.

        Raises:
            StatusUnknown: The view is too old to know which versions to mint.
            InvalidRequest: A claim that the issuer mints itself, or that no token can hold.
            ConfigError: `lifetime` is longer than the realm allows.
        """
        return self._mint.issue(sub, client_id, claims)

    def login(
        self,
        sub: str,
        client_id: str | None = None,
        device: str | None = None,
        address: str | None = None,
        user_agent: str | None = None,
        claims: Claims = None,
        *,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Login:
        """Opens a session. `device`, `address` and `user_agent` are what its owner will see in the list.

        `claims` are for this access token: those of later ones are given to `refresh`. A repetition with the same
        `op_id` opens no second session.

        Raises SessionLimit if the subject has as many sessions as it may, ServiceError, or as `issue`.
        """
        own = self._mint.own_claims(claims)
        with self._mint.granting() as lifetime:
            grant = self._client.open_session(
                sub,
                issuer=self._mint.issuer,
                client_id=client_id,
                device=device,
                address=address,
                user_agent=user_agent,
                access_token_life=lifetime,
                op_id=op_id,
                timeout=timeout,
            )
        return self._mint.from_grant(grant, own)

    def refresh(
        self,
        refresh_token: str,
        device: str | None = None,
        address: str | None = None,
        user_agent: str | None = None,
        claims: ClaimsOf = None,
        *,
        client_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Login:
        """Exchanges a refresh token; a retry shortly after gets the same successor, so it needs no op id.

        `claims` are those of the new access token; what was given to `login` is not repeated.

        Only tokens of this issuer's sessions are exchanged. Where several clients may ask, authenticate the one that
        does and name it (`client_id`; "" for none): then only its own session's token is (RFC 6749 section 6).

        Raises SessionEnded, RefreshReused if the token is an old one, ServiceError, or as `issue`. OutcomeUnknown: the
        same token may be given once more, inside the grace window.
        """
        if inspect.iscoroutinefunction(claims):
            raise InvalidRequest("claims: an asynchronous function is for AsyncTokenIssuer", field="claims")
        self._mint.own_claims(None if callable(claims) else claims)
        with self._mint.granting() as lifetime:
            grant = self._client.refresh_session(
                refresh_token,
                issuer=self._mint.issuer,
                client_id=client_id,
                device=device,
                address=address,
                user_agent=user_agent,
                access_token_life=lifetime,
                timeout=timeout,
            )
        return self._mint.from_grant(grant, self._mint.own_claims(claims(grant) if callable(claims) else claims))

    def logout(
        self,
        session: str,
        *,
        sub: str | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
    ) -> Receipt:
        """Ends a session, by its id, or by its handle and subject. A subject that is given must be the session's.

        An id that is not known, or that of a session that has ended already, has its tokens taken back all the same.

        Raises SessionEnded for a handle that is none of the subject's, and for the live session of another one;
        InvalidRequest for a handle without a subject.
        """
        return self._client.end_session(
            session, subject=sub, issuer=self._mint.issuer, op_id=op_id, timeout=timeout, reason=reason
        )

    def logout_everywhere(
        self,
        sub: str,
        *,
        confirm: int | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
    ) -> Receipt:
        """Ends all sessions of a subject, and takes back every token that it has.

        Where the realm demands a confirmation, ConfirmationRequired says the number to give as `confirm=`.
        """
        return self._client.revoke_subject(
            sub, issuer=self._mint.issuer, confirm=confirm, op_id=op_id, timeout=timeout, reason=reason
        )

    def logout_others(
        self,
        sub: str,
        *,
        keep: str,
        claims: Claims = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Login:
        """Ends all other sessions of a subject. The one with the id `keep` gets new tokens; its old ones end too.

        Raises SessionEnded if `keep` has ended, InvalidRequest if it is not a session of this subject and issuer.
        """
        own = self._mint.own_claims(claims)
        with self._mint.granting() as lifetime:
            grant = self._client.end_other_sessions(
                sub,
                keep=keep,
                issuer=self._mint.issuer,
                access_token_life=lifetime,
                op_id=op_id,
                timeout=timeout,
            )
        return self._mint.from_grant(grant, own)

    def sessions(self, sub: str, *, current: str | None = None) -> list[SessionInfo]:
        """The live sessions of a subject, newest first; `current` is the id of the one that asks."""
        return self._client.list_sessions(sub, issuer=self._mint.issuer, current=current)


class AsyncTokenIssuer:
    """TokenIssuer for event loops: the same names, awaitable."""

    def __init__(
        self,
        client: AsyncRevocationClient,
        *,
        key: object,
        algorithm: str,
        issuer: str,
        audience: str | Iterable[str],
        lifetime: int = LIFETIME_S,
        key_id: str | None = None,
        version_claim: str = "tver",
        max_staleness: float = MAX_STALENESS_S,
    ) -> None:
        """As TokenIssuer."""
        self._client = client
        self._mint = Mint(
            client,
            key=key,
            algorithm=algorithm,
            issuer=issuer,
            audience=audience,
            lifetime=lifetime,
            key_id=key_id,
            version_claim=version_claim,
            max_staleness=max_staleness,
        )

    async def issue(self, sub: str, client_id: str | None = None, claims: Claims = None) -> str:
        """As TokenIssuer.issue."""
        return self._mint.issue(sub, client_id, claims)

    async def login(
        self,
        sub: str,
        client_id: str | None = None,
        device: str | None = None,
        address: str | None = None,
        user_agent: str | None = None,
        claims: Claims = None,
        *,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Login:
        """As TokenIssuer.login."""
        own = self._mint.own_claims(claims)
        with self._mint.granting() as lifetime:
            grant = await self._client.open_session(
                sub,
                issuer=self._mint.issuer,
                client_id=client_id,
                device=device,
                address=address,
                user_agent=user_agent,
                access_token_life=lifetime,
                op_id=op_id,
                timeout=timeout,
            )
        return self._mint.from_grant(grant, own)

    async def refresh(
        self,
        refresh_token: str,
        device: str | None = None,
        address: str | None = None,
        user_agent: str | None = None,
        claims: AsyncClaimsOf = None,
        *,
        client_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Login:
        """As TokenIssuer.refresh. A function for the claims may be an asynchronous one."""
        self._mint.own_claims(None if callable(claims) else claims)
        with self._mint.granting() as lifetime:
            grant = await self._client.refresh_session(
                refresh_token,
                issuer=self._mint.issuer,
                client_id=client_id,
                device=device,
                address=address,
                user_agent=user_agent,
                access_token_life=lifetime,
                timeout=timeout,
            )
        found = claims(grant) if callable(claims) else claims
        if inspect.isawaitable(found):
            found = await found
        return self._mint.from_grant(grant, self._mint.own_claims(found))

    async def logout(
        self,
        session: str,
        *,
        sub: str | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
    ) -> Receipt:
        """As TokenIssuer.logout."""
        return await self._client.end_session(
            session, subject=sub, issuer=self._mint.issuer, op_id=op_id, timeout=timeout, reason=reason
        )

    async def logout_everywhere(
        self,
        sub: str,
        *,
        confirm: int | None = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
        reason: str = "",
    ) -> Receipt:
        """As TokenIssuer.logout_everywhere."""
        return await self._client.revoke_subject(
            sub, issuer=self._mint.issuer, confirm=confirm, op_id=op_id, timeout=timeout, reason=reason
        )

    async def logout_others(
        self,
        sub: str,
        *,
        keep: str,
        claims: Claims = None,
        op_id: str | None = None,
        timeout: float = CALL_TIMEOUT_S,
    ) -> Login:
        """As TokenIssuer.logout_others."""
        own = self._mint.own_claims(claims)
        with self._mint.granting() as lifetime:
            grant = await self._client.end_other_sessions(
                sub,
                keep=keep,
                issuer=self._mint.issuer,
                access_token_life=lifetime,
                op_id=op_id,
                timeout=timeout,
            )
        return self._mint.from_grant(grant, own)

    async def sessions(self, sub: str, *, current: str | None = None) -> list[SessionInfo]:
        """As TokenIssuer.sessions."""
        return await self._client.list_sessions(sub, issuer=self._mint.issuer, current=current)
