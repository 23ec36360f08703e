"""What every call has in common: who calls, a request id, one log line, metrics, and errors that become statuses."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import grpc
import structlog
from prometheus_client import Counter, Histogram

from revocation import limits
from revocation.callers.auth import Authorizer
from revocation.callers.roles import Caller
from revocation.errors import Denied, Overloaded, ServiceError, Unavailable
from revocation.fairness.quotas import HOLD_S, Quotas
from revocation.observability import tracing
from revocation.observability.telemetry import Metrics, begin_request
from revocation.rpc.errors import code_of, trailers

log = structlog.get_logger("revocation.rpc")
Context = grpc.aio.ServicerContext[Any, Any]
Response = TypeVar("Response")


class Calls:
    """Runs the bodies of RPC methods."""

    def __init__(self, metrics: Metrics, authorizer: Authorizer, quotas: Quotas) -> None:
        self._metrics = metrics
        self._authorizer = authorizer
        self._quotas = quotas
        self._meters: dict[tuple[str, grpc.StatusCode], tuple[Counter, Histogram]] = {}
        self.draining = False

    async def run(
        self,
        context: Context,
        method: str,
        realm: str,
        body: Callable[[Caller, float], Awaitable[Response]],
        *,
        rows: int = 0,
    ) -> Response:
        """Authorises `method` (a row of roles.TABLE), runs `body(caller, deadline)`, and turns errors into statuses.

        `rows` is what the call weighs besides being one. Who may not call in a realm uses nothing of its limits.
        """
        begun = time.perf_counter()
        _begin(context)
        code = grpc.StatusCode.OK
        try:
            return await self._admitted(context, method, realm, body, rows)
        except ServiceError as error:
            code = self._refused(error)
            await _abort(context, error)
            raise  # abort has raised already; this tells the type checker
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except grpc.aio.AbortError:
            raise
        except grpc.aio.InternalError:  # the peer went away in the middle of a write
            code = grpc.StatusCode.CANCELLED
            raise asyncio.CancelledError from None
        except Exception as error:
            code = grpc.StatusCode.INTERNAL
            log.exception("call_failed", method=method)
            await _abort(context, _INTERNAL)
            raise AssertionError("unreachable") from error
        finally:
            self._count(method, code, time.perf_counter() - begun)
            if tracing.carried():
                tracing.end(method, code.name)

    async def _admitted(
        self, context: Context, method: str, realm: str, body: Callable[[Caller, float], Awaitable[Response]], rows: int
    ) -> Response:
        if self.draining and method != "Watch":
            raise Unavailable("this replica is shutting down", reason="DRAINING")
        caller = await self._authorizer.authorize(context, method, realm)
        end = deadline(context)
        await self._admit(realm, caller, rows, end)
        if method == "Watch":  # it lasts; what bounds streams is in `watch.py`
            self._quotas.leave(realm)
            return await body(caller, end)
        try:
            return await body(caller, end)
        finally:
            self._quotas.leave(realm)

    async def _admit(self, realm: str, caller: Caller, rows: int, end: float) -> None:
        """Within the limits of the realm and the caller. Raises Overloaded; else `leave` must follow."""
        refused = self._quotas.admit(realm, caller.name, rows, time.perf_counter())
        if refused is not None:
            await self._hold(realm, end)
            # Spread, or all who wait would come back at the same moment.
            hint = int(refused.retry_after_ms * random.uniform(1.0, 1.5))
            raise Overloaded(f"the realm's limit of {refused.limit} is reached", retry_after_ms=hint)

    async def _hold(self, realm: str, end: float) -> None:
        """Keeps a refusal for a while: a caller that ignores the hint must not cost more than one that heeds it."""
        if self._quotas.hold(realm):
            try:
                left = end - asyncio.get_running_loop().time()
                # Spread: what was refused together must not come back together.
                await asyncio.sleep(max(0.0, min(HOLD_S * random.uniform(0.5, 1.5), left / 2)))
            finally:
                self._quotas.let_go(realm)

    def lasting(self, context: Context, method: str, realm: str, caller: Caller) -> Lasting:
        """The right to go on with a call that lasts, whose caller was authorised as it began."""
        return Lasting(self._authorizer, context, method, realm, caller)

    def _refused(self, error: ServiceError) -> grpc.StatusCode:
        if isinstance(error, Overloaded) and error.limit:
            self._metrics.limits_reached.labels(error.limit).inc()
        return code_of(error)

    async def refuse(self, context: Context, method: str, error: ServiceError) -> NoReturn:
        """Ends a call before its body, and before it is known who calls."""
        _begin(context)
        self._count(method, code_of(error), 0.0)
        await _abort(context, error)
        raise error  # abort has raised already

    def _count(self, method: str, code: grpc.StatusCode, seconds: float) -> None:
        meters = self._meters.get((method, code))
        if meters is None:
            labels = method.partition(":")[0], code.name
            meters = self._metrics.rpc_requests.labels(*labels), self._metrics.rpc_seconds.labels(*labels)
            self._meters[method, code] = meters
        meters[0].inc()
        meters[1].observe(seconds)


@dataclass(slots=True)
class Lasting:
    """The right to go on with a stream: that of its caller, judged anew whenever the roles have changed."""

    authorizer: Authorizer
    context: Context
    method: str
    realm: str
    caller: Caller

    async def still_allowed(self) -> None:
        """To be asked now and then; costs next to nothing as long as the roles are the same. Raises ServiceError."""
        if self.caller.expired:
            raise Denied("the identity of this stream has expired", reason="UNAUTHENTICATED")
        if self.caller.judged_by == self.authorizer.generation:
            return
        with contextlib.suppress(Overloaded):  # thousands are judged at the same moment; the next time will do
            self.caller = await self.authorizer.authorize(self.context, self.method, self.realm)


_INTERNAL = ServiceError("a fault of the service; its log has more under the request id")


async def _abort(context: Context, error: ServiceError) -> None:
    """Ends the call with a status. It stays behind for a peer that does not read; nobody waits for that."""
    try:
        async with asyncio.timeout(limits.FAREWELL_S):
            await context.abort(code_of(error), error.message, trailing_metadata=trailers(error))
    except (TimeoutError, grpc.aio.InternalError):
        raise asyncio.CancelledError from None


def _begin(context: Context) -> None:
    """The request id: the caller's own, if there is a sane one."""
    given = None
    for name, value in context.invocation_metadata() or ():
        if name == "x-request-id":
            given = value
        elif name == "traceparent":
            tracing.begin(value)
    begin_request(given if isinstance(given, str) else None)


def deadline(context: Context) -> float:
    """When the call must have ended, in event-loop time; a little before the caller gives up, to say why."""
    remaining = context.time_remaining()
    seconds = limits.CALL_TIMEOUT_S if remaining is None else min(remaining * 0.95, limits.LONGEST_CALL_S)
    return asyncio.get_running_loop().time() + seconds
