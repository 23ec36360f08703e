"""What must hold between the fields of a configuration, and what deserves a warning.

Each rule names the fields that it reads: where one of them is faulty by itself, the rule says nothing, so that a
person sees causes and not their consequences.
"""

from __future__ import annotations

import difflib
import os
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from revocation.config.address import is_local
from revocation.config.store_url import has_credentials, is_encrypted, read_password
from revocation.keys.keyring import SecretInvalid, parse_secret

if TYPE_CHECKING:
    from revocation.config.settings import Config

ENV_PREFIX = "REVOCATION_"
NO_FLAG = frozenset({"secret"})
"""Fields that only the environment gives: a command line is visible to every user of the machine."""

_OF_OTHERS = frozenset({"ADDRESS", "REALM", "CA", "CERT", "CERT_KEY", "TOKEN", "TEST_REDIS_URL"})
"""Variables of the client commands and of the tests: known, but not of this configuration."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with the configuration, and what to do about it."""

    field: str
    """The field, or a path into it, like `realms.shop.margin_s`."""

    message: str

    def __str__(self) -> str:
        top = self.field.partition(".")[0]
        flag = "" if top in NO_FLAG else f"--{top.replace('_', '-')}, "
        return f"{self.field} ({flag}{ENV_PREFIX}{top.upper()}): {self.message}"


