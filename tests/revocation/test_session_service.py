"""The session service on real replicas and a real store: one chain, theft, limits, ends, and nothing in the clear."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from revocation.errors import InvalidField, Overloaded, ServiceError, SessionOver
from revocation.model import Target
from revocation.session.desk import Grant, Owner
from revocation.session.machine import TOUCH_MS, Device
from revocation.session.policy import SessionSettings, of_realm
from revocation.session.refresh import make_sid, make_token
from revocation_sdk._judge import Facts
from revocation_sdk._lattice import Kind, parse_groups
from tests.revocation.session_nodes import ISSUER, Caller, Nodes, new_op_id, running

GRACE_S = 10


@pytest.fixture
async def nodes(redis_url: str) -> AsyncIterator[Nodes]:
    async with running(redis_url, count=2) as nodes:
        yield nodes


async def ended(awaitable: Any) -> str:
    """How the session that was asked for has ended."""
    with pytest.raises(SessionOver) as caught:
        await awaitable
    return caught.value.why


async def refused(awaitable: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await awaitable
    return caught.value


def settings(**changed: Any) -> SessionSettings:
    given: dict[str, Any] = {
        "absolute_timeout_s": 3_600,
        "idle_timeout_s": 600,
        "grace_ms": 10_000,
        "max_sessions_per_subject": 0,
    }
    given |= {"max_sessions_per_subject_and_client": 0, "evict_oldest": False} | changed
    return SessionSettings(**given)


# -- one chain -------------------------------------------------------------------------------------------------


async def test_a_retry_gets_the_same_successor_from_every_replica(nodes: Nodes) -> None:
    first = await nodes.caller(0).open()
    answers = await asyncio.gather(*(nodes.caller(n % 2).refresh(first) for n in range(100)))
    assert len({answer.refresh_token for answer in answers}) == 1
    assert {answer.generation for answer in answers} == {2}
    assert (await nodes.caller(1).refresh(answers[0])).generation == 3


async def test_answers_of_one_generation_are_capped_and_end_nothing(nodes: Nodes) -> None:
    first = await nodes.caller().open()
    second = await nodes.caller().refresh(first)
    for _ in range(100):
        await nodes.caller().refresh(first)
    error = await refused(nodes.caller().refresh(first))
    assert isinstance(error, Overloaded)
    assert (await nodes.caller().refresh(second)).generation == 3


async def test_a_replay_after_the_window_ends_the_session_everywhere(nodes: Nodes) -> None:
    first = await nodes.caller(0).open()
    second = await nodes.caller(0).refresh(first)
    await nodes.advance(GRACE_S)
    error = await refused(nodes.caller(1).refresh(first))
    assert isinstance(error, SessionOver)
    assert (error.reason, error.why) == ("REFRESH_REUSED", "reuse")
    assert await ended(nodes.caller(0).refresh(second)) == "reuse"
    assert nodes.verdict(second, 1) is not None, "the access tokens died with it"
    assert await nodes.caller(0).list() == []


async def test_the_grandparent_is_theft_inside_the_window(nodes: Nodes) -> None:
    first = await nodes.caller().open()
    await nodes.caller().refresh(await nodes.caller().refresh(first))
    assert (await refused(nodes.caller().refresh(first))).reason == "REFRESH_REUSED"


async def test_theft_is_told_with_fingerprints_only(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        "revocation.session.desk.audit",
        type("Audit", (), {
            level: staticmethod(lambda event, **facts: lines.append((event, facts)))
            for level in ("debug", "info", "warning")
        }),
    )  # fmt: skip
    first = await nodes.caller().open()
    await nodes.caller().refresh(await nodes.caller().refresh(first))
    handle = (await nodes.caller().list())[0].handle
    await refused(nodes.caller().refresh(first, address="203.0.113.9"))
    event, facts = lines[-1]
    assert event == "refresh_reused"
    assert (facts["session"], facts["generation"], facts["replayed"]) == (handle, 3, 1)
    assert facts["address"] == "203.0.113.9"
    assert facts["subject_fp"]
    for identifier in ("alice", first.sid, first.refresh_token, "web"):
        assert identifier not in str(lines)


async def test_no_interleaving_forks_a_session(nodes: Nodes) -> None:
    """Two tabs on two replicas, each taking the newest token that it has seen, over and over."""
    newest = [await nodes.caller().open()]
    seen: dict[int, set[str]] = {}
    ends: list[str] = []

    async def tab(number: int) -> None:
        for _ in range(40):
            mine = newest[-1]
            try:
                grant = await nodes.caller(number % 2).refresh(mine)
            except SessionOver as error:
                # The other tab went two generations on while this call was under way: by the rules, theft.
                ends.append(error.why)
                return
            seen.setdefault(grant.generation, set()).add(grant.refresh_token)
            if grant.generation > newest[-1].generation:
                newest.append(grant)

    await asyncio.gather(*(tab(n) for n in range(2)))
    assert all(len(tokens) == 1 for tokens in seen.values()), "a fork"
    assert set(ends) <= {"reuse"}


async def test_a_lost_opening_is_answered_by_the_same_session(nodes: Nodes) -> None:
    op_id = new_op_id()
    answers = await asyncio.gather(*(nodes.caller(n % 2).open(op_id=op_id) for n in range(20)))
    assert len({(answer.sid, answer.refresh_token) for answer in answers}) == 1
    assert len(await nodes.caller().list()) == 1
    error = await refused(nodes.caller().open("mallory", op_id=op_id))
    assert error.reason == "OP_ID_REUSED"
    await nodes.caller().end(answers[0].sid)
    assert await ended(nodes.caller().open(op_id=op_id)) == "logout"


# -- refused before the store ----------------------------------------------------------------------------------


async def test_garbage_costs_no_round_trip(nodes: Nodes) -> None:
    good = await nodes.caller().open()
    parts = good.refresh_token.split(".")
    wrong_key = make_token(good.sid, 1, "k1", "default", b"x" * 32, b"y" * 32)
    wrong_realm = (await Caller(nodes.nodes[0], "other").open()).refresh_token
    garbage = ["", "x", "A" * 1_000_000, good.refresh_token[:-1], good.refresh_token + "A", wrong_key, wrong_realm]
    garbage += [".".join([*parts[:-1], parts[-2]]), good.refresh_token.replace("k1.", "k7.", 1), good.sid, "é" * 100]
    before = (await nodes.raw.info("commandstats"))["cmdstat_evalsha"]["calls"]
    nodes.stores[0].arm(0)
    for token in garbage:
        error = await refused(nodes.caller().refresh(token))
        assert isinstance(error, InvalidField)
        assert (error.reason, error.field, error.message) == (
            "REFRESH_INVALID", "refresh_token", "refresh_token: is not a refresh token of this realm",
        )  # fmt: skip
    assert nodes.stores[0].arrived is not None
    assert not nodes.stores[0].arrived.is_set(), "somebody asked the store"
    assert before
    nodes.stores[0].arm(-1)


@pytest.mark.parametrize(
    "stranger", [{"issuer": "https://staff.example"}, {"client_id": "app"}, {"client_id": ""}], ids=str
)
async def test_a_refresh_token_is_worth_nothing_to_another_issuer_or_client(
    nodes: Nodes, stranger: dict[str, str]
) -> None:
    """Nothing is rotated and nobody is accused of theft, whichever generation is asked for."""
    first = await nodes.caller().open(client_id="web")
    newest = await nodes.caller().refresh(await nodes.caller().refresh(first, client_id="web"))
    assert newest.issuer == ISSUER
    for grant in (newest, first):
        error = await refused(nodes.caller(1).refresh(grant, **stranger))
        assert (error.reason, error.message) == (
            "REFRESH_INVALID", "refresh_token: is not a refresh token of this realm",
        )  # fmt: skip
    await nodes.advance(GRACE_S)
    assert (await nodes.caller().refresh(newest, client_id="web")).generation == 4
    assert (await refused(nodes.caller().refresh(first, client_id="web"))).reason == "REFRESH_REUSED"


async def test_who_does_not_say_who_it_is_is_answered(nodes: Nodes) -> None:
    """As services of 0.1 answered; a session without an issuer is no other issuer's either."""
    grant = await nodes.caller().refresh(await nodes.caller().open(), issuer=None)
    assert grant.generation == 2
    nobodys = await nodes.caller().open(client_id="", issuer=None)
    assert (await refused(nodes.caller().refresh(nobodys))).reason == "REFRESH_INVALID"
    assert (await nodes.caller().refresh(nobodys, issuer=None, client_id="")).generation == 2


