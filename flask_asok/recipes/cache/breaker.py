"""The breaker between the cache and its Redis: what happens in an outage, and after it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ...errors import CacheUnavailable

T = TypeVar("T")

MOST_DISTRUSTED = 10_000
"""Keys that are remembered for deletion after an outage, the newest ones."""


class Breaker:
    """Keeps a server that does not answer from being asked, and waited for, by every call."""

    def __init__(self, rest: float, delete_many: Callable[[Iterable[str]], None]) -> None:
        self._rest = rest
        self._delete_many = delete_many
        self._distrusted: dict[str, None] = {}
        self._closed_until = 0.0
        """When the next call may try again, in monotonic seconds; 0 while all is well."""
        self._cause: Exception | None = None
        self.renew()

    def renew(self) -> None:
        self._lock = threading.Lock()

    def call(self, ask: Callable[[], T], otherwise: T) -> T:
        """Return what `ask` does, or `otherwise` when the server cannot do it."""
        try:
            return self._ask(ask)
        except CacheUnavailable:
            return otherwise
        except RedisError as error:
            _logger().warning("The cache's Redis refused a command: %s", _text(error))
            return otherwise

    def distrust(self, name: str) -> None:
        """Delete `name` before anything else is asked."""
        with self._lock:
            self._distrusted[name] = None
            if len(self._distrusted) > MOST_DISTRUSTED:
                del self._distrusted[next(iter(self._distrusted))]

    def insist(self, ask: Callable[[], T], failure: str) -> T:
        """Return what `ask` does, or raise CacheUnavailable."""
        try:
            return self._ask(ask)
        except (CacheUnavailable, RedisError) as error:
            cause = error.__cause__ if isinstance(error, CacheUnavailable) else error
            raise CacheUnavailable(f"{failure}: the cache's Redis does not do it: {_text(cause)}") from cause

    def _ask(self, ask: Callable[[], T]) -> T:
        if self._closed_until:
            with self._lock:
                if self._closed_until:
                    now = time.monotonic()
                    if now < self._closed_until:
                        raise CacheUnavailable("The cache's Redis did not answer a moment ago.") from self._cause
                    # This call tries; the others do not wait with it.
                    self._closed_until = now + self._rest
        try:
            if self._distrusted:
                self._delete_distrusted()
            answer = ask()
        except (RedisConnectionError, RedisTimeoutError) as error:
            self._trip(error)
            raise CacheUnavailable("The cache's Redis does not answer.") from error
        if self._closed_until:
            self._recover()
        return answer

    def _delete_distrusted(self) -> None:
        with self._lock:
            names, self._distrusted = self._distrusted, {}
        try:
            self._delete_many(names)
        except BaseException:
            with self._lock:
                self._distrusted = names | self._distrusted
            raise

    def _trip(self, error: Exception) -> None:
        with self._lock:
            is_first = not self._closed_until
            self._closed_until = time.monotonic() + self._rest
            # Without its traceback, which would keep the frames of a whole request alive.
            self._cause = error.with_traceback(None)
        if is_first:
            _logger().error("The cache's Redis does not answer, going on without it: %s", _text(error))

    def _recover(self) -> None:
        with self._lock:
            was_closed, self._closed_until, self._cause = self._closed_until, 0.0, None
        if was_closed:
            _logger().warning("The cache's Redis answers again.")


def _logger() -> logging.Logger:
    return logging.getLogger("asok.cache")


def _text(error: BaseException | None) -> str:
    # The repr of redis-py's errors leaves out what the server says.
    return f"{type(error).__name__}: {error}"
