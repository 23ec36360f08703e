"""Writes the pages of the documentation that come from the code: `make docs`. A test holds them fresh."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import Metric
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from revocation.callers.roles import TABLE, Bearer, Bind, Role
from revocation.config.rules import ENV_PREFIX, NO_FLAG
from revocation.config.settings import FLAG_FIELDS, Config
from revocation.observability.telemetry import SCRAPED, Metrics
from revocation.realms import RealmLimits, RealmSettings
from revocation_sdk.prometheus import FAMILIES

DOCS = Path(__file__).parent
OBSERVABILITY = DOCS / "observability.md"


def pages() -> dict[Path, str]:
    """Every generated page and what it should say."""
    return {DOCS / "configuration.md": "\n".join(_configuration()) + "\n", OBSERVABILITY: _observability()}


def _observability() -> str:
    """The page, with the tables of metrics between their marks renewed."""
    text = OBSERVABILITY.read_text()
    service = Metrics(version="", replica="").registry.collect()
    of_service = {
        name: (family.type, family.documentation, _labels(family)) for family in service
        if (name := family.name).startswith("revocation_")
    }  # fmt: skip
    of_client = {
        f"revocation_client_{name}": (kind(name, text).type, text, labels)
        for name, (kind, text, labels) in FAMILIES.items()
    }
    for mark, table in (("metrics", of_service), ("sdk metrics", of_client)):
        begin, end = f"<!-- {mark}: ", f"<!-- end of {mark} -->"
        before, _, rest = text.partition(begin)
        note, _, rest = rest.partition("\n")
        after = rest.partition(end)[2]
        text = f"{before}{begin}{note}\n" + "\n".join(_metrics(table)) + f"\n{end}{after}"
    return text


def _labels(family: Metric) -> tuple[str, ...]:
    known = Metrics(version="", replica="")
    name = family.name.removeprefix("revocation_")
    if name in SCRAPED:
        return SCRAPED[name][1]
    return tuple(getattr(getattr(known, name, None), "_labelnames", ()))


def _metrics(table: dict[str, tuple[str, str, tuple[str, ...]]]) -> Iterator[str]:
    yield from ("", "| name | kind | labels | what |", "| --- | --- | --- | --- |")
    for name, (kind, text, labels) in sorted(table.items()):
        shown = f"{name}_total" if kind == "counter" else f"{name}_info" if kind == "info" else name
        yield _row(f"`{shown}`", kind, ", ".join(f"`{label}`" for label in labels), text)
    yield ""


def _configuration() -> Iterator[str]:
    yield from (
        "# Configuration",
        "",
        "<!-- Made by `make docs` from the code; changes by hand are lost. -->",
        "",
        "Every setting is a flag of `revocation serve` and a variable of its environment; flags win. All faults are",
        "reported at once, and then nothing is started (exit code 2). `revocation config` takes the same and shows",
        "each value and where it came from, secrets hidden; `revocation doctor` compares them with what is there.",
        "",
        "## The service",
        "",
        "| flag | variable | default | meaning |",
        "| --- | --- | --- | --- |",
    )
    for name in FLAG_FIELDS:
        yield _row(f"`--{name.replace('_', '-')}`", f"`{ENV_PREFIX}{name.upper()}`", *_of(name))
    for name in sorted(NO_FLAG & set(Config.model_fields)):
        yield _row("none: it would show in the process list", f"`{ENV_PREFIX}{name.upper()}`", *_of(name))
    yield from (
        "",
        "## Realms",
        "",
        "`--realms` names a TOML file (or JSON) with a table for each realm, `[default]` for instance.",
        "",
        *_model(RealmSettings),
        "",
        "`limits` is a table in it, `[default.limits]`:",
        "",
        *_model(RealmLimits),
        "",
        "## Roles",
        "",
        "`--roles` names a TOML file (or JSON) that says who may do what; it is read anew when it changes. A",
        "`[[bearer]]` table says how the bearer tokens of one issuer are verified:",
        "",
        *_model(Bearer),
        "",
        "A `[[bind]]` table gives an identity its roles:",
        "",
        *_model(Bind),
        "",
        "What a role may call; `admin` may call everything:",
        "",
        "| method | " + " | ".join(role.value for role in Role if role is not Role.ADMIN) + " |",
        "| --- |" + " --- |" * (len(Role) - 1),
    )
    for method, allowed in TABLE.items():
        yield _row(f"`{method}`", *("yes" if role in allowed else "" for role in Role if role is not Role.ADMIN))


def _of(name: str) -> tuple[str, str]:
    meaning = Config.model_fields[name].description or ""
    text, _, default = meaning.partition(" Default: ")
    return (default.rstrip(".") or _default(Config.model_fields[name])), text


def _model(model: type[BaseModel]) -> Iterator[str]:
    yield from ("| name | default | meaning |", "| --- | --- | --- |")
    for name, field in model.model_fields.items():
        if not _is_model(field):
            yield _row(f"`{name}`", _default(field), field.description or "")


def _is_model(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    value = field.get_default()
    if value is None or value is False:
        return ""
    shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
    choices = typing.get_args(field.annotation) if typing.get_origin(field.annotation) is typing.Literal else ()
    others = [str(choice) for choice in choices if choice != value]
    return f"{shown} (or {', '.join(others)})" if others else str(shown)


def _row(*cells: str) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(f"wrote {path.relative_to(DOCS.parent)}")