async def test_a_token_made_with_the_server_key_alone_is_refused_and_told(nodes: Nodes) -> None:
    good = await nodes.caller().open()
    keys = nodes.nodes[0].sessions._keys["default"]
    forged = make_token(good.sid, 1, "k1", "default", keys.signing_key("k1"), b"guess" * 8)
    assert (await refused(nodes.caller().refresh(forged))).reason == "REFRESH_INVALID"
    never = make_token(make_sid(0, bytes(16)), 1, "k1", "default", keys.signing_key("k1"), b"guess" * 8)
    assert await ended(nodes.caller().refresh(never)) == "unknown"
    assert (await nodes.caller().refresh(good)).generation == 2


# -- time ------------------------------------------------------------------------------------------------------


async def test_idle_and_absolute_timeouts(nodes: Nodes) -> None:
    idle, busy = await nodes.caller().open(), await nodes.caller().open()
    for _ in range(12):
        await nodes.advance(7_100)
        busy = await nodes.caller().refresh(busy)
        assert busy.expires_at <= busy.session_expires_at
    assert await ended(nodes.caller().refresh(idle)) in {"idle", "unknown"}, "its record may have gone by now"
    await nodes.advance(1_200)
    assert await ended(nodes.caller().refresh(busy)) == "absolute"
    assert await nodes.caller().list() == []


