"""`revocation revoke ...`: takes back a token, a session, a subject, a client, a key or a whole realm."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from revocation.cli import guard, landed
from revocation.cli.connection import Connection, client_command
from revocation.cli.guard import Approval, Confirm, DryRun
from revocation.cli.landed import Wait, WaitTimeout
from revocation.cli.output import Exit, Output, in_words
from revocation.cli.token import read_token
from revocation.session.handles import parse_handle
from revocation_sdk.types import AckLevel

if TYPE_CHECKING:
    from revocation_sdk import RevocationClient
    from revocation_sdk.types import Receipt, WaitFor

Issuer = Annotated[str | None, typer.Option(help="The `iss` it belongs to. Without it: whichever issuer.")]
Reason = Annotated[str, typer.Option(help="For the audit record, up to 256 bytes; no names of users.")]
OpId = Annotated[
    str | None, typer.Option(help="Id of the operation (a UUID version 7), to repeat one whose outcome is unknown.")
]
MinAck = Annotated[
    AckLevel | None, typer.Option(help="Refuse unless the service acknowledges at this level.", show_choices=True)
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
    min_ack: MinAck = None,
    wait: Wait = None,
    wait_timeout: WaitTimeout = 10.0,
) -> int:
    """Revoke one token.

    Its signature is not verified: whoever may revoke may revoke by jti as well. The entry disappears by itself when
    the token has expired.
    """
    if (token is None) == (jti is None):
        raise typer.BadParameter("give either TOKEN or --jti with --expires-at", param_hint="TOKEN")
    if token is not None and (issuer is not None or expires_at is not None):
        raise typer.BadParameter("a token says itself who issued it and when it ends", param_hint="TOKEN")
    if jti is not None and expires_at is None:
        raise typer.BadParameter("is needed with --jti", param_hint="--expires-at")
    jwt = None if token is None else read_token(token)
    end = None if expires_at is None else read_time(expires_at)

    def call(client: RevocationClient, common: _Common, _: int | None) -> Receipt:
        return client.revoke_token(jwt, jti=jti, issuer=issuer, expires_at=end, **common)

    return _run(connection, out, "token", call, _common(connection, reason, op_id, min_ack, wait, wait_timeout))


@client_command
def session(
    connection: Connection,
    out: Output,
    sid: Annotated[str, typer.Argument(metavar="SID", help="The `sid` of its tokens.")],
    *,
    issuer: Issuer = None,
    reason: Reason = "",
    op_id: OpId = None,
    min_ack: MinAck = None,
    wait: Wait = None,
    wait_timeout: WaitTimeout = 10.0,
) -> int:
    """Revoke all tokens of a session. A handle, as lists show it, is ended by `sessions end` with its --subject."""
    if issuer is None and parse_handle(sid) is not None:
        raise typer.BadParameter(
            "has the form of a handle, which names no tokens: end it with `revocation sessions end HANDLE --subject "
            "SUBJECT`, or name --issuer if it is the sid of another issuer",
            param_hint="SID",
        )

    def call(client: RevocationClient, common: _Common, _: int | None) -> Receipt:
        return client.revoke_session(sid, issuer=issuer, **common)

    return _run(connection, out, "session", call, _common(connection, reason, op_id, min_ack, wait, wait_timeout))


@client_command
def subject(
    connection: Connection,
    out: Output,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="The `sub` of the tokens.")],
    *,
    issuer: Issuer = None,
    dry_run: DryRun = False,
    confirm: Confirm = None,
    reason: Reason = "",
    op_id: OpId = None,
    min_ack: MinAck = None,
    wait: Wait = None,
    wait_timeout: WaitTimeout = 10.0,
) -> int:
    """Revoke all tokens and sessions of a subject until now; later ones are good."""
    if dry_run:
        return guard.dry_run(connection, out, "subject", subject=subject, issuer=issuer)

    def call(client: RevocationClient, common: _Common, confirm: int | None) -> Receipt:
        return client.revoke_subject(subject, issuer=issuer, confirm=confirm, **common)

    return _run(
        connection, out, "subject", call, _common(connection, reason, op_id, min_ack, wait, wait_timeout), confirm
    )


@client_command
def client(
    connection: Connection,
    out: Output,
    client_id: Annotated[str, typer.Argument(metavar="CLIENT_ID", help="The `client_id` (or `azp`) of the tokens.")],
    *,
    issuer: Issuer = None,
    dry_run: DryRun = False,
    confirm: Confirm = None,
    reason: Reason = "",
    op_id: OpId = None,
    min_ack: MinAck = None,
    wait: Wait = None,
    wait_timeout: WaitTimeout = 10.0,
) -> int:
    """Revoke all tokens and sessions of a client application until now."""
    if dry_run:
        return guard.dry_run(connection, out, "client", client_id=client_id, issuer=issuer)

    def call(client: RevocationClient, common: _Common, confirm: int | None) -> Receipt:
        return client.revoke_client(client_id, issuer=issuer, confirm=confirm, **common)

    return _run(
        connection, out, "client", call, _common(connection, reason, op_id, min_ack, wait, wait_timeout), confirm
    )


@client_command
def key(
    connection: Connection,
    out: Output,
    kid: Annotated[str | None, typer.Argument(metavar="[KID]", help="The `kid` in the issuer's key set.")] = None,
    *,
    thumbprint: Annotated[
        str | None, typer.Option(help="Instead: its RFC 7638 thumbprint (SHA-256, 43 characters).")
    ] = None,
    issuer: Issuer = None,
    dry_run: DryRun = False,
    confirm: Confirm = None,
    reason: Reason = "",
    op_id: OpId = None,
    min_ack: MinAck = None,
    wait: Wait = None,
    wait_timeout: WaitTimeout = 10.0,
) -> int:
    """Revoke all tokens signed by a key, for good.

    A stolen key signs whatever `kid` it likes: where in doubt, name it by its thumbprint.
    """
    if (kid is None) == (thumbprint is None):
        raise typer.BadParameter("give either KID or --thumbprint", param_hint="KID")
    if thumbprint is not None and issuer is not None:
        raise typer.BadParameter("a thumbprint names a key by itself", param_hint="--issuer")
    if dry_run:
        return guard.dry_run(connection, out, "key", kid=kid, thumbprint=thumbprint, issuer=issuer)

    def call(client: RevocationClient, common: _Common, confirm: int | None) -> Receipt:
        return client.revoke_key(kid, thumbprint=thumbprint, issuer=issuer, confirm=confirm, **common)

    common = _common(connection, reason, op_id, min_ack, wait, wait_timeout)
    return _run(connection, out, "key", call, common, confirm)


@client_command
def realm(
    connection: Connection,
    out: Output,
    *,
    yes: Yes = False,
    dry_run: DryRun = False,
    confirm: Confirm = None,
    approval: Approval = None,
    reason: Reason = "",
    op_id: OpId = None,
    min_ack: MinAck = None,
    wait: Wait = None,
    wait_timeout: WaitTimeout = 10.0,
) -> int:
    """Revoke everything in the realm until now: every user has to log in again."""
    if dry_run:
        return guard.dry_run(connection, out, "realm")
    if not yes and sys.stdin.isatty():
        typer.confirm(f"End every session and token of realm {connection.realm}?", abort=True)

    def call(client: RevocationClient, common: _Common, confirm: int | None) -> Receipt:
        return client.revoke_realm(confirm=confirm, approval=approval, **common)

    return _run(
        connection, out, "realm", call, _common(connection, reason, op_id, min_ack, wait, wait_timeout), confirm
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


class _Common(TypedDict):
    """What every revocation takes."""

    reason: str
    op_id: str | None
    timeout: float
    min_ack: AckLevel | None
    wait_for: WaitFor | None
    wait_timeout: float


def _common(
    connection: Connection,
    reason: str,
    op_id: str | None,
    min_ack: AckLevel | None,
    wait: str | None,
    wait_timeout: float,
) -> _Common:
    return _Common(
        reason=reason,
        op_id=op_id,
        timeout=connection.timeout,
        min_ack=min_ack,
        wait_for=landed.wait_for(wait),
        wait_timeout=wait_timeout,
    )


def _run(
    connection: Connection,
    out: Output,
    target: str,
    call: Callable[[RevocationClient, _Common, int | None], Receipt],
    common: _Common,
    confirm: int | None = None,
) -> int:
    with closing(connection.client()) as client:
        receipt = guard.asking(client, lambda client, seen: call(client, common, confirm if seen is None else seen))
    show_receipt(out, target, receipt)
    return Exit.OK if receipt.landed is None or receipt.landed.complete else Exit.REVOKED


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
    machine: dict[str, object] = {
        "target": target,
        "stored": receipt.stored,
        "op_id": receipt.op_id,
        "position": receipt.position,
        "cutoff": cutoff,
    }
    if receipt.landed is not None:
        shown |= landed.shown(receipt.landed)
        machine["landed"] = landed.machine(receipt.landed)
    out.facts(shown, machine)
