"""The configuration of the service: flags, then environment, then defaults; all faults reported at once.

The environment is read here and nowhere else in the service. Every field is the flag `--<field>` and the
variable `REVOCATION_<FIELD>`, except the secret itself, which never stands on a command line.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_serializer,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from revocation.config.address import listen_address, redacted_url, split_address
from revocation.config.rules import ENV_PREFIX, NO_FLAG, ConfigInvalid, Fault, faults_between, warnings_of
from revocation.config.store_url import complete, read_password
from revocation.keys.keyring import SecretInvalid
from revocation.limits import APPROVAL_S, FUTURE_OP_ID_MS, LONGEST_CALL_S
from revocation.realms import RealmName, RealmSettings, home_expanded, read_realms

__all__ = ["FLAG_FIELDS", "Ack", "Config", "ConfigInvalid", "Fault", "RealmSettings", "effective", "load"]

STORE_SCHEMES = (
    "redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster",
)  # fmt: skip
Source = Literal["default", "env", "flag"]
Level = Literal["memory", "replicated", "fsynced"]


@dataclass(frozen=True, slots=True)
class Ack:
    """How many copies a change has before it is acknowledged (DESIGN section 4)."""

    level: Level
    copies: int = 0
    """Store replicas that must hold it; 0 unless the level is `replicated`."""

    def __str__(self) -> str:
        return f"replicated:{self.copies}" if self.level == "replicated" else self.level


def parse_ack(text: object) -> object:
    """`memory`, `replicated:N` or `fsynced`. Raises ValueError for other text; other types pass through."""
    if not isinstance(text, str):
        return text
    if text in {"memory", "fsynced"}:
        return Ack(cast(Level, text))
    if match := re.fullmatch(r"replicated:([1-9][0-9]?)", text):
        return Ack("replicated", int(match[1]))
    raise ValueError("write memory, replicated:N (N = store replicas to wait for, 1 to 99) or fsynced")


def _http_listen(address: str) -> str:
    split_address(address)
    return address


def _store_url(url: str) -> str:
    scheme, _, rest = url.partition("://")
    try:
        urlsplit(url)
    except ValueError:
        rest = ""
    if scheme not in STORE_SCHEMES or not rest:  # the message must not repeat the URL: it may hold a password
        raise ValueError(f"is not the URL of a store; start it with one of {', '.join(STORE_SCHEMES)} and ://")
    return url


def _replica_id(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", name):
        raise ValueError("1 to 128 characters of A-Z, a-z, 0-9, '.', '_', ':' and '-'")
    return name


def _readable(path: Path, info: ValidationInfo) -> Path:
    path = home_expanded(path)
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        # Where the secret itself was given in place of its file's name, the message must not repeat it.
        secret = (info.field_name or "").endswith(("secret_file", "password_file"))
        what = "that file" if secret else path
        raise ValueError(f"cannot read {what}: {error.strerror}") from error


def _realms(value: object) -> object:
    return read_realms(Path(value)) if isinstance(value, str | Path) else value


def _default_data_dir() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    # The XDG specification: a relative path is invalid and is to be ignored.
    home = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return home / "revocation"


def _default_replica_id(earlier: dict[str, Any]) -> str:
    listen: str = earlier["listen"]
    host = re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:64] or "host"
    if listen.startswith("unix:"):
        return f"{host}:unix-{hashlib.sha256(listen.encode()).hexdigest()[:8]}"
    _, port = split_address(listen)
    # Port 0 is another one at each start; two such replicas must not take each other for the same member.
    return f"{host}:{port}" if port else f"{host}:0-{secrets.token_hex(4)}"


ReadableFile = Annotated[Path, AfterValidator(_readable)]


class Config(BaseSettings):
    """A valid configuration. Made by `load`, which also checks the rules between fields."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,  # an empty variable is how charts and compose files say "not set"
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )
    _sources: dict[str, Source] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    # Secret as far as it holds a password: show only `redacted_url(...)` of it.
    redis_url: Annotated[str, AfterValidator(_store_url)] | None = Field(None, repr=False)
    """URL of the store: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://. Default: embedded."""

    redis_username: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """ACL user at the store, if the URL names none."""

    redis_password_file: ReadableFile | None = None
    """File that holds the password of the store, so that the URL need not."""

    redis_sentinel_password_file: ReadableFile | None = None
    """File that holds the password of the Sentinels."""

    redis_ca: ReadableFile | None = None
    """CA of a store with TLS, PEM. Default: those of the system."""

    redis_cert: ReadableFile | None = None
    """Client certificate for a store that demands one, PEM."""

    redis_key: ReadableFile | None = None
    """Private key of that certificate, PEM, without a passphrase."""

    embedded: bool = Field(default_factory=lambda earlier: earlier["redis_url"] is None)
    """Run a Valkey of its own in the data dir. Default: unless a store URL is given."""

    data_dir: Annotated[Path, AfterValidator(home_expanded)] = Field(default_factory=_default_data_dir)
    """Where the embedded store lives. Default: $XDG_STATE_HOME/revocation."""

    listen: Annotated[str, AfterValidator(listen_address)] = "127.0.0.1:50051"
    """Where gRPC is served: HOST:PORT, or unix:///absolute/path. Port 0 takes a free one."""

    http_listen: Annotated[str, AfterValidator(_http_listen)] | None = None
    """Where /livez, /readyz and /metrics are served, HOST:PORT. Default: nowhere."""

    http_tls_cert: ReadableFile | None = None
    """Certificate chain of the HTTP listener, PEM."""

    http_tls_key: ReadableFile | None = None
    """Private key of that certificate, PEM, without a passphrase."""

    http_insecure: bool = False
    """Serve HTTP in plain text on an address that other machines can reach."""

    http_client_ca: ReadableFile | None = None
    """CA whose client certificates are demanded over HTTP, PEM."""

    ack: Annotated[Ack, NoDecode, BeforeValidator(parse_ack)] = Field(
        default_factory=lambda earlier: Ack("fsynced" if earlier["embedded"] else "memory")
    )
    """memory, replicated:N or fsynced. Default: fsynced when embedded, else memory."""

    session_ack: Annotated[Ack, NoDecode, BeforeValidator(parse_ack)] = Field(
        default_factory=lambda earlier: earlier["ack"]
    )
    """The same for logins and refreshes, whose loss costs a login; ends always follow --ack. Default: as --ack."""

    replica_id: Annotated[str, AfterValidator(_replica_id)] = Field(default_factory=_default_replica_id)
    """Name of this replica as a member; the same after a restart. Default: host name and listen port."""

    roles: ReadableFile | None = None
    """File that says which caller may do what."""

    tls_cert: ReadableFile | None = None
    """Certificate chain of the gRPC listener, PEM."""

    tls_key: ReadableFile | None = None
    """Private key of the certificate, PEM, without a passphrase."""

    client_ca: ReadableFile | None = None
    """CA whose client certificates are demanded, PEM."""

    insecure: bool = False
    """Serve plain text on an address that other machines can reach."""

    allow_anonymous: bool = False
    """Treat every caller as admin of realm `default`, on an address that other machines can reach."""

    partitions: Annotated[int, Field(ge=1, le=64)] = 1
    """Logs that the store is divided into. Fixed when the store is first used."""

    realms: Annotated[
        dict[RealmName, RealmSettings],
        Field(min_length=1, max_length=1000),
        NoDecode,
        BeforeValidator(_realms),
    ] = Field(default_factory=lambda: {"default": RealmSettings()})
    """TOML or JSON file with one table for each realm. Default: one realm, `default`."""

    settle_s: Annotated[float, Field(ge=0.1, le=60)] = 2.0
    """How long a newly opened history waits for members that it does not know (H7)."""

    detect_s: Annotated[float, Field(ge=0.2, le=300)] = 3.0
    """A member silent for so long counts as dead while the history is usable (H10)."""

    strike_after_s: Annotated[float, Field(ge=0.5, le=86_400)] = 30.0
    """A member silent for so long is struck off while a history waits for it (H11)."""

    heartbeat_s: Annotated[float, Field(ge=0.02, le=60)] = 0.5
    """How often a member shows that it lives."""

    drain_s: Annotated[float, Field(ge=0, le=600)] = 10.0
    """How long a shutdown may take before calls and streams are cut."""

    op_retention_s: Annotated[int, Field(ge=60, le=3600)] = 600
    """Older op ids are refused. Their records are kept some minutes longer, so that no id can run twice."""

    log_retention_s: Annotated[int, Field(ge=60, le=86_400)] = 900
    """How far back a verifier can resume without a snapshot; at least as far as records of op ids are kept."""

    log_max_entries: Annotated[int, Field(ge=1000, le=100_000_000)] = 1_000_000
    """Most entries of a log; at it, commits are refused until members have caught up."""

    audit_retention_s: Annotated[int, Field(ge=0, le=400 * 86_400)] = 7 * 86_400
    """How long the store keeps the audit; 0: there is none, but for the log lines."""

    audit_max_mb: Annotated[int, Field(ge=1, le=100_000)] = 64
    """Most megabytes of audit that the store keeps for a realm in each partition; the oldest goes first."""

    max_subscribers: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Most streams of verifiers on this replica."""

    otel: bool = False
    """Export traces by OTLP, as the OTEL_* variables say; needs the extra `otel`."""

    canary_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """How often this replica revokes a token of its own and measures until it is refused; 0: never."""

    allow_eviction: bool = False
    """Start although the store may evict keys, that is, forget revocations."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""

    secret: SecretStr | None = None
    """Master secrets `kid:base64`, separated by commas or spaces; the first is current."""

    secret_file: ReadableFile | None = None
    """File that holds the master secrets, one a line."""

    @field_serializer("redis_url")
    def _hide_password(self, url: str | None) -> str | None:
        return None if url is None else redacted_url(url)

    def source(self, field: str) -> Source:
        """Where the value of `field` came from."""
        return self._sources.get(field, "default")

    @property
    def warnings(self) -> tuple[str, ...]:
        """What works but deserves a look; `serve` logs it at start."""
        return self._warnings

    @property
    def op_record_s(self) -> int:
        """How long the store keeps the record of an operation: while somebody could come with its id, or its approval.

        An id may be ahead of our clock, a call with it may be held, and two replicas' clocks may be apart by the margin
        within which they may commit.
        """
        realms = self.realms.values()
        apart_s = min(realm.margin_s for realm in realms)
        kept = self.op_retention_s + FUTURE_OP_ID_MS // 1000 + int(LONGEST_CALL_S) + apart_s
        approved = APPROVAL_S + int(LONGEST_CALL_S) if any(realm.two_person for realm in realms) else 0
        return max(kept, approved)

    def store_url(self) -> str | None:
        """`redis_url` with user, passwords and TLS files in it, or None. Secret. Raises ValueError for a bad file."""
        if self.redis_url is None:
            return None
        files = {"ssl_ca_certs": self.redis_ca, "ssl_certfile": self.redis_cert, "ssl_keyfile": self.redis_key}
        options = {name: str(path) for name, path in files.items() if path is not None}
        if self.redis_sentinel_password_file is not None:
            options["sentinel_password"] = read_password(self.redis_sentinel_password_file)
        password = None if self.redis_password_file is None else read_password(self.redis_password_file)
        return complete(self.redis_url, self.redis_username, password, options)

    def secret_text(self) -> str | None:
        """The configured master secrets as text, or None. Raises SecretInvalid if the file cannot be read."""
        if self.secret is not None:
            return self.secret.get_secret_value()
        if self.secret_file is None:
            return None
        try:
            return self.secret_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            raise SecretInvalid(f"cannot read {self.secret_file} as text") from None