async def test_the_end_by_idleness_has_a_name_for_a_while(nodes: Nodes) -> None:
    grant = await nodes.caller().open()
    await nodes.advance(7_200)
    assert await ended(nodes.caller().refresh(grant)) == "idle"
    assert await ended(nodes.caller().touch(grant.sid)) == "idle"


async def test_a_lowered_limit_brings_no_ended_session_back(redis_url: str) -> None:
    """Access tokens that were minted before it live longer than their session now does."""
    async with running(redis_url) as nodes:
        login, stolen = await nodes.caller().open(), await nodes.caller().open("bob")
        await nodes.caller().refresh(await nodes.caller().refresh(stolen))
    async with running(redis_url, realm={"absolute_timeout_s": 60, "idle_timeout_s": 0}) as nodes:
        await nodes.caller().end(login.sid)
        assert (await refused(nodes.caller().refresh(stolen))).reason == "REFRESH_REUSED"
        await nodes.advance(400)
        while nodes.nodes[0].store_ms() < (login.issued_at + 400) * 1000:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert nodes.nodes[0].store_ms() < login.expires_at * 1000
        assert nodes.verdict(login) is not None
        assert nodes.verdict(stolen) is not None


async def test_a_touch_keeps_a_session_and_is_mostly_read_only(nodes: Nodes) -> None:
    grant = await nodes.caller().open()
    key = next(iter([key async for key in nodes.raw.scan_iter("*:ses:*")]))
    before = await nodes.raw.get(key)
    for _ in range(20):
        await nodes.caller().touch(grant.sid)
    assert await nodes.raw.get(key) == before
    await nodes.advance(TOUCH_MS / 1000)
    await nodes.caller().touch(grant.sid)
    assert await nodes.raw.get(key) != before
    await nodes.advance(7_190)
    assert (await nodes.caller().refresh(grant)).generation == 2


