"""Unary calls, for threads and for event loops alike: connect, send, try again with the same op id.

Both run on gRPC's synchronous stack; an event loop waits for the call's future. So any number of loops may share a
client, which grpc.aio does not stand, and a cancelled task cancels its call on the wire.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar

import grpc

from revocation_sdk._channel import Endpoint, Endpoints, Security
from revocation_sdk._operation import Operation
from revocation_sdk._retry import NOT_CONNECTED, Failure, Retry, error_of
from revocation_sdk._tracing import call as call_span
from revocation_sdk._tracing import current as current_span
from revocation_sdk._wire import failure_of
from revocation_sdk.errors import RevocationError

T = TypeVar("T")
_LATE = Failure("DEADLINE_EXCEEDED", "", "the service did not begin to answer in time")


class Calls:
    """Calls to the address in use, or to the next if that one does not answer."""

    def __init__(self, endpoints: Endpoints, how: Security) -> None:
        self._endpoints = endpoints
        self._how = how

    def run(self, operation: Operation[Any], timeout: float) -> Any:
        """The answer, as the wire has it. Raises ServiceError, SessionEnded or ConfigError."""
        with call_span(operation.method):
            return self._run(operation, _retry(operation, timeout))

    def _run(self, operation: Operation[Any], retry: Retry) -> Any:
        while True:
            endpoint, metadata = self._prepare(retry)
            try:
                if endpoint.proven or endpoint.reached(endpoint.probe(_attempt_s(retry))):
                    call = _method(endpoint, operation)
                    return _succeeded(endpoint, call(operation.request, _attempt_s(retry), metadata))
                failure = NOT_CONNECTED
            except grpc.RpcError as error:
                failure = failure_of(error)
            except ValueError:  # somebody closed the channel just now
                failure = NOT_CONNECTED
            time.sleep(self._failed(endpoint, retry, failure))

    async def run_async(self, operation: Operation[Any], timeout: float) -> Any:
        """As `run`, without blocking the event loop."""
        with call_span(operation.method):
            return await self._run_async(operation, _retry(operation, timeout))

    async def _run_async(self, operation: Operation[Any], retry: Retry) -> Any:
        while True:
            endpoint, metadata = self._prepare(retry)
            try:
                if endpoint.proven or endpoint.reached(await _done(endpoint.probe(_attempt_s(retry)))):
                    asked = _method(endpoint, operation).future(operation.request, _attempt_s(retry), metadata)
                    return _succeeded(endpoint, (await _done(asked)).result())
                failure = NOT_CONNECTED
            except grpc.RpcError as error:
                failure = failure_of(error)
            except ValueError:  # somebody closed the channel just now
                failure = NOT_CONNECTED
            await asyncio.sleep(self._failed(endpoint, retry, failure))

    def stream(self, stub: type[Any], method: str, request: Any, timeout: float) -> Iterator[Any]:
        """The answers of a call that streams; `timeout` is for the first. Raises RevocationError.

        Until that came, other addresses are tried; what breaks later ends it.
        """
        retry = Retry(time.monotonic(), timeout, mutates=False)
        while True:
            endpoint, metadata = self._prepare(retry)
            call, begun, late = None, False, threading.Event()
            try:
                if not endpoint.proven and not endpoint.reached(endpoint.probe(_attempt_s(retry))):
                    failure = NOT_CONNECTED
                else:
                    call = getattr(endpoint.stub(stub), method)(request, metadata=metadata)
                    for answer in _first_within(_attempt_s(retry), call, late):
                        begun = endpoint.proven = True
                        yield answer
                    return
            except grpc.RpcError as error:
                failure = _LATE if late.is_set() else failure_of(error)
            except ValueError:  # somebody closed the channel just now
                failure = NOT_CONNECTED
            finally:
                if call is not None:
                    call.cancel()
            if begun:
                raise error_of(failure)
            time.sleep(self._failed(endpoint, retry, failure))

    def _prepare(self, retry: Retry) -> tuple[Endpoint, tuple[tuple[str, str], ...]]:
        try:
            metadata, traceparent = self._how.metadata(), current_span()
            if traceparent:
                metadata = (*metadata, ("traceparent", traceparent))
            return self._endpoints.current(), metadata
        except RevocationError as error:
            final = retry.given_up(error)
            if final is error:
                raise  # "from itself" would be a circle, and hide its cause
            raise final from error

    def _failed(self, endpoint: Endpoint, retry: Retry, failure: Failure) -> float:
        if failure.elsewhere:
            self._endpoints.leave(endpoint)
        return retry.after(failure, time.monotonic(), random.random())


def _retry(operation: Operation[Any], timeout: float) -> Retry:
    return Retry(time.monotonic(), timeout, mutates=operation.mutates, op_id=operation.op_id, patient=operation.patient)


def _attempt_s(retry: Retry) -> float:
    return retry.attempt_s(time.monotonic())


def _first_within(seconds: float, call: Any, late: threading.Event) -> Iterator[Any]:
    """The answers of a call that streams, which is cancelled if none is there in time: a deadline would be for all."""

    def give_up() -> None:
        late.set()
        call.cancel()

    patience = threading.Timer(seconds, give_up)
    patience.daemon = True
    patience.start()
    try:
        for answer in call:
            patience.cancel()
            yield answer
    finally:
        patience.cancel()


def _method(endpoint: Endpoint, operation: Operation[Any]) -> Any:
    return getattr(endpoint.stub(operation.stub), operation.method)


def _succeeded(endpoint: Endpoint, response: T) -> T:
    endpoint.proven = True
    return response


async def _done(call: Any) -> Any:
    """Waits, on an event loop, for a call that runs on gRPC's threads. Cancels it if the task is cancelled."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def wake(_: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(done.set)

    call.add_done_callback(wake)
    try:
        await done.wait()
    except BaseException:
        call.cancel()
        raise
    return call
