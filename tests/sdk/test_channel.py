"""Addresses, credentials, and which address is in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from revocation_sdk._channel import Endpoints, Security, Target, parse_address, security
from revocation_sdk.errors import ConfigError, Unavailable
from tests.sdk.peer import Peer


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("localhost:50051", [Target("dns:///localhost:50051", True)]),
        ("localhost", [Target("dns:///localhost:50051", True)]),
        ("127.0.0.9:1", [Target("dns:///127.0.0.9:1", True)]),
        ("[::1]:7", [Target("dns:///[::1]:7", True)]),
        ("::1", [Target("dns:///[::1]:50051", True)]),
        ("unix:/run/r.sock", [Target("unix:/run/r.sock", True)]),
        ("unix:///run/r.sock", [Target("unix:///run/r.sock", True)]),
        ("revocation:50051", [Target("dns:///revocation:50051", False)]),
        ("10.0.0.1:50051", [Target("dns:///10.0.0.1:50051", False)]),
        ("localhost.example:1", [Target("dns:///localhost.example:1", False)]),
        ("127.0.0.1.example:1", [Target("dns:///127.0.0.1.example:1", False)]),
        ("dns:///revocation", [Target("dns:///revocation:50051", False, True)]),
        ("dns:///localhost:9", [Target("dns:///localhost:9", True, True)]),
        ("a:1, b:2", [Target("dns:///a:1", False), Target("dns:///b:2", False)]),
    ],
)
def test_addresses_that_there_are(text: str, targets: list[Target]) -> None:
    assert parse_address(text) == tuple(targets)


@pytest.mark.parametrize(
    "text",
    ["", "a:1,", ":50051", "a:0", "a:65536", "a:b", "http://a:1", "https://a", "redis://a", "a:1/x", "a b:1",
     "user@a:1", "a:1,a:1", "dns://8.8.8.8/a"],
)  # fmt: skip
def test_addresses_that_there_are_not(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_address(text)
    assert caught.value.reason == "address"


LOOPBACK, REMOTE, UNIX = parse_address("localhost:1,remote:1,unix:/x")


@pytest.mark.parametrize(
    ("how", "plain"),
    [
        (Security(), [LOOPBACK, UNIX]),
        (Security(token=lambda: "t"), [LOOPBACK, UNIX]),
        (Security(ca="ca.pem"), []),
        (Security(cert="c.pem", key="k.pem"), []),
        (Security(insecure=True), [LOOPBACK, REMOTE, UNIX]),
    ],
)
def test_plain_text_goes_to_loopback_and_unix_sockets_only(how: Security, plain: list[Target]) -> None:
    assert [target for target in (LOOPBACK, REMOTE, UNIX) if how.plain(target)] == plain


@pytest.mark.parametrize("arguments", [{"cert": "c"}, {"key": "k"}, {"ca": "a", "insecure": True}])
def test_credentials_that_contradict_each_other_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        Security(**arguments)  # type: ignore[arg-type]


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.pem"):
        Security(ca=str(tmp_path / "nowhere.pem")).credentials()


def test_a_token_goes_with_each_call_and_shows_nowhere() -> None:
    tokens = iter(["one", "two"])
    how = security(None, None, None, lambda: next(tokens), False)
    assert [how.metadata(), how.metadata()] == [
        (("authorization", "Bearer one"),),
        (("authorization", "Bearer two"),),
    ]
    assert "secret" not in repr(security(None, None, None, "secret", False))


def test_a_token_file_is_read_anew_for_every_call(tmp_path: Path) -> None:
    """A token that Kubernetes projects is renewed in its place."""
    file = tmp_path / "token"
    how = security(None, None, None, file, False)
    with pytest.raises(Unavailable):
        how.metadata()
    for token in ("first", "second"):
        file.write_text(token + "\n")
        assert how.metadata() == (("authorization", f"Bearer {token}"),)


def test_a_source_of_tokens_that_fails_makes_the_service_unavailable() -> None:
    def broken() -> str:
        raise OSError("no file")

    with pytest.raises(Unavailable) as caught:
        Security(token=broken).metadata()
    assert caught.value.reason == "credentials"


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "ü"])
def test_what_is_no_token_is_not_sent(token: str) -> None:
    with pytest.raises(ConfigError):
        Security(token=lambda: token).metadata()


def test_a_dead_address_is_left_for_the_next_and_only_once() -> None:
    targets = parse_address("localhost:1,localhost:2")
    endpoints = Endpoints(targets, Security(), 0)
    try:
        first = endpoints.current()
        endpoints.leave(first)
        endpoints.leave(first)  # another thread saw the same failure
        assert endpoints.current().target == targets[1]
        endpoints.leave(endpoints.current())
        assert endpoints.current() is first
    finally:
        endpoints.close()


def test_a_closed_client_opens_nothing() -> None:
    endpoints = Endpoints(parse_address("localhost:1"), Security(), 0)
    endpoints.close()
    with pytest.raises(Unavailable):
        endpoints.current()


def test_renewed_credentials_get_a_new_channel(tmp_path: Path) -> None:
    ca = tmp_path / "ca.pem"
    ca.write_text("")
    endpoints = Endpoints(parse_address("localhost:1"), Security(ca=str(ca)), 0)
    try:
        first = endpoints.current()
        endpoints.leave(first)
        assert endpoints.current() is first
        os.utime(ca, (1, 1))
        endpoints.leave(first)
        assert endpoints.current() is not first
    finally:
        endpoints.close()


def reached(endpoints: Endpoints) -> bool:
    endpoint = endpoints.current()
    return endpoint.reached(endpoint.probe(20))


def test_whether_there_is_a_connection() -> None:
    with Peer() as peer:
        endpoints = Endpoints(parse_address(peer.address), Security(), 0)
        assert reached(endpoints)
        endpoints.close()
    endpoints = Endpoints(parse_address(peer.address), Security(), 0)
    assert not reached(endpoints)
    endpoints.close()


def test_a_name_with_several_addresses_is_left_to_grpc() -> None:
    """`localhost` is often two addresses, of which the peer listens on one."""
    with Peer() as peer:
        endpoints = Endpoints(parse_address(f"dns:///localhost:{peer.address.rpartition(':')[2]}"), Security(), 0)
        assert reached(endpoints)
        endpoints.close()


def test_a_certificate_that_is_replaced_at_the_moment_is_no_error(tmp_path: Path) -> None:
    """Neither one that is gone when it is looked at, nor a folder that cannot be entered."""
    assert Security(ca=str(tmp_path / "nowhere" / "ca.pem")).stamp() == (0,)
    (tmp_path / "file").touch()
    assert Security(ca=str(tmp_path / "file" / "ca.pem")).stamp() == (0,)
