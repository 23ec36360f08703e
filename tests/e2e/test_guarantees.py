"""Every ack level in every combination of faults: kept, delayed or lost, as the table of docs/guarantees.md says.

Kept: nothing changes for anybody. Delayed: nothing is lost, and until it is healed nobody acknowledges or vouches: a
new history was opened. Lost: a verifier that starts afterwards accepts what was acknowledged.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from revocation_sdk import OutcomeUnknown, RevocationClient, Unavailable
from tests.chaos.proxy import Proxy
from tests.e2e.installation import Installation, Replica, Verifier
from tests.e2e.processes import LIMIT_S, until
from tests.servers import Server

pytestmark = pytest.mark.e2e
PAGE = Path(__file__).parents[2] / "docs/guarantees.md"
LEVELS = ("memory", "replicated:1", "fsynced")


class Scene:
    """A primary with a replica, two service replicas, a verifier at each, and what was acknowledged."""

    def __init__(self, installation: Installation, ack: str) -> None:
        self.installation, self.ack = installation, ack
        self.primary = installation.store()
        self.link = Proxy(("127.0.0.1", self.primary.port))
        self.way = Proxy(("127.0.0.1", self.primary.port))
        self.second = installation.servers.start({"replicaof": f"127.0.0.1 {self.link.port}"}, aof=True)
        until(lambda: self.second.info("replication").get("master_link_status") == "up", "the copy is in step")
        self.url = f"redis://{self.way.address}"
        secret = installation.folder / "secret"
        secret.write_text("k1:" + "A" * 43 + "=")
        self.flags = {"ack": ack, "secret_file": secret}
        installation.add_replicas(2, self.url, **self.flags)
        for replica in self.replicas:
            installation.add_verifier("thread", addresses=replica.address).wait_fresh()
        self.acknowledged: list[str] = []
        self.alive = installation.signer.sign()

    @property
    def replicas(self) -> list[Replica]:
        return self.installation.replicas

    def client(self, *replicas: Replica) -> RevocationClient:
        return self.installation.client(",".join(one.address for one in replicas or self.replicas))

    def revoke(self, count: int, client: RevocationClient, timeout: float = LIMIT_S) -> None:
        """So many calls; those that are acknowledged count."""
        for number in range(count):
            sub, sid = f"sub-{len(self.acknowledged)}-{number}", f"sid-{len(self.acknowledged)}-{number}"
            token = self.installation.signer.sign(sub=sub, sid=sid)
            try:
                (
                    client.revoke_token(token, timeout=timeout),
                    client.revoke_subject(sub, timeout=timeout) if number % 2 else None,
                )
            except (OutcomeUnknown, Unavailable):
                continue
            self.acknowledged.append(token)

    def revoke_beyond_the_copy(self, client: RevocationClient) -> None:
        """What the copy does not get. A level that needs it acknowledges none, so that nobody waits for that."""
        self.link.set("hold")
        self.revoke(3, client, timeout=2.0 if self.ack.startswith("replicated") else LIMIT_S)

    def promote(self) -> None:
        """The copy takes over, with what it has; and has a copy of its own, if the level needs one."""
        self.primary.kill()
        self.second.call("REPLICAOF", "NO", "ONE")
        if self.ack.startswith("replicated"):
            self.installation.servers.start(replica_of=self.second)
        self.way.retarget(("127.0.0.1", self.second.port))

    def close(self) -> None:
        self.link.close()
        self.way.close()


def one_service_dies(scene: Scene) -> None:
    scene.replicas[0].kill()


def the_store_restarts_with_its_disk(scene: Scene) -> None:
    scene.primary.kill()
    scene.primary.start()


def flushall(scene: Scene) -> None:
    scene.primary.call("FLUSHALL")


def the_store_restarts_empty(scene: Scene) -> None:
    scene.primary.kill()
    scene.primary.wipe()
    scene.primary.start()


def failover_without_the_last_commits(scene: Scene) -> None:
    scene.revoke_beyond_the_copy(scene.client())
    scene.promote()


def failover_without_the_last_commits_and_the_replica_that_acknowledged_them_dies(scene: Scene) -> None:
    """The other one is stopped, so that it has not read them: the only two copies go at once."""
    first, other = scene.replicas
    other.stop()
    scene.revoke_beyond_the_copy(scene.client(first))
    first.kill()
    scene.promote()
    other.resume()


def all_services_die_and_the_store_restarts_with_its_disk(scene: Scene) -> None:
    for replica in scene.replicas:
        replica.kill()
    the_store_restarts_with_its_disk(scene)
    for replica in scene.replicas:
        replica.start()


def all_services_die_and_the_store_and_its_copy_lose_their_disks(scene: Scene) -> None:
    for replica in scene.replicas:
        replica.kill()
    for server in (scene.second, scene.primary):
        server.kill()
        server.wipe()
    for server in (scene.primary, scene.second):
        _start(server)
    for replica in scene.replicas:
        replica.start()


def _start(server: Server) -> None:
    server.start()


FAULTS: dict[str, tuple[Callable[[Scene], None], str, str, str]] = {
    "a service replica dies": (one_service_dies, "kept", "kept", "kept"),
    "the store is killed and restarts with its disk": (
        the_store_restarts_with_its_disk, "delayed", "delayed", "delayed",
    ),
    "`FLUSHALL`": (flushall, "delayed", "delayed", "delayed"),
    "the store is killed and restarts empty": (the_store_restarts_empty, "delayed", "delayed", "delayed"),
    "a failover to a copy that lacks the last commits": (
        failover_without_the_last_commits, "delayed", "delayed", "delayed",
    ),
    "the same, and the replica that acknowledged them dies before another has read them": (
        failover_without_the_last_commits_and_the_replica_that_acknowledged_them_dies, "lost", "delayed", "lost",
    ),
    "all service replicas die, and the store restarts with its disk": (
        all_services_die_and_the_store_restarts_with_its_disk, "delayed", "delayed", "delayed",
    ),
    "all service replicas die, and all store nodes lose their disks": (
        all_services_die_and_the_store_and_its_copy_lose_their_disks, "lost", "lost", "lost",
    ),
}  # fmt: skip
"""Fault -> how it is made, and what becomes of an acknowledged revocation at each level."""


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("fault", FAULTS)
def test_what_becomes_of_an_acknowledged_revocation(installation: Installation, fault: str, level: str) -> None:
    make, *outcomes = FAULTS[fault]
    expected = outcomes[LEVELS.index(level)]
    scene = Scene(installation, level)
    try:
        scene.revoke(8, scene.client())
        assert len(scene.acknowledged) == 8
        opened = _opened(installation)
        make(scene)
        living = [replica for replica in scene.replicas if replica.running]
        if expected != "kept":
            until(lambda: _opened(installation) > opened, "a new history is opened")
        for replica in living:
            replica.wait_ready()
        if expected == "kept":
            assert _opened(installation) == opened, "nobody had to heal"
        newcomer = installation.add_verifier("thread", addresses=living[-1].address)
        newcomer.wait_fresh()
        accepted = [token for token in scene.acknowledged if newcomer.verdict(token) == "accepted"]
        assert bool(accepted) == (expected == "lost"), f"{len(accepted)} of {len(scene.acknowledged)} are accepted"
        assert newcomer.verdict(scene.alive) == "accepted", "nothing else was revoked"
        before = len(scene.acknowledged)
        scene.revoke(2, scene.client(*living))
        assert len(scene.acknowledged) == before + 2, "it goes on"
        until(lambda: newcomer.why(scene.acknowledged[-1]) == "revoked", "the new ones are refused")
        if expected != "lost":
            others = [
                one for one, replica in zip(installation.verifiers, scene.replicas, strict=False) if replica.running
            ]
            for verifier in others:
                verifier.wait_fresh()
                until(partial(_refuses_all, verifier, scene.acknowledged[:-2]), f"{verifier.name} refuses all")
    finally:
        scene.close()


def _opened(installation: Installation) -> int:
    return sum(len(replica.events("history_opened")) for replica in installation.replicas)


def _refuses_all(verifier: Verifier, tokens: list[str]) -> bool:
    return {verifier.why(token) for token in tokens} == {"revoked"}


def test_the_table_of_the_page_is_the_one_that_is_tested() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (\w+) \| (\w+) \| (\w+) \|$", PAGE.read_text(), re.MULTILINE)
    assert {fault: outcomes for fault, *outcomes in rows} == {
        fault: list(outcomes) for fault, (_, *outcomes) in FAULTS.items()
    }
