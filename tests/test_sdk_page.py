"""docs/sdk.md: its Python runs as it stands, on a service in memory, and its table of roles is that of the service."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

import revocation_sdk
from revocation.callers.roles import TABLE, Role
from revocation_sdk import StatusUnknown, TokenIssuer, TokenRevoked
from revocation_sdk.testing import AsyncFakeRevocations, FakeRevocations

PAGE = (Path(__file__).parent.parent / "docs/sdk.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FILES = {name: block for block in BLOCKS if (name := block.partition("\n")[0].removeprefix("# ")).endswith(".py")}
KEY = ec.generate_private_key(ec.SECP256R1())

Names = dict[str, Any]


@pytest.fixture
def revocations() -> Iterator[FakeRevocations]:
    with FakeRevocations() as client:
        yield client


@pytest.fixture
def names(revocations: FakeRevocations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Names:
    """What the blocks of the page define, after all of them have run in their order."""
    pem = {
        "public.pem": KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "private.pem": KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    }
    for name, content in pem.items():
        (tmp_path / name).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    other = AsyncFakeRevocations(revocations.service)
    monkeypatch.setattr(revocation_sdk, "RevocationClient", lambda address, name: revocations)
    monkeypatch.setattr(revocation_sdk, "AsyncRevocationClient", lambda address: other)
    defined: Names = {"__name__": "page"}
    for block in BLOCKS:
        if block not in FILES.values():
            exec(compile(block, "docs/sdk.md", "exec"), defined)
    return defined


@pytest.fixture
def token(revocations: FakeRevocations, names: Names) -> str:
    issuer = TokenIssuer(revocations, key=KEY, algorithm="ES256", issuer="https://id.example", audience="api",
                         key_id="2026-11")  # fmt: skip
    return issuer.issue("alice")


def test_errors_become_the_statuses_of_the_page(names: Names, revocations: FakeRevocations, token: str) -> None:
    ask = names["authenticate"]
    status, claims = ask(f"Bearer {token}")
    assert (status, claims["sub"]) == (200, "alice")
    assert ask("") == ask("Basic x") == ask("Bearer x") == (401, None)
    revocations.go_stale()
    assert ask(f"Bearer {token}") == (503, None)
    with pytest.raises(StatusUnknown):
        names["delete_account"](token)
    revocations.revoke_token(token)
    assert ask(f"Bearer {token}") == (401, None)


def test_tokens_are_verified_by_hand(names: Names, revocations: FakeRevocations, token: str) -> None:
    """What was revoked, by the token or by the key, is refused."""
    assert names["verify_by_hand"](token)["sub"] == "alice"
    names["delete_account"](token)
    names["post_fork"](None, None)
    revocations.revoke_key("2026-11")
    with pytest.raises(TokenRevoked):
        names["verify_by_hand"](token)


def test_what_the_page_says_about_tests_is_a_test(tmp_path: Path) -> None:
    assert set(FILES) == {"conftest.py", "test_logout.py"}
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


CALLS = {
    "Verifier": ["Watch", "Check"],
    "client.check": ["Watch"],
    "client.check_remote": ["Check"],
    "client.wait_until_fresh": ["Watch"],
    "wait_until_fresh": ["Watch"],
    "issue": ["Watch"],
    "login": ["OpenSession"],
    "refresh": ["RefreshSession"],
    "logout": ["EndSession"],
    "logout_everywhere": ["Revoke:subject"],
    "logout_others": ["EndOtherSessions"],
    "sessions": ["ListSessions"],
    "client.revoke_token": ["Revoke:token"],
    "client.revoke_tokens": ["BatchRevokeTokens"],
    "verifier.revoke": ["Revoke:token"],
    "client.revoke_session": ["Revoke:session"],
    "client.revoke_subject": ["Revoke:subject"],
    "wait_for=": ["AwaitApplied"],
    "client.subscribers": ["ListSubscribers"],
    "client.status": ["GetStatus"],
    "client.revoke_client": ["Revoke:client"],
    "client.revoke_key": ["Revoke:key"],
    "client.revoke_realm": ["Revoke:whole_realm"],
}
"""What a part of the SDK calls, by the rows of the table of roles."""


def test_roles_are_those_of_the_service() -> None:
    """Each role that the page names for a part allows all that it calls; where it names `admin`, no other does."""
    section = PAGE.partition("| part | roles |")[2]
    rows = re.findall(r"^\| (.*`.*) \| (`.*) \|$", section, re.MULTILINE)
    parts = {part for named, _ in rows for part in re.findall(r"`([^`]+)`", named)}
    assert parts - {"TokenIssuer"} == CALLS.keys()
    for named, text in rows:
        roles = {Role(role) for role in re.findall(r"`([^`]+)`", text)}
        for call in {call for part in re.findall(r"`([^`]+)`", named) for call in CALLS.get(part, ())}:
            allowed = TABLE[call] or {Role.ADMIN}
            assert roles <= allowed, (call, roles)
