"""Whether what a script wrote is on the disk of the server that ran it: how to ask, and what the answer means."""

from __future__ import annotations

from enum import Enum
from typing import Any


class Disk(Enum):
    """How a change gets to the disk before it is answered for."""

    NEVER = "never"
    WAIT = "wait"
    """By WAITAOF, which the server that ran the script answers for itself."""
    ALWAYS = "always"
    """By the settings of the server: which are asked for each time, since after a failover it may be another one."""


def question(disk: Disk, timeout_ms: int) -> tuple[Any, ...]:
    """The command to send behind the script; nothing if it would not help."""
    match disk:
        case Disk.WAIT:
            return ("WAITAOF", 1, 0, timeout_ms)
        case Disk.ALWAYS:
            return ("CONFIG", "GET", "appendonly", "appendfsync")
        case Disk.NEVER:
            return ()


def copies_of(said: Any) -> int:
    """How many copies there are: by WAIT or WAITAOF, or (0 or 1) by the settings."""
    if not isinstance(said, list):
        return int(said)
    if said and isinstance(said[0], bytes):
        return int(b"yes" in said and b"always" in said)
    return int(said[0])
