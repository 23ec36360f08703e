"""One unary call as a value: what to send, how to read the answer, and what may be repeated. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from revocation_sdk.errors import InvalidRequest

T = TypeVar("T")
M = TypeVar("M", bound=Message)
_LEVELS = ("memory", "replicated", "fsynced")
"""As AckLevel in revocation.proto numbers them, from 1 on."""


@dataclass(frozen=True, slots=True)
class Operation(Generic[T]):
    """One unary call."""

    stub: type[Any]
    method: str
    request: Any
    read: Callable[[Any], T]
    mutates: bool = False
    op_id: str = ""
    """Its repetitions carry the same."""
    rows: bool = False
    """The answer has rows, which belong into the caller's own view."""
    patient: bool = False
    """It waits at the service: one attempt may take all the time there is."""

    def at_least(self, level: str | None) -> Operation[T]:
        """The same, which the service refuses if it acknowledges at less than `level`. None: whatever it does."""
        if level is not None:
            if level not in _LEVELS:
                raise InvalidRequest(f"min_ack must be one of {', '.join(_LEVELS)}", field="min_ack")
            self.request.min_ack = _LEVELS.index(level) + 1
        return self


def build(kind: type[M], **fields: Any) -> M:
    """A protobuf message from what a user gave; None is absent."""
    try:
        return kind(**{name: value for name, value in fields.items() if value is not None})
    except (TypeError, ValueError) as error:
        raise InvalidRequest(
            f"{kind.DESCRIPTOR.name}: a value of the wrong type or range", reason="invalid_field"
        ) from error
