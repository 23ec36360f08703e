"""The table of methods and roles, and the file that binds identities."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from revocation.callers.roles import ACROSS_REALMS, TABLE, Role, Roles, RolesInvalid, acting_role, read_roles
from revocation_api.v1 import audit_pb2, revocation_pb2, session_pb2

METHODS = [
    method.name
    for file in (revocation_pb2, session_pb2, audit_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
TARGETS = [field.name for field in revocation_pb2.RevokeRequest.DESCRIPTOR.oneofs_by_name["target"].fields]


def may(roles: Roles, identities: list[str], method: str, realm: str) -> bool:
    return acting_role(roles, identities, method, realm) is not None


def bound(role: Role, *realms: str) -> Roles:
    return Roles.model_validate({"bind": [{"identity": "spiffe://x/me", "roles": [role.value], "realms": realms}]})


def test_every_method_of_the_contract_has_a_row() -> None:
    """A method that is added without deciding who may call it fails here, and is refused to everybody."""
    rows = {name.partition(":")[0] for name in TABLE}
    assert rows == set(METHODS)
    assert {name for name in TABLE if name.startswith("Revoke:")} == {f"Revoke:{target}" for target in TARGETS}
    assert set(TABLE) >= ACROSS_REALMS


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("method", TABLE)
def test_method_role_realm(method: str, role: Role) -> None:
    """An identity may do what its role's row says, in its realm, and nothing elsewhere."""
    allowed = role in TABLE[method] or role is Role.ADMIN
    me = ["spiffe://x/me"]
    if method in ACROSS_REALMS:
        assert not may(bound(role, "shop"), me, method, "shop")
    else:
        assert may(bound(role, "shop"), me, method, "shop") == allowed
        assert not may(bound(role, "shop"), me, method, "bank")
        assert not may(bound(role, "shop"), me, method, "")
    assert may(bound(role, "*"), me, method, "bank") == allowed
    assert not may(bound(role, "*"), ["spiffe://x/you"], method, "bank")
    assert not may(bound(role, "*"), [], method, "bank")


def test_a_verifier_changes_nothing() -> None:
    """The role that every verifier has can read revocations, and do nothing else."""
    assert {method for method, roles in TABLE.items() if Role.VERIFIER in roles} == {"Watch", "Check", "GetVersion"}


def test_an_unknown_method_is_refused_to_everybody() -> None:
    assert not may(bound(Role.ADMIN, "*"), ["spiffe://x/me"], "Invented", "shop")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "does not parse"),
        ("[]", "dictionary"),
        ('{"bind": []}', "bind"),
        ('{"bind": [{"identity": "a", "roles": ["king"], "realms": ["x"]}]}', "bind.0.roles.0"),
        ('{"bind": [{"identity": "a", "roles": ["admin"], "realms": []}]}', "bind.0.realms"),
        ('{"bind": [{"identity": "a", "roles": ["admin"], "realms": ["x"], "extra": 1}]}', "extra"),
        (
            '{"bearer": [{"issuer": "i", "audience": "a"}], '
            '"bind": [{"identity": "a", "roles": ["admin"], "realms": ["x"]}]}',
            "jwks",
        ),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(tmp_path: Path, content: str, says: str) -> None:
    path = tmp_path / "roles.json"
    path.write_text(content)
    with pytest.raises(RolesInvalid, match=says):
        read_roles(path)


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    toml, plain = tmp_path / "roles.toml", tmp_path / "roles.json"
    toml.write_text('[[bind]]\nidentity = "a"\nroles = ["verifier"]\nrealms = ["x"]\n')
    plain.write_text(json.dumps({"bind": [{"identity": "a", "roles": ["verifier"], "realms": ["x"]}]}))
    assert read_roles(toml) == read_roles(plain)
