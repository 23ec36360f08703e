"""Configuration: precedence, defaults, and that all faults come at once with what to do."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import trustme

from revocation.config.address import is_local, redacted_url, split_address
from revocation.config.settings import FLAG_FIELDS, Ack, Config, ConfigInvalid, effective, load
from revocation.keys.keyring import new_secret
from revocation.realms import DAY_S


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.upper().startswith("REVOCATION_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def faults_of(flags: dict[str, object]) -> dict[str, str]:
    with pytest.raises(ConfigInvalid) as caught:
        load(flags)
    return {fault.field: fault.message for fault in caught.value.faults}


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_nothing_given_is_a_safe_local_service(tmp_path: Path) -> None:
    """The defaults: embedded store, loopback, fsynced, one realm, and a warning that nobody is identified."""
    config = load({})
    assert config.embedded
    assert config.data_dir == tmp_path / "state" / "revocation"
    assert config.ack == Ack("fsynced")
    assert config.listen == "127.0.0.1:50051"
    assert config.http_listen is None
    assert list(config.realms) == ["default"]
    assert config.realms["default"].max_token_life_s == DAY_S
    assert config.replica_id.endswith(":50051")
    assert [warning.partition(":")[0] for warning in config.warnings] == ["no roles"]


def test_relative_xdg_state_home_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As its specification says."""
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load({}).data_dir == tmp_path / ".local" / "state" / "revocation"


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flag, then variable, then default; each value knows where it came from."""
    monkeypatch.setenv("REVOCATION_LISTEN", "127.0.0.1:1111")
    monkeypatch.setenv("REVOCATION_DRAIN_S", "3.5")
    monkeypatch.setenv("REVOCATION_HTTP_LISTEN", "")
    config = load({"listen": "127.0.0.1:2222", "partitions": None})
    assert (config.listen, config.source("listen")) == ("127.0.0.1:2222", "flag")
    assert (config.drain_s, config.source("drain_s")) == (3.5, "env")
    assert (config.http_listen, config.source("http_listen")) == (None, "default")
    assert (config.partitions, config.source("partitions")) == (1, "default")


def test_a_store_named_by_flag_replaces_one_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """--embedded beside REVOCATION_REDIS_URL is no contradiction, and the other way round."""
    monkeypatch.setenv("REVOCATION_REDIS_URL", "redis://store")
    config = load({"embedded": True})
    assert config.embedded
    assert config.redis_url is None
    monkeypatch.delenv("REVOCATION_REDIS_URL")
    monkeypatch.setenv("REVOCATION_EMBEDDED", "true")
    config = load({"redis_url": "redis://store"})
    assert not config.embedded
    assert config.redis_url == "redis://store"


def test_all_faults_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Faults in fields, and faults between the fields that are sound, in one message with flag and variable."""
    monkeypatch.setenv("REVOCATION_PARTITIONS", "65")
    monkeypatch.setenv("REVOCATION_SECRET", "k1:tooshort")
    faults = faults_of({"listen": "50051", "heartbeat_s": 2.0, "client_ca": "/nowhere/ca.pem", "log_level": "loud"})
    assert set(faults) == {"listen", "partitions", "client_ca", "log_level", "secret", "detect_s"}
    assert "HOST:PORT" in faults["listen"]
    with pytest.raises(ConfigInvalid, match=r"partitions \(--partitions, REVOCATION_PARTITIONS\)"):
        load({})


def test_causes_not_consequences_are_reported() -> None:
    """A faulty listener does not also complain about roles that depend on it."""
    assert set(faults_of({"listen": "nonsense"})) == {"listen"}


def test_unknown_fields_are_refused() -> None:
    """A flag that the service does not know is a programming error of the caller, and said so."""
    assert set(faults_of({"lisen": "127.0.0.1:1"})) == {"lisen"}