# -- limits and settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("overflow", ["deny", "evict_oldest"])
async def test_a_limit_under_100_concurrent_logins_on_two_replicas(redis_url: str, overflow: str) -> None:
    async with running(redis_url, count=2, realm={"max_sessions_per_subject": 5, "overflow": overflow}) as nodes:
        logins = (nodes.caller(n % 2).open() for n in range(100))
        grants = await asyncio.gather(*logins, return_exceptions=True)
        opened = [grant for grant in grants if isinstance(grant, Grant)]
        denied = [error.reason for error in grants if isinstance(error, ServiceError)]
        assert (len(opened), denied) == ((5, ["SESSION_LIMIT"] * 95) if overflow == "deny" else (100, []))
        assert len(await nodes.caller().list()) == 5
        outcomes = await asyncio.gather(*(nodes.caller().refresh(grant) for grant in opened), return_exceptions=True)
        lived = [grant for grant in outcomes if isinstance(grant, Grant)]
        assert len(lived) == 5
        assert {error.why for error in outcomes if isinstance(error, SessionOver)} <= {"limit"}
        assert sum(nodes.verdict(grant) is None for grant in opened) == 5, "evicted sessions' tokens are dead"


async def test_sessions_that_a_cutoff_ended_make_room(redis_url: str) -> None:
    async with running(redis_url, realm={"max_sessions_per_subject": 2}) as nodes:
        caller = nodes.caller()
        for kind, value in ((Kind.SUBJECT, "alice"), (Kind.CLIENT, "web"), (Kind.REALM, "")):
            await caller.open(), await caller.open()
            assert (await refused(caller.open())).reason == "SESSION_LIMIT"
            await caller.revoke(kind, value)
        doomed = await caller.open()
        await caller.open()
        await caller.revoke(Kind.SESSION, doomed.sid, None)
        await caller.open()
        assert len(await caller.list()) == 2


async def test_clients_have_settings_of_their_own_within_those_of_the_realm(nodes: Nodes) -> None:
    caller = nodes.caller()
    cap = of_realm(nodes.nodes[0].realms["default"].settings)
    assert await caller.sessions.client_settings("default", "web", caller.deadline) == cap
    wanted = settings(absolute_timeout_s=900, idle_timeout_s=300, max_sessions_per_subject_and_client=1)
    await caller.sessions.set_client_settings("default", "web", wanted, caller.deadline)
    grant = await caller.open()
    assert grant.session_expires_at - grant.issued_at <= 900
    assert (await refused(caller.open())).reason == "SESSION_LIMIT"
    await caller.open(client_id="app")
    too_much = settings(absolute_timeout_s=10**6)
    error = await refused(caller.sessions.set_client_settings("default", "web", too_much, caller.deadline))
    assert isinstance(error, InvalidField)
    assert error.field == "settings.absolute_timeout_s"
    no_idle = settings(idle_timeout_s=0)
    error = await refused(caller.sessions.set_client_settings("default", "web", no_idle, caller.deadline))
    assert isinstance(error, InvalidField)
    assert error.field == "settings.idle_timeout_s"


# -- ends ------------------------------------------------------------------------------------------------------


async def test_all_others_end_and_the_kept_one_goes_on(nodes: Nodes) -> None:
    keep, others = await nodes.caller().open(), [await nodes.caller(1).open() for _ in range(3)]
    op_id = new_op_id()
    kept = await nodes.caller().end_others(keep, op_id)
    assert kept.versions[0] > keep.versions[0]
    assert nodes.verdict(kept) is None
    assert [nodes.verdict(grant) is None for grant in (keep, *others)] == [False] * 4
    assert [await ended(nodes.caller().refresh(other)) for other in others] == ["subject"] * 3
    assert [shown.current for shown in await nodes.caller().list(current=keep.sid)] == [True]
    again = await nodes.caller(1).end_others(keep, op_id)
    assert (again.refresh_token, again.versions, again.rows) == (kept.refresh_token, kept.versions, kept.rows)
    assert (await nodes.caller(1).refresh(kept)).versions == kept.versions
    stranger = await nodes.caller().open("bob")
    error = await refused(
        nodes.caller().sessions.end_others(
            nodes.caller().operation("x"), nodes.caller().owner("alice"), stranger.sid, 600, nodes.caller().deadline
        )
    )
    assert isinstance(error, InvalidField)
    assert error.field == "keep"


