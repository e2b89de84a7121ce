"""The lock-free idiom by which threads of this package agree who does something."""

from __future__ import annotations


class Baton(list[None]):
    """
    A right that one thread has at a time. It is true while it is free: `take()` gets it, `put_back()` frees it.

    Neither waits: popping a list is one atomic step, and one of two threads gets the baton. So neither a fork nor
    Ctrl-C leaves a lock behind that nobody releases. With `count` as many threads may have it at a time.
    """

    def __init__(self, count: int = 1) -> None:
        super().__init__([None] * count)

    def take(self) -> bool:
        """Return True if the baton was free, and is the caller's now."""
        try:
            self.pop()
        except IndexError:
            return False
        return True

    def put_back(self) -> None:
        """Let another thread take it."""
        self.append(None)
