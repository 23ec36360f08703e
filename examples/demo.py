"""`make demo`: a whole installation on this machine, shown at work. Ends with an error if a claim does not hold.

One embedded store, two service replicas, four verifiers in processes of their own. A user logs in, logs out, changes
the password; two tabs refresh at once and a thief replays an old refresh token; a replica is killed.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from revocation_sdk import RefreshReused, RevocationClient, SessionEnded, TokenIssuer

HERE = Path(__file__).parent
ISSUER, AUDIENCE = "https://id.example", "api"
_COLOURS = sys.stdout.isatty()


def say(text: str = "", colour: str = "") -> None:
    """One line for the person who watches."""
    print(f"\033[{colour}m{text}\033[0m" if colour and _COLOURS else text, flush=True)


def claim(text: str, holds: bool) -> None:
    """A claim, checked; the demo ends with exit code 1 at the first that does not hold."""
    say(f"  {'ok' if holds else 'NOT TRUE'}  {text}", "32" if holds else "31;1")
    if not holds:
        raise SystemExit(1)


@contextmanager
def process(*command: str, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block."""
    started = subprocess.Popen(
        [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def free_port() -> int:
    """A port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class VerifierProcess:
    """A verifier, asked over a pipe."""

    def __init__(self, name: str, popen: subprocess.Popen[str]) -> None:
        self.name = name
        self._popen = popen
        self._lock = threading.Lock()
        self._read()

    def ask(self, **question: str) -> dict[str, Any]:
        with self._lock:
            assert self._popen.stdin is not None
            self._popen.stdin.write(json.dumps(question) + "\n")
            self._popen.stdin.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise SystemExit(f"the {self.name} verifier ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Demo:
    """The installation, and the steps shown on it."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.log = stack.enter_context((folder / "service.log").open("w"))
        self.pool = stack.enter_context(ThreadPoolExecutor(8))
        self.verifiers: list[VerifierProcess] = []

    def start_service(self) -> None:
        say("Starting an embedded store and two service replicas ...")
        store = self.stack.enter_context(
            process("-m", "revocation.embedded", "--data-dir", str(self.folder / "data"), stderr=self.log)
        )
        assert store.stdout is not None
        url = store.stdout.readline().strip()
        ports = [free_port(), free_port()]
        self.replicas = [
            self.stack.enter_context(
                process(
                    "-m", "revocation", "serve", "--redis-url", url, "--listen", f"127.0.0.1:{port}",
                    "--ack", "fsynced", "--settle-s", "0.3", stderr=self.log,
                )
            )
            for port in ports
        ]  # fmt: skip
        self.addresses = ",".join(f"127.0.0.1:{port}" for port in ports)
        self.client = self.stack.enter_context(RevocationClient(self.addresses))
        self.client.wait_until_fresh(timeout=60)

    def make_issuer(self) -> None:
        private = ec.generate_private_key(ec.SECP256R1())
        public = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        self.key_file = self.folder / "issuer.pem"
        self.key_file.write_bytes(public)
        self.issuer = TokenIssuer(
            self.client, key=private, algorithm="ES256", issuer=ISSUER, audience=AUDIENCE, lifetime=600
        )

    def start_verifier(self, name: str, kind: str, addresses: str) -> None:
        popen = self.stack.enter_context(
            process(str(HERE / "demo_verifier.py"), kind, addresses, str(self.key_file), stderr=self.log)
        )
        self.verifiers.append(VerifierProcess(name, popen))

    def start_verifiers(self) -> None:
        first, second = self.addresses.split(",")
        say("Starting verifiers in processes of their own ...")
        self.start_verifier("thread client, replica 1", "thread", first)
        self.start_verifier("asyncio client, replica 2", "asyncio", second)
        self.start_verifier("thread client, both replicas", "thread", self.addresses)

    def all_accept(self, token: str, text: str) -> None:
        verdicts = [verifier.ask(verify=token) for verifier in self.verifiers]
        claim(f"{text}: accepted by all {len(verdicts)}", all(v["accepted"] and v["fresh"] for v in verdicts))

    def all_refuse(self, token: str, text: str, *, soon: bool = False) -> None:
        """`soon`: they learn it through their streams, and are given the time."""
        question = "until_refused" if soon else "verify"
        verdicts = [verifier.ask(**{question: token}) for verifier in self.verifiers]
        claim(f"{text}: refused by all {len(verdicts)}", all(v.get("why") == "revoked" for v in verdicts))

    def refused_after(self, token: str, act: Any) -> list[float]:
        """Milliseconds from the call of `act` until each verifier refuses the token."""
        waiting = [self.pool.submit(verifier.ask, until_refused=token) for verifier in self.verifiers]
        called = time.monotonic()
        act()
        self.acknowledged_ms = (time.monotonic() - called) * 1000
        verdicts = [future.result() for future in waiting]
        claim("revoked is what all verifiers say", all(v.get("why") == "revoked" for v in verdicts))
        return [max(0.0, (verdict["at"] - called) * 1000) for verdict in verdicts]

    def logout(self) -> None:
        say("\n1. Alice logs in, and out again", "1")
        login = self.issuer.login("alice", device="laptop")
        self.all_accept(login.access_token, "her token")
        times = self.refused_after(login.access_token, lambda: self.issuer.logout(login.session_id))
        for verifier, milliseconds in zip(self.verifiers, times, strict=True):
            say(f"      {verifier.name}: refused {milliseconds:.1f} ms after the call")
        say(f"      (the call itself was acknowledged after {self.acknowledged_ms:.1f} ms)")
        self.start_verifier("started after the revocation", "thread", self.addresses)
        self.all_refuse(login.access_token, "her old token, a newly started verifier included")
        claim("her refresh token is dead too", self.refresh_fails(login.refresh_token))

    def refresh_fails(self, refresh_token: str) -> bool:
        try:
            self.issuer.refresh(refresh_token)
        except SessionEnded:
            return True
        return False

    def password_change(self) -> None:
        say("\n2. Alice changes her password", "1")
        old, bob = self.issuer.login("alice"), self.issuer.login("bob")
        self.refused_after(old.access_token, lambda: self.issuer.logout_everywhere("alice"))
        new = self.issuer.login("alice")
        self.all_refuse(old.access_token, "the token from before")
        self.all_accept(new.access_token, "the token of the login right after it")
        self.all_accept(bob.access_token, "Bob's token, untouched")

    def theft(self) -> None:
        say("\n3. Two tabs refresh at once; then a thief replays an old refresh token", "1")
        login = self.issuer.login("carol", device="browser")
        tabs = list(self.pool.map(self.issuer.refresh, [login.refresh_token] * 2))
        claim("both tabs got the same successor", tabs[0].refresh_token == tabs[1].refresh_token)
        newer = self.issuer.refresh(tabs[0].refresh_token)
        self.all_accept(newer.access_token, "her newest token")
        try:
            self.issuer.refresh(login.refresh_token)
        except RefreshReused:
            claim("the replay of the first refresh token is seen as theft", True)
        else:
            claim("the replay of the first refresh token is seen as theft", False)
        claim("the session is over", self.refresh_fails(newer.refresh_token))
        self.all_refuse(newer.access_token, "its newest access token", soon=True)

    def kill_a_replica(self) -> None:
        say("\n4. A replica is killed (SIGKILL)", "1")
        login = self.issuer.login("dave")
        self.all_accept(login.access_token, "before: Dave's token")
        self.replicas[0].send_signal(signal.SIGKILL)
        self.replicas[0].wait()
        rest = [verifier for verifier in self.verifiers if verifier.name != "thread client, replica 1"]
        self.verifiers = rest
        say("      (the verifier that knew only this replica is left out: it turns stale, and says so)")
        times = self.refused_after(login.access_token, lambda: self.client.revoke_session(login.session_id))
        say(f"      revoked through the other one: refused everywhere {max(times):.1f} ms after the call")
        self.all_accept(self.issuer.login("erin").access_token, "a new login")


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="revocation-demo-") as folder, ExitStack() as stack:
        demo = Demo(stack, Path(folder))
        try:
            demo.start_service()
            demo.make_issuer()
            demo.start_verifiers()
            for step in (demo.logout, demo.password_change, demo.theft, demo.kill_a_replica):
                step()
        except BaseException:
            demo.log.flush()
            lines = (Path(folder) / "service.log").read_text().splitlines()
            say("\nThe last lines of the service's log:", "31")
            say("\n".join(lines[-15:]))
            raise
    say(f"\nAll of it held, in {time.monotonic() - began:.1f} s.", "32;1")


if __name__ == "__main__":
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    main()