async def test_ending_is_idempotent_by_sid_and_by_handle(nodes: Nodes) -> None:
    caller = nodes.caller()
    for by_handle in (False, True):
        grant = await caller.open()
        handle = (await caller.list())[0].handle
        name, subject = (handle, "alice") if by_handle else (grant.sid, "")
        op_id = new_op_id()
        receipts = [await nodes.caller(n % 2).end(name, subject, op_id) for n in range(3)]
        assert all(receipt.stored for receipt in receipts)
        kinds = [group.kind for group in parse_groups(receipts[0].rows)]
        assert kinds == [Kind.SESSION]
        assert await ended(caller.refresh(grant)) == "logout"
        assert nodes.verdict(grant) is not None
    assert await ended(caller.end(handle, "alice")) == "unknown"
    assert await ended(caller.end(handle, "bob")) == "unknown"
    assert (await caller.end("foreign-sid")).stored
    assert (await caller.end(grant.sid)).stored, "its tokens are revoked once more"


async def test_a_handle_does_not_end_another_subjects_session(nodes: Nodes) -> None:
    grant = await nodes.caller().open("alice")
    handle = (await nodes.caller().list("alice"))[0].handle
    assert await ended(nodes.caller().end(handle, "mallory")) == "unknown"
    assert await ended(nodes.caller().sessions.get(nodes.caller().owner("mallory"), handle, nodes.caller().deadline))
    assert (await nodes.caller().refresh(grant)).generation == 2


async def test_a_handle_alone_names_nothing(nodes: Nodes) -> None:
    """It is refused, and not taken for the sid of somebody else, whose end would be reported as done."""
    caller, grant = nodes.caller(), await nodes.caller().open()
    handle = (await caller.list())[0].handle
    for attempt in (caller.end(handle), caller.sessions.get(caller.owner(""), handle, caller.deadline)):
        error = await refused(attempt)
        assert isinstance(error, InvalidField)
        assert (error.field, handle in error.message) == ("subject", False)
    assert (await caller.end(handle[:-1])).stored, "one character less is the sid of another issuer"
    assert (await caller.refresh(grant)).generation == 2


@pytest.mark.parametrize("mallory", [("mallory", ISSUER), ("alice", "https://other.example")])
async def test_a_subject_that_is_given_must_be_the_sessions(nodes: Nodes, mallory: tuple[str, str]) -> None:
    caller, grant = nodes.caller(), await nodes.caller().open("alice")
    subject, issuer = mallory
    assert await ended(caller.end(grant.sid, subject, issuer=issuer)) == "unknown"
    assert await ended(caller.sessions.get(Owner("default", issuer, subject), grant.sid, caller.deadline)) == "unknown"
    assert nodes.verdict(grant) is None
    assert (await caller.refresh(grant)).generation == 2
    op_id = new_op_id()
    assert (await caller.end(grant.sid, "alice", op_id)).stored
    assert (await caller.end(grant.sid, "alice", op_id)).stored
    assert (await caller.end(grant.sid, "alice")).stored, "once more"
    assert await ended(caller.refresh(grant)) == "logout"


@pytest.mark.parametrize("subject", ["", "alice"])
async def test_a_session_whose_record_the_store_lost_has_its_tokens_revoked(nodes: Nodes, subject: str) -> None:
    caller, sid = nodes.caller(), make_sid(0, bytes(16))
    assert (await caller.end(sid, subject)).stored
    facts = Facts(issuer=ISSUER, token_id="jti", sid=sid, subject="alice")
    revoked, *_ = await caller.node.service.check("default", facts, (), caller.deadline)
    assert revoked is not None


async def test_without_an_issuer_the_sessions_of_all_issuers_are_meant(nodes: Nodes) -> None:
    """Of those that the replica has met; two issuers may both have a subject "1"."""
    caller, none = nodes.caller(), Owner("default", None, "1")
    grants = [await caller.open("1", issuer=issuer) for issuer in (ISSUER, "https://other.example", None)]
    shown, _ = await caller.sessions.page(none, "", 0, "", caller.deadline)
    assert {one.session.issuer for one in shown} == {ISSUER, "https://other.example", None}
    assert [one.session.issuer for one in await caller.list("1")] == [ISSUER]
    for one in shown:
        assert (await caller.sessions.get(none, one.handle, caller.deadline)).session == one.session
        assert (await caller.end(one.handle, "1", issuer=None)).stored
    assert [await ended(caller.refresh(grant, issuer=None)) for grant in grants] == ["logout"] * 3
    assert await caller.list("1") == []
    error = await refused(caller.end(shown[0].handle, "1", issuer=None))
    assert "--issuer" in error.message