@pytest.mark.parametrize(
    ("flags", "field"),
    [
        ({"embedded": True, "redis_url": "redis://x"}, "embedded"),
        ({"embedded": False}, "redis_url"),
        ({"ack": "replicated:2"}, "ack"),
        ({"ack": "replicated:0", "redis_url": "redis://x"}, "ack"),
        ({"ack": "disk"}, "ack"),
        ({"redis_url": "http://x"}, "redis_url"),
        ({"redis_url": "redis:"}, "redis_url"),
        ({"redis_username": "u"}, "redis_username"),
        ({"redis_url": "redis://u:p@x", "redis_username": "u"}, "redis_username"),
        ({"redis_url": "redis://x", "redis_password_file": os.devnull}, "redis_password_file"),
        ({"redis_url": "redis://x", "redis_ca": os.devnull}, "redis_ca"),
        ({"redis_url": "rediss://x", "redis_cert": os.devnull}, "redis_key"),
        ({"redis_url": "rediss://x", "redis_key": os.devnull}, "redis_cert"),
        ({"redis_url": "redis://x", "redis_sentinel_password_file": __file__}, "redis_sentinel_password_file"),
        ({"listen": "127.0.0.1:65536"}, "listen"),
        ({"listen": "::1:50051"}, "listen"),
        ({"listen": "unix:relative.sock"}, "listen"),
        ({"listen": "unix:///" + "d" * 100}, "listen"),
        ({"http_listen": "unix:///run/x"}, "http_listen"),
        ({"http_listen": "0.0.0.0:9464"}, "http_listen"),
        ({"http_listen": "127.0.0.1:1", "http_tls_cert": __file__}, "http_tls_key"),
        ({"http_listen": "0.0.0.0:1", "http_client_ca": __file__, "http_insecure": True}, "http_client_ca"),
        ({"replica_id": "a b"}, "replica_id"),
        ({"strike_after_s": 1.0, "detect_s": 2.0}, "strike_after_s"),
        ({"op_retention_s": 1000}, "log_retention_s"),
        ({"roles": "/nowhere/roles.toml"}, "roles"),
        ({"tls_cert": os.devnull}, "tls_key"),
        ({"tls_key": os.devnull}, "tls_cert"),
        ({"tls_cert": os.devnull, "tls_key": os.devnull}, "tls_key"),
        ({"client_ca": os.devnull}, "client_ca"),
        ({"roles": os.devnull, "allow_anonymous": True}, "allow_anonymous"),
    ],
)
def test_refuses(flags: dict[str, object], field: str) -> None:
    """Each of these alone stops the start, and the fault names the field to change."""
    assert set(faults_of(flags)) == {field}


@pytest.mark.parametrize("listen", ["127.0.0.1:1", "[::1]:1", "localhost:1", "127.8.9.1:0", "unix:///run/r.sock"])
def test_local_listeners_need_nothing_more(listen: str) -> None:
    """Only this machine reaches them."""
    assert is_local(load({"listen": listen}).listen)


@pytest.mark.parametrize("listen", ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "store.example:1"])
def test_other_listeners_need_transport_and_callers(listen: str) -> None:
    """TLS or --insecure, and --roles or --allow-anonymous: each fault says which."""
    assert set(faults_of({"listen": listen})) == {"listen", "roles"}
    assert set(faults_of({"listen": listen, "insecure": True})) == {"roles"}
    assert set(faults_of({"listen": listen, "allow_anonymous": True})) == {"listen"}
    config = load({"listen": listen, "insecure": True, "allow_anonymous": True})
    assert [warning.partition(":")[0] for warning in config.warnings] == ["no roles", "insecure"]


def test_tls_pair_is_loaded(tmp_path: Path) -> None:
    """A matching pair is accepted, a mixed one is a fault, and --insecure beside it too."""
    authority = trustme.CA()
    one, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    one.private_key_and_cert_chain_pem.write_to_path(tmp_path / "one.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.key")
    pair: dict[str, object] = {"tls_cert": tmp_path / "one.pem", "tls_key": tmp_path / "one.pem"}
    assert load({"listen": "0.0.0.0:1", "allow_anonymous": True, **pair}).tls_cert == tmp_path / "one.pem"
    assert set(faults_of(pair | {"tls_key": tmp_path / "other.key"})) == {"tls_key"}
    assert set(faults_of(pair | {"insecure": True})) == {"insecure"}


