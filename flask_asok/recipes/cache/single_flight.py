"""One load of a key that all its readers share."""

from __future__ import annotations

import threading
from typing import Any

from .stores.store import Outcome


class SharedLoad:
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
        """Return the value, or raise the error, of a load that is shareable."""
        if self._error is not None:
            raise self._error
        return self._value


class SingleFlight:
    """The loads of this process: at most one load for each key, which the first reader leads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._loads: dict[str, SharedLoad] = {}

    def join(self, key: str) -> tuple[SharedLoad, bool]:
        """Return the load of `key`, and whether the caller leads it."""
        with self._lock:
            shared = self._loads.get(key)
            if shared is not None:
                return shared, False
            shared = self._loads[key] = SharedLoad()
            return shared, True

    def end(self, key: str, shared: SharedLoad) -> None:
        """End `shared`. Its leader must call this in any event."""
        with self._lock:
            if self._loads.get(key) is shared:
                del self._loads[key]
        shared.end()

    def forget(self, key: str) -> None:
        """Let the next reader of `key` lead a new one: the one in progress is older than a write."""
        if self._loads:
            with self._lock:
                self._loads.pop(key, None)

    def forget_all(self, prefix: str) -> None:
        """Do so for every key that begins with `prefix`."""
        with self._lock:
            self._loads = {key: shared for key, shared in self._loads.items() if not key.startswith(prefix)}