FLAG_FIELDS = tuple(name for name in Config.model_fields if name not in NO_FLAG)
"""The fields that `serve` offers as flags."""


def load(flags: Mapping[str, object]) -> Config:
    """The configuration from `flags` (field -> value; None = not given) and the environment.

    Raises ConfigInvalid with every fault found, in fields and between them.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    sources: dict[str, Source] = dict.fromkeys(_set_in_environment(), "env")
    sources |= dict.fromkeys(given, "flag")
    for winner, loser, off in (("embedded", "redis_url", None), ("redis_url", "embedded", False)):
        # A store named by flag replaces one named by the environment, though the names differ.
        if given.get(winner) and sources.get(loser) == "env":
            given[loser] = off
            del sources[loser]
    if no_text := [Fault(name, "is not text in UTF-8") for name in _no_text(given)]:
        raise ConfigInvalid(tuple(no_text))
    faults: list[Fault] = []
    failed: set[str] = set()
    try:
        config = Config(**cast(Any, given))
    except ValidationError as error:
        faults = _field_faults(error)
        failed = {fault.field.partition(".")[0] for fault in faults}
        # A second pass with placeholders for what failed: rules between the other fields are checked too.
        known = {name: value for name, value in given.items() if name in Config.model_fields}
        config = Config(**cast(Any, known | _placeholders(failed)))
    faults += faults_between(config, failed)
    if faults:
        raise ConfigInvalid(tuple(faults))
    config._sources = sources
    config._warnings = tuple(warnings_of(config))
    return config


def anything_given(flags: Mapping[str, object]) -> bool:
    """Whether flags or environment say anything of a service."""
    return bool(_set_in_environment()) or any(value is not None for value in flags.values())


def effective(config: Config) -> dict[str, dict[str, object]]:
    """Field -> {"value", "source"}, as `revocation config` shows it; passwords and secrets are hidden."""
    return {name: {"value": _shown(name, config), "source": config.source(name)} for name in Config.model_fields}


def _shown(name: str, config: Config) -> object:
    match getattr(config, name):
        case SecretStr():
            return "***"
        case str() as text if name == "redis_url":
            return redacted_url(text)
        case Ack() | Path() as value:
            return str(value)
        case dict() as realms:
            return {realm: settings.model_dump() for realm, settings in realms.items()}
        case value:
            return value


def _set_in_environment() -> list[str]:
    present = {name.upper() for name, value in os.environ.items() if value}
    return [name for name in Config.model_fields if f"{ENV_PREFIX}{name.upper()}" in present]


def _no_text(given: Mapping[str, object]) -> list[str]:
    """The fields whose value, by flag or environment, is not UTF-8; nothing could be said about them as text."""
    values = {name: os.environ.get(f"{ENV_PREFIX}{name.upper()}", "") for name in Config.model_fields} | {**given}
    return [name for name, value in values.items() if not str(value).isascii() and not _encodes(str(value))]


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _placeholders(failed: set[str]) -> dict[str, object]:
    earlier = {"redis_url": None, "embedded": True, "listen": "127.0.0.1:0", "ack": Ack("fsynced")}
    return {
        name: field.get_default(call_default_factory=True, validated_data=earlier)
        for name, field in Config.model_fields.items()
        if name in failed
    }


def _printable(text: str) -> str:
    """A message, in which names and paths of the operator's may stand, without control characters."""
    text = text.removeprefix("Value error, ")
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def _field_faults(error: ValidationError) -> list[Fault]:
    return [
        Fault(_printable(".".join(str(part) for part in item["loc"])), _printable(item["msg"]))
        for item in error.errors(include_url=False, include_input=False)
        if item["type"] != "default_factory_not_called"  # follows from a fault that is reported itself
    ]
