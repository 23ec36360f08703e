"""Freed memory goes back to the system. The view is there once in each worker process, so this is felt."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress

_trim: Callable[[int], int] | None = None
with suppress(OSError, TypeError, AttributeError):  # other libraries give it back by themselves, or never
    _trim = ctypes.CDLL(None).malloc_trim


def give_back() -> None:
    """For after a large change. glibc keeps up to 64 MiB of what was freed: more than a view of a million entries."""
    if _trim is not None:
        _trim(0)
