"""The promises about values: refusals name the field, names are those of the service, what is made is fresh."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from helm.generate import BY_THE_CHART, NOT_IN_A_CLUSTER, settings
from revocation import __version__
from revocation.callers.roles import read_roles
from revocation.config.rules import ENV_PREFIX
from revocation.config.settings import Config, load
from revocation.observability.telemetry import Metrics
from revocation.realms import read_realms
from tests.chart.charts import (
    CHART,
    ROOT,
    VALUES,
    Refused,
    data,
    environment,
    helm,
    notes,
    objects,
    one,
    parse,
    rendered,
    server,
    template,
)

pytestmark = pytest.mark.chart

WRONG = {
    # By the schema.
    "replicas": (["replicas=2"], "replicas"),
    "replicaCount": (["replicaCount=0"], "replicaCount"),
    "replicaCount of text": (["replicaCount=two"], "replicaCount"),
    "tls.mode": (["tls.mode=none"], "mode"),
    "tls.certManager.issuer": (["tls.certManager.issuer=x"], "issuer"),
    "image.digest": (["image.digest=sha256:abc"], "digest"),
    "image.tag": (["image.tag=a b"], "tag"),
    "redis.addresses": (["redis.mode=standalone", "redis.addresses={redis}"], "addresses"),
    "redis.addresses as a URL": (["redis.mode=standalone", "redis.addresses={redis://redis:6379}"], "addresses"),
    "redis.mode": (["redis.mode=master"], "mode"),
    "settings": (["settings.max_subscriber=9"], "max_subscriber"),
    "settings.ack": (["settings.ack=disk"], "ack"),
    "settings.partitions": (["settings.partitions=65"], "partitions"),
    "settings of the chart": (["settings.listen=0.0.0.0:1"], "listen"),
    "realms": (["realms.shop.max_token_live_s=1"], "max_token_live_s"),
    "realms.shop.overflow": (["realms.shop.overflow=evict"], "overflow"),
    "realms of a bad name": (["realms.Shop.grace_ms=0"], "Shop"),
    "auth.clients": (["auth.clients[0].name=Admin"], "auth"),
    "auth.clients.roles": (
        ["auth.clients[0].name=a", "auth.clients[0].roles={root}", "auth.clients[0].realms={x}"],
        "roles",
    ),
    "auth.bearer": (["auth.bearer[0].issuer=x", "auth.bearer[0].audience=y"], "bearer"),
    "service.port": (["service.port=70000"], "port"),
    "drainSeconds": (["drainSeconds=-1"], "drainSeconds"),
    "resources": (["resources.limit.memory=1Gi"], "limit"),
    "valkey.persistence.size": (["valkey.persistence.size=big"], "size"),
    "pdb.maxUnavailable": (["pdb.maxUnavailable=some"], "maxUnavailable"),
    "fullnameOverride": (["fullnameOverride=1st"], "fullnameOverride"),
    # By the rules between values, in words.
    "no existing secret": (["tls.mode=existingSecret"], "tls.existingSecret: is empty"),
    "a secret unused": (["tls.existingSecret=x"], "tls.existingSecret: is not used"),
    "no issuer": (["tls.mode=certManager"], "tls.certManager.issuerRef.name: is empty"),
    "nobody is bound": (
        ["tls.mode=existingSecret", "tls.existingSecret=x"],
        "auth.bind: is empty",
    ),
    "no client": (["auth.clients=null"], "auth.clients: is empty"),
    "a client twice": (
        [f"auth.clients[{n}].{part}" for n in (0, 1) for part in ("name=a", "roles={admin}", "realms={x}")],
        "auth.clients: name a is there twice",
    ),
    "a reserved client": (
        ["auth.clients[0].name=helm-test", "auth.clients[0].roles={admin}", "auth.clients[0].realms={x}"],
        "auth.clients: name helm-test",
    ),
    "plain text without identities": (["tls.mode=insecure"], "auth.bearer: is empty"),
    "anonymous and roles": (["auth.mode=anonymous", "auth.existingRoles=x"], "auth.mode: anonymous"),
    "anonymous without default": (["auth.mode=anonymous", "realms.shop.grace_ms=1"], "realms: anonymous"),
    "a test without its realm": (["realms.shop.grace_ms=1"], "helmTest.realm: default"),
    "roles twice": (
        ["auth.existingRoles=x", "auth.bind[0].identity=a", "auth.bind[0].roles={admin}", "auth.bind[0].realms={x}"],
        "auth.existingRoles: replaces",
    ),
    "no address": (["redis.mode=cluster"], "redis.addresses: is empty"),
    "an address unused": (["redis.addresses={a:1}"], "redis.addresses: is not used"),
    "two standalone": (["redis.mode=standalone", "redis.addresses={a:1,b:1}"], "redis.addresses: a standalone"),
    "a cluster's database": (["redis.mode=cluster", "redis.addresses={a:1}", "redis.database=2"], "redis.database"),
    "bundled TLS": (["redis.tls.enabled=true"], "redis.tls.enabled: the bundled"),
    "a CA unused": (["redis.mode=cluster", "redis.addresses={a:1}", "redis.tls.caSecret=x"], "redis.tls.enabled: is"),
    "a Sentinel password unused": (["redis.sentinel.passwordSecret=x"], "redis.sentinel.passwordSecret"),
    "bundled replicas": (["settings.ack=replicated:1"], "settings.ack: the bundled"),
    "grpc probes with TLS": (["probes.kind=grpc"], "probes.kind: grpc needs"),
    "too many at least": (["autoscaling.enabled=true", "autoscaling.minReplicas=9"], "autoscaling.minReplicas"),
    "nothing to scale by": (["autoscaling.enabled=true", "autoscaling.cpuUtilization=0"], "autoscaling.cpuUtilization"),
    "a share of nothing": (["autoscaling.enabled=true", "resources.requests=null"], "resources.requests.cpu"),
}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("case", WRONG)
def test_wrong_values_are_refused_by_name(version: int, case: str) -> None:
    changes, named = WRONG[case]
    words = [word for change in changes for word in ("--set", change)]
    with pytest.raises(Refused) as refused:
        template(version, *words)
    assert named in str(refused.value)


def test_all_faults_between_values_are_told_at_once() -> None:
    with pytest.raises(Refused) as refused:
        template(4, "--set", "redis.mode=cluster,tls.mode=certManager,probes.kind=grpc")
    for field in ("redis.addresses", "tls.certManager.issuerRef.name", "probes.kind"):
        assert f"\n{field}: " in str(refused.value)


def test_the_chart_works_as_part_of_another(tmp_path: Path) -> None:
    """Helm then adds `global` to its values."""
    parent = tmp_path / "parent"
    (parent / "charts").mkdir(parents=True)
    (parent / "Chart.yaml").write_text("apiVersion: v2\nname: parent\nversion: 1.0.0\n")
    (parent / "charts/revocation").symlink_to(CHART)
    (parent / "values.yaml").write_text("global: {registry: x}\nrevocation: {replicaCount: 3}\n")
    assert one(helm(4, "template", "rel", str(parent)), "Deployment")["spec"]["replicas"] == 3


def test_what_is_made_is_fresh() -> None:
    """Schema and table of values; if not: `make chart-files`."""
    done = subprocess.run([sys.executable, "-m", "helm.generate", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == __version__


def test_the_variables_of_the_chart_are_those_of_the_service() -> None:
    """None that the service does not read, and every setting of the service can be set."""
    used = {name for values in VALUES for name in environment(server(rendered(4, values)))} - {"GRPC_VERBOSITY"}
    ours = {f"{ENV_PREFIX}{name.upper()}" for name in Config.model_fields}
    assert used <= ours
    assert {f"{ENV_PREFIX}{name.upper()}" for name in BY_THE_CHART} <= used
    assert BY_THE_CHART | NOT_IN_A_CLUSTER | set(settings()) == set(Config.model_fields)
    shown = json.loads((CHART / "values.schema.json").read_text())["definitions"]["settings"]["properties"]
    assert set(shown) == set(settings())


def test_the_variables_of_the_test_pod_are_those_of_the_command_line() -> None:
    source = "".join(path.read_text() for path in (ROOT / "revocation/cli").glob("*.py"))
    known = set(re.findall(r"REVOCATION_[A-Z_]+", source))
    for name in VALUES:
        for pod in objects(rendered(4, name), "Pod").values():
            assert environment(pod["spec"]["containers"][0]).keys() <= known


@pytest.mark.parametrize("name", VALUES)
def test_the_service_accepts_its_configuration(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of each value set, with the files that the chart makes and stand-ins for those of the user."""
    text = rendered(4, name)
    made = _files(text, tmp_path)
    for variable, value in environment(server(text)).items():
        monkeypatch.setenv(variable, made.get(value, value))
    config = load({})
    assert config.redis_url == environment(server(text))["REVOCATION_REDIS_URL"]
    assert config.store_url()
    assert config.secret_text()
    if config.roles is not None:
        read_roles(config.roles)


