"""`revocation serve`, which on SIGUSR1 writes to its log what every task of it waits for. For whatever hangs."""

from __future__ import annotations

import asyncio
import signal
import sys
from types import FrameType
from typing import Any

from revocation.cli import main


def tell(number: int, frame: FrameType | None) -> None:
    """Every task with the chain of what it awaits."""
    for task in list(asyncio.tasks._all_tasks):  # type: ignore[attr-defined]
        print(f"TASK {task.get_name()}: {' < '.join(_chain(task.get_coro()))}", file=sys.stderr)
    sys.stderr.flush()


def _chain(awaited: Any) -> list[str]:
    found: list[str] = []
    while awaited is not None and len(found) < 40:
        frame = getattr(awaited, "cr_frame", None) or getattr(awaited, "gi_frame", None)
        if frame is not None:
            found.append(f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}")
        else:
            found.append(repr(awaited)[:120])
        awaited = getattr(awaited, "cr_await", None) or getattr(awaited, "gi_yieldfrom", None)
    return found[::-1]


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, tell)
    sys.exit(main(sys.argv[1:]))
