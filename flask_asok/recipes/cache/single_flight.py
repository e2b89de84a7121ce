"""One load of a key that all its readers share."""

from __future__ import annotations

import threading
from typing import Any

from .stores.store import Outcome


class Flight:
    """One load in progress. Its followers wait for it; its leader ends it, whatever becomes of the load."""

    __slots__ = ("_ended", "_error", "_value", "is_shareable", "thread")

    def __init__(self) -> None:
        self.thread: int = threading.get_ident()
        """The thread of its leader."""
        self.is_shareable: bool = False
        """May followers take the result? Not that of a load that was superseded: they may have asked since."""
        self._ended = threading.Event()
        self._value: Any = None
        self._error: Exception | None = None

    def succeed(self, value: Any, outcome: Outcome) -> None:
        """Give `value` to the followers, unless the load was superseded."""
        self._value = value
        self.is_shareable = outcome is not Outcome.SUPERSEDED

    def fail(self, error: Exception) -> None:
        """Give `error` to the followers."""
        self._error = error
        self.is_shareable = True

    def end(self) -> None:
        """Wake the followers."""
        self._ended.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the load; return False after `seconds`."""
        return self._ended.wait(seconds)

    def result(self) -> Any:
        """Return the value, or raise the error, of a flight that is shareable."""
        if self._error is not None:
            raise self._error
        return self._value


class SingleFlight:
    """The loads of this process: at most one flight for each key, which the first reader leads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._flights: dict[str, Flight] = {}

    def join(self, key: str) -> tuple[Flight, bool]:
        """Return the flight of `key`, and whether the caller leads it."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Flight()
            return flight, True

    def end(self, key: str, flight: Flight) -> None:
        """End `flight`. Its leader must call this in any event."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.end()

    def forget(self, key: str) -> None:
        """Let the next reader of `key` lead a new flight: the one in progress is older than a write."""
        if self._flights:
            with self._lock:
                self._flights.pop(key, None)

    def forget_all(self, prefix: str) -> None:
        """Do so for every key that begins with `prefix`."""
        with self._lock:
            self._flights = {key: flight for key, flight in self._flights.items() if not key.startswith(prefix)}