def _files(text: str, folder: Path) -> dict[str, str]:
    """Path in the pod -> a file here, for every file that a variable may name."""
    import trustme

    authority = trustme.CA()
    pair = authority.issue_cert("revocation")
    stand_ins = {
        "password": b"secret", "sentinel-password": b"secret", "ca.crt": authority.cert_pem.bytes(),
        "tls.crt": pair.cert_chain_pems[0].bytes(), "tls.key": pair.private_key_pem.bytes(),
        "secret": b"k1:" + b"A" * 43 + b"=",
        "roles.json": b'{"bind": [{"identity": "a", "roles": ["admin"], "realms": ["*"]}]}',
    }  # fmt: skip
    secrets, maps = objects(text, "Secret"), objects(text, "ConfigMap")
    found: dict[str, str] = {}
    for volume in one(text, "Deployment")["spec"]["template"]["spec"]["volumes"]:
        content: dict[str, bytes] = {}
        if "secret" in volume and volume["secret"]["secretName"] in secrets:
            content = data(secrets[volume["secret"]["secretName"]])
        elif "configMap" in volume and volume["configMap"]["name"] in maps:
            content = {key: value.encode() for key, value in maps[volume["configMap"]["name"]]["data"].items()}
        for file, value in (stand_ins | content).items():
            path = folder / volume["name"] / file
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(value)
            found[f"/etc/revocation/{volume['name']}/{file}"] = str(path)
    return found


