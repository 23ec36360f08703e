"""Who calls, and may they? Deny by default.

At present a listener is either local, or deliberately opened with `--allow-anonymous`; both treat every caller as the
anonymous admin of realm `default` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from revocation.errors import Denied

ANONYMOUS_REALM = "default"


@dataclass(frozen=True, slots=True)
class Caller:
    """An identity, as the audit record names it."""

    name: str


class Authorizer(Protocol):
    """Decides about every call before its body runs."""

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        """Who calls. Raises Denied."""


class AnonymousAdmin:
    """Everybody may do everything in realm `default`, and nothing elsewhere."""

    async def authorize(self, context: Any, method: str, realm: str) -> Caller:
        """Anonymous. Raises Denied for another realm."""
        if realm not in (ANONYMOUS_REALM, ""):
            raise Denied("without identities configured, callers may use realm `default` only")
        return Caller("anonymous")
