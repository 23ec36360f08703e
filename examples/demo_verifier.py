"""A verifier in a process of its own, as `demo.py` starts several: it follows the service and judges tokens.

Reads one JSON object a line from standard input, `{"verify": TOKEN}` or `{"until_refused": TOKEN}`, and answers one
line for each. This is what the inside of an API server looks like: one client, one Verifier, no call per request.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

from revocation_sdk import AsyncRevocationClient, RevocationClient, StatusUnknown, TokenRejected, Verifier

ISSUER, AUDIENCE = "https://id.example", "api"


def main() -> None:
    """Arguments: `thread` or `asyncio`, the addresses, the file with the issuer's public key."""
    kind, addresses, key_file = sys.argv[1:]
    key = Path(key_file).read_text()
    if kind == "thread":
        with RevocationClient(addresses) as client:
            client.wait_until_fresh(timeout=60)
            serve(verifier_of(client, key))
    else:
        asyncio.run(serve_async(addresses, key))


def verifier_of(client: Any, key: str) -> Verifier:
    """The one object that request handlers use."""
    return Verifier(client, key=key, algorithms=["ES256"], issuer=ISSUER, audience=AUDIENCE)


def serve(verifier: Verifier) -> None:
    """Answers questions until standard input ends."""
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(verifier, json.loads(line))), flush=True)


async def serve_async(addresses: str, key: str) -> None:
    """The same in an asyncio program."""
    async with AsyncRevocationClient(addresses) as client:
        await client.wait_until_fresh(timeout=60)
        await asyncio.to_thread(serve, verifier_of(client, key))


def answer(verifier: Verifier, question: dict[str, str]) -> dict[str, Any]:
    """One verdict; or, for `until_refused`, the verdict that turned and the moment it did."""
    if "verify" in question:
        return judge(verifier, question["verify"])
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        verdict = judge(verifier, question["until_refused"])
        if not verdict["accepted"]:
            # One machine, one monotonic clock for all processes: the times can be compared.
            return {**verdict, "at": time.monotonic()}
        time.sleep(0.0002)
    return {"accepted": True}


def judge(verifier: Verifier, token: str) -> dict[str, Any]:
    """What a request handler would do: accept, or answer 401."""
    try:
        verified = verifier.verify(token)
    except TokenRejected as error:
        return {"accepted": False, "fresh": True, "why": error.reason, "target": str(getattr(error, "target", ""))}
    except StatusUnknown as error:
        return {"accepted": False, "fresh": False, "why": error.reason}
    return {"accepted": True, "fresh": verified.freshness.fresh, "age_s": verified.freshness.age_s}


if __name__ == "__main__":
    main()
