"""How many deliveries go to one host at once: a receiver that hangs, or is slow, must not hold every thread."""

from __future__ import annotations

import threading
import time

QUICK = 0.005
"""Seconds in which a host is waited for all the same: to come back would take longer."""
SHORTEST_STEP = 0.001
LONGEST_STEP = 0.02
"""Seconds between two of those that come back: 50 looks a second for a host that is dead, however many wait for it."""
LONGEST_LINE = 60.0
"""Seconds, some 3,000 steps, past which no more may wait: a host that is dead must not fill the memory."""


class _Host:
    __slots__ = ("busy", "last_turn", "moved_at", "pace")

    def __init__(self) -> None:
        self.busy = 0
        self.pace = 0.0
        """Seconds that a delivery takes, on average."""
        self.moved_at = time.monotonic()
        self.last_turn = self.moved_at
        """When the last of those that wait comes back."""


class Lanes:
    """The lanes of all hosts, `size` each. A host that nobody delivers to takes no memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._hosts: dict[str, _Host] = {}
        self._changed = threading.Condition()

    def enter(self, host: str, patience: float | None) -> float | None:
        """
        Take a lane of `host`, to be given back by `leave`, and return None; or return the seconds to come back after.

        Waits `patience` seconds at most. When None, only for a host that is `QUICK`: a thread that waits is one that
        other hosts lack. More than `LONGEST_LINE` seconds mean that nobody else should wait for this host.
        """
        until = None if patience is None else time.monotonic() + patience
        with self._changed:
            while True:
                at = self._hosts.setdefault(host, _Host())
                now = time.monotonic()
                if at.busy < self.size:
                    at.busy += 1
                    at.moved_at = now
                    return None
                stalled = now - at.moved_at
                left = QUICK - max(at.pace, stalled) if until is None else until - now
                if left <= 0:
                    return self._turn(at, now, stalled)
                self._changed.wait(left)

    def _turn(self, at: _Host, now: float, stalled: float) -> float:
        # Twice as fast as lanes come free, so that none is left empty for long. Turns that were given are not taken
        # back: a stall, which may be a hiccup or the first handshake, counts for a tenth of what it would tell.
        step = max(at.pace, stalled / 10) / self.size / 2
        turn = max(at.last_turn, now) + min(max(step, SHORTEST_STEP), LONGEST_STEP)
        if turn - now <= LONGEST_LINE:
            at.last_turn = turn
        return turn - now

    def leave(self, host: str, seconds: float) -> None:
        """Give back the lane, which was held for `seconds`."""
        with self._changed:
            at = self._hosts[host]
            at.busy -= 1
            at.moved_at = time.monotonic()
            at.pace += (seconds - at.pace) / 4
            if not at.busy:
                del self._hosts[host]
            self._changed.notify_all()
