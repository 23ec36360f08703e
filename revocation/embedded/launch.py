"""Starts the server so that it cannot outlive the process that asked for it, however that one ends.

Run as a file of its own, isolated (`python -I -S launch.py OWNER_PID SERVER ARGUMENT...`), and not as `preexec_fn`:
code between fork and exec is unsafe in a process with threads. Imports the standard library only.

Linux: the kernel kills the server when the thread that started this process ends (PR_SET_PDEATHSIG survives exec).
Elsewhere this process stays, with the server as its child, and kills it when the owner's end of stdin closes, which
the system does also for an owner that was killed. What remains there: this process itself being killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1


def replace_by(owner: int, command: list[str]) -> None:
    """Becomes `command`, bound to the life of the owner. Does not return."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        sys.exit(f"cannot bind the store to its owner: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != owner:  # it ended before the line above took effect
        sys.exit("the owner is gone")
    os.execv(command[0], command)


def stay_with(command: list[str], keep: tuple[int, ...]) -> int:
    """Runs `command`, with the file descriptors `keep`, until it ends or stdin closes; returns its exit code."""
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=keep)

    def kill_when_owner_is_gone() -> None:
        while os.read(0, 1):
            pass
        server.kill()

    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    threading.Thread(target=kill_when_owner_is_gone, daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    how, owner_pid, lock_fd, *server_command = sys.argv[1:]
    if how == "replace":
        replace_by(int(owner_pid), server_command)
    os._exit(stay_with(server_command, (int(lock_fd),)) & 0xFF)
