"""The runbooks of docs/operate.md: their commands are run as they stand, in the situation that they are for."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from revocation_sdk import SessionEnded, TokenIssuer
from tests.e2e.installation import Installation, Replica
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.tokens import AUDIENCE, ISSUER, Signer

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "operate.md"
BLOCK = re.compile(r"<!-- run: ([\w-]+) -->\n```console\n(.*?)```", re.DOTALL)
BLOCKS = dict(BLOCK.findall(PAGE.read_text()))


def run(name: str, replica: Replica | None = None, **env: str) -> str:
    """Runs a block of the page in a shell that has the commands; returns what it printed. It must not fail."""
    place = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if replica is not None:
        place["REVOCATION_ADDRESS"] = replica.address
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", BLOCKS[name]],
        env=os.environ | place | env, capture_output=True, text=True, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def issuer_of(installation: Installation, replica: Replica) -> TokenIssuer:
    client = installation.client(replica.address)
    client.wait_until_fresh(30)
    kid, key = next(iter(installation.signer.keys.items()))
    return TokenIssuer(client, key=key, algorithm="ES256", issuer=ISSUER, audience=AUDIENCE, key_id=kid)


def test_every_block_of_the_page_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert BLOCKS
    for name in BLOCKS:
        assert f'run("{name}"' in text, name


def test_first_look(installation: Installation) -> None:
    replica = installation.add_embedded()
    shown = run("look", replica, REVOCATION_DATA_DIR=str(installation.folder / replica.name))
    assert replica.id in shown
    assert "usable" in shown


def test_a_signing_key_leaked(installation: Installation) -> None:
    """What the stolen key signed is refused, whatever `kid` it names; the other key's tokens pass."""
    installation.signer = Signer("old", "new")
    replica = installation.add_embedded()
    installation.add_verifier()
    stolen, good = (installation.signer.sign(kid=kid) for kid in ("old", "new"))
    installation.accepted_everywhere(stolen, good)
    jwks = installation.folder / "jwks.json"
    jwks.write_text(json.dumps(installation.signer.jwks()))
    shown = run("thumbprint", TOKEN=stolen, JWKS=str(jwks))
    (thumbprint,) = re.findall(r"^thumbprint: (\S+)$", shown, re.MULTILINE)
    assert thumbprint == installation.signer.thumbprint("old")
    run("leaked-key", replica, THUMBPRINT=thumbprint)
    installation.refused_everywhere([stolen])
    installation.accepted_everywhere(good)


@pytest.mark.parametrize("block", ["account", "everyone"])
def test_accounts_are_logged_out(installation: Installation, block: str) -> None:
    replica = installation.add_embedded()
    installation.add_verifier()
    issuer = issuer_of(installation, replica)
    alice, bob = issuer.login("alice", device="phone"), issuer.login("bob")
    installation.accepted_everywhere(alice.access_token, bob.access_token)
    shown = run("account", replica, ISSUER=ISSUER, SUBJECT="alice") if block == "account" else run("everyone", replica)
    assert ("phone" in shown) == (block == "account")
    installation.refused_everywhere([alice.access_token] + [bob.access_token] * (block == "everyone"))
    with pytest.raises(SessionEnded):
        issuer.refresh(alice.refresh_token)
    if block == "account":
        issuer.refresh(bob.refresh_token)
    installation.accepted_everywhere(issuer.login("alice").access_token)


def test_who_did_it(installation: Installation) -> None:
    replica = installation.add_embedded()
    client = installation.client()
    client.wait_until_fresh(30)
    client.revoke_subject("alice", reason="a test")
    shown = run("audit", replica)
    assert "alice" in shown
    assert "a test" in shown


def test_the_store_is_gone(installation: Installation) -> None:
    """It comes back with an empty disk while the service lives: everything revoked stays revoked."""
    store = installation.store()
    (replica,) = installation.add_replicas(1, store.url)
    installation.add_verifier()
    client = installation.client()
    client.wait_until_fresh(30)
    tokens = [installation.signer.sign() for _ in range(10)]
    for token in tokens:
        client.revoke_token(token)
    store.kill()
    store.wipe()
    store.start()
    until(lambda: replica.events("history_opened"), "it is noticed")
    replica.wait_ready()
    shown = run("store-gone", replica, REVOCATION_REDIS_URL=store.url)
    assert "usable" in shown
    installation.add_verifier()
    installation.refused_everywhere(tokens)


def test_a_replica_is_gone_while_a_history_waits_for_it(installation: Installation) -> None:
    store = installation.store()
    kept, lost = installation.add_replicas(2, store.url, strike_after_s=3600)
    client = installation.client(kept.address)
    client.wait_until_fresh(30)
    lost.kill()
    store.call("FLUSHALL")
    until(lambda: lost.id in str([part.waiting_for for part in client.status().partitions]), "it is waited for")
    # Forced: only a member that was heard of just now is not struck off, and that is a matter of `detect_s`.
    until(lambda: _struck(kept, lost), "it is struck off")
    kept.wait_ready()
    assert client.revoke_session("s", timeout=LIMIT_S).stored


def _struck(kept: Replica, lost: Replica) -> bool:
    try:
        run("strike", kept, MEMBER=lost.id)
    except AssertionError:
        return False
    return True


def test_a_backup_is_restored(installation: Installation) -> None:
    """A session that was ended after the backup is back with it, until everything is ended."""
    replica = installation.add_embedded()
    issuer = issuer_of(installation, replica)
    login = issuer.login("alice")
    assert replica.drain() == 0
    data = installation.folder / replica.name
    shutil.copytree(data, installation.folder / "backup", ignore=shutil.ignore_patterns("*.sock", "*.lock"))
    replica.start()
    replica.wait_ready()
    issuer.logout(login.session_id)
    assert replica.drain() == 0
    for path in (data / "append", data / "appendonlydir"):
        if path.exists():
            shutil.rmtree(path)
    shutil.copytree(installation.folder / "backup", data, dirs_exist_ok=True)
    replica.start()
    replica.wait_ready()
    run("restore", replica)
    installation.add_verifier()
    installation.refused_everywhere([login.access_token])
    with pytest.raises(SessionEnded):
        issuer.refresh(login.refresh_token)


def restart(replicas: list[Replica]) -> None:
    for replica in replicas:
        assert replica.drain() == 0
        replica.start()
        replica.wait_ready()


def test_the_master_secret_is_rotated(installation: Installation) -> None:
    """Three rounds of rolling restarts: what was revoked under either secret stays so, sessions go on."""
    path = installation.folder / "secret"
    path.write_text(f"one:{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    store = installation.store()
    replicas = installation.add_replicas(2, store.url, secret_file=str(path))
    installation.add_verifier(max_staleness=4.0)
    issuer = issuer_of(installation, replicas[0])
    client = installation.client()
    client.wait_until_fresh(30)
    before, session = issuer.login("alice"), issuer.login("bob")
    client.revoke_subject("alice")
    installation.refused_everywhere([before.access_token])

    run("new-secret", KID="two", REVOCATION_SECRET_FILE=str(path))
    restart(replicas)
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    assert path.read_text().startswith("two:")
    restart(replicas)
    session = issuer.refresh(session.refresh_token)
    after = issuer.login("alice")
    installation.accepted_everywhere(session.access_token, after.access_token)
    installation.refused_everywhere([before.access_token])
    client.revoke_subject("alice")
    client.revoke_session(session.session_id)
    installation.add_verifier()
    installation.refused_everywhere([before.access_token, after.access_token, session.access_token])
    with pytest.raises(SessionEnded):
        issuer.refresh(session.refresh_token)
