"""Handles of sessions: what names one in lists without giving its sid away. Pure."""

from __future__ import annotations

import base64
import binascii

HANDLE_BYTES = 16


def handle_text(handle: bytes) -> str:
    """A handle as lists show it: 22 characters."""
    return base64.urlsafe_b64encode(handle).rstrip(b"=").decode()


def parse_handle(text: str) -> bytes | None:
    """The inverse; None for what has not exactly the form of a handle."""
    try:
        handle = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return handle if len(handle) == HANDLE_BYTES and handle_text(handle) == text else None
