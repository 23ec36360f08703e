"""The primary dies, and Sentinel or the Cluster has another one take its place: I1, I2, I3."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from redis.crc import key_slot

from tests.e2e.installation import Installation
from tests.e2e.under_load import begin
from tests.servers import Server, Servers, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def sentinel(servers: Servers) -> tuple[Server, Server, str]:
    primary = servers.start(aof=True)
    copy = servers.start(aof=True, replica_of=primary)
    sentinels = servers.sentinels(primary, down_after_ms=1_000)
    return primary, copy, f"redis+sentinel://{','.join(one.address for one in sentinels)}/main"


def cluster(servers: Servers) -> tuple[Server, Server, str]:
    nodes = servers.cluster(3, config={"cluster-node-timeout": "1500"})
    primary = nodes[key_slot(b"p0") * len(nodes) // 16_384]
    return primary, servers.cluster_replica(primary), f"redis+cluster://{','.join(node.address for node in nodes)}"


@pytest.mark.parametrize("topology", [sentinel, cluster])
def test_a_primary_that_dies_is_followed_by_its_copy(
    installation: Installation, topology: Callable[[Servers], tuple[Server, Server, str]]
) -> None:
    """Under load: nobody accepts by what it knew before, nothing is lost, and no client needs a snapshot."""
    primary, copy, url = topology(installation.servers)
    under = begin(installation, url)
    opened, before = under.opened(), installation.snapshots()
    primary.kill()
    until(lambda: copy.info("replication")["role"] == "master", "the copy is promoted")  # which resets connections
    under.load.until_more(50)
    assert under.opened() > opened, "nobody noticed"
    assert installation.snapshots() == before, "a connected client had to take a snapshot"
    under.finish()