def test_shared_store_beyond_this_machine_needs_a_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On loopback a warning, elsewhere a fault; a secret by variable or by file cures both."""
    flags: dict[str, object] = {"redis_url": "redis://x", "insecure": True, "allow_anonymous": True}
    assert any("master secret" in warning for warning in load(flags).warnings)
    flags["listen"] = "0.0.0.0:1"
    assert set(faults_of(flags)) == {"secret_file"}
    file = written(tmp_path / "secret", f"# current\n{new_secret('k2')}\n{new_secret('k1')}\n")
    assert load(flags | {"secret_file": file}).secret_text() == file.read_text()
    monkeypatch.setenv("REVOCATION_SECRET", new_secret())
    assert not any("master secret" in warning for warning in load(flags).warnings)
    assert set(faults_of(flags | {"secret_file": file})) == {"secret"}


@pytest.mark.parametrize("as_json", [False, True])
def test_realms_come_from_a_file(tmp_path: Path, as_json: bool) -> None:
    """TOML or JSON, one table for each realm; what is not said keeps its default."""
    file = (
        written(tmp_path / "realms.json", json.dumps({"default": {}, "shop-1": {"grace_ms": 0}}))
        if as_json
        else written(tmp_path / "realms.toml", '[default]\n["shop-1"]\ngrace_ms = 0\n')
    )
    realms = load({"realms": file}).realms
    assert list(realms) == ["default", "shop-1"]
    assert realms["shop-1"].grace_ms == 0
    assert realms["shop-1"].absolute_timeout_s == 30 * DAY_S


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("{", "realms"),
        ("[]", "realms"),
        ("{}", "realms"),
        ('{"shop": {}}', "realms"),
        ('{"default": {}, "Shop": {}}', "realms.Shop.[key]"),
        ('{"default": {}, "' + "s" * 64 + '": {}}', f"realms.{'s' * 64}.[key]"),
        ('{"default": {"max_token_life_s": 34560001}}', "realms.default.max_token_life_s"),
        ('{"default": {"margin": 1}}', "realms.default.margin"),
        ('{"default": {"overflow": "queue"}}', "realms.default.overflow"),
        ('{"default": {"idle_timeout_s": 3000, "absolute_timeout_s": 2000}}', "realms.default"),
    ],
)
def test_faults_in_realms_name_the_place(tmp_path: Path, text: str, field: str) -> None:
    """The path of the fault leads to the line to change."""
    assert set(faults_of({"realms": written(tmp_path / "realms.json", text)})) == {field}


def test_realms_without_default_need_roles(tmp_path: Path) -> None:
    """Anonymous callers get realm `default`; with roles nobody is anonymous."""
    file = written(tmp_path / "realms.json", '{"shop": {}}')
    assert list(load({"realms": file, "roles": os.devnull}).realms) == ["shop"]


def test_missing_realms_file_is_a_fault() -> None:
    """With the reason of the system."""
    assert "No such file" in faults_of({"realms": "/nowhere/realms.toml"})["realms"]


SHOWN: dict[str, Callable[[Config], str]] = {
    "repr": repr,
    "str": str,
    "dump": lambda config: str(config.model_dump()),
    "json": lambda config: config.model_dump_json(),
    "effective": lambda config: json.dumps(effective(config)),
    "warnings": lambda config: str(config.warnings),
}


@pytest.mark.parametrize("way", SHOWN)
def test_secrets_are_hidden(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """However a configuration is shown, neither passwords nor master secrets are in it."""
    secret = new_secret()
    monkeypatch.setenv("REVOCATION_SECRET", secret)
    config = load({"redis_url": "rediss://user:pass%20word@host:1/0?sentinel_password=hush&db=1"})
    shown = SHOWN[way](config)
    for hidden in ("pass%20word", "pass word", "hush", secret, secret.partition(":")[2]):
        assert hidden not in shown


def test_the_url_of_the_store_is_completed_from_files(tmp_path: Path) -> None:
    """Whatever characters a password has; the configuration itself shows the file only."""
    data, sentinel = tmp_path / "data", tmp_path / "sentinel"
    data.write_text("p@ss/wörd: #?\n")
    sentinel.write_text("hush & more")
    config = load(
        {
            "redis_url": "rediss+sentinel://a:1,b:2/main/3?socket_timeout=9",
            "redis_username": "us er",
            "redis_password_file": data,
            "redis_sentinel_password_file": sentinel,
            "redis_ca": __file__,
        }
    )
    url = config.store_url()
    assert url is not None
    parts = urlsplit(url)
    assert (unquote(parts.username or ""), unquote(parts.password or "")) == ("us er", "p@ss/wörd: #?")
    assert (parts.scheme, parts.netloc.rpartition("@")[2], parts.path) == ("rediss+sentinel", "a:1,b:2", "/main/3")
    assert dict(parse_qsl(parts.query)) == {
        "socket_timeout": "9",
        "sentinel_password": "hush & more",
        "ssl_ca_certs": __file__,
    }
    assert "hush" not in json.dumps(effective(config))


def test_a_store_url_that_needs_nothing_stays_as_it_is() -> None:
    """In particular the empty host of a unix socket."""
    for url in ("redis://host:1/0", "unix:///run/x.sock?db=1", "redis+cluster://a:1,b:2"):
        assert load({"redis_url": url}).store_url() == url
    assert load({}).store_url() is None


def test_faults_do_not_repeat_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL with a fault may hold a password, a secret with a fault is still a secret."""
    monkeypatch.setenv("REVOCATION_SECRET", "k1:hush")
    with pytest.raises(ConfigInvalid) as caught:
        load({"redis_url": "reds://user:password@host"})
    assert "hush" not in str(caught.value)
    assert "password" not in str(caught.value)


