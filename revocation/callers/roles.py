"""Who may do what: the table of methods and roles, and the file that binds identities to roles. Deny by default.

The file (TOML, or JSON by its ending) names how bearer tokens are verified, and who has which roles in which realms:

    [[bearer]]
    issuer = "https://kubernetes.default.svc"
    audience = "revocation"
    jwks_url = "https://kubernetes.default.svc/openid/v1/jwks"     # or jwks_file
    jwks_ca = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
    jwks_token_file = "/var/run/secrets/kubernetes.io/serviceaccount/token"

    [[bind]]
    identity = "spiffe://example.org/ns/prod/sa/api"               # a URI or DNS name of the client certificate
    roles = ["verifier"]
    realms = ["default"]

    [[bind]]
    identity = "https://kubernetes.default.svc#system:serviceaccount:prod:login"   # issuer#sub of a bearer token
    roles = ["verifier", "revoker", "session-manager"]
    realms = ["*"]
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

EVERY_REALM = "*"
_FILE_BYTES = 4 * 1024 * 1024
_FAULTS = 10
_LOCATION = 80
"""How much of what is wrong a message says: a few faults, and so many characters of where each is."""


class Role(Enum):
    """What an identity may be. `admin` may do everything in its realms."""

    VERIFIER = "verifier"
    REVOKER = "revoker"
    SESSION_MANAGER = "session-manager"
    AUDITOR = "auditor"
    ADMIN = "admin"


_V, _R, _S, _A = Role.VERIFIER, Role.REVOKER, Role.SESSION_MANAGER, Role.AUDITOR

TABLE: Mapping[str, frozenset[Role]] = {
    "Watch": frozenset({_V}),
    "Check": frozenset({_V}),
    "GetVersion": frozenset({_V, _S}),
    "Revoke:token": frozenset({_R}),
    "Revoke:session": frozenset({_R, _S}),
    "Revoke:subject": frozenset({_R, _S}),
    "Revoke:client": frozenset(),
    "Revoke:key": frozenset(),
    "Revoke:whole_realm": frozenset(),
    "BatchRevokeTokens": frozenset({_R}),
    "GetStatus": frozenset({_A}),
    "ListMembers": frozenset({_A}),
    "StrikeMember": frozenset(),
    "AwaitApplied": frozenset({_R, _S, _A}),
    "ListSubscribers": frozenset({_A}),
    "OpenSession": frozenset({_S}),
    "RefreshSession": frozenset({_S}),
    "GetSession": frozenset({_S}),
    "ListSessions": frozenset({_S}),
    "EndSession": frozenset({_S, _R}),
    "EndOtherSessions": frozenset({_S}),
    "TouchSession": frozenset({_S}),
    "SetClientSettings": frozenset(),
    "GetClientSettings": frozenset({_S, _A}),
    "Follow": frozenset({_A}),
    "Follow:installation": frozenset({_A}),
}
"""Who may call what, `Revoke` by its target; `admin` always may. A method without a row may be called by nobody."""

ACROSS_REALMS = frozenset({"ListMembers", "StrikeMember", "Follow:installation"})
"""Methods about the installation and not about a realm: they need the role in every realm."""


class RolesInvalid(ValueError):
    """The roles file cannot be used; the message says which entry, and what to do."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Bearer(_Model):
    """How the bearer tokens of one issuer are verified."""

    issuer: Annotated[str, Field(min_length=1, max_length=512)]
    """The `iss` that its tokens must have."""

    audience: Annotated[str, Field(min_length=1, max_length=512)]
    """The `aud` that they must name."""

    jwks_url: str | None = None
    """Where its key set is published; this or `jwks_file`."""

    jwks_file: Path | None = None
    """A file with its key set."""

    jwks_ca: Path | None = None
    """CA of the server behind jwks_url, PEM. Default: those that the machine trusts."""

    jwks_token_file: Path | None = None
    """A bearer token that the server behind jwks_url wants to see, as that of Kubernetes does."""

    algorithms: tuple[str, ...] = ("ES256", "RS256", "EdDSA")
    """What its tokens may be signed by."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.jwks_url is None) == (self.jwks_file is None):
            raise ValueError("give one of jwks_url and jwks_file")
        if self.jwks_url is None and (self.jwks_ca is not None or self.jwks_token_file is not None):
            raise ValueError("jwks_ca and jwks_token_file go with jwks_url")
        return self


class Bind(_Model):
    """Roles of one identity in some realms."""

    identity: Annotated[str, Field(min_length=1, max_length=1024)]
    """A URI or DNS name of the client certificate, or `issuer#sub` of a bearer token."""

    roles: Annotated[tuple[Role, ...], Field(min_length=1)]
    """Among `verifier`, `revoker`, `session-manager`, `auditor` and `admin`."""

    realms: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of realms; `*` for every one."""


class Roles(_Model):
    """A roles file."""

    bearer: tuple[Bearer, ...] = ()
    bind: Annotated[tuple[Bind, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the audit record names them. `until`: when the identity expires, in seconds since 1970."""

    name: str
    until: float | None = None
    names: tuple[str, ...] = ()
    """All identities that the caller has shown, `name` among them."""
    role: str = ""
    """The role that allows what is asked."""
    judged_by: int = 0
    """The generation of the roles that allowed it."""

    @property
    def expired(self) -> bool:
        """Whether the identity is over: a stream lasts no longer than it."""
        return self.until is not None and time.time() >= self.until


NOBODY = Caller("")
"""The service itself, or a caller whose name does not matter."""


def read_roles(path: Path) -> Roles:
    """The file's content, validated. Raises RolesInvalid."""
    try:
        text = path.read_bytes()[: _FILE_BYTES + 1]
        if len(text) > _FILE_BYTES:
            raise RolesInvalid(f"{path}: larger than {_FILE_BYTES} bytes")
        content = tomllib.loads(text.decode()) if path.suffix == ".toml" else json.loads(text)
        return Roles.model_validate(content)
    except OSError as error:
        raise RolesInvalid(f"{path}: {error.strerror}") from None
    except ValidationError as error:
        found = error.errors(include_input=False)
        faults = [f"{_place(item['loc'])}: {item['msg']}" for item in found[:_FAULTS]]
        more = f"; and {len(found) - _FAULTS} more" if len(found) > _FAULTS else ""
        raise RolesInvalid(f"{path}: {'; '.join(faults)}{more}") from None
    except RecursionError:
        raise RolesInvalid(f"{path} does not parse: too deep") from None
    except ValueError as error:  # TOML, JSON or UTF-8
        raise RolesInvalid(f"{path} does not parse: {error}") from None


def _place(location: Iterable[object]) -> str:
    """Where a fault is; names come from the file, and may be anything."""
    text = ".".join(map(str, location))[:_LOCATION]
    return "".join(character if character.isprintable() else "?" for character in text)


def acting_role(roles: Roles, identities: Iterable[str], method: str, realm: str) -> Role | None:
    """The role by which one of the caller's identities may call `method` in `realm`; `admin` only if no other does."""
    allowed = TABLE.get(method)
    if allowed is None:
        return None
    names = frozenset(identities)
    wanted = EVERY_REALM if method in ACROSS_REALMS else realm
    found = {
        role
        for bind in roles.bind
        if bind.identity in names and (wanted in bind.realms or EVERY_REALM in bind.realms)
        for role in bind.roles
        if role in allowed or role is Role.ADMIN
    }
    return next((role for role in Role if role in found), None)
