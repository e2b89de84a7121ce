"""One store and the loads that fill it: reading through, refreshing what is stale, warming."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from flask import current_app

from ...dispatch import background
from ...errors import NotConfigured, QueueFull
from ...logs import log_exception
from ...process import after_fork
from ...state import KEY
from .errors import CacheUnavailable
from .lifetime import Lifetime
from .single_flight import SharedLoad, SingleFlight
from .stores.store import NOT_BEGUN, Begun, Outcome, Store
from .warm_run import WarmRun, WarmRuns

Load = Callable[[], Any]

POLL = 0.02
"""Seconds between two looks at a load in another process."""
LONGEST_COOLDOWN = 60.0
"""Seconds up to which the cooldown after a failed refresh doubles."""
MOST_COOLDOWNS = 10_000
"""Keys whose refreshes are remembered before the old ones are dropped."""


class _Cooldown(NamedTuple):
    """Until when, in monotonic seconds, a key is not refreshed, and how often its refresh has failed in a row."""

    until: float
    failures: int


class Loader:
    """
    Fills one store. Lives as long as the store, is shared by every Cache on it, and may be used from any thread.

    `lock_timeout` is how many seconds a reader waits at most for the load of another one. `cooldown` is how many
    seconds a key is left alone after its refresh failed, doubling up to a minute.
    """

    def __init__(
        self,
        store: Store,
        *,
        default_ttl: float = 300.0,
        lock_timeout: float = 30.0,
        cooldown: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
        origin: object = None,
    ) -> None:
        self.store = store
        self.origin = origin
        """The caller's object that the store was made on."""
        self.default_ttl = default_ttl
        self._lock_timeout = lock_timeout
        self._cooldown = cooldown
        self._clock = clock
        self._cooldowns: dict[str, _Cooldown] = {}
        self._begin_anew()
        after_fork(self.renew)

    def close(self) -> None:
        """Close the store."""
        self.store.close()

    def renew(self) -> None:
        """In a forked child: replace the locks that a thread of the parent may hold, and forget the parent's loads."""
        self._begin_anew()
        self.store.renew()

    def write(self, key: str, value: Any, lifetime: Lifetime) -> bool:
        """Store `value`, which beats every load in flight; return False if the store cannot be reached."""
        frozen = self.store.freeze(key, value)
        stored = self.store.write(key, frozen, lifetime)
        if not stored:
            self.store.invalidate(key)
        self._single_flight.forget(key)
        return stored

    def delete(self, key: str) -> bool:
        """Delete the value, which beats every load in flight; return True if there was one."""
        try:
            return self.store.delete(key)
        except CacheUnavailable:
            self.store.invalidate(key)
            raise
        finally:
            self._single_flight.forget(key)

    def clear(self, prefix: str) -> None:
        """Delete every value whose key begins with `prefix`."""
        try:
            self.store.clear(prefix)
        finally:
            self._single_flight.forget_all(prefix)

    def remember(self, key: str, load: Load, lifetime: Lifetime) -> Any:
        """Return the value, fresh or stale; if there is none, load it or wait for the reader that does."""
        entry = self.store.read(key)
        if entry is None:
            return self._read_through(key, load, lifetime)
        value, is_fresh = entry
        if not is_fresh:
            self._refresh_soon(key, load, lifetime)
        return value

    def warm(self, key: str, load: Load, lifetime: Lifetime) -> WarmRun:
        """Return the pending run that loads and replaces the value; if the load fails, the old value stays."""
        return self._runs.join(key, lambda: self._warm(key, load, lifetime))

    def _warm(self, key: str, load: Load, lifetime: Lifetime) -> tuple[Any, Outcome]:
        shared, leads = self._single_flight.join(key)
        if leads:
            value, outcome = self._lead(shared, key, load, lifetime, lambda: self._begin(key))
        else:
            # The load in flight may have read what was there before a write: load again, which supersedes it.
            value, outcome = self._load(key, load, lifetime, self._begin(key))
        if outcome is Outcome.UNREACHABLE:
            self.store.invalidate(key)
        return value, outcome

    def _read_through(self, key: str, load: Load, lifetime: Lifetime) -> Any:
        deadline = time.monotonic() + self._lock_timeout
        while True:
            shared, leads = self._single_flight.join(key)
            if leads:
                value, _ = self._lead(shared, key, load, lifetime, lambda: self._begin_alone(key, deadline))
                return value
            if shared.thread == threading.get_ident():
                raise RuntimeError(f"The loader of {key!r} reads the key that it loads.")
            if not shared.wait(deadline - time.monotonic()):
                value, _ = self._load(key, load, lifetime, self._begin(key))
                return value
            if shared.is_shareable:
                return shared.result()
            entry = self.store.read(key)
            if entry is not None:
                value, _ = entry
                return value

    def _lead(
        self, shared: SharedLoad, key: str, load: Load, lifetime: Lifetime, begin: Callable[[], Begun]
    ) -> tuple[Any, Outcome]:
        """Load as the leader of `shared`, whose followers get what this returns or raises."""
        try:
            begun = begin()
            if begun.entry is not None:
                value, _ = begun.entry
                outcome = Outcome.STORED
            else:
                value, outcome = self._load(key, load, lifetime, begun)
            shared.succeed(value, outcome)
            return value, outcome
        except Exception as error:
            shared.fail(error)
            raise
        finally:
            self._single_flight.end(key, shared)

    def _load(self, key: str, load: Load, lifetime: Lifetime, begun: Begun) -> tuple[Any, Outcome]:
        """Load and store. Return the value as later readers will get it, so that the first one gets no other."""
        try:
            frozen = self.store.freeze(key, load())
        except BaseException:
            self.store.abort_load(key, begun.token)
            raise
        return self.store.thaw(frozen), self.store.end_load(key, begun.token, frozen, lifetime)

    def _begin(self, key: str) -> Begun:
        return self.store.begin_load(key, alone=False, seconds=self._lock_timeout)

    def _begin_alone(self, key: str, deadline: float) -> Begun:
        """Wait for the process that loads `key`, but not past `deadline`: it may have been killed."""
        while True:
            begun = self.store.begin_load(key, alone=True, seconds=self._lock_timeout)
            if begun != NOT_BEGUN:
                return begun
            left = deadline - time.monotonic()
            if left <= 0:
                return self._begin(key)
            time.sleep(min(POLL, left))

    def _refresh_soon(self, key: str, load: Load, lifetime: Lifetime) -> None:
        """Refresh in the background, unless a refresh is in progress or failed a moment ago. Never raises."""
        with self._lock:
            now = self._clock()
            cooldown = self._cooldowns.get(key)
            if cooldown is not None and now < cooldown.until:
                return
            if len(self._cooldowns) >= MOST_COOLDOWNS:
                self._cooldowns = {key: other for key, other in self._cooldowns.items() if now < other.until}
            # The task ends this cooldown. If it never runs, a reader starts another task after the lock timeout.
            self._cooldowns[key] = _Cooldown(now + self._lock_timeout, cooldown.failures if cooldown else 0)
        try:
            if current_app and not current_app.extensions[KEY].backend.distributed:
                refresh = background.using(queue="cache", name="refresh_cache", durable=False)
                refresh(self._refresh, key, load, lifetime)
                return
        except QueueFull:
            self._end_cooldown(key)
            return
        except (KeyError, NotConfigured):
            pass
        # Here, in the reader: there are no threads for it, and another process might not find `load`.
        try:
            self._refresh(key, load, lifetime)
        except Exception as error:
            log_exception("Refresh of %r failed, its stale value is served: %r", key, error, logger="asok.cache")

    def _refresh(self, key: str, load: Load, lifetime: Lifetime) -> None:
        shared, leads = self._single_flight.join(key)
        if not leads:
            self._end_cooldown(key)
            return
        try:
            begun = self.store.begin_load(key, alone=True, seconds=self._lock_timeout)
            if begun == NOT_BEGUN:
                # Another process loads it. Look again soon, but not at every read.
                self._cool_down(key, 10 * POLL, failures=0)
            else:
                self._lead(shared, key, load, lifetime, lambda: begun)
                self._end_cooldown(key)
        except BaseException as error:
            with self._lock:
                failures = self._cooldowns.get(key, _Cooldown(0, 0)).failures + 1
            seconds = min(self._cooldown * 2 ** min(failures - 1, 10), LONGEST_COOLDOWN)
            self._cool_down(key, seconds, failures)
            error.add_note(f"The stale value of {key!r} is served; the next try is {seconds:g} seconds away.")
            raise
        finally:
            self._single_flight.end(key, shared)

    def _cool_down(self, key: str, seconds: float, failures: int) -> None:
        with self._lock:
            self._cooldowns[key] = _Cooldown(self._clock() + seconds, failures)

    def _end_cooldown(self, key: str) -> None:
        with self._lock:
            self._cooldowns.pop(key, None)

    def _begin_anew(self) -> None:
        self._lock = threading.RLock()
        self._cooldowns.clear()
        self._single_flight = SingleFlight()
        self._runs = WarmRuns(self._lock_timeout)
