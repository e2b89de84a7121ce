"""What the store is owed: ends of tasks that could not be written, since it was away or its disk was full."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from flask import Flask

from .errors import AsokError
from .helper_thread import PausingThread
from .state import state_of

PAUSE_SECONDS = 0.5
"""How long it waits before it tries again."""

MOST = 10_000
"""How many it remembers, the latest ones: each keeps the outcome of a task."""


class Owed:
    """
    Writes what could not be written, in a thread that is there only while something is owed.

    Else a task that has ended would seem to run for as long as its process lives, and keep its unique key.
    """

    def __init__(self) -> None:
        self._writes: deque[Callable[[], object]] = deque(maxlen=MOST)
        self._thread = PausingThread("asok-owed", self._turn, lambda: bool(self._writes), pause=PAUSE_SECONDS)

    def add(self, write: Callable[[], object]) -> None:
        """Call `write()` until it raises no AsokError. RuntimeError if the system gives no thread to do that in."""
        self._writes.append(write)
        self._thread.need()

    def close(self) -> None:
        """Try once more. What is still owed then is for the process that comes next, as if this one were killed."""
        self._thread.close(1)
        self._pay()

    def _turn(self) -> float | None:
        self._pay()
        return PAUSE_SECONDS if self._writes else None

    def _pay(self) -> None:
        while self._writes:
            try:
                write = self._writes.popleft()
            except IndexError:  # pragma: no cover - another thread has just taken the last one
                return
            try:
                write()
            except AsokError:
                self._writes.appendleft(write)
                return


def owed_by(app: Flask) -> Owed:
    """Return what this process owes the store of `app`."""
    return state_of(app).shared("owed", Owed)
