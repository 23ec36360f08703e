"""What both kinds of client have in common: all that needs no network."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from revocation_sdk._channel import TokenSource
from revocation_sdk._check import Reading, Unasked, check_policy
from revocation_sdk._clock import Clock
from revocation_sdk._core import MAX_STALENESS_S, PING_INTERVAL_S, Core, Options, check_staleness
from revocation_sdk._follower import Follower
from revocation_sdk.errors import RevocationError, StatusUnknown
from revocation_sdk.types import Freshness, State

if TYPE_CHECKING:
    from prometheus_client.registry import CollectorRegistry


class BaseClient:
    """Follows one realm; judges from memory."""

    def __init__(
        self,
        address: str = "localhost:50051",
        *,
        realm: str = "default",
        issuer: str | None = None,
        ping_interval: float = PING_INTERVAL_S,
        max_staleness: float = MAX_STALENESS_S,
        name: str = "",
        ca: str | None = None,
        cert: str | None = None,
        key: str | None = None,
        token: TokenSource | None = None,
        insecure: bool = False,
        signing_keys: Iterable[str | bytes] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Sets up a client; does no I/O.

        Args:
            address: `host:port`, several with commas, `dns:///name`, or `unix:path`.
            realm: Whose revocations to follow.
            issuer: The `iss` that revocations without one are meant for; None: whichever issuer.
            ping_interval: Seconds between proofs of freshness.
            max_staleness: How old the view may be to count as fresh for `state`, `check` and `wait_until_fresh`.
            name: What `revocation status` shows for this client.
            ca: Path of the certificates to trust; default: those of the system.
            cert: Path of one's own certificate, with `key`.
            key: Path of its private key.
            token: A bearer token for the service, or a callable that returns one, quickly, for each call.
            insecure: Plain text to whatever address. Loopback and unix sockets need no leave.
            signing_keys: Public keys of the service (PEM, or base64 as `revocation signing-key` prints them): only what
                one of them has signed is taken in, so that no relay in between can forge, or withhold unnoticed. Then
                `on_stale="check"` cannot be used, and what one's own calls committed arrives with the stream only.
            clock: For tests.

        Raises:
            ConfigError: Something does not fit together.
        """
        self._core = Core(
            Options(
                address,
                realm,
                issuer,
                ping_interval,
                max_staleness,
                name,
                ca,
                cert,
                key,
                token,
                insecure,
                clock,
                signing_keys,
            )
        )
        self._end = weakref.finalize(self, self._core.close)  # also at the interpreter's exit

    @property
    def realm(self) -> str:
        """Whose revocations this client follows."""
        return self._core.realm

    @property
    def state(self) -> State:
        """What the client is doing right now."""
        return self._core.state()

    @property
    def follower(self) -> Follower:
        """The view and its lease, for verifiers."""
        return self._core.follower

    @property
    def clock(self) -> Clock:
        """What this client tells the time by, for verifiers."""
        return self._core.clock

    @property
    def ping_interval(self) -> float:
        """Seconds between proofs of freshness."""
        return self._core.following.ping_interval

    def start(self) -> None:
        """Begins to follow, if that has not begun; waits for nothing."""
        self._core.following.start()

    def on_state_change(self, callback: Callable[[State], object]) -> None:
        """Calls back on a thread of its own at every change of state; what the callback raises is logged."""
        self._core.on_state_change(callback)

    def invalidate(self) -> None:
        """Not fresh from now on, until the service vouches anew.

        For the one case that no clock can tell: a virtual machine that was restored from a snapshot.
        """
        self._core.following.invalidate()

    def metrics(self, registry: CollectorRegistry, name: str = "") -> None:
        """Adds this client's metrics to the application's own registry of `prometheus_client`, which must be installed.

        `name` is the label `client`, for several clients of a realm in one registry; default: the client's own name.
        Raises ValueError if the registry has a client of this realm under that name.
        """
        from revocation_sdk.prometheus import register

        register(self._core, registry, name or self._core.following.name)

    def unknown(self, age_s: float | None) -> StatusUnknown:
        """The error that says why the view is not fresh."""
        self._core.following.revive()
        reason, message = self._core.following.why_stale()
        return StatusUnknown(message, age_s=age_s, reason=reason)

    def check(
        self,
        claims: Mapping[str, Any],
        *,
        token: str | None = None,
        key_id: str | None = None,
        thumbprint: str | None = None,
        max_staleness: float | None = None,
        on_stale: Unasked = "deny",
        version_claim: str | None = "tver",
        client_claim: str = "client_id",
        issuer_skew: float = 0,
    ) -> Freshness:
        """Accepts the claims of a token that the caller has verified and that was not taken back; no I/O.

        Args:
            claims: What the verified token says.
            token: The token itself; needed only if it has no `jti`.
            key_id: The `kid` under which one's own key set lists the key that verified.
            thumbprint: Its RFC 7638 thumbprint. With neither, revoked signing keys go unnoticed.
            max_staleness: How old the view may be; default: the client's.
            on_stale: What to do when it is older: "deny" or "allow".
            version_claim: The claim with the versions; None: a foreign issuer that mints none.
            client_claim: The claim with the client; `azp` stands in for it.
            issuer_skew: Seconds that a foreign issuer's clock may be ahead, when `iat` is compared with a cutoff.

        Raises:
            ConfigError: max_staleness, on_stale or issuer_skew is none.
            TokenInvalid: These claims cannot be judged, or outlive the realm's limits.
            TokenExpired: Expired for longer than any leeway.
            TokenRevoked: Taken back; also reported when the view is stale.
            StatusUnknown: The view is too old to tell.
        """
        check_policy(on_stale)
        self._core.following.start()
        counts = self._core.following.counts
        try:
            reading = (key_id, thumbprint, version_claim, client_claim, issuer_skew)
            found = self._checked(claims, token, reading, max_staleness, on_stale)
        except RevocationError as error:
            counts.verdict(error)
            raise
        if found.fresh:
            counts.accepted += 1
        else:
            counts.accepted_stale += 1
        return found

    def _checked(
        self,
        claims: Mapping[str, Any],
        token: str | None,
        reading: Reading,
        max_staleness: float | None,
        on_stale: Unasked,
    ) -> Freshness:
        limit = self._core.max_staleness
        if max_staleness is not None:
            check_staleness(max_staleness, self.ping_interval)
            self._core.following.judged_by(max_staleness)
            limit = max_staleness
        sight = self._core.checker.look(claims, token, reading)
        fresh = sight.age_s is not None and sight.age_s <= limit
        if not fresh and on_stale == "deny":
            raise self.unknown(sight.age_s)
        if not fresh:
            self._core.checker.allowed()
        return Freshness(fresh, sight.age_s, self._core.following.position_text(sight.lease))


def core_of(client: BaseClient) -> Core:
    """The parts of a client, for modules of this package that add to it."""
    return client._core
