"""`revocation revoke ...`: takes back a token, a session, a subject, a client, a key or a whole realm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revocation.cli.connection import Connection, client_command
from revocation.cli.output import Exit, Output, in_words
from revocation.cli.token import read_token

if TYPE_CHECKING:
    from revocation_sdk import RevocationClient
    from revocation_sdk.types import Receipt

Issuer = Annotated[str | None, typer.Option(help="The `iss` it belongs to. Without it: whichever issuer.")]
Reason = Annotated[str, typer.Option(help="For the audit record, up to 256 bytes; no names of users.")]
OpId = Annotated[
    str | None, typer.Option(help="Id of the operation (a UUID version 7), to repeat one whose outcome is unknown.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(help="Take back tokens, sessions, subjects, clients, keys or a realm.", no_args_is_help=True)
    for command in (token, session, subject, client, key, realm):
        group.command()(command)
    app.add_typer(group, name="revoke")


@client_command
def token(
    connection: Connection,
    out: Output,
    token: Annotated[
        str | None, typer.Argument(metavar="[TOKEN]", help="The JWT, or - to read it from standard input.")
    ] = None,
    *,
    jti: Annotated[str | None, typer.Option(help="Instead of a token: its `jti`.")] = None,
    expires_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="With --jti: its `exp`, in seconds since 1970 or ISO 8601.")
    ] = None,
    issuer: Issuer = None,
    reason: Reason = "",
    op_id: OpId = None,
) -> int:
    """Revoke one token.

    Its signature is not verified: whoever may revoke may revoke by jti as well. The entry disappears by itself when
    the token has expired.
    """
    if (token is None) == (jti is None):
        raise typer.BadParameter("give either TOKEN or --jti with --expires-at", param_hint="TOKEN")
    if token is not None:
        if issuer is not None or expires_at is not None:
            raise typer.BadParameter("a token says itself who issued it and when it ends", param_hint="TOKEN")
        arguments: dict[str, Any] = {"token": read_token(token)}
    else:
        if expires_at is None:
            raise typer.BadParameter("is needed with --jti", param_hint="--expires-at")
        arguments = {"jti": jti, "expires_at": read_time(expires_at), "issuer": issuer}
    return _run(
        connection,
        out,
        "token",
        method=lambda client: client.revoke_token,
        arguments=arguments,
        reason=reason,
        op_id=op_id,
    )


@client_command
def session(
    connection: Connection,
    out: Output,
    sid: Annotated[str, typer.Argument(metavar="SID", help="The `sid` of its tokens.")],
    *,
    issuer: Issuer = None,
    reason: Reason = "",
    op_id: OpId = None,
) -> int:
    """Revoke all tokens of a session."""
    arguments = {"sid": sid, "issuer": issuer}
    return _run(
        connection,
        out,
        "session",
        method=lambda client: client.revoke_session,
        arguments=arguments,
        reason=reason,
        op_id=op_id,
    )


@client_command
def subject(
    connection: Connection,
    out: Output,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The `sub` of the tokens.")],
    *,
    issuer: Issuer = None,
    reason: Reason = "",
    op_id: OpId = None,
) -> int:
    """Revoke all tokens and sessions of a subject until now; later ones are good."""
    arguments = {"sub": subject, "issuer": issuer}
    return _run(
        connection,
        out,
        "subject",
        method=lambda client: client.revoke_subject,
        arguments=arguments,
        reason=reason,
        op_id=op_id,
    )


@client_command
def client(
    connection: Connection,
    out: Output,
    client_id: Annotated[str, typer.Argument(metavar="CLIENT_ID", help="The `client_id` (or `azp`) of the tokens.")],
    *,
    issuer: Issuer = None,
    reason: Reason = "",
    op_id: OpId = None,
) -> int:
    """Revoke all tokens and sessions of a client application until now."""
    arguments = {"client_id": client_id, "issuer": issuer}
    return _run(
        connection,
        out,
        "client",
        method=lambda client: client.revoke_client,
        arguments=arguments,
        reason=reason,
        op_id=op_id,
    )


@client_command
def key(
    connection: Connection,
    out: Output,
    kid: Annotated[str | None, typer.Argument(metavar="[KID]", help="The `kid` in the issuer's key set.")] = None,
    thumbprint: Annotated[
        str | None, typer.Option(help="Instead: its RFC 7638 thumbprint (SHA-256, 43 characters).")
    ] = None,
    *,
    issuer: Issuer = None,
    reason: Reason = "",
    op_id: OpId = None,
) -> int:
    """Revoke all tokens signed by a key, for good.

    A stolen key signs whatever `kid` it likes: where in doubt, name it by its thumbprint.
    """
    if (kid is None) == (thumbprint is None):
        raise typer.BadParameter("give either KID or --thumbprint", param_hint="KID")
    if thumbprint is not None and issuer is not None:
        raise typer.BadParameter("a thumbprint names a key by itself", param_hint="--issuer")
    arguments = {"kid": kid, "issuer": issuer} if kid is not None else {"thumbprint": thumbprint}
    return _run(
        connection, out, "key", method=lambda client: client.revoke_key, arguments=arguments, reason=reason, op_id=op_id
    )


@client_command
def realm(connection: Connection, out: Output, yes: Yes = False, reason: Reason = "", op_id: OpId = None) -> int:
    """Revoke everything in the realm until now: every user has to log in again."""
    if not yes and sys.stdin.isatty():
        typer.confirm(f"End every session and token of realm {connection.realm}?", abort=True)
    return _run(
        connection, out, "realm", method=lambda client: client.revoke_realm, arguments={}, reason=reason, op_id=op_id
    )


def read_time(text: str) -> int:
    """Seconds since 1970 of a number or of an ISO 8601 time (without offset: UTC). Raises BadParameter."""
    if text.isascii() and text.isdigit() and len(text) < 15:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            "write seconds since 1970, or a time like 2026-01-31T10:00:00Z", param_hint="--expires-at"
        ) from None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _run(
    connection: Connection,
    out: Output,
    target: str,
    *,
    method: Callable[[RevocationClient], Callable[..., Receipt]],
    arguments: dict[str, Any],
    reason: str,
    op_id: str | None,
) -> int:
    with closing(connection.client()) as caller:
        receipt = method(caller)(**arguments, reason=reason, op_id=op_id, timeout=connection.timeout)
    show_receipt(out, target, receipt)
    return Exit.OK


def show_receipt(out: Output, target: str, receipt: Receipt) -> None:
    """What a change left behind."""
    shown: dict[str, object] = {
        "status": f"{target} revoked" if receipt.stored else "already expired, nothing to store",
        "op id": receipt.op_id,
        "position": receipt.position,
    }
    cutoff: dict[str, object] | None = None
    if receipt.cutoff is not None:
        at = receipt.cutoff.at_ms // 1000
        cutoff = {"version": receipt.cutoff.version, "at": at}
        shown["refused"] = f"what was issued before {in_words(at)}"
    out.facts(
        shown,
        {
            "target": target,
            "stored": receipt.stored,
            "op_id": receipt.op_id,
            "position": receipt.position,
            "cutoff": cutoff,
        },
    )
