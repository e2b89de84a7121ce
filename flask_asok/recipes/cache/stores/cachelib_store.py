"""A store on any cachelib cache, Flask-Caching's included: files, memcached, SimpleCache and the others."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from cachelib import BaseCache, SimpleCache

from ....logs import log
from ..errors import CacheUnavailable
from ..lifetime import Lifetime
from .local_store import LocalStore
from .serializer import JSONSerializer, PickleSerializer, Serializer, freeze
from .store import Entry

VERSION = 1
LONGEST = 10 * 365 * 86_400
"""Seconds for a value that never expires: some of cachelib's caches drop first what has its own 0."""


class CachelibStore(LocalStore):
    """
    Keeps its values in `cache`, which stays the caller's.

    It decides races among the threads of this process; between processes the last write wins, because cachelib has no
    operation that could decide them.
    """

    def __init__(self, cache: BaseCache, serializer: Serializer, *, clock: Callable[[], float] = time.time) -> None:
        self._cache = cache
        self.shared: bool = not isinstance(cache, SimpleCache)
        # In the memory of this process pickle is safe, and SimpleCache pickles anyway.
        self._serializer = serializer if self.shared else PickleSerializer()
        self._clock = clock
        self.renew()

    def read(self, key: str) -> Entry | None:
        try:
            found = self._cache.get(key)
            if found is None:
                return None
            version, frozen, fresh_until, kept_until = found
            now = self._clock()
            if version != VERSION or now >= kept_until:
                return None
            return self.thaw(frozen), now < fresh_until
        except Exception as error:
            log(logging.WARNING, "What is cached under %r cannot be read: %r", key, error, logger="asok.cache")
            return None

    def freeze(self, key: str, value: Any) -> Any:
        frozen = freeze(self._serializer, key, value)
        # Text, so that a cache which itself writes JSON can keep it.
        return frozen.decode() if isinstance(self._serializer, JSONSerializer) else frozen

    def thaw(self, frozen: Any) -> Any:
        return self._serializer.loads(frozen)

    def delete(self, key: str) -> bool:
        with self._lock:
            self._loads.strike(key)
            found = self.read(key) is not None
            try:
                self._cache.delete(key)
                # False from delete() means a failure for one cache, and a missing value for another.
                has_it = found and self._cache.get(key) is not None
            except Exception as error:
                raise CacheUnavailable(f"{key!r} was not deleted: {error!r}") from error
            if has_it:
                raise CacheUnavailable(f"{key!r} was not deleted: {self._cache!r} still has it.")
            return found

    def clear(self, prefix: str) -> None:
        """Clear the whole cache, also of the values of others: it cannot list its keys."""
        with self._lock:
            self._loads.strike_all(prefix)
            try:
                failed = self._cache.clear() is False
            except Exception as error:
                raise CacheUnavailable(f"The cache was not cleared: {error!r}") from error
            if failed:
                raise CacheUnavailable(f"The cache was not cleared: {self._cache!r} could not do it.")

    def _keep(self, key: str, frozen: Any, lifetime: Lifetime) -> bool:
        fresh_until = self._clock() + lifetime.ttl
        seconds = min(math.ceil(min(lifetime.kept, LONGEST)) + 1, LONGEST)
        entry = [VERSION, frozen, fresh_until, fresh_until + lifetime.stale]
        try:
            return bool(self._cache.set(key, entry, timeout=seconds))
        except Exception as error:
            log(logging.WARNING, "%r cannot be cached now: %r", key, error, logger="asok.cache")
            return False
