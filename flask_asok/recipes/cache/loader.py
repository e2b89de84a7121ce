"""One store and the loads that fill it: reading through, refreshing what is stale, warming."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from flask import current_app

from ...dispatch import background
from ...errors import NotConfigured, QueueFull
from ...logs import log_exception
from ...state import KEY
from .errors import CacheUnavailable
from .lifetime import Lifetime
from .single_flight import Flight, Flights, Run, Runs
from .stores.store import Begun, Outcome, Store

Load = Callable[[], Any]

POLL = 0.02
"""Seconds between two looks at a load that another process does."""
LONGEST_REST = 60.0
"""Seconds up to which the rest after a failed refresh doubles."""
MOST_RESTS = 10_000
"""Keys whose refreshes are remembered before the old ones are dropped."""


class _Rest(NamedTuple):
    """Until when, in monotonic seconds, a key is not to be refreshed, and how often that has failed."""

    until: float
    failures: int


class Engine:
    """
    Fills one store. Lives as long as that, is shared by every Cache on it, and used from any number of threads.

    `limit` is the number of seconds after which nobody waits for another's load any more; `rest` the number of seconds
    for which a key is left alone after its refresh has failed, doubling up to a minute.
    """

    def __init__(
        self,
        store: Store,
        *,
        default_ttl: float = 300.0,
        limit: float = 30.0,
        rest: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        origin: object = None,
    ) -> None:
        self.store = store
        self.origin = origin
        """What the store was made on."""
        self.default_ttl = default_ttl
        self._limit = limit
        self._rest = rest
        self._clock = clock
        self._rests: dict[str, _Rest] = {}
        self._renew()
        _engines.add(self)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def write(self, key: str, value: Any, lifetime: Lifetime) -> bool:
        """Store `value`, which beats every load in flight; False if the store cannot be reached."""
        frozen = self.store.freeze(key, value)
        stored = self.store.write(key, frozen, lifetime)
        if not stored:
            self.store.distrust(key)
        self._flights.forget(key)
        return stored

    def delete(self, key: str) -> bool:
        """Delete the value, which beats every load in flight; was there one?"""
        try:
            return self.store.delete(key)
        except CacheUnavailable:
            self.store.distrust(key)
            raise
        finally:
            self._flights.forget(key)

    def clear(self, prefix: str) -> None:
        """Delete every value whose key begins with `prefix`."""
        try:
            self.store.clear(prefix)
        finally:
            self._flights.forget_all(prefix)

    def remember(self, key: str, load: Load, lifetime: Lifetime) -> Any:
        """Return the value, fresh or stale; load it if there is none, or wait for the one who does."""
        entry = self.store.read(key)
        if entry is None:
            return self._read_through(key, load, lifetime)
        if not entry[1]:
            self._refresh_soon(key, load, lifetime)
        return entry[0]

    def warm(self, key: str, load: Load, lifetime: Lifetime) -> Run:
        """Return the pending run that loads and stores, whatever is there; what is there stays if the loader raises."""
        return self._runs.join(key, lambda: self._warm(key, load, lifetime))

    def _warm(self, key: str, load: Load, lifetime: Lifetime) -> tuple[Any, Outcome]:
        flight, is_first = self._flights.join(key)
        if is_first:
            value, outcome = self._fly(flight, key, load, lifetime, lambda: self._begin(key))
        else:
            # The load under way may have read what was there before a write: load again, which supersedes it.
            value, outcome = self._load(key, load, lifetime, self._begin(key))
        if outcome is Outcome.UNREACHABLE:
            self.store.distrust(key)
        return value, outcome

    def _read_through(self, key: str, load: Load, lifetime: Lifetime) -> Any:
        deadline = time.monotonic() + self._limit
        while True:
            flight, is_first = self._flights.join(key)
            if is_first:
                return self._fly(flight, key, load, lifetime, lambda: self._begin_alone(key, deadline))[0]
            if flight.thread == threading.get_ident():
                raise RuntimeError(f"The loader of {key!r} reads the key that it loads.")
            if not flight.wait(deadline - time.monotonic()):
                return self._load(key, load, lifetime, self._begin(key))[0]
            if flight.counts:
                return flight.result()
            entry = self.store.read(key)
            if entry is not None:
                return entry[0]

    def _fly(
        self, flight: Flight, key: str, load: Load, lifetime: Lifetime, begin: Callable[[], Begun]
    ) -> tuple[Any, Outcome]:
        """Load as the leader of `flight`, so that its followers get what this returns or raises."""
        try:
            begun = begin()
            if begun.entry is not None:
                value, outcome = begun.entry[0], Outcome.STORED
            else:
                value, outcome = self._load(key, load, lifetime, begun)
            flight.succeed(value, outcome)
            return value, outcome
        except Exception as error:
            flight.fail(error)
            raise
        finally:
            self._flights.land(key, flight)

    def _load(self, key: str, load: Load, lifetime: Lifetime, begun: Begun) -> tuple[Any, Outcome]:
        """Load and store. The value is the one that readers will get, so that the first of them gets no other."""
        try:
            frozen = self.store.freeze(key, load())
        except BaseException:
            self.store.abort(key, begun.token)
            raise
        return self.store.thaw(frozen), self.store.put(key, begun.token, frozen, lifetime)

    def _begin(self, key: str) -> Begun:
        return self.store.begin(key, alone=False, seconds=self._limit)

    def _begin_alone(self, key: str, deadline: float) -> Begun:
        """Wait for the process that loads `key`, but not past `deadline`: it may have been killed."""
        while True:
            begun = self.store.begin(key, alone=True, seconds=self._limit)
            if begun != Begun():
                return begun
            left = deadline - time.monotonic()
            if left <= 0:
                return self._begin(key)
            time.sleep(min(POLL, left))

    def _refresh_soon(self, key: str, load: Load, lifetime: Lifetime) -> None:
        """Refresh in the background, unless that is under way or has failed a moment ago. Never raises."""
        with self._lock:
            now = self._clock()
            rest = self._rests.get(key)
            if rest is not None and now < rest.until:
                return
            if len(self._rests) >= MOST_RESTS:
                self._rests = {key: rest for key, rest in self._rests.items() if now < rest.until}
            # The task ends this rest; should it never run, the next reader after the limit starts another.
            self._rests[key] = _Rest(now + self._limit, rest.failures if rest else 0)
        try:
            if current_app and not current_app.extensions[KEY].backend.distributed:
                background.using(queue="cache", name="refresh_cache")(self._refresh, key, load, lifetime)
                return
        except QueueFull:
            self._end_rest(key)
            return
        except (KeyError, NotConfigured):
            pass
        # There is no thread to hand it to, and a loader need not be a function that another process can find.
        try:
            self._refresh(key, load, lifetime)
        except Exception as error:
            log_exception("Refresh of %r failed, its stale value is served: %r", key, error, logger="asok.cache")

    def _refresh(self, key: str, load: Load, lifetime: Lifetime) -> None:
        flight, is_first = self._flights.join(key)
        if not is_first:
            self._end_rest(key)
            return
        try:
            begun = self.store.begin(key, alone=True, seconds=self._limit)
            if begun == Begun():
                # Another process is at it. Look again soon, but not with every read.
                self._rest_for(key, 10 * POLL, failures=0)
            else:
                self._fly(flight, key, load, lifetime, lambda: begun)
                self._end_rest(key)
        except BaseException as error:
            with self._lock:
                failures = self._rests.get(key, _Rest(0, 0)).failures + 1
            seconds = min(self._rest * 2 ** min(failures - 1, 10), LONGEST_REST)
            self._rest_for(key, seconds, failures)
            error.add_note(f"The stale value of {key!r} is served; the next try is {seconds:g} seconds away.")
            raise
        finally:
            self._flights.land(key, flight)

    def _rest_for(self, key: str, seconds: float, failures: int) -> None:
        with self._lock:
            self._rests[key] = _Rest(self._clock() + seconds, failures)

    def _end_rest(self, key: str) -> None:
        with self._lock:
            self._rests.pop(key, None)

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._rests.clear()
        self._flights = Flights()
        self._runs = Runs(self._limit)


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()


def _renew_all() -> None:
    """In a forked child: replace the locks that a thread of the parent may hold, and forget the loads it was doing."""
    for engine in _engines:
        engine._renew()
        engine.store.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
