"""Two replicas, verifiers at both, and revocations that go on: what tests of faults begin and end with."""

from __future__ import annotations

from dataclasses import dataclass

from revocation_sdk import RevocationClient
from tests.e2e.installation import Installation
from tests.e2e.load import Load, assert_done_once, assert_kept


@dataclass
class UnderLoad:
    """What `begin` has begun."""

    installation: Installation
    load: Load
    client: RevocationClient

    def finish(self) -> None:
        """Ends the load; old verifiers and a new one refuse all that was acknowledged, and nobody did it twice."""
        self.load.stop()
        assert all(replica.running for replica in self.installation.replicas)
        self.installation.add_verifier("thread")
        self.installation.verifiers[-1].ask(do="sample", tokens=self.load.tokens)
        assert_kept(self.load, self.installation.verifiers)
        assert_done_once(self.load, self.client)

    def opened(self) -> int:
        """How often a replica opened a new history."""
        return sum(len(replica.events("history_opened")) for replica in self.installation.replicas)


def begin(installation: Installation, *urls: str, count: int = 3_000, **flags: object) -> UnderLoad:
    """Two replicas with this URL, or with one each; a verifier at each; and revocations going on."""
    for url in urls:
        installation.add_replicas(2 // len(urls), url, **{"ack": "memory", **flags})
    for kind, replica in zip(("thread", "asyncio"), installation.replicas, strict=True):
        installation.add_verifier(kind, addresses=replica.address)
    client = installation.client()
    client.wait_until_fresh(30)
    load = Load(installation.signer, count)
    for verifier in installation.verifiers:
        verifier.ask(do="sample", tokens=load.tokens)
        verifier.wait_fresh()
    load.start(client, pause_s=0.03)
    load.until_more(50)
    return UnderLoad(installation, load, client)
