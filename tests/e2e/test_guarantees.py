"""Every ack level in every combination of faults: kept, delayed or lost, as the table of docs/guarantees.md says.

Kept: nothing changes, but for verifiers that know no other replica. Delayed: nothing is lost, and until it is healed
nobody acknowledges or vouches: a new history was opened. Lost: a verifier that starts afterwards accepts what was
acknowledged. Unless something is lost, no verifier that called itself fresh accepted too late either (I1).
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from revocation_sdk import OutcomeUnknown, RevocationClient, Unavailable
from revocation_sdk._requests import make_op_id
from tests.chaos.proxy import Proxy
from tests.e2e.installation import PATIENT_S, Installation, Replica, Verifier
from tests.e2e.load import Load, assert_kept, judge, revoke
from tests.e2e.processes import LIMIT_S, until
from tests.servers import Server
from tests.servers import until as until_server

pytestmark = pytest.mark.e2e
PAGE = Path(__file__).parents[2] / "docs/guarantees.md"
LEVELS = ("memory", "replicated:1", "fsynced")


class Scene:
    """A primary with a copy, two service replicas, verifiers that judge all the time, and what was acknowledged."""

    def __init__(self, installation: Installation, ack: str) -> None:
        self.installation, self.ack = installation, ack
        self.primary = installation.store()
        self.link = Proxy(("127.0.0.1", self.primary.port))
        self.way = Proxy(("127.0.0.1", self.primary.port))
        self.copy = installation.servers.start({"replicaof": f"127.0.0.1 {self.link.port}"}, aof=True)
        until_server(lambda: self.copy.info("replication").get("master_link_status") == "up", "the copy is in step")
        secret = installation.folder / "secret"
        secret.write_text("k1:" + "A" * 43 + "=")
        self.replicas = installation.add_replicas(2, f"redis://{self.way.address}", ack=ack, secret_file=secret)
        self.load = Load(installation.signer, 20)
        self._next = iter(self.load.all)
        self.alive = installation.signer.sign()
        self.tied = [installation.add_verifier("thread", addresses=replica.address) for replica in self.replicas]
        """Verifiers that know one replica each."""
        self.free = installation.add_verifier("thread", max_staleness=PATIENT_S)
        """One that knows both, and that no pause of a busy machine makes stale."""
        for verifier in self.verifiers:
            verifier.ask(do="sample", tokens=self.load.tokens)
            verifier.wait_fresh()

    @property
    def verifiers(self) -> list[Verifier]:
        return [*self.tied, self.free]

    @property
    def acknowledged(self) -> list[str]:
        """The tokens."""
        return [wanted.token for wanted in self.load.acknowledged]

    @property
    def living(self) -> list[Replica]:
        return [replica for replica in self.replicas if replica.running]

    def opened(self) -> int:
        return sum(len(replica.events("history_opened")) for replica in self.replicas)

    def was_unknown(self) -> int:
        """How often the verifier that knows both replicas was not fresh when it was asked."""
        return int(self.free.ask(do="state")["unknown"])

    def client(self, *replicas: Replica) -> RevocationClient:
        return self.installation.client(",".join(one.address for one in replicas or self.replicas))

    def revoke(self, count: int, client: RevocationClient, timeout: float = LIMIT_S) -> int:
        """So many calls, one after the other; returns how many are acknowledged."""
        before = len(self.load.acknowledged)
        for wanted in islice(self._next, count):
            wanted.op_id, wanted.asked_at = make_op_id(time.time()), time.monotonic()
            try:
                wanted.receipt = revoke(client, wanted, timeout)
            except (OutcomeUnknown, Unavailable):
                continue
            wanted.acknowledged_at = time.monotonic()
        return len(self.load.acknowledged) - before

    def revoke_beyond_the_copy(self, client: RevocationClient) -> None:
        """What the copy does not get. A level that needs it acknowledges none, so that nobody waits for that."""
        self.link.set("hold")
        waits = self.ack.startswith("replicated")
        acknowledged = self.revoke(3, client, timeout=2.0 if waits else LIMIT_S)
        assert acknowledged == (0 if waits else 3)
        lacks = _records(self.primary) - _records(self.copy)
        assert lacks >= max(1, acknowledged), f"the copy lacks {lacks} records"

    def revoke_at_one_only(self) -> None:
        """What the first replica acknowledges and the other one, which is stopped, has not read."""
        first, other = self.replicas
        other.stop()
        # Several: the first record may lie already in a connection of the one that is stopped.
        assert self.revoke(3, self.client(first)) == 3

    def promote(self) -> None:
        """The copy takes over, with what it has; and has a copy of its own, if the level needs one."""
        self.primary.kill()
        self.copy.call("REPLICAOF", "NO", "ONE")
        if self.ack.startswith("replicated"):
            self.installation.servers.start(replica_of=self.copy)
        self.way.retarget(("127.0.0.1", self.copy.port))

    def kill_services(self) -> None:
        for replica in self.replicas:
            replica.kill()

    def start_services(self) -> None:
        for replica in self.replicas:
            replica.start()

    def close(self) -> None:
        self.link.close()
        self.way.close()


def _records(store: Server) -> int:
    return int(store.call("XLEN", "revocation:{p0}:log"))


def one_service_dies(scene: Scene) -> None:
    """The one that is followed by the verifier that knows both."""
    followed = scene.free.ask(do="state")["replica"]
    next(replica for replica in scene.replicas if replica.id == followed).kill()


def the_store_restarts_with_its_disk(scene: Scene) -> None:
    scene.primary.kill()
    scene.primary.start()


def flushall(scene: Scene) -> None:
    scene.primary.call("FLUSHALL")


def the_store_restarts_empty(scene: Scene) -> None:
    scene.primary.kill()
    scene.primary.wipe()
    scene.primary.start()


def the_store_restarts_empty_and_the_replica_that_acknowledged_dies_when_another_has_read(scene: Scene) -> None:
    first, other = scene.replicas
    assert scene.revoke(3, scene.client(first)) == 3
    reader = scene.tied[scene.replicas.index(other)]
    until(lambda: _refuses_all(reader, scene.acknowledged), "the other one has read them")
    first.kill()
    the_store_restarts_empty(scene)


def flushall_and_the_replica_that_acknowledged_dies(scene: Scene) -> None:
    first, other = scene.replicas
    scene.revoke_at_one_only()
    first.kill()
    flushall(scene)
    other.resume()


def the_store_restarts_with_an_older_disk_and_the_replica_that_acknowledged_dies(scene: Scene) -> None:
    first, other = scene.replicas
    older = scene.installation.folder / "older"
    shutil.copytree(scene.primary.folder, older, ignore=shutil.ignore_patterns("server.*"))
    scene.revoke_at_one_only()
    first.kill()
    scene.primary.kill()
    scene.primary.wipe()
    shutil.copytree(older, scene.primary.folder, dirs_exist_ok=True)
    scene.primary.start()
    other.resume()


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
    scene.kill_services()
    the_store_restarts_with_its_disk(scene)
    scene.start_services()


def all_services_die_and_the_copy_takes_over_with_all_commits(scene: Scene) -> None:
    scene.kill_services()
    until_server(lambda: _place(scene.copy) >= _place(scene.primary), "the copy has it all")
    scene.promote()
    scene.start_services()


def _place(server: Server) -> int:
    """How much of the stream between a primary and its copies it has."""
    found = server.info("replication")
    return int(found.get("slave_repl_offset", found["master_repl_offset"]))


def all_services_die_and_the_primary_alone_restarts_empty(scene: Scene) -> None:
    """Its copy has a disk, and takes over what the primary holds now: nothing."""
    scene.kill_services()
    assert scene.copy.call("DBSIZE") > 0
    the_store_restarts_empty(scene)
    until_server(lambda: scene.copy.call("DBSIZE") == 0, "the copy is as empty as the primary")
    scene.start_services()


def all_services_die_and_the_store_and_its_copy_lose_their_disks(scene: Scene) -> None:
    scene.kill_services()
    for server in (scene.copy, scene.primary):
        server.kill()
        server.wipe()
    for server in (scene.primary, scene.copy):
        server.start()
    scene.start_services()


FAULTS: dict[str, tuple[Callable[[Scene], None], str, str, str]] = {
    "a service replica dies": (one_service_dies, "kept", "kept", "kept"),
    "the store is killed and restarts with its disk": (
        the_store_restarts_with_its_disk, "delayed", "delayed", "delayed",
    ),
    "`FLUSHALL`": (flushall, "delayed", "delayed", "delayed"),
    "the store is killed and restarts empty": (the_store_restarts_empty, "delayed", "delayed", "delayed"),
    "the same, and the replica that acknowledged dies; another has read it": (
        the_store_restarts_empty_and_the_replica_that_acknowledged_dies_when_another_has_read,
        "delayed", "delayed", "delayed",
    ),
    "`FLUSHALL`, and the replica that acknowledged dies before another has read it": (
        flushall_and_the_replica_that_acknowledged_dies, "lost", "lost", "lost",
    ),
    "a restart with an older disk, and the replica that acknowledged dies before another has read it": (
        the_store_restarts_with_an_older_disk_and_the_replica_that_acknowledged_dies, "lost", "lost", "lost",
    ),
    "a failover to a copy that lacks the last commits": (
        failover_without_the_last_commits, "delayed", "delayed", "delayed",
    ),
    "the same, and the replica that acknowledged them dies before another has read them": (
        failover_without_the_last_commits_and_the_replica_that_acknowledged_them_dies, "lost", "delayed", "lost",
    ),
    "all service replicas die, and the store restarts with its disk": (
        all_services_die_and_the_store_restarts_with_its_disk, "delayed", "delayed", "delayed",
    ),
    "all service replicas die, and a copy with all commits takes over": (
        all_services_die_and_the_copy_takes_over_with_all_commits, "delayed", "delayed", "delayed",
    ),
    "all service replicas die, and the primary alone restarts empty: its copy empties itself": (
        all_services_die_and_the_primary_alone_restarts_empty, "lost", "lost", "lost",
    ),
    "all service replicas die, and all store nodes lose their disks": (
        all_services_die_and_the_store_and_its_copy_lose_their_disks, "lost", "lost", "lost",
    ),
}  # fmt: skip
"""Fault -> how it is made, and what becomes of an acknowledged revocation at each level."""


def _cells() -> Iterator[Any]:
    """Where the level makes no difference, `make test` takes one for each fault; `make matrix` takes all."""
    for row, (fault, (_, *outcomes)) in enumerate(FAULTS.items()):
        for column, level in enumerate(LEVELS):
            left_out = len(set(outcomes)) == 1 and column != row % len(LEVELS)
            yield pytest.param(fault, level, marks=[pytest.mark.matrix] if left_out else [])


@pytest.mark.parametrize(("fault", "level"), list(_cells()))
def test_what_becomes_of_an_acknowledged_revocation(installation: Installation, fault: str, level: str) -> None:
    make, *outcomes = FAULTS[fault]
    expected = outcomes[LEVELS.index(level)]
    scene = Scene(installation, level)
    try:
        assert scene.revoke(8, scene.client()) == 8
        everybody_has_read = scene.acknowledged
        installation.refused_everywhere(everybody_has_read)
        opened, unknown = scene.opened(), scene.was_unknown()
        processes = {replica.pid for replica in scene.replicas}
        make(scene)
        if expected != "kept":
            until(lambda: scene.opened() > opened, "a new history is opened")
        for replica in scene.living:
            replica.wait_ready()
        newcomer = installation.add_verifier("thread", addresses=scene.living[-1].address)
        accepted = {token for token in scene.acknowledged if newcomer.verdict(token) == "accepted"}
        assert bool(accepted) == (expected == "lost"), f"{len(accepted)} of {len(scene.acknowledged)} are accepted"
        assert newcomer.verdict(scene.alive) == "accepted", "nothing else was revoked"
        if any(replica.pid in processes for replica in scene.living):
            assert not accepted.intersection(everybody_has_read), "a memory that survives keeps what it holds"
        assert scene.revoke(2, scene.client(*scene.living)) == 2, "it goes on"
        until(lambda: newcomer.why(scene.acknowledged[-1]) == "revoked", "the new ones are refused")
        if expected != "lost":
            _nobody_was_wrong(scene)
        if expected == "kept":
            assert scene.opened() == opened, "nobody had to heal"
            assert scene.was_unknown() == unknown, "a verifier that knows another replica was stale meanwhile"
    finally:
        scene.close()


def _nobody_was_wrong(scene: Scene) -> None:
    """Whoever can follow refuses all; and nobody accepted too late while it called itself fresh (I1)."""
    dead = [one for one, replica in zip(scene.tied, scene.replicas, strict=True) if not replica.running]
    assert_kept(scene.load, [verifier for verifier in scene.verifiers if verifier not in dead])
    for verifier in dead:
        until(partial(_knows_nothing, verifier, scene.alive), f"{verifier.name} knows no other replica")
        found = judge(scene.load.all, verifier, verifier.ask(do="report"), whole=False)
        assert not found.any, found


def _knows_nothing(verifier: Verifier, token: str) -> bool:
    return verifier.why(token) == "unknown"


def _refuses_all(verifier: Verifier, tokens: list[str]) -> bool:
    return {*verifier.ask(do="verify_all", tokens=tokens)["why"]} == {"revoked"}


def test_the_table_of_the_page_is_the_one_that_is_tested() -> None:
    rows = re.findall(r"^\| ([^|]+) \| (\w+) \| (\w+) \| (\w+) \|$", PAGE.read_text(), re.MULTILINE)
    assert {fault: outcomes for fault, *outcomes in rows} == {
        fault: list(outcomes) for fault, (_, *outcomes) in FAULTS.items()
    }
