"""SIGKILL of the service at any point between accepting a call and answering it; the caller repeats it by its op id."""

from __future__ import annotations

import random
import threading
import time
from typing import Any
from uuid import UUID

import pytest
import redis

from revocation.model import Operation
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._lattice import CUTOFF, FIRST_CUTOFF_KIND, parse_groups
from tests.e2e.installation import Installation, Replica
from tests.e2e.processes import LIMIT_S, until
from tests.e2e.rpc import Answer, a_revocation, call, stub

pytestmark = pytest.mark.e2e
ROUNDS, CALLS = 8, 24
MOST_ROUNDS = 40
"""Until calls were killed on both sides of their commit, which is a matter of chance and of how busy the machine is."""


def test_a_retry_after_sigkill_at_any_point_is_one_record_and_one_version(installation: Installation) -> None:
    """Calls begin one after the other and the service dies among them: each is killed at a point of its own."""
    store = installation.store()
    replicas = installation.add_replicas(2, store.url)
    acknowledged: dict[str, Any] = {}
    died_committed = died_before = 0
    for number in range(MOST_ROUNDS):
        victim, other = replicas[number % 2], replicas[1 - number % 2]
        requests = [a_revocation(subject=pb.SubjectTarget(subject=f"{number}-{n}")) for n in range(CALLS)]
        answers = _killed_among(victim, requests)
        unanswered = [request for request, answer in zip(requests, answers, strict=True) if answer.code != "OK"]
        logged = {op for op, _ in _log(store.url)}
        died_committed += sum(_is_in(request.op_id, logged) for request in unanswered)
        died_before += sum(not _is_in(request.op_id, logged) for request in unanswered)
        acknowledged |= {
            request.op_id: answer.response
            for request, answer in zip(requests, answers, strict=True)
            if answer.code == "OK"
        }
        # Every other time the one that was killed answers the retry, with an empty memory.
        victim.start()
        again = other if number % 4 < 2 else victim
        again.wait_ready()
        with stub(again.address) as service:
            for request in requests:
                again_answered = _insist(service, request)
                first = acknowledged.setdefault(request.op_id, again_answered)
                assert (again_answered.cutoff, again_answered.position) == (first.cutoff, first.position)
        victim.wait_ready()
        if number + 1 >= ROUNDS and died_committed and died_before:
            break
    assert died_committed, "no call was killed between commit and answer"
    assert died_before, "no call was killed before its commit"
    _one_record_and_one_version_each(store.url, acknowledged)


def _killed_among(victim: Replica, requests: list[pb.RevokeRequest]) -> list[Answer]:
    answers = [Answer("NOT SENT")] * len(requests)
    with stub(victim.address) as service:
        assert call(service.Revoke, a_revocation()).code == "OK"

        def one(number: int) -> None:
            answers[number] = call(service.Revoke, requests[number])

        threads = [threading.Thread(target=one, args=(number,)) for number in range(len(requests))]
        fatal = random.randrange(2, len(requests))
        for number, thread in enumerate(threads):
            thread.start()
            time.sleep(random.uniform(0, 0.002))
            if number == fatal:
                victim.kill()
        for thread in threads:
            thread.join(LIMIT_S)
    return answers


def _insist(service: Any, request: pb.RevokeRequest) -> Any:
    """The response in the end."""
    responses: list[Any] = []

    def look() -> bool:
        answer = call(service.Revoke, request)
        responses.append(answer.response)
        return answer.code == "OK"

    until(look, "the retry is answered")
    return responses[-1]


def _log(url: str) -> list[tuple[bytes, bytes]]:
    """(operation, rows of its record) for all of the log."""
    with redis.Redis.from_url(url) as client:
        records: Any = client.xrange("revocation:{p0}:log")
    return [(op, fields[b"b"]) for _, fields in records for op in fields[b"o"].split()]


def _is_in(op_id: str, logged: set[bytes]) -> bool:
    return any(op.startswith(_key(op_id)) for op in logged)


def _key(op_id: str) -> bytes:
    return Operation("default", "anonymous", UUID(op_id), "").key().encode()


def _one_record_and_one_version_each(url: str, acknowledged: dict[str, Any]) -> None:
    entries = _log(url)
    versions = [
        row[2]
        for rows in {rows for _, rows in entries}
        for group in parse_groups(rows)
        if group.kind >= FIRST_CUTOFF_KIND
        for row in CUTOFF.iter_unpack(group.rows)
    ]
    for op_id in acknowledged:
        assert sum(op.startswith(_key(op_id)) for op, _ in entries) == 1, "one record"
    # One draw for each script: calls that shared one share its version, but every target has one row only.
    assert len(versions) == len(acknowledged), "one version bump for each operation"
    assert {response.cutoff.version for response in acknowledged.values()} == set(versions)
