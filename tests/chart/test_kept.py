"""What is made once is kept: renders against something that answers like a Kubernetes API and holds what was made."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from tests.chart.charts import NAMESPACE, RELEASE, Object, data, objects, template

pytestmark = pytest.mark.chart
PREFIX = f"/api/v1/namespaces/{NAMESPACE}/secrets/"

KINDS = {
    "v1": ["Secret", "ConfigMap", "Service", "ServiceAccount", "Pod"],
    "apps/v1": ["Deployment", "StatefulSet"],
    "policy/v1": ["PodDisruptionBudget"],
}


def _resource(kind: str) -> Object:
    return {"name": f"{kind.lower()}s", "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get"]}


class Api:
    """As much of a Kubernetes API as `lookup` asks for."""

    def __init__(self, folder: Path) -> None:
        self.secrets: dict[str, Object] = {}
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                code, body = api.answer(self.path.partition("?")[0])
                text = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *words: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.kubeconfig = folder / "kubeconfig"
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self._server.server_port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [cluster],
                    "contexts": [context], "users": [{"name": "u", "user": {"token": "t"}}],
                }
            )
        )  # fmt: skip

    def answer(self, path: str) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"major": "1", "minor": "31", "gitVersion": "v1.31.0"}
        if path == "/api":
            return 200, {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            groups = [version.split("/") for version in KINDS if "/" in version]
            versions = [{"groupVersion": f"{group}/{version}", "version": version} for group, version in groups]
            named = zip(groups, versions, strict=True)
            return 200, {"kind": "APIGroupList", "groups": [{"name": g, "versions": [v]} for (g, _), v in named]}
        for version, kinds in KINDS.items():
            if path == (f"/apis/{version}" if "/" in version else f"/api/{version}"):
                return 200, {"kind": "APIResourceList", "groupVersion": version, "resources": [*map(_resource, kinds)]}
        if found := self.secrets.get(path.removeprefix(PREFIX)):
            return 200, found
        return 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}

    def install(self, version: int, *words: str) -> dict[str, Object]:
        """Renders with what is there, keeps what was made, and returns the secrets."""
        dry = ["--dry-run=server", "--kubeconfig", str(self.kubeconfig), "--disable-openapi-validation"]
        made = objects(template(version, *dry, *words), "Secret")
        owner = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": NAMESPACE}
        for name, secret in deepcopy(made).items():
            secret["metadata"].setdefault("annotations", {}).update(owner)  # as Helm marks what it installs
            self.secrets[name] = secret
        return made

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    yield made
    made.close()


def signed_by(leaf: bytes, authority: bytes) -> bool:
    certificate, issuer = (x509.load_pem_x509_certificate(pem) for pem in (leaf, authority))
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, InvalidSignature):
        return False
    return True


@pytest.mark.parametrize("version", [3, 4])
def test_an_upgrade_keeps_every_secret(api: Api, version: int) -> None:
    first = api.install(version)
    assert len(first) == 8
    second = api.install(version, "--set", "replicaCount=5")
    assert {name: data(secret) for name, secret in second.items()} == {
        name: data(secret) for name, secret in first.items()
    }
    # Without the cluster each render would make its own: the comparison can fail.
    other = objects(template(version), "Secret")
    assert all(data(other[name]) != data(secret) for name, secret in first.items())


def test_a_new_name_makes_one_certificate_anew_under_the_same_ca(api: Api) -> None:
    first = api.install(4)
    second = api.install(4, "--set", "tls.dnsNames={revocation.example.org}")
    changed = {name for name in first if data(first[name]) != data(second[name])}
    assert changed == {"rel-revocation-tls"}
    made = data(second["rel-revocation-tls"])
    extensions = x509.load_pem_x509_certificate(made["tls.crt"]).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "revocation.example.org" in names.get_values_for_type(x509.DNSName)
    assert signed_by(made["tls.crt"], data(first["rel-revocation-ca"])["tls.crt"])


def test_a_deleted_ca_brings_new_certificates_for_all(api: Api) -> None:
    first = api.install(4)
    del api.secrets["rel-revocation-ca"]
    second = api.install(4)
    authority = data(second["rel-revocation-ca"])["tls.crt"]
    for name, secret in second.items():
        if name.endswith(("-master", "-valkey")):
            assert data(secret) == data(first[name])
        elif not name.endswith("-ca"):
            assert data(secret)["ca.crt"] == authority
            assert signed_by(data(secret)["tls.crt"], authority), name


def test_a_new_client_gets_a_certificate_and_the_others_keep_theirs(api: Api) -> None:
    first = api.install(4)
    admin = {"name": "admin", "roles": ["admin"], "realms": ["*"]}
    shop = {"name": "shop", "roles": ["revoker"], "realms": ["default"]}
    second = api.install(4, "--set-json", f"auth.clients={json.dumps([admin, shop])}")
    assert data(second["rel-revocation-client-admin"]) == data(first["rel-revocation-client-admin"])
    assert "rel-revocation-client-shop" in second
