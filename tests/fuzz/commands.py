"""What a person gives to the command line: tokens to read, and words."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

from revocation.cli import main
from tests.fuzz.target import Finding, Target
from tests.fuzz.tokens import RawTokens
from tests.sdk.forge import b64

ODD = (
    '{"alg":["ES256"]}',
    '{"alg":{}}',
    '{"alg":null,"kid":{}}',
    '{"alg":"none","typ":"\\ud800"}',
    '{"alg":"\\u001b[2J"}',
)
ODD_CLAIMS = (
    '{"exp":1e400,"iat":-1e400}',
    '{"exp":' + "9" * 400 + "}",
    '{"exp":NaN,"nbf":Infinity}',
    '{"exp":-5,"iat":1e300}',
    '{"sub":"\\ud800\\u0000"}',
    "[" * 900 + "]" * 900,
    '{"a":' + "[" * 900 + "]" * 900 + "}",
    '{"exp":1,"exp":2}',
    '{"iat":253402300800,"nbf":1e18,"auth_time":1e17}',
    '{"\\u001b[2J":"\\u202e"}',
    '{"exp":true}',
    '{"exp":"5"}',
)


class Inspect(Target):
    """`revocation inspect TOKEN`: prints it, or says what is wrong with it; exit 0, 1 or 2."""

    name = "inspect"

    def seeds(self) -> Sequence[bytes]:
        odd = [f"{b64(header)}.{b64(claims)}.AA".encode() for header in ODD for claims in ODD_CLAIMS]
        return [*odd, *list(RawTokens().seeds())[:8]]

    def one(self, data: bytes) -> str:
        token = data.decode("utf-8", "surrogateescape").replace("\0", "")
        for more in ([], ["--json"], ["--json", "--jwks", "/dev/null"], ["--key", "/dev/null"]):
            out, err = _Terminal(), _Terminal()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = main(["inspect", *more, "--", token])
            said = out.getvalue() + err.getvalue()
            if code not in (0, 1, 2) or "Traceback" in said:
                raise Finding(f"exit {code}: {said[-300:]}")
            if "\x1b" in said or ("\n" in said.rstrip("\n") and "--json" in more):
                raise Finding(f"what a token says reaches the terminal: {said[-300:]!r}")
        return f"exit {code}"


class _Terminal(io.TextIOWrapper):
    """Standard output as `main` finds it: UTF-8, and it can be reconfigured."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), "utf-8", write_through=True)

    def getvalue(self) -> str:
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode()
