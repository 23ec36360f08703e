"""What all commands that ask a service have in common: how to reach it, and who one is."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revocation.cli.output import Output

if TYPE_CHECKING:
    from revocation_sdk import RevocationClient

DEFAULT_ADDRESS = "127.0.0.1:50051"

Address = Annotated[
    str,
    typer.Option(envvar="REVOCATION_ADDRESS", help="The service: HOST:PORT, several with commas, or dns:///NAME."),
]
Realm = Annotated[str, typer.Option(envvar="REVOCATION_REALM", help="The realm.")]
Timeout = Annotated[float, typer.Option(min=0.1, max=600, help="Seconds to wait for an answer.")]
Ca = Annotated[Path | None, typer.Option(envvar="REVOCATION_CA", help="CA of the service, PEM.")]
Cert = Annotated[Path | None, typer.Option(envvar="REVOCATION_CERT", help="Own certificate, PEM.")]
CertKey = Annotated[Path | None, typer.Option(envvar="REVOCATION_CERT_KEY", help="Key of the certificate, PEM.")]
TokenFile = Annotated[
    Path | None, typer.Option(help="File with the caller's own access token; or set REVOCATION_TOKEN.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Speak plain text to another machine.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@dataclass(frozen=True, slots=True)
class Connection:
    """How to reach the service. Makes clients; opens nothing by itself."""

    address: str
    realm: str
    timeout: float
    ca: Path | None
    cert: Path | None
    cert_key: Path | None
    token_file: Path | None
    insecure: bool

    def client(self, **options: Any) -> RevocationClient:
        """A client for this command. Close it; entering it would begin to follow. Raises ConfigError."""
        import os

        from revocation_sdk import RevocationClient

        token: Any = os.environ.get("REVOCATION_TOKEN") or None
        if self.token_file is not None:
            token = self._read_token
        return RevocationClient(
            self.address,
            realm=self.realm,
            ca=_text(self.ca),
            cert=_text(self.cert),
            key=_text(self.cert_key),
            token=token,
            insecure=self.insecure,
            **options,
        )

    def to(self, address: str) -> Connection:
        """The same, at another address."""
        return replace(self, address=address)

    def _read_token(self) -> str:
        assert self.token_file is not None
        return self.token_file.read_text("ascii").strip()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser())


def client_command(function: Callable[..., int]) -> Callable[..., int]:
    """Gives a command `(connection, out, ...)` the options that make a Connection and an Output.

    What remains of the signature is the command's own arguments and options.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[2:]
    common = [
        _option("address", Address, DEFAULT_ADDRESS),
        _option("realm", Realm, "default"),
        _option("timeout", Timeout, 10.0),
        _option("ca", Ca, None),
        _option("cert", Cert, None),
        _option("cert_key", CertKey, None),
        _option("token_file", TokenFile, None),
        _option("insecure", Insecure, False),
        _option("json", Json, False),
    ]
    # A command that has an option of the same name means its own (`inspect --address`).
    named = {parameter.name for parameter in own}
    common = [parameter for parameter in common if parameter.name not in named]

    @wraps(function)
    def command(**values: Any) -> int:
        out = Output(as_json=values.pop("json"))
        names = [parameter.name for parameter in common if parameter.name != "json"]
        connection = Connection(**{"address": DEFAULT_ADDRESS} | {name: values.pop(name) for name in names})
        return function(connection, out, **values)

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *common)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _option(name: str, kind: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
