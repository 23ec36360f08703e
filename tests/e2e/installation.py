"""An installation for one test: a store, service replicas and verifiers, each a process that can be broken."""

from __future__ import annotations

import contextlib
import json
import signal
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from revocation_sdk import RevocationClient
from tests.e2e.processes import LIMIT_S, Answering, Process, until
from tests.e2e.releases import Release
from tests.e2e.tokens import AUDIENCE, ISSUER, Signer
from tests.servers import HERE, Place, Server, Servers, free_port

PING_S = 0.25
MAX_STALENESS_S = 1.5
PATIENT_S = 20.0
"""max_staleness of who must stay fresh: what pauses a process for some seconds must not make it stale."""

FAST = {"settle_s": 0.4, "heartbeat_s": 0.1, "detect_s": 3.0, "strike_after_s": 8.0}
"""Timing of the replicas: as in production, but for a test's patience. Who is paused for a moment is not dead."""

QUIET = {"REVOCATION_CANARY_S": "0"}
"""A canary's records and streams would be counted with those of tests; a flag, for a test of it, wins."""


class Replica(Process):
    """`revocation serve`."""

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        module: str = "revocation",
        release: Release | None = None,
        place: Place = HERE,
        **flags: Any,
    ) -> None:
        self.place, self.prefix = place, place.prefix
        self.port, self.http_port = free_port(), free_port()
        self.id = name
        given = {
            "listen": f"{place.host}:{self.port}", "http_listen": f"{place.host}:{self.http_port}",
            "replica_id": name, **FAST, **flags,
        }  # fmt: skip
        words = [
            word
            for field, value in given.items()
            for word in (f"--{field.replace('_', '-')}", *([] if value is True else [str(value)]))
        ]
        super().__init__(name, ["-m", module, "serve", *words], folder, QUIET, release=release)

    @property
    def address(self) -> str:
        return f"{self.place.host}:{self.port}"

    def get(self, page: str) -> str:
        """A page of the HTTP listener; OSError if it is not there or says no."""
        with urllib.request.urlopen(f"http://{self.place.host}:{self.http_port}/{page}", timeout=LIMIT_S) as response:
            text: str = response.read().decode()
            return text

    def ready(self) -> bool:
        """Whether it may acknowledge and vouch now. Fails if it has ended."""
        assert self.running, f"{self.name} has ended with code {self.pipes.returncode}:\n{self.log()[-3000:]}"
        return bool(self.get("readyz"))

    def wait_ready(self, timeout: float = LIMIT_S) -> None:
        until(self.ready, f"{self.name} is ready", timeout)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("metrics"))
            for sample in family.samples
            if sample.name == f"revocation_{name}" and labels.items() <= sample.labels.items()
        )

    def drain(self, timeout: float = LIMIT_S) -> int:
        """Ends it gracefully; returns the exit code."""
        self.terminate()
        return self.wait(timeout)


class Verifier(Answering):
    """A process with a client and a Verifier."""

    def __init__(
        self,
        name: str,
        folder: Path,
        addresses: str,
        signer: Signer,
        kind: str,
        release: Release | None = None,
        **options: Any,
    ) -> None:
        given = {
            "kind": kind, "addresses": addresses, "jwks": signer.jwks(), "issuer": ISSUER, "audience": AUDIENCE,
            "ping_interval": PING_S, "max_staleness": MAX_STALENESS_S, "on_stale": "deny", "name": name, **options,
        }  # fmt: skip
        super().__init__(name, ["-m", "tests.e2e.verifier_process", json.dumps(given)], folder, release=release)
        self.max_staleness: float = given["max_staleness"]

        self._ready = False

    def start(self) -> None:
        """Starts it and does not wait; the first question does."""
        super().start()
        self._ready = False

    def ask(self, timeout: float = LIMIT_S, **question: Any) -> dict[str, Any]:
        if not self._ready:
            self._ready = bool(self.read(timeout)["ready"])
        return super().ask(timeout, **question)

    def verify(self, token: str, **options: Any) -> dict[str, Any]:
        """One verdict: `why` is "accepted", "revoked", "unknown" or the reason of a refusal."""
        return self.ask(do="verify", token=token, **options)

    def why(self, token: str, **options: Any) -> str:
        return str(self.verify(token, **options)["why"])

    def verdict(self, token: str) -> str:
        """As `why`, by a fresh view: a pause makes it stale for a moment, and then it says nothing about a token."""

        def look() -> str:
            why = self.why(token)
            return "" if why == "unknown" else why

        return until(look, f"{self.name} knows about the token")

    def state(self) -> str:
        return str(self.ask(do="state")["state"])

    def wait_fresh(self, timeout: float = LIMIT_S) -> None:
        until(lambda: self.state() == "fresh", f"{self.name} is fresh", timeout)


