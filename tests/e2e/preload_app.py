"""A WSGI application for gunicorn --preload: the client is made, and fresh, in the parent before it forks.

`ADDRESSES`, `JWKS`, `ISSUER` and `AUDIENCE` come from the environment; the path of a request is a token.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from revocation_sdk import RevocationClient, Verifier
from tests.e2e.verifier_process import judge

PARENT = os.getpid()
client = RevocationClient(os.environ["ADDRESSES"], ping_interval=0.25, max_staleness=15)
client.wait_until_fresh(60)
verifier = Verifier(
    client, jwks=json.loads(os.environ["JWKS"]), algorithms=["ES256"], issuer=os.environ["ISSUER"],
    audience=os.environ["AUDIENCE"], max_staleness=15,
)  # fmt: skip


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    verdict = judge(verifier, environ["PATH_INFO"].removeprefix("/"))
    answer = {"pid": os.getpid(), "parent": PARENT, **verdict}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