async def test_lists_are_paged_newest_first_and_name_no_sid(nodes: Nodes) -> None:
    caller = nodes.caller()
    grants = []
    for n in range(7):
        grants.append(await caller.open(device=Device(f"device {n}", "192.0.2.1", "browser")))
        await nodes.advance(1)
    shown = await caller.list(current=grants[3].sid)
    assert [one.session.device.label for one in shown] == [f"device {n}" for n in reversed(range(7))]
    assert [one.current for one in shown] == [n == 3 for n in range(7)]
    assert all(grant.sid not in str(shown) for grant in grants)
    await caller.end(shown[1].handle, "alice")
    labels, token = [], ""
    while True:
        page, token = await caller.sessions.page(caller.owner("alice"), "", 2, token, caller.deadline)
        labels += [one.session.device.label for one in page]
        if not token:
            break
    assert labels == [f"device {n}" for n in (6, 4, 3, 2, 1, 0)]
    assert isinstance(
        await refused(caller.sessions.page(caller.owner("a"), "", 2, "x!", caller.deadline)), InvalidField
    )
    assert await caller.list("bob") == []


# -- keys, partitions, realms, and what the store sees ---------------------------------------------------------


async def test_a_new_master_secret_logs_nobody_out(redis_url: str) -> None:
    old, new = "k1:" + "A" * 43, "k2:" + "B" * 43
    async with running(redis_url, secrets=[old]) as nodes:
        grant = await nodes.caller().open()
        spent = await nodes.caller().open()
        await nodes.caller().refresh(spent)
        handle = (await nodes.caller().list())[0].handle
    async with running(redis_url, secrets=[f"{new},{old}"], realm={"max_sessions_per_subject": 3}) as nodes:
        caller = nodes.caller()
        moved = await caller.refresh(grant)
        assert moved.refresh_token.startswith("k2.")
        assert (await caller.refresh(grant)).refresh_token == moved.refresh_token
        assert handle in {shown.handle for shown in await caller.list()}
        young = await caller.open()
        assert (await refused(caller.open())).reason == "SESSION_LIMIT", "sessions under both keys count"
        await caller.revoke(Kind.SESSION, moved.sid, None)
        assert nodes.verdict(moved) is not None
        assert await ended(caller.refresh(moved)) == "logout"
        await nodes.advance(GRACE_S)
        assert (await refused(caller.refresh(spent))).reason == "REFRESH_REUSED"
        await caller.revoke(Kind.SUBJECT, "alice")
        assert await ended(caller.refresh(young)) == "subject"


async def test_sessions_of_several_partitions(redis_url: str) -> None:
    async with running(redis_url, count=2, partitions=4) as nodes:
        grants = [await nodes.caller(n % 2).open(f"user {n}") for n in range(24)]
        assert len({grant.sid[:4] for grant in grants}) > 1
        grants = [await nodes.caller((n + 1) % 2).refresh(grant) for n, grant in enumerate(grants)]
        await nodes.caller(0).revoke(Kind.SESSION, grants[0].sid, ISSUER)
        await nodes.caller(0).revoke(Kind.SUBJECT, "user 1")
        assert await ended(nodes.caller(1).refresh(grants[0])) == "logout"
        assert await ended(nodes.caller(1).refresh(grants[1])) == "subject"
        kept = await nodes.caller(1).end_others(grants[2])
        await nodes.caller(1).refresh(kept)
        await nodes.caller(0).revoke(Kind.CLIENT, "web")
        assert {await ended(nodes.caller(1).refresh(grant)) for grant in grants[3:12]} == {"client"}
        await nodes.caller(0).open("user 3", "app")
        await nodes.caller(0).revoke(Kind.REALM, "")
        assert await nodes.caller(1).list("user 3") == []


