"""Row "memory of the view": what a process holds more after so many entries, each structure in a process of its own.

python -m bench.memory view|set|dict COUNT     prints bytes an entry
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import time
import uuid
from collections.abc import Sized

from bench.measure import memory_bytes


def measured(kind: str, count: int) -> float:
    """Bytes an entry, by a process of its own."""
    command = [sys.executable, "-m", "bench.memory", kind, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=900).stdout)


def _fill(kind: str, count: int) -> Sized:
    if kind == "view":
        from bench.check import denials
        from revocation_sdk._lattice import Kind
        from revocation_sdk._view import View

        # What does not grow with the entries: code that is read from disk when it first runs, and the empty view.
        for start in range(0, 5_000, 10):
            (warm := View()).merge(denials(Kind.TOKEN, 20_000 if not start else 10, 2**31, seed=start))
        del warm
        view = View()
        view.merge(denials(Kind.TOKEN, 1, 2**31))
        _begin()
        recent = count // 100
        view.merge(denials(Kind.TOKEN, count - recent, 2**31))  # as a snapshot comes
        for start in range(0, recent, 10):  # as changes come
            view.merge(denials(Kind.TOKEN, min(10, recent - start), 2**31, seed=start + 1))
        return view
    _begin()
    if kind == "set":
        return {str(uuid.uuid4()) for _ in range(count)}
    return {str(uuid.uuid4()): time.time() for _ in range(count)}


_before = 0


def _begin() -> None:
    global _before
    _before = _held()


def _held() -> int:
    """What is in use; what the allocator merely kept is given back first."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return memory_bytes()


def main() -> None:
    kind, count = sys.argv[1], int(sys.argv[2])
    held = _fill(kind, count)
    print((_held() - _before) / len(held))


if __name__ == "__main__":
    main()
