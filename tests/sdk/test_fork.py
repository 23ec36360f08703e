"""Forked children: not fresh at first, then following by themselves; the parent goes on undisturbed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from revocation_sdk._lattice import Kind
from tests.sdk.peer import Peer, row

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

LIMIT_S = 60

BEGIN = """
import os, sys, threading, time
from revocation_sdk import RevocationClient, State, StatusUnknown, TokenRevoked
client = RevocationClient(sys.argv[1], ping_interval=0.2)
claims = {"jti": "good", "exp": time.time() + 600}
bad = {"jti": "bad", "exp": time.time() + 600}

def refused(claims):
    try:
        client.check(claims)
    except TokenRevoked:
        return True
    return False

def in_children(number, work):
    children = []
    for _ in range(number):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work()
                code = 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * number, codes
"""

FOLLOWING = """
client.wait_until_fresh(30)
assert refused(bad)

def work():
    assert client.state is State.IDLE, client.state
    assert refused(bad)                # what the parent knew is known
    try:
        client.check(claims)           # but nobody vouches for it here
    except StatusUnknown:
        pass
    else:
        raise AssertionError("fresh in a child")
    client.wait_until_fresh(30)
    client.check(claims)
    assert client.revoke_subject("alice").stored
    client.close()

in_children(8, work)
client.invalidate()
client.wait_until_fresh(30)            # the parent's stream is its own
client.check(claims)
"""

UNUSED = """
def work():
    client.wait_until_fresh(30)

in_children(3, work)
assert client.state is State.IDLE
client.wait_until_fresh(30)
"""

NESTED = """
from revocation_sdk import NotFresh, Unavailable
client.wait_until_fresh(30)

def inner():                           # gRPC would abort the process here, sooner or later
    try:
        client.wait_until_fresh(30)
    except NotFresh as error:
        assert error.reason == "forked_twice", error.reason
    else:
        raise AssertionError("fresh")
    try:
        client.revoke_subject("alice")
    except Unavailable as error:
        assert error.reason == "forked_twice", error.reason
    else:
        raise AssertionError("revoked")

def outer():
    client.wait_until_fresh(30)
    in_children(3, inner)

in_children(3, outer)
"""

NESTED_UNUSED = """
client.wait_until_fresh(30)
in_children(2, lambda: in_children(2, lambda: client.wait_until_fresh(30)))
client.close()
client = RevocationClient(sys.argv[1], ping_interval=0.2)

def outer():
    client.wait_until_fresh(30)
    in_children(2, lambda: client.wait_until_fresh(30))

in_children(2, outer)
"""

BUSY = """
client.wait_until_fresh(30)
done = threading.Event()

def judge():
    while not done.is_set():
        refused(claims)

threads = [threading.Thread(target=judge) for _ in range(2)]
for thread in threads:
    thread.start()

def work():
    client.wait_until_fresh(30)

in_children(5, work)
done.set()
for thread in threads:
    thread.join()
"""

CLOSED = """
client.wait_until_fresh(30)
client.close()

def work():
    assert client.state is State.CLOSED

in_children(2, work)
"""

CALLBACKS = """
import queue
states = queue.SimpleQueue()
client.on_state_change(states.put)
client.wait_until_fresh(30)

def work():
    while not states.empty():
        states.get()
    client.start()
    while states.get(timeout=30) is not State.FRESH:
        pass

in_children(2, work)
"""

ONLY_REVOKES = """
from revocation_sdk._clock import Clock
ahead = 0.0
clock = Clock(lambda: time.monotonic() + ahead, lambda: time.time() + ahead)
client = RevocationClient(sys.argv[1], ping_interval=0.2, clock=clock)
client.wait_until_fresh(30)
assert len(client.follower.view) == 1

def work():
    global ahead
    ahead = 10_000.0                   # nothing lives that long
    client.revoke_subject("alice")
    assert len(client.follower.view) == 0, len(client.follower.view)

in_children(1, work)
"""

FORKED_IN_C = """
import ctypes                          # uWSGI forks so: none of Python's handlers run
client.state                           # made, and not started

child = ctypes.PyDLL(None).fork()
if child == 0:
    code = 1
    try:
        try:
            client.check(claims)
        except StatusUnknown:
            pass
        client.wait_until_fresh(30)
        followers = [one for one in threading.enumerate() if one.name == "revocation-follower"]
        assert len(followers) == 2, followers
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""

CLEAN_EXIT = """
client.wait_until_fresh(30)
child = os.fork()
client.wait_until_fresh(30)
if child:
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""

MULTIPROCESSING = """
import multiprocessing
client.wait_until_fresh(30)

def work(_):
    client.wait_until_fresh(30)
    return client.state.value

with multiprocessing.get_context("fork").Pool(3) as pool:
    assert set(pool.map(work, range(20))) == {"fresh"}
"""


@pytest.mark.parametrize(
    "program",
    [
        FOLLOWING,
        UNUSED,
        NESTED,
        NESTED_UNUSED,
        BUSY,
        CLOSED,
        CALLBACKS,
        ONLY_REVOKES,
        FORKED_IN_C,
        CLEAN_EXIT,
        MULTIPROCESSING,
    ],
    ids=[
        "following",
        "unused",
        "nested",
        "nested_unused",
        "busy",
        "closed",
        "callbacks",
        "only_revokes",
        "forked_in_c",
        "clean_exit",
        "multiprocessing",
    ],
)
def test_a_child_follows_by_itself(program: str) -> None:
    with Peer() as peer:
        peer.commit(row(Kind.TOKEN, "bad"))
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + program, peer.address],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr


def test_fork_support_switched_off_is_warned_about() -> None:
    with Peer() as peer:
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + "client.wait_until_fresh(30)", peer.address],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=True,
            env={**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"},
        )
    assert "GRPC_ENABLE_FORK_SUPPORT" in done.stderr


APP = """
import os, time
from revocation_sdk import RevocationClient, StatusUnknown
client = RevocationClient(os.environ["PEER"], ping_interval=0.2)
client.wait_until_fresh(30)     # before the workers are forked

def app(environ, start_response):
    client.wait_until_fresh(30)
    client.check({"jti": "good", "exp": time.time() + 60})
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def test_gunicorn_with_preload(tmp_path: Path) -> None:
    pytest.importorskip("gunicorn")
    (tmp_path / "preloaded.py").write_text(APP)
    path = str(tmp_path / "g.sock")
    with Peer() as peer:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "gunicorn",
                "--preload",
                "--workers",
                "2",
                "--bind",
                f"unix:{path}",
                "preloaded:app",
            ],
            cwd=tmp_path,
            env={**os.environ, "PEER": peer.address, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            workers = {ask(path) for _ in range(20)}
            assert str(server.pid) not in workers
        finally:
            server.send_signal(signal.SIGTERM)
            _, log = server.communicate(timeout=LIMIT_S)
    assert server.returncode == 0, log
    assert "WORKER TIMEOUT" not in log


def ask(path: str) -> str:
    """One request, as soon as the server listens."""
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(LIMIT_S)
                connection.connect(path)
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
        except OSError:
            assert time.monotonic() < end, "gunicorn does not listen"
            continue
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"200 OK" in head, answer
        return body.decode()
