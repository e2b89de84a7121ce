"""One run of a warmer that all the calls which came before it share."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

from .stores.store import Outcome

Work = Callable[[], tuple[Any, Outcome]]


class WarmRun:
    """
    One run of a warmer, for all the calls that came before it started.

    A read may join a load in progress; a warm may not, for that load may have read what the warmer's write replaced.
    It takes part in the next run instead: at most one runs and one is pending, and every call gets the result of its
    run.
    """

    def __init__(self, runs: WarmRuns, key: str, work: Work) -> None:
        self.key = key
        self.work = work
        self.is_taken = False
        self.thread: int | None = None
        self.ended: threading.Event = threading.Event()
        self.error: BaseException | None = None
        self.value: tuple[Any, Outcome]
        self._runs = runs

    def result(self) -> tuple[Any, Outcome]:
        """Run, or wait for the thread that does; return the value and what became of it, or raise the error."""
        return self._runs.result(self)


class WarmRuns:
    """For each key at most one run in progress and one pending. No thread waits longer than `lock_timeout` seconds."""

    def __init__(self, lock_timeout: float) -> None:
        self._lock_timeout = lock_timeout
        self._lock = threading.RLock()
        self._running: dict[str, WarmRun] = {}
        # Weak: a run lives as long as the calls that take part in it, and a rollback may cancel all of them.
        self._pending: weakref.WeakValueDictionary[str, WarmRun] = weakref.WeakValueDictionary()

    def join(self, key: str, work: Work) -> WarmRun:
        """Return the pending run of `key`, which now does `work`: the newest caller knows best what to store."""
        with self._lock:
            run = self._pending.get(key)
            if run is None:
                run = self._pending[key] = WarmRun(self, key, work)
            else:
                run.work = work
            return run

    def result(self, run: WarmRun) -> tuple[Any, Outcome]:
        """Perform `run` after the one in progress, or wait for the thread that has taken it; return its value."""
        with self._lock:
            is_mine, run.is_taken = not run.is_taken, True
        if is_mine:
            self._perform(run)
        elif not run.ended.wait(self._lock_timeout):
            return run.work()
        if run.error is None:
            return run.value
        if is_mine or isinstance(run.error, Exception):
            raise run.error
        # The thread was told to exit while it loaded, which says nothing about the value: run again.
        return self.join(run.key, run.work).result()

    def _perform(self, run: WarmRun) -> None:
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
            run.ended.set()

    def _wait_for_turn(self, run: WarmRun) -> None:
        before = self._running.get(run.key)
        if before is not None:
            if before.thread == threading.get_ident():
                raise RuntimeError(f"The loader of {run.key!r} warms the key that it loads.")
            before.ended.wait(self._lock_timeout)
        with self._lock:
            # From here on calls belong to the next run: this one may have read before their write.
            if self._pending.get(run.key) is run:
                del self._pending[run.key]
            run.thread = threading.get_ident()
            self._running[run.key] = run