class Installation:
    """Everything of one test; ends with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.servers = Servers(folder / "servers")
        self.signer = Signer()
        self.processes: list[Process] = []
        self.replicas: list[Replica] = []
        self.verifiers: list[Verifier] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything, the impolite way: what must be graceful is tested as such."""
        self._stack.close()
        for process in reversed(self.processes):
            process.kill()
        self.servers.close()

    # -- stores -------------------------------------------------------------------------------------------------

    def store(self, *, aof: bool = True) -> Server:
        """A store server of our own, without the restrictions of the embedded one."""
        return self.servers.start(aof=aof)

    def owner(self) -> Process:
        """`python -m revocation.embedded`: owns a store that several replicas share."""
        owner = Process("owner", ["-m", "revocation.embedded", "--data-dir", str(self.folder / "data")], self.folder)
        self.processes.append(owner)
        self.start_owner(owner)
        return owner

    def start_owner(self, owner: Process) -> str:
        """Starts it, and returns the URL of its store."""
        owner.start()
        assert owner.pipes.stdout is not None
        self.owner_url = owner.pipes.stdout.readline().strip()
        assert self.owner_url, owner.log()
        return self.owner_url

    # -- services and verifiers ---------------------------------------------------------------------------------

    def add_replicas(self, count: int, url: str, **flags: Any) -> list[Replica]:
        """Starts replicas together, and waits until they are ready."""
        added = [
            Replica(f"replica-{len(self.replicas) + number}", self.folder, redis_url=url, **flags)
            for number in range(count)
        ]
        return self._start(added)

    def add_embedded(self, **flags: Any) -> Replica:
        """A replica with an embedded store."""
        name = f"replica-{len(self.replicas)}"
        return self._start([Replica(name, self.folder, data_dir=str(self.folder / name), **flags)])[0]

    def _start(self, replicas: list[Replica]) -> list[Replica]:
        self.processes += replicas
        self.replicas += replicas
        for replica in replicas:
            replica.start()
        for replica in replicas:
            replica.wait_ready()
        return replicas

    @property
    def addresses(self) -> str:
        return ",".join(replica.address for replica in self.replicas)

    def add_verifier(self, kind: str = "thread", *, addresses: str | None = None, **options: Any) -> Verifier:
        """Starts a verifier; the first question waits until it answers. It need not be fresh yet."""
        name = f"verifier-{len(self.verifiers)}-{kind}"
        verifier = Verifier(name, self.folder, addresses or self.addresses, self.signer, kind, **options)
        self.processes.append(verifier)
        self.verifiers.append(verifier)
        verifier.start()
        return verifier

    def client(self, addresses: str | None = None, **options: Any) -> RevocationClient:
        """A client of the test process."""
        given = {"ping_interval": PING_S, "max_staleness": MAX_STALENESS_S, **options}
        return self._stack.enter_context(RevocationClient(addresses or self.addresses, **given))

    # -- what tests claim ---------------------------------------------------------------------------------------

    def refused_everywhere(self, tokens: Iterable[str], timeout: float = LIMIT_S) -> None:
        """Every verifier comes to refuse every one of these as revoked."""
        wanted = list(tokens)
        for verifier in self.verifiers:
            left = wanted

            def look(verifier: Verifier = verifier) -> bool:
                nonlocal left
                reasons = verifier.ask(do="verify_all", tokens=left)["why"]
                left = [token for token, why in zip(left, reasons, strict=True) if why != "revoked"]
                return not left

            until(look, f"{verifier.name} refuses all of {len(wanted)} tokens ({len(left)} are left)", timeout)

    def accepted_everywhere(self, *tokens: str) -> None:
        """Every verifier is or becomes fresh, and then accepts all of these."""
        for verifier in self.verifiers:
            verifier.wait_fresh()
            for token in tokens:
                assert verifier.verdict(token) == "accepted", (verifier.name, verifier.verify(token))

    def all_moved(self, gone: Replica) -> None:
        """Every verifier comes to follow another replica than this one, which has ended."""
        for verifier in self.verifiers:
            until(
                lambda verifier=verifier: verifier.ask(do="state")["replica"] != gone.id,  # type: ignore[misc]
                f"{verifier.name} follows another replica than {gone.name}",
            )

    def snapshots(self) -> float:
        """Snapshots sent by all replicas that run."""
        return sum(replica.metric("snapshots_total") for replica in self.replicas if replica.running)

    def logs(self) -> list[tuple[str, str]]:
        """The end of every log, for a test that failed."""
        found = [(process.name, process.log()[-6000:]) for process in self.processes]
        for path in sorted((self.folder / "servers").glob("*/server.log")):
            found.append((path.parent.name, path.read_text(errors="replace")[-3000:]))
        return found


def pid_of_store(url: str) -> int:
    """The process id of the server behind a URL."""
    import redis

    with redis.Redis.from_url(url, socket_timeout=5) as client:
        info: Any = client.info("server")
        return int(info["process_id"])


def kill_pid(pid: int) -> None:
    import os

    os.kill(pid, signal.SIGKILL)
