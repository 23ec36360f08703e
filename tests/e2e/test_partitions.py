"""Some reach the store and others do not, or not the same one: I1, I2, I3."""

from __future__ import annotations

import pytest

from tests.chaos.proxy import Proxy
from tests.e2e.installation import Installation
from tests.e2e.processes import until
from tests.e2e.rpc import a_revocation, call, stub
from tests.e2e.under_load import begin

pytestmark = pytest.mark.e2e


def test_a_replica_that_is_cut_off_from_the_store_holds_nobody_up(installation: Installation) -> None:
    """Its verifiers turn stale, those of the other go on; and when it is back, it is as good as before."""
    store = installation.store()
    with Proxy(("127.0.0.1", store.port)) as way:
        under = begin(installation, f"redis://{way.address}", store.url)
        (cut_off, other), (stale, fresh) = installation.replicas, installation.verifiers
        opened, alive = under.opened(), installation.signer.sign()
        way.set("cut")
        until(lambda: stale.why(alive) == "unknown", "its verifier is stale")
        with stub(cut_off.address) as service:
            until(lambda: call(service.Revoke, a_revocation()).code == "UNAVAILABLE", "it acknowledges nothing")
        begun = fresh.ask(do="state")["now"]
        until(lambda: other.events("member_struck_off"), "the other one does not wait for it")
        under.load.until_more(30)
        until(lambda: fresh.ask(do="state")["fresh_at"] > begun, "the other one vouches")
        assert stale.why(alive) == "unknown"
        way.heal()
        cut_off.wait_ready()
        stale.wait_fresh()
        under.load.until_more(30)
        assert under.opened() == opened, "somebody had to heal"
        newcomer = installation.add_verifier("thread", addresses=cut_off.address)
        newcomer.ask(do="sample", tokens=under.load.tokens)
        under.finish()
        assert installation.client(cut_off.address).revoke_session("after").stored


def test_a_split_in_which_the_old_primary_goes_on(installation: Installation) -> None:
    """One replica stays with it and acknowledges; the one that is led to the promoted copy does neither that nor
    vouch, until the other one has brought there what only the old primary got."""
    primary = installation.store()
    copy = installation.servers.start(aof=True, replica_of=primary)
    with Proxy(("127.0.0.1", primary.port)) as way, Proxy(("127.0.0.1", primary.port)) as turned:
        # Force is the one thing that may lose here (guarantees.md): nobody is to use it.
        under = begin(installation, *(f"redis://{one.address}" for one in (way, turned)), strike_after_s=600)
        stayed, led = installation.replicas
        before, alive = installation.snapshots(), installation.signer.sign()
        copy.call("REPLICAOF", "NO", "ONE")
        turned.retarget(("127.0.0.1", copy.port))
        until(lambda: led.events("history_opened"), "a history is opened on the copy")
        under.load.until_more(50)
        until(lambda: installation.verifiers[1].why(alive) == "unknown", "who follows the other one is stale")
        with stub(led.address) as service:
            answer = call(service.Revoke, a_revocation(), timeout=1.0)
            assert answer.code != "OK", answer
        stayed.wait_ready()
        assert int(primary.call("XLEN", "revocation:{p0}:log")) > int(copy.call("XLEN", "revocation:{p0}:log"))
        way.retarget(("127.0.0.1", copy.port))
        led.wait_ready()
        under.load.until_more(50)
        assert primary.running
        assert installation.snapshots() == before, "a connected client had to take a snapshot"
        under.finish()
