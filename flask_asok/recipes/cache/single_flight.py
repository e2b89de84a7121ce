"""One load of a key that all its readers share, and one run that all its warmers share."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from .stores.store import Outcome

Work = Callable[[], tuple[Any, Outcome]]


class Flight:
    """One load in progress. Its followers wait for it; it always lands, whatever becomes of the loader."""

    __slots__ = ("_done", "_error", "_value", "counts", "thread")

    def __init__(self) -> None:
        self.thread: int = threading.get_ident()
        self.counts: bool = False
        """May followers take its value? Not when it was superseded, for they may have asked since."""
        self._done = threading.Event()
        self._value: Any = None
        self._error: Exception | None = None

    def succeed(self, value: Any, outcome: Outcome) -> None:
        """Give `value` to the followers, unless the load was superseded."""
        self._value = value
        self.counts = outcome is not Outcome.SUPERSEDED

    def fail(self, error: Exception) -> None:
        """Give `error` to the followers."""
        self._error = error
        self.counts = True

    def land(self) -> None:
        """Let the followers go."""
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Wait until it has landed; False after `seconds`."""
        return self._done.wait(seconds)

    def result(self) -> Any:
        """Return the value, or raise the error, of a flight that counts."""
        if self._error is not None:
            raise self._error
        return self._value


class Flights:
    """The flights of this process, one for each key."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._flights: dict[str, Flight] = {}

    def join(self, key: str) -> tuple[Flight, bool]:
        """Return the flight of `key`, and whether it is the caller's to lead."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Flight()
            return flight, True

    def land(self, key: str, flight: Flight) -> None:
        """End `flight`, which its leader owes in any event."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.land()

    def forget(self, key: str) -> None:
        """Let the next reader begin a flight of its own: the one under way is older than a write."""
        if self._flights:
            with self._lock:
                self._flights.pop(key, None)

    def forget_all(self, prefix: str) -> None:
        """Do so for every key that begins with `prefix`."""
        with self._lock:
            self._flights = {key: flight for key, flight in self._flights.items() if not key.startswith(prefix)}


class Run:
    """
    One run of a warmer, for all the calls that came before it started.

    A read may join a load under way; a warm may not, for that load may have read what the warmer's write has replaced.
    It takes part in the next run instead: at most one runs and one is pending, and every call settles with its run.
    """

    def __init__(self, runs: Runs, key: str, work: Work) -> None:
        self.key = key
        self.work = work
        self.is_taken = False
        self.thread: int | None = None
        self.settled: threading.Event = threading.Event()
        self.error: BaseException | None = None
        self.value: tuple[Any, Outcome]
        self._runs = runs

    def settle(self) -> tuple[Any, Outcome]:
        """Run, or wait for the thread that does; return the value and what became of it, or raise what it raised."""
        return self._runs.settle(self)

    def again(self) -> Run:
        """Return the pending run of the key, which now does this work."""
        return self._runs.join(self.key, self.work)


class Runs:
    """
    For each key at most one run in progress and one pending. Nobody waits for another thread past `limit` seconds.
    """

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._lock = threading.RLock()
        self._running: dict[str, Run] = {}
        # Each lives by the calls that take part in it, for they may all be cancelled: a rollback does that.
        self._pending: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()

    def join(self, key: str, work: Work) -> Run:
        """Return the pending run of `key`, which now does `work`: the newest caller knows best what is to be stored."""
        with self._lock:
            run = self._pending.get(key)
            if run is None:
                run = self._pending[key] = Run(self, key, work)
            else:
                run.work = work
            return run

    def settle(self, run: Run) -> tuple[Any, Outcome]:
        """Perform `run` after the one in progress, or wait for the thread that has taken it; return its value."""
        with self._lock:
            is_mine, run.is_taken = not run.is_taken, True
        if is_mine:
            self._perform(run)
        elif not run.settled.wait(self._limit):
            return run.work()
        if run.error is None:
            return run.value
        if is_mine or isinstance(run.error, Exception):
            raise run.error
        # Its thread was told to exit in the middle: that is no answer to anyone else.
        return run.again().settle()

    def _perform(self, run: Run) -> None:
        try:
            self._wait_for_turn(run)
            run.value = run.work()
        except BaseException as error:
            run.error = error
        finally:
            with self._lock:
                if self._pending.get(run.key) is run:
                    del self._pending[run.key]
                if self._running.get(run.key) is run:
                    del self._running[run.key]
            run.settled.set()

    def _wait_for_turn(self, run: Run) -> None:
        before = self._running.get(run.key)
        if before is not None:
            if before.thread == threading.get_ident():
                raise RuntimeError(f"The loader of {run.key!r} warms the key that it loads.")
            before.settled.wait(self._limit)
        with self._lock:
            # From here on calls belong to the next run: this one's loader may have read before their write.
            if self._pending.get(run.key) is run:
                del self._pending[run.key]
            run.thread = threading.get_ident()
            self._running[run.key] = run
