"""The audit from end to end: every kind of change is in it, and whoever meddles with it in the store is found out."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis

from revocation.cli import main
from revocation_sdk import RefreshReused, RevocationClient
from revocation_sdk._audit import line_points
from revocation_sdk.audit import Action, AuditPoint, Fault, points_text, read, verify
from tests.e2e.installation import Installation, Replica
from tests.e2e.processes import LIMIT_S, until

pytestmark = pytest.mark.e2e

STREAM, HEADS, ANCHORS = (f"revocation:{{p0}}:{name}" for name in ("audit:default", "audits", "audit_anchors"))
ZERO = "0" * 40


@dataclass
class Audited:
    """A service on a store that the test can reach, and a client of it."""

    installation: Installation
    replica: Replica
    client: RevocationClient
    raw: redis.Redis

    def revoke(self, count: int = 3, first: int = 0) -> None:
        for number in range(first, first + count):
            self.client.revoke_subject(f"user-{number}", reason="stolen")

    def entries(self) -> list[tuple[int, dict[bytes, bytes]]]:
        """What the stream holds, by number."""
        found: Any = self.raw.xrange(STREAM)
        return [(int(name.split(b"-")[0]), fields) for name, fields in found]

    def rewrite(self, entries: list[tuple[int, dict[bytes, bytes]]], anchor: str = ZERO) -> None:
        """Replaces the stream by these entries, with digests that fit and a head that fits."""
        from revocation_sdk._audit import chain_digest

        self.raw.delete(STREAM)
        digest = anchor
        for number, fields in entries:
            time_ms, seq, extra = int(fields[b"t"]), int(fields[b"s"]), fields[b"x"].decode()
            digest = chain_digest(digest, number, time_ms, seq, extra, fields[b"b"])
            self.raw.xadd(STREAM, fields | {b"d": digest.encode()}, id=f"{number}-0")  # type: ignore[arg-type]
        self.raw.hset(HEADS, "default", f"{entries[-1][0]} {digest}")

    def logged(self, count: int) -> None:
        """Waits until the log vouches for so many entries: it is written behind the answers."""

        def told() -> int:
            return sum(1 for line in self.log_lines() for _ in line_points(line))

        until(lambda: told() >= count, f"the log vouches for {count} entries")

    def log(self, tmp_path: Path) -> Path:
        """The service's log in a file, as `--log` takes it."""
        path = tmp_path / "service.log"
        path.write_text(self.replica.log())
        return path

    def log_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.replica.log().splitlines() if line.startswith("{")]

    def faults(self, *, with_log: bool = False) -> set[Fault]:
        """What a check finds."""
        report = verify(self.client, self.log_lines() if with_log else ())
        assert report.failed() == bool(report.findings)
        return {finding.fault for finding in report.findings}


@pytest.fixture
def audited(installation: Installation) -> Iterator[Audited]:
    store = installation.store()
    (replica,) = installation.add_replicas(1, store.url)
    with redis.Redis.from_url(store.url) as raw:
        yield Audited(installation, replica, installation.client(), raw)


def run(capsys: pytest.CaptureFixture[str], address: str, *words: str) -> tuple[int, Any]:
    capsys.readouterr()
    code = main([*words, "--address", address, "--json"])
    return code, json.loads(capsys.readouterr().out)


def change_everything(client: RevocationClient) -> list[tuple[str, int, str]]:
    """One change of every kind; returns what must be recorded of them: action, kind, target."""
    soon = time.time() + 600
    client.revoke_token(jti="planted-jti", expires_at=soon, reason="planted-reason")
    client.revoke_tokens([(f"batch-{number}", soon) for number in range(1_200)], issuer="https://planted.example")
    client.revoke_subject("planted-subject")
    client.revoke_client("planted-client")
    client.revoke_key("planted-kid")
    client.revoke_realm()
    grants = [client.open_session("planted-user", access_token_life=300) for _ in range(3)]
    client.revoke_session(grants[0].session_id)
    client.end_session(grants[1].session_id, reason="planted-logout")
    client.end_other_sessions("planted-user", keep=grants[2].session_id, access_token_life=300)
    return [
        ("REVOKED", 1, "planted-jti"), *[("REVOKED", 1, "")] * 3, ("REVOKED", 64, "planted-subject"),
        ("REVOKED", 65, "planted-client"), ("REVOKED", 3, "kid:planted-kid"), ("REVOKED", 66, ""),
        ("REVOKED", 2, grants[0].session_id), ("SESSION_ENDED", 2, grants[1].session_id),
        ("OTHERS_ENDED", 64, "planted-user"),
    ]  # fmt: skip


