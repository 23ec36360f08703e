"""What `doctor` looks at, the store excepted. Every finding says what it saw and what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from revocation.cli import tls
from revocation.cli.connection import Connection
from revocation.cli.output import span

if TYPE_CHECKING:
    from revocation.config.settings import Config
    from revocation_sdk import RevocationClient
    from revocation_sdk.types import ServiceStatus

_CERTIFICATE_WARN_S = 14 * 86_400
_PROMOTION_S = 5.0
"""What a promotion at the store takes, roughly; Sentinel's down-after-milliseconds decides."""

_HEALED_ROWS_A_SECOND = 200_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    check: str
    result: Literal["ok", "warn", "fail", "skip"]
    message: str
    what_to_do: str = ""

    def machine(self) -> dict[str, str | None]:
        """For programs."""
        return asdict(self) | {"what_to_do": self.what_to_do or None}


def configuration(flags: dict[str, Any]) -> tuple[Config | None, list[Finding]]:
    """The service's configuration as flags and environment give it here, if it is here that the service runs."""
    from revocation.config.settings import ConfigInvalid, anything_given, load
    from revocation.embedded.directory import socket_of

    try:
        config = load(flags)
        if not anything_given(flags) and socket_of(config.data_dir) is None:
            what = "run it where the service runs, with the same environment, to have them checked"
            return None, [Finding("configuration", "skip", "no setting of a service is given here", what)]
    except ConfigInvalid as error:
        return None, [Finding("configuration", "fail", str(fault), "see `revocation config`") for fault in error.faults]
    findings = [Finding("configuration", "ok", "the settings fit together")]
    findings += [Finding("configuration", "warn", warning) for warning in config.warnings]
    return config, findings


def certificates(config: Config) -> Iterator[Finding]:
    """The certificate files of the service, as far as they are readable here."""
    if config.tls_cert is not None:
        yield _certificate("certificate of the service", config.tls_cert.read_bytes(), str(config.tls_cert))


def transport(connection: Connection) -> Iterator[Finding]:
    """The certificate that the service presents, and whether it fits the CA that was given."""
    from revocation_sdk._channel import parse_address

    if connection.insecure and not all(target.local for target in parse_address(connection.address)):
        yield Finding("transport", "warn", "plain text to another machine", "give the service --tls-cert")
    for host, port in tls.secured(connection):
        try:
            pem = tls.presented(host, port)
        except OSError as error:
            yield Finding(
                "transport", "fail", f"no TLS connection to {host}:{port}: {error}", "is the service up, with TLS?"
            )
            continue
        found = _certificate("certificate presented", pem, f"{host}:{port}")
        yield found
        if found.result != "fail" and connection.ca and (why := tls.misfit(host, port, connection.ca)):
            what = "give the CA that signed it (--ca), and an address that the certificate names"
            yield Finding("transport", "fail", why, what)


def service(connection: Connection, config: Config | None) -> Iterator[Finding]:
    """Whether the service answers, is usable, keeps time, and makes this client fresh."""
    from revocation_sdk.errors import PermissionDenied, RevocationError

    with closing(connection.client(name="revocation doctor")) as client:
        sent = time.time()
        try:
            status = client.status(timeout=connection.timeout)
        except PermissionDenied as error:
            yield Finding(
                "service",
                "fail",
                f"{connection.address} answers, and refuses this caller: {error} ({error.reason})",
                "see --cert and --cert-key, --token-file or REVOCATION_TOKEN, and the roles file of the service",
            )
            return
        except RevocationError as error:
            yield Finding(
                "service",
                "fail",
                f"{connection.address} does not answer: {error} ({error.reason})",
                "check the address, that the service runs, and whether it wants TLS (--ca)",
            )
            return
        offset_s = status.store_ms / 1000 - (sent + time.time()) / 2
        yield Finding(
            "service", "ok", f"{status.replica} (version {status.version}) answers; acknowledges at {status.ack}"
        )
        yield from _partitions(status)
        yield from _keys_not_refused(status)
        yield from _canary(status)
        yield from _freshness(client, connection.timeout)
        yield from _clocks(status, offset_s, client.follower.settings.margin_s)
        yield _staleness(status, client, config)


def _partitions(status: ServiceStatus) -> Iterator[Finding]:
    for number, partition in enumerate(status.partitions):
        if partition.state == "usable":
            yield Finding("partition", "ok", f"partition {number} is usable")
            continue
        if partition.state == "secret_missing":
            yield _secret_missing(number, status)
            continue
        waiting = f", waiting for {', '.join(partition.waiting_for)}" if partition.waiting_for else ""
        yield Finding(
            "partition",
            "fail",
            f"partition {number} is {partition.state}{waiting}",
            "start the member again, or strike it off if it is gone: `revocation members strike`"
            if partition.waiting_for
            else "wait a few seconds; then see the log of the service",
        )


