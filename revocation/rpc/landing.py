"""AwaitApplied and ListSubscribers: requests to values, values to answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from revocation import limits
from revocation.errors import InvalidField
from revocation.fanout.landing import MOST_NAMED, Landing
from revocation.fanout.subscribers import Page
from revocation.rpc import stream
from revocation_api.v1 import revocation_pb2 as pb
from revocation_sdk._position import Position, decode_positions

_DEFAULT_PAGE = 100
_ANSWER_S = 0.1
_TOKEN = re.compile(r"[0-9a-f]{32}")


def wanted(request: pb.AwaitAppliedRequest) -> tuple[Position, ...]:
    """The position to wait for. Raises InvalidField."""
    positions = stream.positions_from(request.position)
    if not positions:
        raise InvalidField("position", "is missing: give the one of a receipt")
    return positions


def until(timeout_ms: int, deadline: float) -> float:
    """How long to wait, in event-loop time: by what is asked, and so that the answer still arrives."""
    longest_ms = int(limits.LONGEST_CALL_S * 1000)
    if not 0 <= timeout_ms <= longest_ms:
        raise InvalidField("timeout_ms", f"is {timeout_ms}; 0 to {longest_ms} are allowed")
    now = asyncio.get_running_loop().time()
    return min(now + (timeout_ms or limits.AWAIT_TIMEOUT_MS) / 1000, max(now, deadline - _ANSWER_S))


def page(request: pb.ListSubscribersRequest) -> tuple[int, str]:
    """Size of the page, and behind whom it begins. Raises InvalidField."""
    if request.page_size > limits.SUBSCRIBERS_PAGE:
        raise InvalidField("page_size", f"is {request.page_size}; at most {limits.SUBSCRIBERS_PAGE} are allowed")
    if request.page_token and not _TOKEN.fullmatch(request.page_token):
        raise InvalidField("page_token", "is none of ours")
    return request.page_size or _DEFAULT_PAGE, request.page_token


def response(landing: Landing) -> pb.AwaitAppliedResponse:
    """How far a position has come."""
    named = landing.laggards[:MOST_NAMED]
    return pb.AwaitAppliedResponse(
        applied=landing.applied,
        live=landing.live,
        laggards=[subscriber(owed.shown) for owed in named],
        more_laggards=landing.more + len(landing.laggards) - len(named),
        silent_replicas=landing.silent,
        complete=landing.complete,
    )


def listed(found: Page) -> pb.ListSubscribersResponse:
    """A page of subscribers."""
    return pb.ListSubscribersResponse(
        subscribers=[subscriber(shown) for shown in found.shown],
        next_page_token=found.next,
        total=found.total,
        silent_replicas=found.silent,
    )


_BY_NAME = frozenset(pb.Subscriber.DESCRIPTOR.fields_by_name) - {"instance", "applied"}


def subscriber(shown: Mapping[str, Any]) -> pb.Subscriber:
    """One verifier. What a later version tells besides is left out."""
    known = {name: value for name, value in shown.items() if name in _BY_NAME}
    applied = decode_positions(shown["applied"]) if shown["applied"] else ()
    return pb.Subscriber(instance=bytes.fromhex(shown["instance"]), applied=stream.positions(applied), **known)