def end_in_passing(client: RevocationClient) -> list[tuple[str, int, str]]:
    """Changes that nobody asked for by name: a replay, and sessions that make room."""
    replayed = client.open_session("planted-thief", access_token_life=300)
    newest = client.refresh_session(replayed.refresh_token, access_token_life=300)
    client.refresh_session(newest.refresh_token, access_token_life=300)
    with pytest.raises(RefreshReused):
        client.refresh_session(replayed.refresh_token, access_token_life=300)
    settings = replace(client.get_client_settings("planted-app"), max_sessions_per_subject=1, evict_oldest=True)
    client.set_client_settings("planted-app", settings)
    for _ in range(2):
        client.open_session("planted-crowd", client_id="planted-app", access_token_life=300)
    return [
        ("REFRESH_REUSED", 2, replayed.session_id), ("CLIENT_SETTINGS", 65, "planted-app"),
        ("SESSIONS_EVICTED", 64, "planted-crowd"),
    ]  # fmt: skip


def test_every_change_leaves_a_record_and_no_identifier_in_store_or_log(audited: Audited) -> None:
    client = audited.client
    wanted = change_everything(client) + end_in_passing(client)
    entries = list(read(client))
    records = [record for entry in entries for record in entry.records]
    assert [(Action(record.action).name, record.kind, record.value) for record in records] == wanted
    assert {(record.actor, record.role) for record in records} == {("anonymous", "admin")}
    assert all(record.request_id for record in records)
    assert records[0].reason == "planted-reason"
    batch = [record for record in records if record.issuer == "https://planted.example"]
    assert [(record.asked, record.stored, record.part, record.parts) for record in batch] == [
        (1200, 500, 1, 3), (1200, 500, 2, 3), (1200, 200, 3, 3)
    ]  # fmt: skip
    assert entries[-1].extra == "1", "so many were evicted"
    audited.logged(len(wanted))
    report = verify(client, audited.log_lines())
    assert (report.findings, report.lines) == ((), len(wanted)), "each entry has a line that vouches for it"
    keys: Any = audited.raw.keys("*audit*")
    assert b"planted" not in b"".join(audited.raw.dump(key) or b"" for key in keys)
    assert "planted" not in json.dumps([line for line in audited.log_lines() if line.get("audit")])


def test_a_repeated_operation_has_one_record(audited: Audited) -> None:
    receipt = audited.client.revoke_subject("alice")
    audited.client.revoke_subject("alice", op_id=receipt.op_id)
    assert [record.value for entry in read(audited.client) for record in entry.records] == ["alice"]
    assert audited.faults(with_log=True) == set()


def test_one_follows_and_goes_on_where_one_was(audited: Audited) -> None:
    audited.revoke(2)
    seen = list(read(audited.client))
    audited.revoke(2, first=2)
    rest = list(read(audited.client, after={0: seen[-1].point}))
    assert [entry.number for entry in (*seen, *rest)] == [1, 2, 3, 4]
    following = read(audited.client, after={0: rest[-1].point}, follow=True)
    audited.revoke(1, first=4)
    assert next(following).records[0].value == "user-4"
    unknown = list(read(audited.client, after={0: AuditPoint(2, "ab" * 20)}))
    assert [entry.number for entry in unknown] == [1, 2, 3, 4, 5], "another past: from the beginning"


Tamper = Callable[[Audited], None]


def _delete(audited: Audited) -> None:
    audited.raw.xdel(STREAM, "2-0")


def _altered(audited: Audited, change: Callable[[dict[bytes, bytes]], dict[bytes, bytes]]) -> None:
    """The second entry otherwise, everything else as it was, digests too."""
    entries = audited.entries()
    audited.raw.delete(STREAM)
    for number, fields in entries:
        kept = change(fields) if number == 2 else fields
        audited.raw.xadd(STREAM, kept, id=f"{number}-0")  # type: ignore[arg-type]


def _flip(sealed: bytes) -> bytes:
    return sealed[:-1] + bytes((sealed[-1] ^ 1,))


def _truncate(audited: Audited) -> None:
    audited.raw.xdel(STREAM, "3-0")


def _truncate_with_head(audited: Audited) -> None:
    audited.rewrite(audited.entries()[:-1])


def _insert(audited: Audited) -> None:
    """A copy of an authentic entry once more, the numbers behind it shifted, all digests right."""
    one, two, three = (fields for _, fields in audited.entries())
    audited.rewrite([(1, one), (2, two), (3, two), (4, three)])


def _drop_and_renumber(audited: Audited) -> None:
    one, _, three = (fields for _, fields in audited.entries())
    audited.rewrite([(1, one), (2, three)])


def _swap(audited: Audited) -> None:
    one, two, three = (fields for _, fields in audited.entries())
    audited.rewrite([(1, two), (2, one), (3, three)])


def _claim_trimmed(audited: Audited) -> None:
    """As if the first two had been dropped for their age, the third being right behind them."""
    third = audited.entries()[2][1]
    audited.raw.hset(ANCHORS, "default", f"2 {'ef' * 20}")
    audited.rewrite([(3, third)], "ef" * 20)


def _rewrite_times(audited: Audited) -> None:
    audited.rewrite([(number, fields | {b"t": b"1700000000000"}) for number, fields in audited.entries()])