def test_realms_are_read_as_written(tmp_path: Path) -> None:
    for name in ("realms", "everything"):
        (realms,) = [item for key, item in objects(rendered(4, name), "ConfigMap").items() if key.endswith("-realms")]
        path = tmp_path / f"{name}.json"
        path.write_text(realms["data"]["realms.json"])
        assert read_realms(path) == yaml.safe_load(VALUES[name].read_text())["realms"]


def test_the_autoscaler_asks_for_a_metric_that_exists() -> None:
    exported = {family.name for family in Metrics(version="0", replica="r").registry.collect()}
    assert yaml.safe_load((CHART / "values.yaml").read_text())["autoscaling"]["subscribersMetric"] in exported


@pytest.mark.parametrize("name", VALUES)
def test_notes_lead_to_a_revoked_token(name: str, tmp_path: Path) -> None:
    shown = notes(tmp_path, "-f", str(VALUES[name]))
    made = {item["metadata"]["name"] for item in parse(rendered(4, name)) if item["kind"] in {"Secret", "Certificate"}}
    for secret in re.findall(r"get secret (\S+)", shown):
        assert secret in made or secret == "revocation-server"
    assert "revocation revoke token --jti" in shown
    assert ("ca.crt" in shown) == ("REVOCATION_TLS_CERT" in environment(server(rendered(4, name))))
    assert "<no value>" not in shown
