"""`revocation inspect TOKEN`: reads a token as a debugger does. Nothing leaves the machine without --address."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from revocation.cli.check import Answer, ask
from revocation.cli.connection import Connection, client_command
from revocation.cli.jwt import Decoded, decode, named_times, remarks, signature_verdict
from revocation.cli.output import Exit, Output, in_words, printable
from revocation.cli.token import Token, read_token


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(inspect)


@client_command
def inspect(
    connection: Connection,
    out: Output,
    token: Token,
    *,
    verify_key: Annotated[
        Path | None,
        typer.Option("--key", help="Key to verify the signature with: PEM, or a file with the HMAC secret."),
    ] = None,
    jwks: Annotated[Path | None, typer.Option(help="Key set to verify the signature with: a JSON file.")] = None,
    address: Annotated[
        str | None,
        typer.Option(help="The service, to ask for the revocation status. Without it nothing leaves this machine."),
    ] = None,
) -> int:
    """Decode a token: header, claims, times in words; its signature with --key or --jwks, its status with --address.

    With a valid signature also the thumbprint of the key (RFC 7638), by which `revoke key --thumbprint` takes it back.

    Exit 1 if the signature is invalid, or if the token is revoked or expired by the service's word.
    """
    if verify_key is not None and jwks is not None:
        raise typer.BadParameter("give either --key or --jwks", param_hint="--jwks")
    decoded = decode(read_token(token))
    signature, key = signature_verdict(decoded, verify_key, jwks)
    thumbprint = key.get("thumbprint")
    answer = None
    if address is not None:
        answer = ask(connection.to(address), decoded, key.get("key_id"), thumbprint)
    notes = list(remarks(decoded, time.time()))
    out.facts(
        _shown(decoded, signature, thumbprint, answer, notes), _machine(decoded, signature, thumbprint, answer, notes)
    )
    bad = signature == "invalid" or (answer is not None and answer.status != "active")
    return Exit.REVOKED if bad else Exit.OK


def _shown(
    decoded: Decoded, signature: str, thumbprint: str | None, answer: Answer | None, notes: list[str]
) -> dict[str, object]:
    times = dict(named_times(decoded.claims))
    shown: dict[str, object] = {f"header {name}": _value(value) for name, value in decoded.header.items()}
    for name, value in decoded.claims.items():  # with a prefix: no claim must look like a verdict
        words = f"  {in_words(times[name])}" if name in times else ""
        shown[f"claim {name}"] = f"{printable(_value(value))}{words}"
    shown["signature"] = signature if signature != "unchecked" else "unchecked (give --key or --jwks)"
    if thumbprint is not None:
        shown["thumbprint"] = thumbprint
    if answer is None:
        shown["status"] = "unchecked (give --address)"
    else:
        shown |= answer.shown()
    for number, note in enumerate(notes, 1):
        shown[f"note {number}"] = note
    return shown


def _machine(
    decoded: Decoded, signature: str, thumbprint: str | None, answer: Answer | None, notes: list[str]
) -> dict[str, Any]:
    return {
        "header": decoded.header,
        "claims": decoded.claims,
        "signature": signature,
        "thumbprint": thumbprint,
        "revocation": None if answer is None else answer.machine(),
        "notes": notes,
    }


def _value(value: object) -> object:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value