def test_effective_shows_value_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every field, ready for JSON."""
    monkeypatch.setenv("REVOCATION_ACK", "replicated:2")
    shown = effective(load({"redis_url": "redis://u:p@h"}))
    assert set(shown) == set(Config.model_fields)
    assert shown["ack"] == {"value": "replicated:2", "source": "env"}
    assert shown["redis_url"] == {"value": "redis://u:***@h", "source": "flag"}
    assert json.loads(json.dumps(shown)) == shown


def test_configuration_is_frozen() -> None:
    """Nobody changes it under a running service."""
    config = load({})
    with pytest.raises(ValueError, match="frozen"):
        config.listen = "0.0.0.0:1"


def test_typing_errors_in_variables_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """But what Kubernetes sets for a Service named `revocation` is not."""
    monkeypatch.setenv("REVOCATION_REDISURL", "redis://x")
    monkeypatch.setenv("REVOCATION_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("REVOCATION_PORT_50051_TCP", "tcp://10.0.0.1:50051")
    named = [warning for warning in load({}).warnings if "REVOCATION_" in warning]
    assert named == ["REVOCATION_REDISURL is not a setting; did you mean REVOCATION_REDIS_URL?"]


def test_replica_ids_are_stable_and_distinct() -> None:
    """The same after a restart, another one for each listener; port 0 is never the same member twice."""
    ids = [load({"listen": listen}).replica_id for listen in ("127.0.0.1:1", "127.0.0.1:2", "unix:/a", "unix:/b")]
    assert len(set(ids)) == 4
    assert load({"listen": "unix:/a"}).replica_id == load({"listen": "unix:///a"}).replica_id
    assert load({"listen": "127.0.0.1:0"}).replica_id != load({"listen": "127.0.0.1:0"}).replica_id


def test_every_field_is_a_flag_but_the_secret() -> None:
    """A command line is visible to every user of a machine."""
    assert set(Config.model_fields) - set(FLAG_FIELDS) == {"secret"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://host", "redis://host"),
        ("redis://:pw@host:1/2", "redis://:***@host:1/2"),
        ("redis://u:p@ss@host", "redis://u:***@host"),
        (
            "redis+sentinel://:pw@a:1,b:2/main?sentinel_password=x",
            "redis+sentinel://:***@a:1,b:2/main?sentinel_password=***",
        ),
        ("unix:///run/x.sock?password=x&db=1", "unix:///run/x.sock?password=***&db=1"),
        ("redis://[bad", "***"),
    ],
)
def test_redacted_url(url: str, shown: str) -> None:
    """Everything but the passwords stays readable."""
    assert redacted_url(url) == shown


@pytest.mark.parametrize(("text", "parts"), [("h:1", ("h", 1)), ("[::1]:2", ("::1", 2)), ("0.0.0.0:0", ("0.0.0.0", 0))])
def test_split_address(text: str, parts: tuple[str, int]) -> None:
    """Host without brackets, port as a number."""
    assert split_address(text) == parts


@pytest.mark.parametrize("text", ["h", "h:", ":1", "h:x", "h:-1", "h:65536", "h:1²", "::1:2"])
def test_split_address_refuses(text: str) -> None:
    """Neither an absent host nor an absent port is guessed."""
    with pytest.raises(ValueError, match=r"HOST:PORT|brackets"):
        split_address(text)
