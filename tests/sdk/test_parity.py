"""Both clients have the same public names and arguments; where one needs the network, the other is awaited."""

from __future__ import annotations

import inspect

import pytest

import revocation_sdk
from revocation_sdk import AsyncRevocationClient, RevocationClient

NO_NETWORK = {"check", "invalidate", "metrics", "on_state_change", "start", "unknown"}


def public(kind: type) -> dict[str, object]:
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}


def test_the_names_are_the_same() -> None:
    assert public(RevocationClient).keys() == public(AsyncRevocationClient).keys()


@pytest.mark.parametrize("name", sorted(set(public(RevocationClient)) - {"clock", "follower"}))
def test_the_arguments_and_words_are_the_same(name: str) -> None:
    one, other = getattr(RevocationClient, name), getattr(AsyncRevocationClient, name)
    assert inspect.getdoc(one)
    assert inspect.getdoc(one) == inspect.getdoc(other)
    if callable(one):
        assert inspect.signature(one) == inspect.signature(other)
        assert inspect.iscoroutinefunction(other) == (name not in NO_NETWORK)


def test_the_constructors_are_the_same() -> None:
    assert inspect.signature(RevocationClient) == inspect.signature(AsyncRevocationClient)


def test_all_that_is_promised_can_be_imported() -> None:
    for name in revocation_sdk.__all__:
        assert getattr(revocation_sdk, name) is not None
    with pytest.raises(AttributeError):
        revocation_sdk.NoSuchName  # noqa: B018
