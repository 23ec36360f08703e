"""Files and variables that configure the service, and bearer tokens: all are faults with a name, never a crash."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import jwt

from revocation.callers.auth import RoleAuthorizer
from revocation.callers.roles import RolesInvalid, read_roles
from revocation.config.settings import Config, ConfigInvalid, effective, load
from revocation.errors import Denied
from revocation.keys.keyring import SecretInvalid, parse_secret
from revocation.realms import read_realms
from tests.fuzz.mutation import mutate
from tests.fuzz.target import Finding, Target, check_text
from tests.sdk.forge import EC, sign

SECRET = "k1:" + "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2Vj"
REALMS_TOML = (
    b'[default]\nmax_token_life_s = 3600\n[shop]\ngrace_ms = 0\noverflow = "evict_oldest"\n',
    b"[default]\nmargin_s = 60\nidle_timeout_s = 1_000\n",
    b"a = " + b"[" * 3000,
    b"x = 1979-05-27T07:32:00Z\n",
    b"a.b.c.d = 1",
)
REALMS_JSON = (
    b'{"default": {}, "shop": {"max_leeway_s": 30}}',
    b"[]",
    b"{}",
    b"[" * 5000,
    b'{"default": {"margin_s": 1e400}}',
)
ROLES_TOML = (
    b'[[bind]]\nidentity = "spiffe://x"\nroles = ["verifier"]\nrealms = ["default"]\n',
    b'[[bearer]]\nissuer = "i"\naudience = "a"\njwks_url = "https://x"\n'
    b'[[bind]]\nidentity = "i#s"\nroles = ["admin"]\nrealms = ["*"]\n',
)
ROLES_JSON = (b'{"bind": [{"identity": "x", "roles": ["admin"], "realms": ["*"]}]}', b'{"bind": []}', b"[" * 5000)


class _File(Target):
    suffixes = (".toml", ".json")
    contents: tuple[Sequence[bytes], ...] = ()

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def close(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def seeds(self) -> Sequence[bytes]:
        return [bytes([number]) + content for number, contents in enumerate(self.contents) for content in contents]

    def written(self, data: bytes) -> Path:
        path = self.folder / f"it{self.suffixes[(data[0] if data else 0) % 2]}"
        path.write_bytes(data[1:])
        return path


class RealmsFile(_File):
    """A realms file, as `serve --realms` reads it."""

    name = "realms-file"
    contents = (REALMS_TOML, REALMS_JSON)

    def one(self, data: bytes) -> str:
        path = self.written(data)
        try:
            config = load({"realms": str(path)})
        except ConfigInvalid as error:
            for fault in error.faults:
                check_text(fault.message.replace(str(path), ""))
            return "ConfigInvalid"
        read_realms(path)
        for realm, settings in config.realms.items():
            if not 0 < settings.max_token_life_s <= 400 * 86_400 or len(realm) > 63:
                raise Finding("an absurd realm")
        return "realms"


class RolesFile(_File):
    """A roles file, which is read while the service runs."""

    name = "roles-file"
    contents = (ROLES_TOML, ROLES_JSON)

    def one(self, data: bytes) -> str:
        path = self.written(data)
        try:
            roles = read_roles(path)
        except RolesInvalid as error:
            check_text(str(error).replace(str(path), ""))
            return "RolesInvalid"
        if not roles.bind:
            raise Finding("roles for nobody")
        return "roles"


class Environment(Target):
    """Variables of the environment: a configuration, or faults that repeat no secret."""

    name = "environment"

    def seeds(self) -> Sequence[bytes]:
        given = (
            {"redis_url": "redis://:hunter2hunter2@localhost:6379/0", "secret": SECRET},
            {"listen": "0.0.0.0:50051"},
            {"ack": "replicated:2", "partitions": "4"},
            {"listen": "unix:///tmp/x", "http_listen": "[::1]:9464"},
            {"settle_s": "nan", "drain_s": "inf"},
            {"partitions": "9" * 5000},
            {"embedded": "yes", "log_level": "DEBUG"},
            {"redis_url": "redis+sentinel://a:1,b:2/mymaster", "replica_id": "x"},
            {"data_dir": "~nobody-here/x"},
        )
        return ["\n".join(f"{name}={value}" for name, value in one.items()).encode() for one in given]

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        lines = rng.choice(seeds).split(b"\n") + rng.choice(seeds).split(b"\n")
        at = rng.randrange(len(lines))
        name, _, value = lines[at].partition(b"=")
        if rng.random() < 0.3:
            name = rng.choice(list(Config.model_fields)).encode()
        lines[at] = name + b"=" + mutate(rng, value, seeds)
        return b"\n".join(lines)

    def one(self, data: bytes) -> str:
        pairs = (line.partition(b"=") for line in data.split(b"\n"))
        fields = {name.decode("utf-8", "replace"): value.replace(b"\0", b"") for name, _, value in pairs}
        known = {
            f"REVOCATION_{name.upper()}".encode(): value
            for name, value in fields.items()
            if name in Config.model_fields
        }
        before = dict(os.environb)
        os.environb.update(known)
        try:
            config = load({})
            others = "".join(str(value) for name, value in fields.items() if name != "secret")
            if "c2VjcmV0" not in others and "c2VjcmV0" in f"{config!r}{effective(config)}{config.model_dump_json()}":
                raise Finding("a dump of the configuration shows the secret")
        except ConfigInvalid as error:
            for fault in error.faults:
                told = fault.message if fault.field in ("secret", "secret_file", "redis_url") else ""
                if "hunter2hunter" in told or "c2VjcmV0c2Vj" in told:
                    raise Finding("a fault repeats a secret") from None
                check_text(_without_paths(fault.message))
            return "ConfigInvalid"
        finally:
            os.environb.clear()
            os.environb.update(before)
        return "configuration"


def _without_paths(message: str) -> str:
    """A path that the operator gave is repeated, and may be."""
    return "" if "cannot read" in message else message


class MasterSecrets(Target):
    """The list of master secrets."""

    name = "master-secrets"

    def seeds(self) -> Sequence[bytes]:
        return [SECRET.encode(), f"# old\n{SECRET},k2:{'QUJD' * 11}\n".encode(), b"k1:", b":", SECRET.encode() * 20]

    def one(self, data: bytes) -> str:
        try:
            masters = parse_secret(data.decode("utf-8", "surrogateescape"))
        except SecretInvalid as error:
            check_text(str(error).encode("ascii", "replace").decode())
            if "c2VjcmV0c2Vj" in str(error):
                raise Finding("the message holds a secret") from None
            return "SecretInvalid"
        if "secretsecret" in repr(masters):
            raise Finding("repr shows a secret")
        return f"{len(masters)} secrets"


class BearerTokens(Target):
    """Bearer tokens of callers of the service: Denied for all that is not really signed."""

    name = "bearer-token"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        key = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key())), "kid": "k"}
        (self.folder / "jwks.json").write_text(json.dumps({"keys": [key]}))
        bearer = {"issuer": "i", "audience": "a", "jwks_file": str(self.folder / "jwks.json")}
        bind = {"identity": "i#s", "roles": ["verifier"], "realms": ["default"]}
        (self.folder / "roles.json").write_text(json.dumps({"bearer": [bearer], "bind": [bind]}))
        self.authorizer = RoleAuthorizer(self.folder / "roles.json")
        self.loop = asyncio.new_event_loop()

    def close(self) -> None:
        self.loop.close()
        for path in self.folder.iterdir():
            path.unlink()
        self.folder.rmdir()

    def seeds(self) -> Sequence[bytes]:
        good = {"iss": "i", "aud": "a", "sub": "s", "exp": 4_000_000_000}
        payloads: list[Any] = [
            good,
            {**good, "exp": 1e400},
            {**good, "exp": []},
            {**good, "sub": {}},
            {**good, "iss": ["i"]},
        ]
        payloads += [{**good, "nbf": "x"}, {**good, "iat": -1e400}, {**good, "aud": 7}, {**good, "exp": 10**400}]
        headers = [
            {"alg": "ES256", "kid": "k"},
            {"alg": "ES256", "kid": ["k"]},
            {"alg": "none"},
            {"alg": "ES256", "crit": ["x"]},
        ]
        seeds = [sign(payload, EC, "ES256", headers[0]).encode() for payload in payloads]
        return seeds + [sign(good, EC, "ES256", header).encode() for header in headers] + [b"a.b.c", b""]

    def make(self, rng: Random, seeds: Sequence[bytes]) -> bytes:
        data = rng.choice(seeds)
        return data if rng.random() < 0.02 else mutate(rng, data, seeds)

    def one(self, data: bytes) -> str:
        context = _Context(data.decode("latin-1"))
        self.authorizer._seen.clear()
        try:
            caller = self.loop.run_until_complete(self.authorizer.authorize(context, "Check", "default"))
        except Denied as error:
            check_text(error.message)
            return error.reason
        if caller.name != "i#s":
            raise Finding("let in as somebody else")
        return "let in"


class _Context:
    """As much of a call as the authorizer looks at."""

    def __init__(self, token: str) -> None:
        self._token = token

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),)
