"""The fields of `Config` as command-line options, so that flag, variable and field can never differ."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import NoneType
from typing import Annotated, Any, get_args

import typer

from revocation.config.settings import FLAG_FIELDS, Config


def settings_command(function: Callable[..., int]) -> Callable[..., int]:
    """Gives a command `(flags, ...)` one option for each setting of the service.

    `flags` holds field -> text or bool, None where the option was not given; the configuration judges the values.
    """
    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    parameters[:0] = [_option(name) for name in FLAG_FIELDS]

    @wraps(function)
    def command(**values: Any) -> int:
        flags = {name: values.pop(name) for name in FLAG_FIELDS}
        return function(flags, **values)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _option(name: str) -> inspect.Parameter:
    field = Config.model_fields[name]
    flag = f"--{name.replace('_', '-')}"
    text = field.description or ""
    switch = field.annotation is bool
    default = field.default
    if not switch and isinstance(default, str | int | float):
        text = f"{text} Default: {default}."
    if switch:
        kind: Any = Annotated[bool | None, typer.Option(f"{flag}/--no-{flag[2:]}", help=text, show_default=False)]
    else:
        kind = Annotated[str | None, typer.Option(flag, help=text, metavar=_metavar(name), show_default=False)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def _metavar(name: str) -> str:
    special = {
        "redis_url": "URL",
        "redis_username": "NAME",
        "data_dir": "DIR",
        "listen": "HOST:PORT",
        "http_listen": "HOST:PORT",
        "ack": "LEVEL",
        "session_ack": "LEVEL",
        "replica_id": "NAME",
        "log_level": "LEVEL",
    }
    if name in special:
        return special[name]
    kinds = {*get_args(Config.model_fields[name].annotation), Config.model_fields[name].annotation} - {NoneType}
    return "N" if int in kinds else "SECONDS" if float in kinds else "FILE"
