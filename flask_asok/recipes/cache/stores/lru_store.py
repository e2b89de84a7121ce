"""The default store: the memory of this process, bounded; the least recently used value leaves first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..lifetime import Lifetime
from ..plain import SCALARS, check_object
from .local_store import LocalStore
from .store import Entry


class LRUStore(LocalStore):
    """
    Keeps values by reference, not as copies: a change to a list that came out of it reaches every reader.

    It holds at most `size` values. Every operation takes the same short time, however full it is.
    """

    shared = False

    def __init__(self, size: int = 10_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not isinstance(size, int):
            raise TypeError(f"The size of an LRUStore must be an int, not {type(size).__name__}.")
        if size < 1:
            raise ValueError(f"The size of an LRUStore must be 1 or more, not {size}.")
        self._size = size
        self._clock = clock
        self._values: OrderedDict[str, tuple[Any, float, float]] = OrderedDict()
        self.renew()

    def read(self, key: str) -> Entry | None:
        with self._lock:
            try:
                value, fresh_until, kept_until = self._values[key]
            except KeyError:
                return None
            now = self._clock()
            if now < fresh_until:
                self._values.move_to_end(key)
                return value, True
            if now < kept_until:
                self._values.move_to_end(key)
                return value, False
            del self._values[key]
            return None

    def freeze(self, key: str, value: Any) -> Any:
        if type(value) not in SCALARS:
            check_object(key, value)
        return value

    def thaw(self, frozen: Any) -> Any:
        return frozen

    def delete(self, key: str) -> bool:
        with self._lock:
            self._loads.strike(key)
            try:
                _, _, kept_until = self._values.pop(key)
            except KeyError:
                return False
            return self._clock() < kept_until

    def clear(self, prefix: str) -> None:
        with self._lock:
            self._loads.strike_all(prefix)
            for key in [key for key in self._values if key.startswith(prefix)]:
                del self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def _keep(self, key: str, frozen: Any, lifetime: Lifetime) -> bool:
        fresh_until = self._clock() + lifetime.ttl
        self._values[key] = (frozen, fresh_until, fresh_until + lifetime.stale)
        self._values.move_to_end(key)
        if len(self._values) > self._size:
            self._values.popitem(last=False)
        return True
