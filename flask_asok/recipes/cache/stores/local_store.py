"""What stores have in common whose loads live in the memory of this process."""

from __future__ import annotations

import threading
from abc import abstractmethod
from typing import Any

from ..lifetime import Lifetime
from .store import Begun, Outcome, Store


class LocalStore(Store):
    """Decides races among the threads of this process. A subclass calls `renew` in its `__init__`."""

    def write(self, key: str, frozen: Any, lifetime: Lifetime) -> bool:
        with self._lock:
            if self._loads:
                self._loads.strike(key)
            return self._keep(key, frozen, lifetime)

    def begin_load(self, key: str, *, alone: bool, seconds: float) -> Begun:
        with self._lock:
            entry = self.read(key) if alone else None
            if entry is not None:
                _, is_fresh = entry
                if is_fresh:
                    return Begun(entry=entry)
            return Begun(self._loads.begin(key))

    def end_load(self, key: str, token: Any, frozen: Any, lifetime: Lifetime) -> Outcome:
        with self._lock:
            if not self._loads.finish(key, token):
                return Outcome.SUPERSEDED
            return Outcome.STORED if self._keep(key, frozen, lifetime) else Outcome.UNREACHABLE

    def abort_load(self, key: str, token: Any) -> None:
        with self._lock:
            self._loads.abort(key, token)

    def renew(self) -> None:
        # Reentrant: the finalizer of a value that leaves may use the cache in this very thread.
        self._lock = threading.RLock()
        self._loads = Loads()

    @abstractmethod
    def _keep(self, key: str, frozen: Any, lifetime: Lifetime) -> bool:
        """Keep a value, under the lock; return False if that cannot be done."""


class Loads:
    """The loads in flight in this process, in the order in which they began. Its store's lock guards it."""

    def __init__(self) -> None:
        self._tokens: dict[str, list[object]] = {}

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def begin(self, key: str) -> object:
        """Note a load of `key`; return its token."""
        token = object()
        self._tokens.setdefault(key, []).append(token)
        return token

    def finish(self, key: str, token: object) -> bool:
        """Strike off the load and those before it; return False if it was struck off already."""
        tokens = self._tokens.get(key, [])
        if token not in tokens:
            return False
        self._keep(key, tokens[tokens.index(token) + 1 :])
        return True

    def abort(self, key: str, token: object) -> None:
        """Strike off this load only."""
        self._keep(key, [other for other in self._tokens.get(key, []) if other is not token])

    def strike(self, key: str) -> None:
        """Strike off every load of `key`."""
        self._tokens.pop(key, None)

    def strike_all(self, prefix: str) -> None:
        """Strike off every load of the keys that begin with `prefix`."""
        self._tokens = {key: tokens for key, tokens in self._tokens.items() if not key.startswith(prefix)}

    def _keep(self, key: str, tokens: list[object]) -> None:
        if tokens:
            self._tokens[key] = tokens
        else:
            self._tokens.pop(key, None)
