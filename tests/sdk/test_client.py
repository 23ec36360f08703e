"""The client, against a peer that speaks the contract over a real connection."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from revocation_api.v1 import revocation_pb2 as pb
from revocation_api.v1 import session_pb2
from revocation_sdk import (
    ConfigError,
    InvalidRequest,
    NotFresh,
    OutcomeUnknown,
    PermissionDenied,
    RefreshReused,
    RevocationClient,
    SessionEnded,
    SessionLimit,
    State,
    StatusUnknown,
    TokenExpired,
    TokenInvalid,
    TokenRevoked,
    Unavailable,
)
from revocation_sdk._clock import Clock
from revocation_sdk._lattice import Kind
from revocation_sdk._position import Position
from revocation_sdk._wire import positions_to
from tests.sdk.peer import Peer, PeerStream, fail, row

LIMIT_S = 30.0
CODE = grpc.StatusCode


def claims(jti: object = "good", **more: Any) -> dict[str, Any]:
    now = time.time()
    return {"jti": jti, "iss": "https://id", "sub": "alice", "iat": int(now), "exp": int(now) + 600, **more}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with Peer() as peer:
        yield peer


class Clocks:
    """The real clocks, which a test can move forward."""

    def __init__(self) -> None:
        self.mono_ahead = self.wall_ahead = 0.0

    def clock(self, counts_suspend: bool = True) -> Clock:
        return Clock(lambda: time.monotonic() + self.mono_ahead, lambda: time.time() + self.wall_ahead, counts_suspend)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def client(peer: Peer, clocks: Clocks) -> Iterator[RevocationClient]:
    with RevocationClient(peer.address, ping_interval=0.1, clock=clocks.clock()) as client:
        yield client


def caught_up(client: RevocationClient, peer: Peer) -> None:
    """Fresh, and with all that the peer has committed: being fresh alone says "as of the last ping"."""
    client.wait_until_fresh(LIMIT_S)
    heard(client, lambda: client.follower.positions == (peer.position,))


def heard(client: RevocationClient, holds: Callable[[], bool]) -> None:
    """Waits, by what the client itself announces, until something holds."""
    changed = threading.Event()
    client._core.following.listen(changed.set)
    end = time.monotonic() + LIMIT_S
    while not holds():
        assert changed.wait(end - time.monotonic()), "not in time"
        changed.clear()


def refused(client: RevocationClient, jti: str) -> bool:
    try:
        client.check(claims(jti))
    except TokenRevoked:
        return True
    return False


# Following


def test_a_constructor_does_no_io() -> None:
    client = RevocationClient("nowhere.invalid:1", insecure=True)
    states = [client.state]
    client.close()
    assert [*states, client.state] == [State.IDLE, State.CLOSED]


def test_a_snapshot_makes_the_view_fresh(peer: Peer, client: RevocationClient) -> None:
    position = peer.commit(row(Kind.TOKEN, "bad"))
    caught_up(client, peer)
    assert client.state is State.FRESH
    with pytest.raises(TokenRevoked) as caught:
        client.check(claims("bad"))
    assert caught.value.target == "token"
    fresh = client.check(claims())
    assert fresh.fresh
    assert fresh.age_s is not None
    assert fresh.position == position


def test_the_first_check_starts_the_follower(peer: Peer) -> None:
    client = RevocationClient(peer.address, ping_interval=0.1)
    with pytest.raises(StatusUnknown) as caught:
        client.check(claims())
    assert caught.value.age_s is None
    client.wait_until_fresh(LIMIT_S)
    client.check(claims())
    client.close()


def test_a_change_arrives_by_the_stream(peer: Peer, client: RevocationClient) -> None:
    client.wait_until_fresh(LIMIT_S)
    peer.commit(row(Kind.TOKEN, "bad"))
    heard(client, lambda: refused(client, "bad"))


def test_a_new_stream_resumes_from_the_position(peer: Peer, client: RevocationClient) -> None:
    first = peer.next_stream()
    client.wait_until_fresh(LIMIT_S)
    peer.commit(row(Kind.TOKEN, "one"))
    heard(client, lambda: refused(client, "one"))
    with peer.lock:
        at = peer.position
        first.out.put(None)
        peer.commit(row(Kind.TOKEN, "two"))
    second = peer.next_stream()
    assert second.hello.resume == positions_to((at,)) or second.hello.resume == positions_to((peer.position,))
    heard(client, lambda: refused(client, "two"))
    assert refused(client, "one")


def test_the_hello_says_who_we_are(peer: Peer) -> None:
    with RevocationClient(peer.address, realm="shop", name="api-1", token="secret"):
        stream = peer.next_stream()
    assert (stream.hello.realm, stream.hello.name) == ("shop", "api-1")
    assert stream.hello.sdk_version.startswith("revocation-sdk-python/")
    assert stream.metadata["authorization"] == "Bearer secret"


def broken_chain(peer: Peer, stream: PeerStream) -> None:
    stream.say(changes=peer.changes(peer.position, [b""], peer.position))


def gap(peer: Peer, stream: PeerStream) -> None:
    ahead = Position(peer.log_id, 7, b"x" * 20)
    stream.say(changes=peer.changes(ahead, [b""], ahead.advance(b"")))


def progress_ahead(peer: Peer, stream: PeerStream) -> None:
    ahead = Position(peer.log_id, 7, b"x" * 20)
    nonce = stream.pings.get(timeout=LIMIT_S).nonce
    stream.say(progress=pb.Progress(nonce=nonce, positions=positions_to((ahead,)), store_ms=1))


def second_welcome(peer: Peer, stream: PeerStream) -> None:
    peer.welcome(stream)


def malformed_rows(peer: Peer, stream: PeerStream) -> None:
    after = peer.position.advance(b"not rows")
    stream.say(changes=peer.changes(peer.position, [b"not rows"], after))


def unknown_message(peer: Peer, stream: PeerStream) -> None:
    stream.out.put(pb.WatchResponse())


@pytest.mark.parametrize("fault", [broken_chain, gap, progress_ahead, second_welcome, malformed_rows, unknown_message])
def test_what_breaks_the_contract_ends_freshness_and_the_stream_and_heals(
    peer: Peer, client: RevocationClient, fault: Callable[[Peer, PeerStream], None]
) -> None:
    stream = peer.next_stream()
    client.wait_until_fresh(LIMIT_S)
    with peer.lock:
        peer.mute = True
    while not stream.pings.empty():
        stream.pings.get()
    heard_state: queue.SimpleQueue[State] = queue.SimpleQueue()
    client.on_state_change(heard_state.put)
    fault(peer, stream)
    peer.next_stream()
    assert heard_state.get(timeout=LIMIT_S) is State.CONNECTING
    peer.mute = False
    assert heard_state.get(timeout=LIMIT_S) is State.FRESH


def test_freshness_ends_when_nobody_vouches_and_the_known_revoked_stay_refused(
    peer: Peer, client: RevocationClient, clocks: Clocks
) -> None:
    peer.commit(row(Kind.TOKEN, "bad"))
    caught_up(client, peer)
    peer.mute = True
    clocks.mono_ahead = 20.0
    # A ping that was under way may still count, from when it was sent.
    with pytest.raises(StatusUnknown) as caught:
        client.check(claims())
    assert caught.value.age_s is not None
    assert caught.value.age_s >= 15
    assert client.state is State.STALE
    with pytest.raises(TokenRevoked):
        client.check(claims("bad"))
    allowed = client.check(claims(), on_stale="allow")
    assert not allowed.fresh


def test_a_suspend_that_only_the_wall_clock_noticed_ends_freshness(
    peer: Peer, client: RevocationClient, clocks: Clocks
) -> None:
    client.wait_until_fresh(LIMIT_S)
    peer.mute = True
    clocks.wall_ahead = 100.0
    with pytest.raises(StatusUnknown):
        client.check({**claims(), "exp": time.time() + 1000})


def test_an_answer_to_a_ping_from_before_invalidate_does_not_count(peer: Peer, client: RevocationClient) -> None:
    stream = peer.next_stream()
    client.wait_until_fresh(LIMIT_S)
    with peer.lock:
        peer.mute = True
    while not stream.pings.empty():
        stream.pings.get()
    old = stream.pings.get(timeout=LIMIT_S)
    client.invalidate()
    assert client.state is State.CONNECTING
    new = stream.pings.get(timeout=LIMIT_S)
    while new.nonce == old.nonce:
        new = stream.pings.get(timeout=LIMIT_S)
    peer.progress(stream, old.nonce)
    peer.commit(row(Kind.TOKEN, "bad"))
    with pytest.raises(NotFresh):
        client.wait_until_fresh(0.2)
    peer.mute = False
    client.wait_until_fresh(LIMIT_S)


def test_a_silent_stream_is_left_for_another_address(clocks: Clocks) -> None:
    """A stopped replica keeps its connection; only its silence tells."""
    with Peer() as dumb, Peer() as good:
        dumb.mute = True
        dumb.on_stream = lambda stream: None
        with RevocationClient(f"{dumb.address},{good.address}", ping_interval=0.1) as client:
            client.wait_until_fresh(LIMIT_S)


def test_a_dead_address_is_left_for_the_next() -> None:
    with Peer() as gone:
        pass
    with Peer() as peer, RevocationClient(f"{gone.address},{peer.address}", ping_interval=0.1) as client:
        client.wait_until_fresh(LIMIT_S)
        assert client.status().replica == "peer"
        assert client.revoke_subject("alice").stored


def test_the_client_follows_a_service_that_comes_back(tmp_path: Path) -> None:
    address = f"unix:{tmp_path / 'peer.sock'}"
    with Peer(address):
        client = RevocationClient(address, ping_interval=0.1)
        client.wait_until_fresh(LIMIT_S)
    with Peer(address) as peer:
        peer.next_stream()
        client.invalidate()
        client.wait_until_fresh(LIMIT_S)
    client.close()


def test_goodbye_is_followed_by_another_stream_not_before_its_time(peer: Peer, client: RevocationClient) -> None:
    first = peer.next_stream()
    client.wait_until_fresh(LIMIT_S)
    said = time.monotonic()
    first.say(goodbye=pb.Goodbye(reason="draining", reconnect_after_ms=300))
    peer.next_stream()
    assert time.monotonic() - said >= 0.3
    assert first.over.wait(LIMIT_S)
    assert client.state is State.FRESH  # nothing was lost meanwhile


def test_why_it_is_not_fresh(peer: Peer) -> None:
    peer.refuse = lambda _, context: fail(context, CODE.PERMISSION_DENIED, "PERMISSION_DENIED")
    with RevocationClient(peer.address, ping_interval=0.1) as client:
        heard(client, lambda: client._core.following.why_stale()[0] == "permission_denied")
        with pytest.raises(NotFresh) as caught:
            client.wait_until_fresh(0.01)
        assert caught.value.reason == "permission_denied"
        with pytest.raises(StatusUnknown) as stale:
            client.check(claims())
        assert stale.value.reason == "permission_denied"


def test_the_service_may_ask_to_stay_away(peer: Peer) -> None:
    refusals = iter([0.3])

    def refuse(_: Any, context: grpc.ServicerContext) -> None:
        for retry_s in refusals:
            fail(context, CODE.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", retry_s=retry_s)

    peer.refuse = refuse
    began = time.monotonic()
    with RevocationClient(peer.address, ping_interval=0.1) as client:
        client.wait_until_fresh(LIMIT_S)
    assert time.monotonic() - began >= 0.3


def test_without_a_clock_that_counts_suspend_nothing_is_fresh(peer: Peer, clocks: Clocks) -> None:
    with RevocationClient(peer.address, ping_interval=0.1, clock=clocks.clock(counts_suspend=False)) as client:
        with pytest.raises(NotFresh) as caught:
            client.wait_until_fresh(LIMIT_S)
        assert caught.value.reason == "no_clock"


def test_a_follower_that_gets_no_thread_says_so(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda self: None)
    monkeypatch.setattr("revocation_sdk._following._LOOK_EVERY_S", 0.01)
    ticks = itertools.count()
    client = RevocationClient(peer.address, clock=Clock(lambda: float(next(ticks)), time.time))
    with pytest.raises(NotFresh) as caught:
        client.wait_until_fresh(1000)
    assert caught.value.reason == "no_thread"
    with pytest.raises(StatusUnknown, match="enable-threads"):
        client.check(claims())


def test_a_pause_of_the_process_is_not_mistaken_for_that(peer: Peer, client: RevocationClient, clocks: Clocks) -> None:
    client.wait_until_fresh(LIMIT_S)
    clocks.mono_ahead = 1000.0
    client.wait_until_fresh(LIMIT_S)


def test_expired_entries_are_dropped_by_the_clock_that_is_behind(peer: Peer, clocks: Clocks) -> None:
    peer.commit(row(Kind.TOKEN, "bad"))
    with RevocationClient(peer.address, ping_interval=0.1, clock=clocks.clock()) as client:
        caught_up(client, peer)
        clocks.wall_ahead = 10_000.0  # ours jumps, the store's does not
        clocks.mono_ahead += 31.0
        client.wait_until_fresh(LIMIT_S)
        assert len(client.follower.view) == 1
        peer.store_ahead_s = 10_000.0  # now it says so too
        clocks.mono_ahead += 31.0
        heard(client, lambda: len(client.follower.view) == 0)


def test_callbacks_never_kill_the_follower(peer: Peer, client: RevocationClient) -> None:
    states: queue.SimpleQueue[State] = queue.SimpleQueue()

    def broken(state: State) -> None:
        states.put(state)
        raise RuntimeError("a user's mistake")

    client.on_state_change(broken)
    client.wait_until_fresh(LIMIT_S)
    client.invalidate()
    client.wait_until_fresh(LIMIT_S)
    client.close()
    while states.get(timeout=LIMIT_S) is not State.CLOSED:
        pass


def test_a_callback_may_close_the_client(peer: Peer) -> None:
    client = RevocationClient(peer.address, ping_interval=0.1)
    closed = threading.Event()

    def close(state: State) -> None:
        client.close()
        closed.set()

    client.on_state_change(close)
    client.start()
    assert closed.wait(LIMIT_S)
    assert client.state is State.CLOSED


def test_why_a_credential_could_not_be_had_is_told() -> None:
    def broken() -> str:
        raise OSError("no such file")

    client = RevocationClient("localhost:1", token=broken)
    with pytest.raises(Unavailable) as caught:
        client.status()
    assert isinstance(caught.value.__cause__, OSError)
    client.close()


def test_a_closed_client_stays_closed(peer: Peer) -> None:
    client = RevocationClient(peer.address, ping_interval=0.1)
    client.wait_until_fresh(LIMIT_S)
    client.close()
    client.close()
    with pytest.raises(NotFresh) as caught:
        client.wait_until_fresh(LIMIT_S)
    assert caught.value.reason == "closed"
    with pytest.raises(StatusUnknown):
        client.check(claims())
    with pytest.raises(Unavailable):
        client.revoke_subject("alice")


def test_closing_ends_the_stream_and_the_threads(peer: Peer) -> None:
    client = RevocationClient(peer.address, ping_interval=0.1)
    client.start()
    stream = peer.next_stream()
    client.close()
    assert stream.over.wait(LIMIT_S)
    assert not any(thread.is_alive() for thread in client._core.following._worker._threads)


def test_a_forgotten_client_ends_by_itself(peer: Peer) -> None:
    client = RevocationClient(peer.address, ping_interval=0.1)
    client.start()
    stream = peer.next_stream()
    del client
    assert stream.over.wait(LIMIT_S)


@pytest.mark.parametrize(
    "arguments",
    [
        {"realm": ""},
        {"ping_interval": 0.0},
        {"ping_interval": 10.0},  # twice that is more than the default max_staleness
        {"max_staleness": 1.0},
        {"cert": "only.pem"},
        {"address": "http://x"},
        {"name": "ü" * 65},
    ],
)
def test_what_cannot_work_is_refused_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RevocationClient(**arguments)


# Judging claims


def test_claims_that_cannot_be_judged_are_refused(client: RevocationClient) -> None:
    client.wait_until_fresh(LIMIT_S)
    without_jti = {name: value for name, value in claims().items() if name != "jti"}
    for bad in (without_jti, claims(exp=None), claims(exp="soon"), claims(sub=7), claims(jti={"a": 1}), {"jti": "x"}):
        with pytest.raises(TokenInvalid):
            client.check(bad)
    with pytest.raises(TokenInvalid) as caught:
        client.check(claims(exp=time.time() + 90_000))
    assert caught.value.reason == "lifetime"
    with pytest.raises(TokenExpired):
        client.check(claims(iat=1, exp=2))


def test_a_key_is_compared_if_the_caller_says_which_verified(peer: Peer, client: RevocationClient) -> None:
    peer.commit(row(Kind.KEY, "kid:k1"))
    peer.commit(row(Kind.KEY, "jkt:thumb"))
    caught_up(client, peer)
    client.check(claims())
    client.check(claims(), key_id="k2", thumbprint="other")
    either: list[dict[str, Any]] = [{"key_id": "k1"}, {"thumbprint": "thumb"}]
    for named in either:
        with pytest.raises(TokenRevoked) as caught:
            client.check(claims(), **named)
        assert caught.value.target == "key"


def test_a_version_at_the_cutoff_is_accepted_and_one_below_is_not(peer: Peer, client: RevocationClient) -> None:
    peer.commit(row(Kind.SUBJECT, "alice", version=10, at_ms=5000))
    caught_up(client, peer)
    client.check(claims(tver=[10]))
    for tver in ([9, 99, 99], []):
        with pytest.raises(TokenRevoked) as caught:
            client.check(claims(tver=tver))
        assert (caught.value.target, caught.value.since) == ("subject", 5.0)


def test_check_has_no_policy_that_needs_the_network(client: RevocationClient) -> None:
    with pytest.raises(ConfigError):
        client.check(claims(), on_stale="check")  # type: ignore[arg-type]


# Calls


def test_a_receipt_is_in_the_own_view_before_it_returns(peer: Peer, client: RevocationClient) -> None:
    client.wait_until_fresh(LIMIT_S)
    with peer.lock:  # so the stream cannot have brought it
        peer.mute = True
    peer.live.clear()
    receipt = client.revoke_subject("alice", reason="test")
    assert receipt.stored
    assert receipt.cutoff is not None
    assert receipt.cutoff.version == 10
    assert refused(client, "good")


def test_a_mutation_is_repeated_with_the_same_op_id(peer: Peer, client: RevocationClient) -> None:
    peer.answers["Revoke"].extend(
        [
            lambda _, context: fail(context, CODE.UNAVAILABLE, "NOT_READY"),
            lambda _, context: fail(context, CODE.ABORTED, "OUTCOME_UNKNOWN"),
            lambda _, context: fail(context, CODE.RESOURCE_EXHAUSTED, "OVERLOADED", retry_s=0.05),
        ]
    )
    receipt = client.revoke_subject("alice")
    asked = [request.op_id for method, request, _ in peer.calls if method == "Revoke"]
    assert len(asked) == 4
    assert set(asked) == {receipt.op_id}


def test_an_op_id_carries_the_stores_time(peer: Peer, client: RevocationClient) -> None:
    """Ours may be wrong by hours, and the service would refuse what looks old."""
    stream = peer.next_stream()
    client.wait_until_fresh(LIMIT_S)
    with peer.lock:
        peer.mute = True
    while not stream.pings.empty():
        stream.pings.get()
    lease = client.follower.lease
    peer.progress(stream, stream.pings.get(timeout=LIMIT_S).nonce, store_ms=1_000_000_000_000)
    heard(client, lambda: client.follower.lease is not lease and client.follower.lease.store_ms == 10**12)  # type: ignore[union-attr]
    stamp = int(client.revoke_subject("alice").op_id.replace("-", ""), 16) >> 80
    assert 0 <= stamp - 10**12 < 60_000


def test_no_definite_answer_in_time_is_an_unknown_outcome(peer: Peer, client: RevocationClient) -> None:
    peer.answers["Revoke"].extend([lambda _, context: fail(context, CODE.ABORTED, "OUTCOME_UNKNOWN")] * 100)
    with pytest.raises(OutcomeUnknown) as caught:
        client.revoke_subject("alice", op_id="01890a5d-ac96-774b-bcce-b302099a8057", timeout=3)
    assert caught.value.op_id == "01890a5d-ac96-774b-bcce-b302099a8057"


def test_closing_in_the_middle_of_a_mutation_leaves_its_outcome_unknown(peer: Peer, client: RevocationClient) -> None:
    ended = threading.Event()

    def close(_: Any, context: grpc.ServicerContext) -> None:
        context.add_callback(ended.set)
        threading.Thread(target=client.close).start()
        assert ended.wait(LIMIT_S)

    peer.answers["Revoke"].append(close)
    with pytest.raises(OutcomeUnknown):
        client.revoke_subject("alice", timeout=LIMIT_S)


def test_a_service_that_is_not_there_is_unavailable_and_nothing_was_done() -> None:
    with Peer() as gone:
        pass
    client = RevocationClient(gone.address)
    with pytest.raises(Unavailable):
        client.revoke_subject("alice", timeout=0.5)
    client.close()


def test_refusals_are_typed(peer: Peer, client: RevocationClient) -> None:
    peer.answers["Revoke"].extend(
        [
            lambda _, context: fail(context, CODE.INVALID_ARGUMENT, "BEYOND_HORIZON", field="expires_at"),
            lambda _, context: fail(context, CODE.PERMISSION_DENIED, "PERMISSION_DENIED"),
        ]
    )
    with pytest.raises(InvalidRequest) as invalid:
        client.revoke_token(jti="j", expires_at=1)
    assert (invalid.value.reason, invalid.value.field) == ("beyond_horizon", "expires_at")
    with pytest.raises(PermissionDenied):
        client.revoke_token(jti="j", expires_at=1)


def test_a_batch_is_one_call(peer: Peer, client: RevocationClient) -> None:
    client.wait_until_fresh(LIMIT_S)
    assert client.revoke_tokens([("a", time.time() + 60), ("b", time.time() + 60)]).stored
    assert refused(client, "a")
    assert refused(client, "b")


def test_every_other_revocation_reaches_the_service(peer: Peer, client: RevocationClient) -> None:
    client.revoke_session("s")
    client.revoke_client("c")
    client.revoke_key("k", issuer="i")
    client.revoke_key(thumbprint="t" * 43)
    client.revoke_realm()
    assert [request.WhichOneof("target") for _, request, _ in peer.calls] == [
        "session", "client", "key", "key", "whole_realm",
    ]  # fmt: skip


def test_a_client_that_only_revokes_forgets_what_has_expired(peer: Peer, clocks: Clocks) -> None:
    """I8: it need not follow, nor be allowed to."""
    client = RevocationClient(peer.address, clock=clocks.clock())

    def short(request: pb.RevokeRequest, _: Any) -> pb.RevokeResponse:
        rows = row(Kind.TOKEN, request.token.jti, expires_at=int(time.time() + clocks.wall_ahead) + 60)
        return pb.RevokeResponse(op_id=request.op_id, stored=True, rows=rows)

    for number in range(10):
        peer.answers["Revoke"].append(short)
        client.revoke_token(jti=str(number), expires_at=time.time() + 60)
        clocks.mono_ahead += 86_400
        clocks.wall_ahead += 86_400
    assert client.state is State.IDLE
    assert len(client.follower.view) <= 2
    client.close()


def test_tidying_up_is_kept_away_from_the_event_loop(clocks: Clocks) -> None:
    client = RevocationClient("nowhere.invalid:1", insecure=True, clock=clocks.clock())
    worker = client._core.following._worker
    assert worker.busy()
    worker.merge(row(Kind.TOKEN, "1"))
    assert not worker.busy()
    clocks.mono_ahead += 60
    assert worker.busy()
    client.close()


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), 0.1])
def test_a_max_staleness_that_means_nothing_is_refused_everywhere(peer: Peer, bad: float) -> None:
    with pytest.raises(ConfigError):
        RevocationClient(peer.address, max_staleness=bad)
    with RevocationClient(peer.address, ping_interval=0.1) as client:
        client.wait_until_fresh(LIMIT_S)
        with pytest.raises(ConfigError):
            client.check(claims(), max_staleness=bad)


def test_a_call_takes_no_longer_than_its_time_however_slow_the_connection(peer: Peer) -> None:
    """What the health probe took is not given to the call once more."""
    given: list[float] = []
    with RevocationClient(peer.address) as client:
        core = client._core

        class Slow:
            """An endpoint whose probe takes half of the time."""

            proven = False

            def probe(self, timeout: float) -> float:
                given.append(timeout)
                time.sleep(timeout / 2)
                return timeout

            def reached(self, probe: float) -> bool:
                return True

            def stub(self, kind: Any) -> Any:
                def call(request: Any, timeout: float, metadata: Any) -> pb.CheckResponse:
                    given.append(timeout)
                    return pb.CheckResponse()

                return type("Stub", (), {"Check": staticmethod(call)})

        core.checks._endpoints = type("Slowly", (), {"current": staticmethod(Slow)})()
        core.check_remote(core.checker.claims(claims(), None, (None, None, "tver", "client_id", 0)), 0.5, None)
    probe, call = given
    assert call <= probe / 2 + 0.01


def test_the_service_is_asked(peer: Peer, client: RevocationClient) -> None:
    receipt = client.revoke_realm()
    fresh = client.check_remote(claims(), not_older_than=receipt.position, timeout=LIMIT_S)
    assert fresh.fresh
    assert fresh.position == receipt.position
    peer.answers["Check"].append(lambda *_: pb.CheckResponse(revoked=pb.SUBJECT, since_ms=1500))
    with pytest.raises(TokenRevoked) as caught:
        client.check_remote(claims(), timeout=LIMIT_S)
    assert (caught.value.target, caught.value.since) == ("subject", 1.5)
    peer.answers["Check"].extend([lambda _, context: fail(context, CODE.UNAVAILABLE, "STORE_UNAVAILABLE")] * 100)
    with pytest.raises(Unavailable) as failed:
        client.check_remote(claims(), timeout=3)
    assert failed.value.reason == "store_unavailable"


def test_the_answer_of_a_check_is_as_old_as_the_question(peer: Peer, client: RevocationClient, clocks: Clocks) -> None:
    def slow(*_: Any) -> None:
        clocks.mono_ahead = 7.0

    peer.answers["Check"].append(slow)
    fresh = client.check_remote(claims(), timeout=LIMIT_S)
    assert fresh.age_s is not None
    assert fresh.age_s >= 7.0


def test_the_service_is_asked_by_its_own_time_too(peer: Peer, client: RevocationClient) -> None:
    """A clock that lags revives no token, as with `check`."""
    ahead = lambda *_: pb.CheckResponse(store_ms=int(time.time() + 3600) * 1000)  # noqa: E731
    assert client.check_remote(claims(), timeout=LIMIT_S).fresh, "an older service does not tell its time"
    peer.answers["Check"].append(ahead)
    with pytest.raises(TokenExpired):
        client.check_remote(claims(), timeout=LIMIT_S)
    with pytest.raises(TokenExpired):
        client.check_remote(claims(exp=int(time.time()) - 100), timeout=LIMIT_S)
    client.wait_until_fresh(LIMIT_S)
    with pytest.raises(TokenInvalid):
        client.check_remote(claims(exp=int(time.time()) + 90_000), timeout=LIMIT_S)


def test_sessions(peer: Peer, client: RevocationClient) -> None:
    grant = client.open_session("alice", access_token_life=600, device="phone", user_agent="x")
    assert (grant.session_id, grant.version, grant.refresh_token) == ("sid-1", (4, 0, 0), "secret-1")
    assert "secret" not in repr(grant)
    assert client.refresh_session(grant.refresh_token, access_token_life=600).generation == 2
    assert [session.handle for session in client.list_sessions("alice")] == ["h0", "h1", "h2"]
    assert client.get_session("h", subject="alice").handle == "h"
    assert client.touch_session("sid-1").handle == "h"
    assert client.end_other_sessions("alice", keep="sid-1", access_token_life=600).generation == 3
    settings = client.get_client_settings("web")
    assert client.set_client_settings("web", settings) == settings
    client.wait_until_fresh(LIMIT_S)
    assert client.end_session("sid-1").stored
    with pytest.raises(TokenRevoked) as caught:
        client.check(claims(sid="sid-1"))
    assert caught.value.target == "session"


def test_the_end_of_a_session_has_its_reason(peer: Peer, client: RevocationClient) -> None:
    ended = CODE.FAILED_PRECONDITION
    peer.answers["RefreshSession"].extend(
        [
            lambda _, context: fail(context, ended, "SESSION_ENDED", session_end="idle"),
            lambda _, context: fail(context, ended, "REFRESH_REUSED"),
            lambda _, context: fail(context, CODE.INVALID_ARGUMENT, "REFRESH_INVALID"),
        ]
    )
    for kind, reason in ((SessionEnded, "idle"), (RefreshReused, "reuse"), (SessionEnded, "unknown")):
        with pytest.raises(kind) as caught:
            client.refresh_session("old", access_token_life=600)
        assert caught.value.reason == reason
    peer.answers["OpenSession"].append(lambda _, context: fail(context, CODE.RESOURCE_EXHAUSTED, "SESSION_LIMIT"))
    with pytest.raises(SessionLimit):
        client.open_session("alice", access_token_life=600)


@pytest.mark.parametrize("asked", [{"issuer": "https://staff.example"}, {"client_id": "app"}], ids=str)
def test_a_grant_of_another_issuer_or_client_is_refused(
    peer: Peer, client: RevocationClient, asked: dict[str, Any]
) -> None:
    """A service that compares nothing answered it."""
    granted = session_pb2.SessionGrant(sid="s", subject="1", client_id="web", issuer="https://consumers.example")
    peer.answers["RefreshSession"].extend([lambda *_: granted] * 2)
    with pytest.raises(SessionEnded):
        client.refresh_session("t", access_token_life=600, **asked)
    mine: dict[str, Any] = {"issuer": "https://consumers.example", "client_id": "web"}
    assert client.refresh_session("t", access_token_life=600, **mine).issuer == "https://consumers.example"
    assert client.refresh_session("t", access_token_life=600, issuer="any").issuer is None, "services of 0.1 do not say"


def test_the_service_can_be_looked_at(peer: Peer, client: RevocationClient) -> None:
    assert client.status().ack == "memory"
    assert [member.id for member in client.members()] == ["peer"]
    client.strike_member("ghost")
    assert client.get_version("alice").version == (3, 2, 1)


# Credentials


def test_tls_with_certificates_of_both_sides(tmp_path: Path) -> None:
    ca = trustme.CA()
    server, own = ca.issue_cert("localhost"), ca.issue_cert("client.example")
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    own.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    credentials = grpc.ssl_server_credentials(
        [(server.private_key_pem.bytes(), server.cert_chain_pems[0].bytes())],
        root_certificates=ca.cert_pem.bytes(),
        require_client_auth=True,
    )
    paths: dict[str, Any] = {name: str(tmp_path / f"{name}.pem") for name in ("ca", "cert", "key")}
    with Peer("localhost:0", credentials) as peer:
        with RevocationClient(peer.address, ping_interval=0.1, token=lambda: "secret", **paths) as client:
            client.wait_until_fresh(LIMIT_S)
            assert client.revoke_realm().stored
        assert peer.calls[0][2]["authorization"] == "Bearer secret"
        with RevocationClient(peer.address, ping_interval=0.1) as plain:
            heard(plain, lambda: plain._core.following.why_stale()[0] == "unavailable")


def test_a_missing_certificate_is_named(tmp_path: Path, peer: Peer) -> None:
    with RevocationClient(peer.address, ca=str(tmp_path / "none.pem")) as client:
        with pytest.raises(ConfigError, match=r"none\.pem"):
            client.revoke_realm()
        heard(client, lambda: client._core.following.why_stale()[0] == "tls")
