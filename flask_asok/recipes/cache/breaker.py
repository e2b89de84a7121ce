"""The circuit breaker between the cache and its Redis: what happens in an outage, and after it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from ...logs import log
from .errors import CacheUnavailable

T = TypeVar("T")


class TooLarge(RedisError):
    """Raised if a value was not stored though the server answers: it takes too long to send, or is refused."""


MOST_INVALIDATED = 10_000
"""Keys that are remembered for deletion after an outage, the newest ones."""

QUIET = 60.0
"""Seconds for which a refusal of the same kind is not logged again: a server that is full refuses every write."""


class Breaker:
    """
    Keeps a server that does not answer from being asked, and waited for, by every call.

    Closed, it lets every call through: all is well. Open, it lets one call through after each `cooldown`. A server that
    has become a replica counts as one that does not answer; `reconnect` then drops its connections, because its name
    may lead to another server by now.
    """

    def __init__(
        self,
        cooldown: float,
        delete_many: Callable[[Iterable[str]], None],
        reconnect: Callable[[], None],
        ping: Callable[[], object],
    ) -> None:
        self._cooldown = cooldown
        self._delete_many = delete_many
        self._reconnect = reconnect
        self._ping = ping
        self._invalidated: dict[str, None] = {}
        self._quiet_until: dict[str, float] = {}
        self._open_until = 0.0
        """When the next call may try again, in monotonic seconds; 0 while the breaker is closed."""
        self._cause: Exception | None = None
        self.renew()

    def renew(self) -> None:
        """Replace the lock, which a thread of the parent may hold."""
        self._lock = threading.Lock()

    def call(self, ask: Callable[[], T], otherwise: T, *, large: str = "") -> T:
        """
        Return the result of `ask`, or `otherwise` if the server cannot give it.

        `large` describes what `ask` sends if its size may be why no answer comes: a server that then answers a ping is
        not down.
        """
        try:
            return self._ask(ask, large)
        except CacheUnavailable:
            return otherwise
        except TooLarge as error:
            self._complain("too large", str(error))
            return otherwise
        except RedisError as error:
            text = _text(error)
            self._complain(" ".join(text.split()[:2]), f"The cache's Redis refused a command: {text}")
            return otherwise

    def call_or_raise(self, ask: Callable[[], T], failure: str) -> T:
        """Return the result of `ask`, or raise CacheUnavailable."""
        try:
            return self._ask(ask)
        except (CacheUnavailable, RedisError) as error:
            cause = error.__cause__ if isinstance(error, CacheUnavailable) else error
            raise CacheUnavailable(f"{failure}: the cache's Redis does not do it: {_text(cause)}") from cause

    def invalidate(self, name: str) -> None:
        """Delete `name` before anything else is asked."""
        with self._lock:
            self._invalidated[name] = None
            if len(self._invalidated) > MOST_INVALIDATED:
                del self._invalidated[next(iter(self._invalidated))]

    def _ask(self, ask: Callable[[], T], large: str = "") -> T:
        if self._open_until:
            with self._lock:
                if self._open_until:
                    now = time.monotonic()
                    if now < self._open_until:
                        raise CacheUnavailable("The cache's Redis did not answer a moment ago.") from self._cause
                    # This call tries; the others do not wait with it.
                    self._open_until = now + self._cooldown
        if self._invalidated:
            try:
                self._delete_invalidated()
            except RedisError as error:
                # Even if the server only refuses: the value that it has may be the one to delete.
                raise self._outage(error) from error
        try:
            answer = ask()
        except (RedisConnectionError, RedisTimeoutError, ReadOnlyError) as error:
            if not (large and self._answers()):
                raise self._outage(error) from error
            if self._open_until:
                self._recover()
            raise TooLarge(
                f"{large} cannot be cached: Redis takes longer than ASOK_CACHE_REDIS_TIMEOUT to receive it, or refuses "
                f"its size ({type(error).__name__})."
            ) from error
        if self._open_until:
            self._recover()
        return answer

    def _answers(self) -> bool:
        try:
            self._ping()
        except RedisError:
            return False
        return True

    def _delete_invalidated(self) -> None:
        with self._lock:
            names, self._invalidated = self._invalidated, {}
        try:
            self._delete_many(names)
        except BaseException:
            with self._lock:
                self._invalidated = names | self._invalidated
            raise

    def _outage(self, error: RedisError) -> CacheUnavailable:
        """Open the breaker for a while; return the error to raise."""
        with self._lock:
            was_closed = not self._open_until
            self._open_until = time.monotonic() + self._cooldown
            # Without its traceback, which would keep the frames of a whole request alive.
            self._cause = error.with_traceback(None)
        if was_closed:
            log(
                logging.ERROR,
                "The cache's Redis does not answer, going on without it: %s",
                _text(error),
                logger="asok.cache",
            )
        if isinstance(error, ReadOnlyError):
            self._reconnect()
        return CacheUnavailable("The cache's Redis does not answer.")

    def _complain(self, kind: str, text: str) -> None:
        with self._lock:
            now = time.monotonic()
            is_news = now >= self._quiet_until.get(kind, 0.0)
            if is_news:
                self._quiet_until[kind] = now + QUIET
        if is_news:
            log(logging.WARNING, "%s", text, logger="asok.cache")

    def _recover(self) -> None:
        with self._lock:
            was_open, self._open_until, self._cause = self._open_until, 0.0, None
        if was_open:
            log(logging.WARNING, "The cache's Redis answers again.", logger="asok.cache")


def _text(error: BaseException | None) -> str:
    # The repr of redis-py's errors leaves out what the server says.
    return f"{type(error).__name__}: {error}"
