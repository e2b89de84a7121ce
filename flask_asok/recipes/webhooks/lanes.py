"""How many deliveries go to one host at once: a receiver that hangs must not hold every thread."""

from __future__ import annotations

import threading
import time

PATIENCE = 0.25
"""Seconds that a thread waits for a lane of a host whose lanes come and go."""
SHORTEST_WAIT = 1.0
LONGEST_WAIT = 60.0


class _Host:
    __slots__ = ("busy", "moved_at", "turned_away")

    def __init__(self) -> None:
        self.busy = 0
        self.turned_away = 0
        self.moved_at = time.monotonic()


class Lanes:
    """The lanes of all hosts, `size` each. A host that nobody delivers to takes no memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._hosts: dict[str, _Host] = {}
        self._changed = threading.Condition()

    def enter(self, host: str, patience: float | None) -> float | None:
        """
        Take a lane of `host`, to be given back by `leave`, and return None; or return the seconds to come back after.

        Waits `patience` seconds at most. When None, as briefly as is worth it: a moment where lanes have come free just
        now, not at all where they are held.
        """
        until = None if patience is None else time.monotonic() + patience
        with self._changed:
            while True:
                at = self._hosts.setdefault(host, _Host())
                if at.busy < self.size:
                    at.busy += 1
                    at.moved_at = time.monotonic()
                    at.turned_away = max(0, at.turned_away - 1)
                    return None
                left = (at.moved_at + PATIENCE if until is None else until) - time.monotonic()
                if left <= 0:
                    at.turned_away += 1
                    # The more wait already, the longer: they come back about one per lane and second.
                    return min(SHORTEST_WAIT + at.turned_away / self.size, LONGEST_WAIT)
                self._changed.wait(left)

    def leave(self, host: str) -> None:
        """Give the lane back."""
        with self._changed:
            at = self._hosts[host]
            at.busy -= 1
            at.moved_at = time.monotonic()
            if not at.busy:
                del self._hosts[host]
            self._changed.notify_all()
