"""How many deliveries go to one host at once, so that receivers that hang or are slow do not hold every thread."""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

MOST_HOSTS = 1_000
"""Hosts that are remembered while nothing is sent to them."""
QUICK = 0.005
"""Wait this many seconds for a slot in place: rescheduling would take longer."""
SHORTEST_STEP = 0.001
LONGEST_STEP = 0.02
"""Seconds between two deliveries that look again: 50 looks a second at a dead host, however many wait for it."""
MOST_LINES = 10
"""Hosts whose lines move at that pace. With more, each line moves more slowly: 500 looks a second in all."""
LONGEST_LINE = 60.0
"""Seconds, about 3,000 steps, after which a line is full: a dead host must not fill the memory."""
_COUNT_SECONDS = 0.1


class Pool(NamedTuple):
    """The threads that deliver the webhooks of one queue."""

    queue: str
    size: int


class _Host:
    __slots__ = ("answered", "busy", "last_turn", "moved_at", "pace")

    def __init__(self) -> None:
        self.busy = 0
        self.answered: bool | None = None
        """True if its last delivery was answered; None before the first."""
        self.pace = 0.0
        """Average seconds of a delivery."""
        self.moved_at = time.monotonic()
        self.last_turn = self.moved_at
        """When the last delivery in the line looks again."""


class HostLimits:
    """
    The slots of all hosts: a delivery takes one while it is under way. Any thread may use them.

    A host has one slot, and up to `size` once it has answered a delivery. Deliveries on the threads of a queue leave
    some of those threads to others, depending on what is known of their host:

    - answered, the first slot: none are left;
    - not known yet: an eighth is left, so that new receivers that hang do not hold up those that answer;
    - not answered, or a further slot: a quarter is left.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._hosts: dict[str, _Host] = {}
        """The most recently used last."""
        self._held: dict[str, int] = {}
        """How many threads deliveries hold, by the name of their queue."""
        self._lines = 0
        self._counted_at = float("-inf")
        self._changed = threading.Condition()

    def enter(self, host: str, max_wait: float | None, pool: Pool | None = None) -> float | None:
        """
        Take a slot of `host` and return None, or return the seconds after which to try again. `leave` frees the slot.

        Waits up to `max_wait` seconds for a slot. When None, waits only for a host that takes less than `QUICK`: while
        a thread waits, other hosts lack it. More than `LONGEST_LINE` seconds mean that the line of this host is full.
        `pool` is None for a delivery that holds no thread of a queue.
        """
        until = None if max_wait is None else time.monotonic() + max_wait
        with self._changed:
            while True:
                at = self._remember(host)
                now = time.monotonic()
                if at.busy < self._slots(at) and (pool is None or self._held.get(pool.queue, 0) < _most(at, pool)):
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
        """Free a slot that was held for `seconds`; `answered` is None if nothing was sent."""
        with self._changed:
            at = self._hosts[host]
            at.busy -= 1
            at.moved_at = time.monotonic()
            if answered is not None:
                # The time until a failure says nothing about the time until an answer.
                at.pace += (seconds - at.pace) / 4 if at.answered and answered else seconds - at.pace
                at.answered = answered
            if pool is not None:
                self._held[pool.queue] -= 1
            self._changed.notify_all()

    def _slots(self, at: _Host) -> int:
        return self.size if at.answered else 1

    def _remember(self, host: str) -> _Host:
        at = self._hosts.pop(host, None) or _Host()
        self._hosts[host] = at
        if len(self._hosts) > MOST_HOSTS:
            # At most as many are busy as there are threads.
            idle = next((name for name, other in self._hosts.items() if not other.busy and other is not at), None)
            if idle is not None:
                del self._hosts[idle]
        return at

    def _turn(self, at: _Host, now: float, stalled: float) -> float:
        # Twice as fast as slots come free, so that none stays empty for long. A turn once given is not taken back, so a
        # stall, which may be a hiccup or the first handshake, counts only a tenth.
        step = max(at.pace, stalled / 10) / self._slots(at) / 2
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
    """Return how many threads of `pool` may be held once this delivery holds one too."""
    if at.busy or at.answered is False:
        left_free = -(-pool.size // 4)
    elif at.answered is None:
        left_free = pool.size // 8
    else:
        left_free = 0
    # The first delivery always goes ahead: a pool may have one thread only.
    return max(1, pool.size - left_free)