class ConfigInvalid(Exception):
    """The configuration cannot be used. `faults` lists everything that is wrong, not just the first thing."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


def faults_between(config: Config, failed: set[str]) -> Iterator[Fault]:
    """The faults that only several fields together show; `failed` fields hold placeholders and are not judged."""
    for rule, fields in _RULES.items():
        if failed.isdisjoint(fields):
            yield from rule(config)


def _store(config: Config) -> Iterator[Fault]:
    if config.embedded and config.redis_url is not None:
        yield Fault("embedded", "contradicts redis_url; give one of the two")
    if not config.embedded and config.redis_url is None:
        yield Fault("redis_url", "is missing, as embedded is off; give a URL, or --embedded")
    for name, ack in (("ack", config.ack), ("session_ack", config.session_ack)):
        if config.embedded and ack.level == "replicated" and (name == "ack" or ack != config.ack):
            yield Fault(name, "the embedded store has no replicas; use fsynced, or --redis-url with replicas")


def _store_access(config: Config) -> Iterator[Fault]:
    given = [name for name in _STORE_ACCESS if getattr(config, name) is not None]
    if config.redis_url is None:
        yield from (Fault(name, "needs redis_url; the embedded store has no use for it") for name in given)
        return
    yield from _store_url(config.redis_url, given)
    if (config.redis_cert is None) != (config.redis_key is None):
        missing = "redis_key" if config.redis_key is None else "redis_cert"
        yield Fault(missing, "is missing; certificate and key go together")
    yield from _password("redis_password_file", config.redis_password_file)
    yield from _password("redis_sentinel_password_file", config.redis_sentinel_password_file)


def _store_url(url: str, given: list[str]) -> Iterator[Fault]:
    credentials = [name for name in ("redis_username", "redis_password_file") if name in given]
    if credentials and has_credentials(url):
        yield Fault(credentials[0], "contradicts redis_url, which names a user or password itself; drop one of the two")
    files = [name for name in ("redis_ca", "redis_cert", "redis_key") if name in given]
    if files and not is_encrypted(url):
        yield Fault(files[0], "needs a store with TLS; write rediss:// (or rediss+sentinel://, rediss+cluster://)")
    if "redis_sentinel_password_file" in given and "+sentinel:" not in url:
        yield Fault("redis_sentinel_password_file", "needs a redis+sentinel:// URL")


def _password(field: str, path: Path | None) -> Iterator[Fault]:
    if path is not None:
        try:
            read_password(path)
        except ValueError as error:
            yield Fault(field, str(error))


_STORE_ACCESS = (
    *("redis_username", "redis_password_file", "redis_sentinel_password_file"),
    *("redis_ca", "redis_cert", "redis_key"),
)


def _tls(config: Config) -> Iterator[Fault]:
    if config.insecure and config.tls_cert is not None:
        yield Fault("insecure", "contradicts tls_cert; drop one of the two")
    yield from _certificate("", config.tls_cert, config.tls_key, config.client_ca)


def _http_tls(config: Config) -> Iterator[Fault]:
    if config.http_tls_cert is not None and config.http_listen is None:
        yield Fault("http_tls_cert", "there is no HTTP listener; give --http-listen too")
    yield from _certificate("http_", config.http_tls_cert, config.http_tls_key, config.http_client_ca)


def _certificate(prefix: str, cert: Path | None, key: Path | None, client_ca: Path | None) -> Iterator[Fault]:
    flags = prefix.replace("_", "-")
    if (cert is None) != (key is None):
        missing = "tls_key" if key is None else "tls_cert"
        yield Fault(f"{prefix}{missing}", "is missing; certificate and key go together")
    if client_ca is not None and cert is None:
        text = f"client certificates need TLS; give --{flags}tls-cert and --{flags}tls-key too"
        yield Fault(f"{prefix}client_ca", text)
    if cert is not None and key is not None:
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            # Without a password callback OpenSSL would ask for a passphrase on the terminal.
            context.load_cert_chain(cert, key, password=lambda: b"")
        except (ssl.SSLError, ValueError, OSError):
            text = f"does not load with {prefix}tls_cert; give a matching PEM pair, without a passphrase"
            yield Fault(f"{prefix}tls_key", text)


def _transport(config: Config) -> Iterator[Fault]:
    if not is_local(config.listen) and config.tls_cert is None and not config.insecure:
        yield Fault("listen", "other machines can reach it; give --tls-cert and --tls-key, or --insecure")


def _http_transport(config: Config) -> Iterator[Fault]:
    plain = config.http_tls_cert is None and not (config.http_insecure or config.insecure)
    if config.http_listen is not None and not is_local(config.http_listen) and plain:
        text = "other machines can reach it; give --http-tls-cert and --http-tls-key, or --http-insecure"
        yield Fault("http_listen", text)
    if config.http_insecure and config.http_tls_cert is not None:
        yield Fault("http_insecure", "contradicts http_tls_cert; drop one of the two")


def _callers(config: Config) -> Iterator[Fault]:
    if config.roles is not None and config.allow_anonymous:
        yield Fault("allow_anonymous", "contradicts roles; drop one of the two")
    if not is_local(config.listen) and config.roles is None and not config.allow_anonymous:
        yield Fault("roles", "other machines can call; give --roles FILE, or --allow-anonymous")


def _realms(config: Config) -> Iterator[Fault]:
    for name, settings in config.realms.items():
        if settings.two_person and config.roles is None:
            yield Fault(f"realms.{name}.two_person", "persons are told apart by identity; give --roles FILE")
    if config.roles is None and "default" not in config.realms:
        yield Fault("realms", "anonymous callers get realm `default`, which is not there; add it, or give --roles")


def _secrets(config: Config) -> Iterator[Fault]:
    if config.secret is not None and config.secret_file is not None:
        yield Fault("secret", "contradicts secret_file; give one of the two")
        return
    try:
        text = config.secret_text()
        if text is not None:
            parse_secret(text)
    except SecretInvalid as error:
        yield Fault("secret_file" if config.secret is None else "secret", str(error))


def _secret_of_shared_store(config: Config) -> Iterator[Fault]:
    has_secret = config.secret is not None or config.secret_file is not None
    if config.redis_url is not None and not has_secret and not is_local(config.listen):
        yield Fault(
            "secret_file",
            "replicas that share a store need a master secret in common; write `k1:` followed by the output of "
            "`openssl rand -base64 32` into a file and name that here",
        )


def _times(config: Config) -> Iterator[Fault]:
    if config.detect_s < 2 * config.heartbeat_s:
        yield Fault("detect_s", f"is below twice heartbeat_s ({config.heartbeat_s}): one late beat would be a death")
    if config.strike_after_s < config.detect_s:
        yield Fault("strike_after_s", f"must not be below detect_s ({config.detect_s})")
    if config.log_retention_s < config.op_retention_s:
        yield Fault(
            "log_retention_s",
            f"must not be below op_retention_s ({config.op_retention_s}): op ids are healed from the log",
        )


_RULES: dict[Callable[[Config], Iterator[Fault]], frozenset[str]] = {
    _store: frozenset({"embedded", "redis_url", "ack", "session_ack"}),
    _store_access: frozenset({"redis_url", *_STORE_ACCESS}),
    _tls: frozenset({"tls_cert", "tls_key", "client_ca", "insecure"}),
    _http_tls: frozenset({"http_listen", "http_tls_cert", "http_tls_key", "http_client_ca"}),
    _http_transport: frozenset({"http_listen", "http_tls_cert", "http_insecure", "insecure"}),
    _transport: frozenset({"listen", "tls_cert", "insecure"}),
    _callers: frozenset({"listen", "roles", "allow_anonymous"}),
    _realms: frozenset({"realms", "roles"}),
    _secrets: frozenset({"secret", "secret_file"}),
    _secret_of_shared_store: frozenset({"secret", "secret_file", "redis_url", "listen"}),
    _times: frozenset({"heartbeat_s", "detect_s", "strike_after_s", "op_retention_s", "log_retention_s"}),
}


def warnings_of(config: Config) -> Iterator[str]:
    """What works but deserves a look."""
    if config.roles is None:
        reach = "on this machine" if is_local(config.listen) else "that reaches the listener"
        yield f"no roles: every caller {reach} is admin of realm `default`; give --roles FILE for production"
    if config.insecure and not is_local(config.listen):
        yield "insecure: tokens and realm keys travel in plain text"
    if config.http_listen is not None and config.http_tls_cert is None and not is_local(config.http_listen):
        yield "http_insecure: metrics travel in plain text; give --http-tls-cert and --http-tls-key"
    if config.redis_url is not None and config.secret is None and config.secret_file is None:
        yield "no master secret: one is kept in the store, and who reads that can test guesses of identifiers"
    if config.allow_eviction:
        yield "allow_eviction: the store may forget revocations when its memory is full"
    if config.redis_url is not None and config.source("data_dir") == "flag":
        yield "data_dir is not used: the store is the one of redis_url"
    yield from _misspelt(set(type(config).model_fields))


def _misspelt(fields: set[str]) -> Iterator[str]:
    """Variables that look like typing errors. Kubernetes sets REVOCATION_SERVICE_HOST and such by itself."""
    known = {field.upper() for field in fields} | _OF_OTHERS
    for name in sorted(os.environ):
        short = name.removeprefix(ENV_PREFIX)
        close = difflib.get_close_matches(short, known, n=1, cutoff=0.85)
        if short != name and short not in known and close:
            yield f"{name} is not a setting; did you mean {ENV_PREFIX}{close[0]}?"
