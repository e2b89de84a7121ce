"""How many tasks of each queue run at once, whichever of an engine's runs has fetched them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping


class Slots:
    """
    The places of each group of queues. Thread-safe.

    The tasks that run go on where the database ends what fetches them: what fetches next must know of those.
    """

    def __init__(self, sizes: Mapping[tuple[str, ...], int]) -> None:
        self._group = {name: names for names in sizes for name in names}
        self._free = dict(sizes)
        self._taken = 0
        self._changed = threading.Condition()

    def take(self, names: Iterable[str]) -> bool:
        """Take a place for a task of one of these queues, all of one group; False if none is free."""
        group = self._group[next(iter(names))]
        with self._changed:
            if not self._free[group]:
                return False
            self._free[group] -= 1
            self._taken += 1
            return True

    def give(self, name: str) -> None:
        """Give back the place of a task of this queue."""
        with self._changed:
            self._free[self._group[name]] += 1
            self._taken -= 1
            self._changed.notify_all()

    def wait_until_free(self, deadline: float) -> None:
        """Wait until no place is taken, or until `deadline` of the monotonic clock."""
        with self._changed:
            self._changed.wait_for(lambda: not self._taken, max(0.0, deadline - time.monotonic()))
