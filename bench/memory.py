"""Row "memory of the view": what a process holds more after so many entries, each structure in a process of its own.

python -m bench.memory view|set|dict COUNT     prints bytes an entry
"""

from __future__ import annotations

import gc
import subprocess
import sys
import time
import uuid

from bench.measure import memory_bytes


def measured(kind: str, count: int) -> float:
    """Bytes an entry, by a process of its own."""
    command = [sys.executable, "-m", "bench.memory", kind, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout)


def _fill(kind: str, count: int) -> object:
    if kind == "view":
        from bench.check import denials
        from revocation_sdk._lattice import Kind
        from revocation_sdk._view import View

        view = View()
        view.merge(denials(Kind.TOKEN, 1, 2**31))  # what does not grow with the entries
        gc.collect()
        _begin()
        step = 100_000
        for start in range(0, count, step):  # as chunks of a snapshot come, but merged one by one
            view.merge(denials(Kind.TOKEN, min(step, count - start) - start // step % 7, 2**31))
        return view
    _begin()
    if kind == "set":
        return {str(uuid.uuid4()) for _ in range(count)}
    return {str(uuid.uuid4()): time.time() for _ in range(count)}


_before = 0


def _begin() -> None:
    global _before
    gc.collect()
    _before = memory_bytes()


def main() -> None:
    kind, count = sys.argv[1], int(sys.argv[2])
    held = _fill(kind, count)
    gc.collect()
    length = len(held)  # type: ignore[arg-type]
    print((memory_bytes() - _before) / length)


if __name__ == "__main__":
    main()
