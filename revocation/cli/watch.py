"""`revocation watch`: follows a realm as a verifier does, and prints every change. Fingerprints, never identifiers."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Annotated, Any

import typer

from revocation.cli.connection import Connection, client_command
from revocation.cli.output import Exit, Output, in_words

if TYPE_CHECKING:
    from revocation_sdk import RevocationClient
    from revocation_sdk._lattice import Group

_MOST_WAITING = 10_000
"""Events that wait to be printed; more are counted and dropped, so that a slow terminal holds nothing up."""


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(watch)


@client_command
def watch(
    connection: Connection,
    out: Output,
    *,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many changes.")] = None,
    duration: Annotated[float | None, typer.Option("--for", min=0.1, help="End after so many seconds.")] = None,
    signing_key: Annotated[
        list[str] | None,
        typer.Option(envvar="REVOCATION_SIGNING_KEYS", help="Take only what this key has signed; may be repeated."),
    ] = None,
) -> int:
    """Follow a realm and print its revocations as they come, until interrupted. With --json one object a line.

    The stream carries keyed fingerprints, so that nobody learns from it who was logged out.
    """
    options = {"name": "revocation watch", "signing_keys": signing_key or None}
    with closing(connection.client(**options)) as client, suppress(KeyboardInterrupt):
        events = _Events(client)
        client.wait_until_fresh(connection.timeout)
        end = None if duration is None else time.monotonic() + duration
        events.put({"event": "following", "entries": len(client.follower.view)})
        seen = 0
        while event := events.next(end):
            _print(out, event)
            seen += event["event"] == "revoked"
            if seen == count:
                break
    return Exit.OK


class _Events:
    """What happens to a client, in order, from the client's threads to the one that prints."""

    def __init__(self, client: RevocationClient) -> None:
        from revocation_sdk._view import View

        events = self
        follower = client.follower

        class Reported(View):
            """The view of this client, telling what it takes in."""

            def merge(self, *parts: bytes) -> None:
                super().merge(*parts)
                if follower.live:  # before that it is the snapshot: what was revoked earlier
                    for event in _changes(b"".join(parts)):
                        events.put(event)

        follower.view = Reported()
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(_MOST_WAITING)
        self._dropped = 0
        client.on_state_change(lambda state: self.put({"event": "state", "state": state.value}))

    def put(self, event: dict[str, Any]) -> None:
        """Never blocks: the stream must not wait for a terminal."""
        try:
            self._waiting.put_nowait(event)
        except queue.Full:
            self._dropped += 1

    def next(self, end: float | None) -> dict[str, Any] | None:
        """The next event; None at the end."""
        if self._dropped and self._waiting.empty():
            dropped, self._dropped = self._dropped, 0
            return {"event": "dropped", "count": dropped}
        # What already waits is told even when the time is over.
        while end is None or time.monotonic() < end or not self._waiting.empty():
            # In slices: an untimed wait would hold an interrupt up on some systems.
            with suppress(queue.Empty):
                return self._waiting.get(timeout=0.5 if end is None else min(0.5, max(0.001, end - time.monotonic())))
        return None


def _changes(rows: bytes) -> Iterator[dict[str, Any]]:
    from revocation_sdk._lattice import parse_groups

    for group in parse_groups(rows):
        yield from _entries(group)


def _entries(group: Group) -> Iterator[dict[str, Any]]:
    from revocation_sdk._lattice import CUTOFF, DENIAL, FIRST_CUTOFF_KIND, NEVER, Kind

    known = {kind.value: kind.name.lower() for kind in Kind}
    layout = DENIAL if group.kind < FIRST_CUTOFF_KIND else CUTOFF
    for row in layout.iter_unpack(group.rows):
        event: dict[str, Any] = {
            "event": "revoked",
            "kind": known.get(group.kind, f"kind {group.kind}"),
            "fingerprint": f"{row[0]:016x}",
            "forgotten_at": None if row[1] == NEVER else row[1],
        }
        if layout is CUTOFF:
            event |= {"version": row[2], "at": row[3] // 1000}
        yield event


def _print(out: Output, event: dict[str, Any]) -> None:
    if out.as_json:
        out.record(event)
        return
    match event["event"]:
        case "revoked":
            at = f"  what was issued before {in_words(event['at'])}" if "at" in event else ""
            out.note(f"revoked  {event['kind']:8} {event['fingerprint']}{at}")
        case "following":
            out.note(f"following, {event['entries']} entries so far")
        case "dropped":
            out.note(f"dropped  {event['count']} events: this terminal is too slow")
        case other:
            out.note(f"{other:8} {event.get('state', '')}")