_FORGED = {Fault.FORGED, Fault.ALTERED}
TAMPERED: list[tuple[str, Tamper, set[Fault], set[Fault]]] = [
    ("deleted", _delete, {Fault.REMOVED}, set()),
    ("time altered", lambda a: _altered(a, lambda f: f | {b"t": b"1"}), {Fault.ALTERED}, set()),
    (
        "content altered",
        lambda a: _altered(a, lambda f: f | {b"b": _flip(f[b"b"])}),
        {Fault.FORGED, Fault.ALTERED},
        set(),
    ),
    ("made up", lambda a: _altered(a, lambda f: f | {b"b": b"\x01\x02k1" + bytes(60)}), {Fault.FORGED}, set()),
    ("cut off", _truncate, {Fault.TRUNCATED}, set()),
    ("inserted, rewritten", _insert, {Fault.COPIED}, {Fault.REWRITTEN}),
    ("dropped, rewritten", _drop_and_renumber, {Fault.REWRITTEN}, set()),
    ("swapped, rewritten", _swap, {Fault.REWRITTEN}, set()),
    ("dropped as if old", _claim_trimmed, {Fault.REWRITTEN}, set()),
    ("times rewritten", _rewrite_times, {Fault.REWRITTEN}, set()),
    ("cut off, rewritten", _truncate_with_head, set(), {Fault.TRUNCATED}),
]
"""What somebody does who can write to the store; what a check finds by itself, and what it needs the log for."""


@pytest.mark.parametrize(("tamper", "alone", "by_log"), [case[1:] for case in TAMPERED], ids=[c[0] for c in TAMPERED])
def test_who_meddles_in_the_store_is_found_out(
    audited: Audited, tamper: Tamper, alone: set[Fault], by_log: set[Fault]
) -> None:
    audited.revoke(3)
    audited.logged(3)
    assert audited.faults(with_log=True) == set()
    tamper(audited)
    found = audited.faults()
    assert alone <= found
    assert bool(found) == bool(alone) or Fault.TRUNCATED in found, "the replica may have noticed before we did"
    assert alone | by_log <= audited.faults(with_log=True)


def test_a_replica_says_what_went_while_it_was_there(audited: Audited) -> None:
    """Cut off without a trace: the replica remembers the end, and says so with its next entry."""
    audited.revoke(3)
    _truncate_with_head(audited)
    until(lambda: Fault.TRUNCATED in audited.faults(), "the replica has noticed")
    (loss,) = [entry.loss for entry in read(audited.client) if entry.loss]
    assert loss.remembered.number == 3


def test_a_loss_is_told_from_tampering(audited: Audited, capsys: pytest.CaptureFixture[str]) -> None:
    audited.revoke(3)
    before = list(read(audited.client))
    audited.raw.flushall()
    assert audited.client.revoke_subject("later", timeout=LIMIT_S).stored, "it is healed"
    until(lambda: audited.faults() == {Fault.LOST}, "the loss is declared")
    assert audited.faults(with_log=True) == {Fault.LOST}
    rest = list(read(audited.client, after={0: before[-1].point}))
    assert rest[0].number == 4, "numbers go on"
    assert rest[0].loss is not None
    assert run(capsys, audited.replica.address, "audit", "verify")[0] == 1
    assert run(capsys, audited.replica.address, "audit", "verify", "--accept-loss")[0] == 0


def test_the_command_line(audited: Audited, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    audited.revoke(2)
    audited.logged(2)
    address = audited.replica.address
    code, listed = run(capsys, address, "audit", "list")
    assert code == 0
    assert [(r["action"], r["kind"], r["target"], r["reason"], r["number"]) for r in listed["records"]] == [
        ("revoked", "subject", "user-0", "stolen", 1), ("revoked", "subject", "user-1", "stolen", 2)
    ]  # fmt: skip
    first = listed["records"][0]["position"]
    assert [r["target"] for r in run(capsys, address, "audit", "list", "--after", first)[1]["records"]] == ["user-1"]
    code, report = run(capsys, address, "audit", "verify", "--log", str(audited.log(tmp_path)))
    assert (code, report["ok"], report["log_lines"], report["findings"]) == (0, True, 2, [])
    _truncate_with_head(audited)
    code, after = run(capsys, address, "audit", "verify", "--after", report["heads"])
    assert code == 1
    assert "truncated" in {finding["fault"] for finding in after["findings"]}
    assert points_text([(0, AuditPoint(2, report["heads"].rpartition(":")[2]))]) == report["heads"]
    assert run(capsys, address, "audit", "list", "--realm", "other")[0] == 5
    assert main(["audit", "list", "--address", address]) == 0
    assert "user-0" in capsys.readouterr().out
    assert main(["audit", "verify", "--address", address, "--after", "nonsense"]) == 2


def test_without_retention_there_is_no_audit(installation: Installation) -> None:
    store = installation.store()
    installation.add_replicas(1, store.url, audit_retention_s=0)
    client = installation.client()
    client.revoke_subject("alice")
    assert list(read(client)) == []
    with redis.Redis.from_url(store.url) as raw:
        assert raw.exists(STREAM) == 0
