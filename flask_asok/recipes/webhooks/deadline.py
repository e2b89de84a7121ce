"""The moment at which a delivery ends, whatever it is waiting for."""

from __future__ import annotations

import time


class Deadline:
    """A point in time, `seconds` from now on the monotonic clock."""

    __slots__ = ("_at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds
        self._at = time.monotonic() + seconds

    def within(self, seconds: float) -> Deadline:
        """Return the deadline that is `seconds` from now, or this one where that comes first."""
        left = self._at - time.monotonic()
        return self if left <= seconds else Deadline(seconds)

    def left(self) -> float:
        """Return the seconds left, more than 0; TimeoutError if there are none."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"no answer within {self.seconds:g} s")
        return left

    @property
    def passed(self) -> bool:
        """Return True if the deadline has passed."""
        return time.monotonic() >= self._at
