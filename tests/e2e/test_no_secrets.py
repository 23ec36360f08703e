"""I7 over a whole installation: secrets, tokens and identifiers are planted, everything happens, and all is searched.

At log level debug, with TLS, roles, sessions, the command line, and things that go wrong. Searched: the logs of the
service, the store and the client; messages and `repr` of errors and values; the configuration as shown; metrics; the
stream as it is on the wire; the store's memory and its files.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
import redis

from revocation.config.settings import effective, load
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk import RevocationClient, RevocationError, StatusUnknown, TokenIssuer, TokenRevoked, Verifier
from tests.e2e.installation import PING_S, Installation, Replica
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.secured import ISSUER, SUBJECT, Secured

pytestmark = pytest.mark.e2e

ADMIN = "spiffe://test/admin"


def planted(what: str) -> str:
    return f"planted-{what}-{secrets.token_hex(6)}"


class Planted(Secured):
    """A service with a master secret and a store with a password, and all that must not be seen anywhere."""

    def __init__(self, installation: Installation, patch: pytest.MonkeyPatch) -> None:
        self.needles: dict[str, bytes] = {}
        self.texts: list[tuple[str, str]] = []
        """What was said, and where."""
        self.password = self.hide("password of the store", planted("password"))
        self.master = secrets.token_bytes(32)
        self.hide("master secret", base64.b64encode(self.master).decode())
        self.needles["master secret, decoded"] = self.master
        self.store = installation.servers.start({"requirepass": self.password, "rdbcompression": "no"}, aof=True)
        url = f"redis://:{self.password}@127.0.0.1:{self.store.port}/0"
        patch.setenv("REVOCATION_SECRET", f"k1:{base64.b64encode(self.master).decode()}")
        patch.setenv("REVOCATION_REDIS_URL", url)
        binds = [(f"{ISSUER}#{SUBJECT}", "session-manager", ["default"]), (ADMIN, "admin", ["*"])]
        super().__init__(installation, binds, realms={"default": {}, "other": {}}, log_level="debug")
        self.embedded()
        for path in self.folder.glob("*.key"):
            self.hide(f"private key {path.name}", path.read_text().splitlines()[1])

    def hide(self, what: str, text: str) -> str:
        """Nobody must see this."""
        self.needles[what] = text.encode()
        return text

    def hide_token(self, what: str, token: str) -> str:
        """Nor any part of this token that is worth something."""
        _, *rest = token.split(".")
        for number, part in enumerate(rest):
            if len(part) > 20:
                self.hide(f"{what}, part {number + 1}", part)
        return token

    def heard(self, where: str, *things: object) -> None:
        self.texts += [(where, f"{thing} {thing!r}") for thing in things]

    def failed(self, where: str, call: Callable[[], object]) -> None:
        """Something that goes wrong, and what is said about it."""
        with pytest.raises(RevocationError) as error:
            call()
        self.heard(where, error.value, error.value.__cause__, error.value.__context__, vars(error.value))

    def found(self, where: str, data: bytes) -> list[str]:
        return [f"{what} in {where}" for what, needle in self.needles.items() if needle in data]


class Embeddedless(Installation):
    """Its replicas use the store that the environment names."""

    def add_embedded(self, **flags: Any) -> Replica:
        return self._start([Replica("replica", self.folder, **flags)])[0]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    with pytest.MonkeyPatch.context() as patch, Embeddedless(tmp_path_factory.mktemp("secrets")) as installation:
        made = Planted(installation, patch)
        lines: list[str] = []
        handler = _Lines(lines)
        root = logging.getLogger()
        before = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            _live(made)
            made.texts.append(("the client's log", "\n".join(lines)))
            yield made
        finally:
            root.removeHandler(handler)
            root.setLevel(before)


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


def _live(made: Planted) -> None:
    watching = _Watching(made)
    with made.client(ADMIN, ping_interval=PING_S) as client:
        client.wait_until_fresh(LIMIT_S)
        issuer = TokenIssuer(
            client, key=made.key, algorithm="ES256", issuer=ISSUER, audience="revocation", lifetime=600
        )
        verifier = Verifier(
            client, key=made.key.public_key(), algorithms=["ES256"], issuer=ISSUER, audience="revocation"
        )
        made.heard("repr of client, verifier and issuer", client, verifier, issuer)
        token = _sessions(made, client, issuer, verifier)
        _revocations(made, client, verifier, token)
        _refusals(made, client, issuer)
        _commands(made, token)
        made.store.pause()
        made.failed(
            "a store that hangs", lambda: client.revoke_subject(made.hide("sub 3", planted("sub")), timeout=1.5)
        )
        made.store.resume()
        assert client.revoke_session(made.hide("sid 3", planted("sid")), timeout=LIMIT_S).stored, "it goes on"
    made.texts.append(("metrics", made.replica.get("metrics")))
    watching.end()


def _sessions(made: Planted, client: RevocationClient, issuer: TokenIssuer, verifier: Verifier) -> str:
    sub, app = made.hide("sub", planted("sub")), made.hide("client", planted("client"))
    device = made.hide("device", planted("device"))
    login = issuer.login(sub, client_id=app, device=device, address="192.0.2.7", user_agent=device)
    made.hide("sid", login.session_id.partition(".")[2])
    first = made.hide_token("refresh token", login.refresh_token)
    token = made.hide_token("access token", login.access_token)
    verified = verifier.verify(token)
    made.hide("jti", str(verified.claims["jti"]))
    again = issuer.refresh(first)
    made.hide_token("second refresh token", again.refresh_token)
    made.hide_token("second access token", again.access_token)
    made.heard("repr of values", login, again, verified, client.get_version(sub, client_id=app))
    third = issuer.refresh(again.refresh_token)
    made.hide_token("third refresh token", third.refresh_token)
    made.failed("a refresh token used again", lambda: issuer.refresh(first))
    made.failed("a session that has ended", lambda: issuer.refresh(third.refresh_token))
    until(lambda: _refuses(verifier, token), "the end of the session, which only the stream brings")
    made.failed("a token of an ended session", lambda: verifier.verify(token))
    made.failed("a forged refresh token", lambda: issuer.refresh(first[:-4] + "AAAA"))
    other = issuer.login(sub, client_id=app, device=device)
    made.hide_token("refresh token 4", other.refresh_token)
    made.hide_token("access token 4", other.access_token)
    issuer.logout_others(sub, keep=other.session_id)
    made.failed("no such session", lambda: client.get_session(made.hide("sid 2", planted("sid"))))
    return other.access_token


def _refuses(verifier: Verifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except TokenRevoked:
        return True
    except StatusUnknown:
        pass
    return False


def _revocations(made: Planted, client: RevocationClient, verifier: Verifier, token: str) -> None:
    soon = time.time() + 600
    receipts = [
        client.revoke_token(token),
        client.revoke_token(jti=made.hide("jti 2", planted("jti")), expires_at=soon),
        client.revoke_tokens([(made.hide("jti 3", planted("jti")), soon), (made.hide("jti 4", planted("jti")), soon)]),
        client.revoke_session(made.hide("sid 4", planted("sid"))),
        client.revoke_subject(made.hide("sub 2", planted("sub"))),
        client.revoke_client(made.hide("client 2", planted("client"))),
        client.revoke_key(made.hide("kid", planted("kid"))),
    ]
    made.heard("receipts", *receipts)
    made.failed("a revoked token", lambda: verifier.verify(token))
    made.failed("a malformed token", lambda: verifier.verify(made.hide("garbage", planted("garbage"))))


def _refusals(made: Planted, client: RevocationClient, issuer: TokenIssuer) -> None:
    long = made.hide("long", planted("long")) + "x" * 300
    made.failed("a long subject", lambda: client.revoke_subject(long))
    made.failed("a long sid", lambda: client.revoke_session(long))
    made.failed("a long jti", lambda: client.revoke_token(jti=long, expires_at=time.time() + 60))
    made.failed("a long client", lambda: client.get_client_settings(long))
    made.failed("a bad op id", lambda: client.revoke_session("s", op_id=made.hide("op id", planted("op"))))
    made.failed("a bad page", lambda: client.check_remote({"jti": long, "exp": time.time() + 60}))
    stranger = made.client("spiffe://test/stranger")
    made.failed("a stranger", lambda: stranger.revoke_subject(made.hide("sub 5", planted("sub"))))
    stranger.close()
    bearer = made.hide_token("bearer token", made.bearer())
    known = made.client("spiffe://test/stranger", token=bearer)
    made.hide_token("session token", known.open_session(SUBJECT, access_token_life=60).refresh_token)
    made.failed("not theirs", lambda: known.revoke_client("x"))
    made.heard("repr of a client with a token", known)
    known.close()
    forged = made.client("spiffe://test/stranger", token=made.hide_token("forged token", made.bearer(aud="elsewhere")))
    made.failed("a bad bearer token", lambda: forged.check_remote({"jti": "j", "exp": time.time() + 60}))
    forged.close()
    with made.channel(ADMIN) as channel:  # bytes that are no message
        raw: Any = channel.unary_unary("/revocation.v1.RevocationService/Revoke")
        with pytest.raises(grpc.RpcError) as refused:
            raw(b"\xff" + made.hide("bytes", planted("bytes")).encode(), timeout=5)
        made.heard("a malformed request", refused.value)


def _commands(made: Planted, token: str) -> None:
    ca, cert, key = made.files(ADMIN)
    sub = made.hide("sub of a command", planted("sub"))
    options = ["--address", made.replica.address, "--ca", str(ca), "--cert", str(cert)]
    options += ["--cert-key", str(key)]
    for words in (
        ["check", "-"], ["revoke", "token", "-"], ["revoke", "subject", sub], ["revoke", "session", sub, "--json"],
        ["sessions", "list", sub], ["sessions", "end", sub], ["status"], ["members", "list", "--json"], ["doctor"],
        ["revoke", "subject", sub * 20], ["check", sub],
    ):  # fmt: skip
        _run(made, [*words, *options], token)
    _run(made, ["config"], "")
    _run(made, ["config", "--json"], "")
    _run(made, ["serve", "--secret-file", made.needles["master secret"].decode()], "")
    settings = load({})
    made.heard("the configuration", settings, effective(settings), settings.model_dump_json())


def _run(made: Planted, words: list[str], token: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "revocation", *words],
        input=token,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
        check=False,
    )
    made.texts.append((f"revocation {' '.join(words[:2])}", done.stdout + done.stderr))
    assert done.stdout + done.stderr, words
    assert "Traceback" not in done.stderr, done.stderr


class _Watching:
    """Keeps what a stream brings, as bytes."""

    def __init__(self, made: Planted) -> None:
        self._made = made
        self._chunks: list[bytes] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._channel = made.channel(ADMIN)
        self._thread.start()

    def _read(self) -> None:
        method: Any = self._channel.stream_stream("/revocation.v1.RevocationService/Watch")
        self._call = method(self._said())
        with contextlib.suppress(grpc.RpcError):
            self._chunks.extend(self._call)

    def _said(self) -> Iterator[bytes]:
        yield pb.WatchRequest(hello=pb.Hello(realm="default", protocol=1)).SerializeToString()
        nonce = 0
        while not self._over.wait(0.5):
            nonce += 1
            yield pb.WatchRequest(ping=pb.Ping(nonce=nonce)).SerializeToString()

    def end(self) -> None:
        self._over.set()
        self._thread.join(LIMIT_S)
        self._channel.close()
        kinds = {pb.WatchResponse.FromString(chunk).WhichOneof("kind") for chunk in self._chunks}
        assert {"welcome", "changes", "progress"} <= kinds
        self._made.texts.append(("the stream", b"".join(self._chunks).decode("latin-1")))


def test_nothing_planted_is_said_anywhere(everything: Planted) -> None:
    """Neither by the service nor by the SDK or the command line, whatever happens."""
    assert len(everything.texts) > 40
    found = [
        hit for where, text in everything.texts for hit in everything.found(where, text.encode("latin-1", "replace"))
    ]
    assert found == []


def test_nothing_planted_is_in_a_log(everything: Planted) -> None:
    log = everything.replica.log_path.read_bytes()
    assert b'"level": "debug"' in log or log.count(b"\n") > 20, "the log tells what happened"
    assert everything.found("the log of the service", log) == []
    assert everything.found("the log of the store", everything.store.log().encode()) == []


def test_nothing_planted_is_in_the_store(everything: Planted) -> None:
    """Neither in a key, nor in a value, nor in the files. The master secret would open all of it."""
    client = redis.Redis(port=everything.store.port, password=everything.password)
    with client:
        dumped = {key: client.dump(key) or b"" for key in client.scan_iter("*", count=1000)}
    assert len(dumped) > 10
    everything.hide("address", "192.0.2.7")
    without_password = {what: needle for what, needle in everything.needles.items() if "password" not in what}
    everything.needles = without_password  # the store's own configuration has it
    assert [hit for key, value in dumped.items() for hit in everything.found(repr(key), key + value)] == []
    files = [path for path in everything.store.folder.rglob("*") if path.is_file() and path.name != "server.conf"]
    assert any(path.stat().st_size > 1000 for path in files if "appendonly" in str(path))
    assert [hit for path in files for hit in everything.found(path.name, path.read_bytes())] == []


def test_what_is_planted_would_be_found(everything: Planted) -> None:
    """The search itself: each needle is found where it is, as text and as bytes."""
    for what, needle in everything.needles.items():
        assert f"{what} in here" in everything.found("here", b"a" + needle + b"b")
    assert len(everything.needles) > 30
