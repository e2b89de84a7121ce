"""How many deliveries go to one host at once: receivers that hang, or are slow, must not hold every thread."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

MOST_HOSTS = 1_000
"""Hosts that are remembered when nothing is on its way to them."""
QUICK = 0.005
"""Seconds in which a host is waited for all the same: to come back would take longer."""
SHORTEST_STEP = 0.001
LONGEST_STEP = 0.02
"""Seconds between two of those that come back: 50 looks a second for a host that is dead, however many wait for it."""
MOST_LINES = 10
"""Hosts whose lines move at that pace; with more of them each moves slower: 500 looks a second for all together."""
LONGEST_LINE = 60.0
"""Seconds, some 3,000 steps, past which no more may wait: a host that is dead must not fill the memory."""
_COUNT_SECONDS = 0.1


class Pool(NamedTuple):
    """The threads that deliveries of one queue are made on."""

    queue: str
    size: int


class _Host:
    __slots__ = ("answered", "busy", "last_turn", "moved_at", "pace")

    def __init__(self) -> None:
        self.busy = 0
        self.answered: bool | None = None
        """Was its last delivery answered? None before the first."""
        self.pace = 0.0
        """Seconds that a delivery takes, on average."""
        self.moved_at = time.monotonic()
        self.last_turn = self.moved_at
        """When the last of those that wait comes back."""


class Lanes:
    """
    The lanes of all hosts. Any thread may use them.

    A host has one lane, and up to `size` once its last delivery was answered. Deliveries on the threads of a queue
    leave some of these to others, by what is known of their host:

    - answered, the first lane: every thread;
    - not known yet: all but an eighth, so that new receivers that hang do not hold up those that answer;
    - not answered, or a further lane: all but a quarter.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._hosts: dict[str, _Host] = {}
        """Those that a lane was asked for, the latest last."""
        self._held: dict[str, int] = {}
        """How many deliveries hold a thread, by the name of their queue."""
        self._lines = 0
        self._counted_at = float("-inf")
        self._changed = threading.Condition()

    def enter(self, host: str, patience: float | None, pool: Pool | None = None) -> float | None:
        """
        Take a lane of `host`, to be given back by `leave`, and return None; or return the seconds to come back after.

        Waits `patience` seconds at most. When None, only for a host that is `QUICK`: a thread that waits is one that
        other hosts lack. More than `LONGEST_LINE` seconds mean that nobody else should wait for this host. `pool` is
        None for a delivery that holds no thread of a queue.
        """
        until = None if patience is None else time.monotonic() + patience
        with self._changed:
            while True:
                at = self._remember(host)
                now = time.monotonic()
                if at.busy < self._lanes(at) and (pool is None or self._held.get(pool.queue, 0) < _most(at, pool)):
                    at.busy += 1
                    at.moved_at = now
                    if pool is not None:
                        self._held[pool.queue] = self._held.get(pool.queue, 0) + 1
                    return None
                stalled = now - at.moved_at
                left = QUICK - max(at.pace, stalled) if until is None else until - now
                if left <= 0:
                    return self._turn(at, now, stalled)
                self._changed.wait(left)

    def leave(self, host: str, seconds: float, answered: bool | None, pool: Pool | None = None) -> None:
        """Give back the lane, which was held for `seconds`; `answered` is None where nothing was sent."""
        with self._changed:
            at = self._hosts[host]
            at.busy -= 1
            at.moved_at = time.monotonic()
            if answered is not None:
                # What it took to give up on a host tells nothing of how long it takes when it answers.
                at.pace += (seconds - at.pace) / 4 if at.answered and answered else seconds - at.pace
                at.answered = answered
            if pool is not None:
                self._held[pool.queue] -= 1
            self._changed.notify_all()

    def _lanes(self, at: _Host) -> int:
        return self.size if at.answered else 1

    def _remember(self, host: str) -> _Host:
        at = self._hosts.pop(host, None) or _Host()
        self._hosts[host] = at
        if len(self._hosts) > MOST_HOSTS:
            # No more of them are busy than there are threads.
            idle = next((name for name, other in self._hosts.items() if not other.busy and other is not at), None)
            if idle is not None:
                del self._hosts[idle]
        return at

    def _turn(self, at: _Host, now: float, stalled: float) -> float:
        # Twice as fast as lanes come free, so that none is left empty for long. Turns that were given are not taken
        # back: a stall, which may be a hiccup or the first handshake, counts for a tenth of what it would tell.
        step = max(at.pace, stalled / 10) / self._lanes(at) / 2
        longest = LONGEST_STEP * max(1.0, self._count_lines(now) / MOST_LINES)
        turn = max(at.last_turn, now) + min(max(step, SHORTEST_STEP), longest)
        if turn - now <= LONGEST_LINE:
            at.last_turn = turn
        return turn - now

    def _count_lines(self, now: float) -> int:
        if now - self._counted_at >= _COUNT_SECONDS:
            self._counted_at = now
            self._lines = sum(at.last_turn > now for at in self._hosts.values())
        return self._lines


def _most(at: _Host, pool: Pool) -> int:
    """Return how many threads of `pool` may be held, one more for this host included."""
    if at.busy or at.answered is False:
        left_free = -(-pool.size // 4)
    elif at.answered is None:
        left_free = pool.size // 8
    else:
        left_free = 0
    # The first delivery of all is made in any case: a pool may have one thread.
    return max(1, pool.size - left_free)
