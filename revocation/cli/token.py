"""A token as an argument: itself, or `-` for standard input, where no other user of the machine sees it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

_LONGEST = 64 * 1024

Token = Annotated[str, typer.Argument(metavar="TOKEN", help="The JWT, or - to read it from standard input.")]


def read_token(argument: str) -> str:
    """The token that `argument` stands for, without white space and a leading "Bearer ". Raises BadParameter."""
    text = sys.stdin.read(_LONGEST + 1) if argument == "-" else argument
    if len(text) > _LONGEST:
        raise typer.BadParameter(f"longer than {_LONGEST} characters", param_hint="TOKEN")
    token = text.strip()
    if token[:7].lower() == "bearer ":
        token = token[7:].strip()
    if not token:
        raise typer.BadParameter("is empty", param_hint="TOKEN")
    return token
