"""`revocation signing-key`: the public keys by which clients know the service's stream."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from revocation.cli.output import Exit, Output

SecretFile = Annotated[
    Path | None,
    typer.Option(envvar="REVOCATION_SECRET_FILE", help="File with the master secrets; or set REVOCATION_SECRET."),
]
DataDir = Annotated[
    Path | None, typer.Option(envvar="REVOCATION_DATA_DIR", help="Data dir of a service with an embedded store.")
]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("signing-key")(show)


def show(
    secret_file: SecretFile = None,
    data_dir: DataDir = None,
    pem: Annotated[bool, typer.Option("--pem", help="Print PEM.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Print the service's public signing keys, for `signing_keys=` of a client.

    Needs the master secret, and no running service. The first key is in use; the others belong to the other master
    secrets of the list. Before the list is reordered, clients must know the key that comes first then.
    """
    from revocation.keys.keyring import Keyring
    from revocation.keys.signing import signing_keys

    keys = signing_keys(Keyring.parse(_secret(secret_file, data_dir)))
    machine = [{"kid": kid, "key_id": key.id.hex(), "key": key.text, "pem": key.pem} for kid, key in keys]
    out = Output(as_json=as_json)
    if as_json:
        out.record({"keys": machine})
    elif pem:
        print("".join(key.pem for _, key in keys), end="")
    else:
        out.table(("secret", "key id", "key"), [(kid, key.id.hex(), key.text) for kid, key in keys], {})
    return Exit.OK


def _secret(file: Path | None, data_dir: Path | None) -> str:
    """The text of the master secrets. Raises BadParameter."""
    text = os.environ.get("REVOCATION_SECRET")
    path = file or (data_dir / "secret" if data_dir is not None else None)
    if path is None and text:
        return text
    if path is None:
        raise typer.BadParameter("is missing; or give --data-dir, or set REVOCATION_SECRET", param_hint="--secret-file")
    try:
        return path.expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError):
        raise typer.BadParameter(f"{path} cannot be read as text", param_hint="--secret-file") from None
