"""What a replica answers instead of doing it."""

from __future__ import annotations


class NotReady(Exception):
    """This replica may neither acknowledge nor vouch at the moment; `state` says why."""

    def __init__(self, state: str) -> None:
        super().__init__(state)
        self.state = state


class Fenced(Exception):
    """The history changed, or healing began, while an answer was under way."""


class Superseded(Exception):
    """A newer process runs under this member id: this one must stop."""
