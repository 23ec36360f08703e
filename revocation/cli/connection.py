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

    def __post_init__(self) -> None:
        _require_ports(self.address)

    def client(self, **options: Any) -> RevocationClient:
        """A client for this command. Close it; entering it would begin to follow. Raises ConfigError."""
        import os

        from revocation_sdk import RevocationClient
        from revocation_sdk._channel import security

        token: Any = os.environ.get("REVOCATION_TOKEN") or None
        if self.token_file is not None:
            token = self._read_token
            token()  # what cannot be read now is a fault of the command line, not of the service
        ca, cert, key = _text(self.ca), _text(self.cert), _text(self.cert_key)
        security(ca, cert, key, None, self.insecure).credentials()  # likewise
        return RevocationClient(
            self.address, realm=self.realm, ca=ca, cert=cert, key=key, token=token, insecure=self.insecure, **options
        )

    def to(self, address: str) -> Connection:
        """The same, at another address."""
        return replace(self, address=address)

    def _read_token(self) -> str:
        from revocation_sdk.errors import ConfigError

        assert self.token_file is not None
        try:
            return self.token_file.expanduser().read_text("ascii").strip()
        except OSError as error:
            raise ConfigError(f"cannot read {self.token_file}: {error.strerror}", reason="token_file") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{self.token_file} holds no access token", reason="token_file") from None


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.expanduser())


def _require_ports(address: str) -> None:
    """The SDK would add the default port; on a command line a bare word is rather a mistake."""
    for part in map(str.strip, address.split(",")):
        if not part.startswith(("unix:", "unix-abstract:", "dns:")) and part.rpartition("]")[2].count(":") != 1:
            raise typer.BadParameter(f"{part!r} has no port: HOST:PORT, or dns:///NAME", param_hint="--address")


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
        try:
            return function(connection, out, **values)
        except Exception as error:
            _tell_of_tls(error, connection)
            raise

    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*own, *common)]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _tell_of_tls(error: Exception, connection: Connection) -> None:
    """Raises Unavailable where a certificate does not fit: to gRPC that is a service that is not there."""
    from revocation.cli.tls import misfits
    from revocation_sdk.errors import NotFresh, Unavailable

    if isinstance(error, Unavailable | NotFresh) and error.reason == "unavailable" and (why := misfits(connection)):
        raise Unavailable(why, reason="tls") from error


def _option(name: str, kind: Any, default: object) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
