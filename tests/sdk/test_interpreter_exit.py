"""A program ends when it is done, whatever its clients are doing, and says nothing about it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.sdk.peer import Peer

BEGIN = """
import sys
from revocation_sdk import AsyncRevocationClient, RevocationClient, State
client = RevocationClient(sys.argv[1], ping_interval=0.1)
"""

PROGRAMS = {
    "never started": "",
    "just started": "client.start()",
    "fresh": "client.wait_until_fresh(30)",
    "closed": "client.wait_until_fresh(30); client.close()",
    "after a call": "client.revoke_subject('alice')",
    "with callbacks": "client.on_state_change(print); client.wait_until_fresh(30)",
    "by an error": "client.wait_until_fresh(30); sys.exit(3)",
    "with a reference cycle": "client.wait_until_fresh(30); client.self = client; del client",
    "in a thread": """
import threading
threading.Thread(target=lambda: client.wait_until_fresh(30)).start()
""",
    "asyncio": """
import asyncio
other = AsyncRevocationClient(sys.argv[1], ping_interval=0.1)
async def main():
    await other.wait_until_fresh(30)
    await other.revoke_subject('alice')
asyncio.run(main())
""",
    "while it cannot connect": """
other = RevocationClient('127.0.0.1:1', ping_interval=0.1)
other.start()
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_hangs_at_exit(name: str) -> None:
    with Peer() as peer:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", BEGIN + PROGRAMS[name], peer.address],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.stderr == ""
    assert done.returncode == (3 if name == "by an error" else 0)
