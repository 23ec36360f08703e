"""`revocation check TOKEN`: is it revoked, as the service knows it at this moment?"""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from typing import Annotated

import typer

from revocation.cli.connection import Connection, client_command
from revocation.cli.jwt import Decoded, decode
from revocation.cli.output import Exit, Output, in_words
from revocation.cli.token import Token, read_token


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(check)


@client_command
def check(
    connection: Connection,
    out: Output,
    token: Token,
    *,
    key_id: Annotated[str | None, typer.Option(help="The `kid` of the key that verified it, to compare too.")] = None,
    thumbprint: Annotated[str | None, typer.Option(help="The RFC 7638 thumbprint of that key.")] = None,
) -> int:
    """Ask the service whether a token is revoked. Exit 0: active; 1: revoked or expired.

    The signature is not verified (see `inspect`): this answers for the claims as they stand. Identifiers of the token
    go to the service, the token does not.
    """
    answer = ask(connection, decode(read_token(token)), key_id, thumbprint)
    out.facts(answer.shown(), answer.machine())
    return Exit.OK if answer.status == "active" else Exit.REVOKED


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service said of a token."""

    status: str
    """`active`, `revoked` or `expired`."""
    target: str | None = None
    since: int | None = None
    """Seconds since 1970; known for subject, client and realm."""
    position: str | None = None

    def shown(self) -> dict[str, object]:
        """For people."""
        shown: dict[str, object] = {"status": self.status}
        if self.target is not None:
            shown["because of"] = f"its {self.target}"
        if self.since is not None:
            shown["since"] = in_words(self.since)
        return shown

    def machine(self) -> dict[str, object]:
        """For programs."""
        return {"status": self.status, "target": self.target, "since": self.since, "position": self.position}


def ask(connection: Connection, decoded: Decoded, key_id: str | None, thumbprint: str | None) -> Answer:
    """Asks for the status of a token. Raises Unavailable and the other errors of the SDK."""
    from revocation_sdk.errors import TokenExpired, TokenRevoked

    try:
        with closing(connection.client()) as client:
            freshness = client.check_remote(
                decoded.claims,
                token=decoded.token,
                key_id=key_id,
                thumbprint=thumbprint,
                timeout=connection.timeout,
            )
    except TokenRevoked as error:
        return Answer("revoked", error.target, None if error.since is None else int(error.since))
    except TokenExpired:
        return Answer("expired")
    expires_at = decoded.time("exp")
    expired = expires_at is not None and expires_at <= time.time()
    return Answer("expired" if expired else "active", position=freshness.position)