async def test_realms_share_nothing(nodes: Nodes) -> None:
    here, there = nodes.caller(), Caller(nodes.nodes[0], "other")
    grant, other = await here.open(), await there.open()
    assert (await refused(there.refresh(grant))).reason == "REFRESH_INVALID"
    assert await ended(there.touch(grant.sid)) == "unknown"
    assert [shown.handle for shown in await there.list()] != [shown.handle for shown in await here.list()]
    await here.revoke(Kind.REALM, "")
    assert await ended(here.refresh(grant)) == "realm"
    assert (await there.refresh(other)).generation == 2


async def test_the_store_holds_nothing_in_the_clear_and_nothing_to_replay(nodes: Nodes) -> None:
    caller = nodes.caller()
    device = Device("Carol's telephone", "198.51.100.23", "Mozilla/5.0 (Secretive)")
    grant = await caller.open("carol@example.org", "shop-frontend", device=device)
    second = await caller.refresh(grant)
    await caller.open("carol@example.org", "shop-frontend", device=device)
    await caller.end_others(second)
    wanted = settings(max_sessions_per_subject_and_client=4)
    await caller.sessions.set_client_settings("default", "shop-frontend", wanted, caller.deadline)
    dump = b""
    async for key in nodes.raw.scan_iter("*", count=1000):
        kind = str(await nodes.raw.type(key), "ascii")  # type: ignore[arg-type]
        read: dict[str, Any] = {
            "string": nodes.raw.get, "hash": nodes.raw.hgetall,
            "zset": lambda key: nodes.raw.zrange(key, 0, -1), "stream": nodes.raw.xrange,
        }  # fmt: skip
        content = await read[kind](key)
        dump += key + b"\n" + (content if isinstance(content, bytes) else repr(content).encode()) + b"\n"
    secrets = [grant.sid, grant.sid.split(".")[1], grant.refresh_token, second.refresh_token, ISSUER]
    secrets += [*grant.refresh_token.split(".")[-2:], "carol", "example.org", "shop-frontend", device.label]
    secrets += [device.address, "Mozilla", "Secretive"]
    for secret in secrets:
        assert secret.encode() not in dump
    random = base64.urlsafe_b64decode(grant.sid.split(".")[1] + "==")
    assert random not in dump
    assert repr(random)[2:-1].encode() not in dump
    assert random.hex().encode() not in dump


async def test_a_cutoff_drawn_while_the_secret_is_rotated_is_above_those_of_the_partition_before(
    redis_url: str,
) -> None:
    """Another partition is another clock, which may be behind: a token of the last login would live on (I1)."""
    old, new = "k1:" + "A" * 43, "k2:" + "B" * 43
    async with running(redis_url, count=2, partitions=3, secrets=(f"{old} {new}", f"{new} {old}")) as nodes:
        before, after = nodes.caller(0), nodes.caller(1)
        places = [
            {name: caller.node.service.partition_of(caller.node.realms["default"], Target(Kind.SUBJECT, ISSUER, name))
             for name in map(str, range(50))}
            for caller in (before, after)
        ]  # fmt: skip
        moved = [name for name in places[0] if places[0][name] != places[1][name]][:6]
        assert len(moved) == 6
        ahead = time.time_ns() // 1_000_000 + 60_000
        for partition in {places[0][name] for name in moved}:
            await nodes.raw.hset(f"revocation:{{p{partition}}}:meta", "clock", ahead)
        for number, name in enumerate(moved):
            await before.revoke(Kind.SUBJECT, name)
            login = await before.open(name)
            assert login.versions[0] > ahead
            if number % 2:
                await after.revoke(Kind.SUBJECT, name)
                spared = None
            else:
                spared = await after.end_others(await after.open(name))
            revoked = nodes.verdict(login, 1)
            assert revoked is not None, name
            assert spared is None or nodes.verdict(spared, 1) is None
            with pytest.raises(SessionOver):
                await after.refresh(login)
