"""A replica that lacks a master secret in use, as processes: it makes nobody fresh, is not ready, and says why."""

from __future__ import annotations

import base64
import json
import secrets
import time
import urllib.error

import pytest

from tests.cli.running import execute
from tests.e2e.installation import Installation, Replica, Verifier
from tests.e2e.processes import until

pytestmark = pytest.mark.e2e

MAX_STALENESS_S = 4.0


def why_not_ready(replica: Replica) -> str:
    try:
        replica.get("readyz")
    except urllib.error.HTTPError as error:
        return str(json.loads(error.read())["reason"])
    return ""


def refuses_in_time(verifier: Verifier, token: str, acknowledged: float) -> None:
    def unknown() -> bool:
        asked = time.monotonic()
        why = verifier.verify(token)["why"]
        assert why != "accepted" or asked < acknowledged + MAX_STALENESS_S, "I1"
        return bool(why == "unknown")

    until(unknown, "nobody vouches for the token")


def test_a_replica_that_lacks_a_secret_in_use_makes_nobody_fresh(installation: Installation) -> None:
    """Else a verifier there would accept, as fresh, what was revoked through a replica that has it (I1)."""
    old, new = (f"{kid}:{base64.b64encode(secrets.token_bytes(32)).decode()}\n" for kid in ("k1", "k9"))
    files = [installation.folder / "old", installation.folder / "both"]
    for path, text in zip(files, (old, new + old), strict=True):
        path.write_text(text)
    store = installation.store()
    lacking, other = (installation.add_replicas(1, store.url, secret_file=str(path), canary_s=0)[0] for path in files)
    verifier = installation.add_verifier(addresses=lacking.address, on_stale="check", max_staleness=MAX_STALENESS_S)
    token = installation.signer.sign(sub="alice")
    verifier.wait_fresh()
    assert verifier.why(token) == "accepted"
    client = installation.client(other.address)
    client.wait_until_fresh(30)
    client.revoke_subject("alice")
    refuses_in_time(verifier, token, time.monotonic())
    assert verifier.state() != "fresh"
    until(lambda: "k9" in why_not_ready(lacking), "it says which secret it lacks")
    assert "secret_missing" in why_not_ready(lacking)
    shown = execute("status", "--address", lacking.address, "--json", "--verifiers", "0")
    assert (shown.code, shown.json["missing_secrets"]) == (1, ["k9"])
    found = execute("doctor", "--address", lacking.address, "--json", "--timeout", "1").json["findings"]
    (partition,) = [finding for finding in found if finding["check"] == "partition"]
    assert (partition["result"], "k9" in partition["message"]) == ("fail", True)
    assert lacking.metric("partition_state", state="secret_missing") == 1
    assert other.ready()

    assert lacking.drain() == 0
    files[0].write_text(new + old)
    lacking.start()
    lacking.wait_ready()
    until(lambda: verifier.why(token) == "revoked", "with the secret it finds what is revoked")
