"""A queue in which realms take turns: what one of them piles up is not in front of another's (I6). Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """First in, first out for each realm; realms in turn."""

    def __init__(self) -> None:
        self._realms: OrderedDict[str, deque[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, realm: str, item: T) -> None:
        """Queues behind what the realm has waiting."""
        self._line(realm).append(item)
        self._length += 1

    def put_back(self, realm: str, items: Iterable[T]) -> None:
        """Queues in front of what the realm has waiting, in this order."""
        given = list(items)
        self._line(realm).extendleft(reversed(given))
        self._length += len(given)

    def first(self) -> T:
        """What `take` would take. Raises StopIteration if there is nothing."""
        return next(iter(self._realms.values()))[0]

    def take(self) -> T:
        """The first of the realm whose turn it is; then it is the next one's."""
        realm, line = next(iter(self._realms.items()))
        item = line.popleft()
        self._length -= 1
        if line:
            self._realms.move_to_end(realm)
        else:
            del self._realms[realm]
        return item

    def _line(self, realm: str) -> deque[T]:
        line = self._realms.get(realm)
        if line is None:
            line = self._realms[realm] = deque()
        return line