def _secret_missing(number: int, status: ServiceStatus) -> Finding:
    kids = ", ".join(status.missing_secrets) or "not told"
    return Finding(
        "partition",
        "fail",
        f"partition {number} holds entries under a master secret that {status.replica} lacks (key ids: {kids})",
        "give it the master secrets (REVOCATION_SECRET_FILE) of the other replicas, and start it again",
    )


def _keys_not_refused(status: ServiceStatus) -> Iterator[Finding]:
    if status.keys_not_refused:
        kids = ", ".join(status.missing_secrets) or "not told"
        yield Finding(
            "signing keys",
            "warn",
            f"{status.keys_not_refused} signing keys were revoked under a master secret that {status.replica} does not "
            f"have (key ids: {kids}): tokens that they sign pass",
            "revoke them again (`revocation revoke key ...`), or put the secret back as the last one",
        )


_OLD_CANARY_S = 60.0


def _canary(status: ServiceStatus) -> Iterator[Finding]:
    last = status.canary
    if last is None:
        yield Finding("canary", "skip", "is off (--canary-s 0), or has not measured yet")
    elif last.failure or last.s_ago > max(_OLD_CANARY_S, 10 * last.seconds):
        why = last.failure.replace("_", " ") or f"no measurement for {last.s_ago:.0f} s"
        yield Finding(
            "canary", "fail", f"a revoked token was not seen to be refused: {why}",
            "revocations may not reach verifiers: look at the partitions and at the log of the service",
        )  # fmt: skip
    else:
        yield Finding("canary", "ok", f"a revoked token was refused after {last.seconds * 1000:.1f} ms")


def _freshness(client: RevocationClient, timeout: float) -> Iterator[Finding]:
    from revocation_sdk.errors import NotFresh

    begin = time.monotonic()
    client.start()
    try:
        client.wait_until_fresh(timeout)
    except NotFresh as error:
        yield Finding(
            "freshness",
            "fail",
            f"a client is not fresh within {timeout:g} s: {error}",
            "until it is, verifiers follow their on_stale policy; may the caller watch this realm?",
        )
    else:
        entries = len(client.follower.view)
        yield Finding("freshness", "ok", f"a client is fresh after {time.monotonic() - begin:.2f} s, {entries} entries")


def _clocks(status: ServiceStatus, offset_s: float, margin_s: float) -> Iterator[Finding]:
    apart = {"service and store": status.clock_skew_ms / 1000, "this machine and store": -offset_s}
    for between, seconds in apart.items():
        message = f"{between} are {abs(seconds):.2f} s apart; the margin of the realm is {margin_s:g} s"
        if abs(seconds) > margin_s / 2:
            yield Finding(
                "clocks", "fail", message, "synchronise the clocks (NTP); beyond half the margin nothing commits"
            )
        elif abs(seconds) > 1:
            yield Finding("clocks", "warn", message, "synchronise the clocks (NTP)")
        else:
            yield Finding("clocks", "ok", message)


def _staleness(status: ServiceStatus, client: RevocationClient, config: Config | None) -> Finding:
    if config is None:
        return Finding("max_staleness", "skip", "needs the configuration of the service")
    promotion = 0.0 if config.embedded else _PROMOTION_S
    heal = status.entries / _HEALED_ROWS_A_SECOND
    needed = config.detect_s + promotion + config.settle_s + heal + 2 * client.ping_interval
    message = f"verifiers with max_staleness of {needed:.0f} s or more stay fresh through a failover of the store"
    return Finding("max_staleness", "ok", f"{message} (a promotion of {promotion:g} s assumed)")


def _certificate(check: str, pem: bytes, where: str) -> Finding:
    from cryptography import x509

    try:
        left = x509.load_pem_x509_certificate(pem).not_valid_after_utc.timestamp() - time.time()
    except ValueError:
        return Finding(check, "fail", f"{where}: not a certificate in PEM", "replace it")
    if left <= 0:
        return Finding(check, "fail", f"{where}: expired {span(-left)} ago", "renew it")
    if left < _CERTIFICATE_WARN_S:
        return Finding(check, "warn", f"{where}: expires in {span(left)}", "renew it")
    return Finding(check, "ok", f"{where}: expires in {span(left)}")
