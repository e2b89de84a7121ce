"""The breaker between the cache and its Redis: what happens in an outage, and after it."""

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
    """Raised where a value was not stored though the server answers: it takes too long to send, or is refused."""


MOST_DISTRUSTED = 10_000
"""Keys that are remembered for deletion after an outage, the newest ones."""

QUIET = 60.0
"""Seconds for which a refusal of the same kind is not logged again: a server that is full refuses every write."""


class Breaker:
    """
    Keeps a server that does not answer from being asked, and waited for, by every call.

    One that has become a replica is such a server. `reconnect` leaves it, for its name may mean another one by now.
    """

    def __init__(
        self,
        rest: float,
        delete_many: Callable[[Iterable[str]], None],
        reconnect: Callable[[], None],
        ping: Callable[[], object],
    ) -> None:
        self._rest = rest
        self._delete_many = delete_many
        self._reconnect = reconnect
        self._ping = ping
        self._distrusted: dict[str, None] = {}
        self._quiet_until: dict[str, float] = {}
        self._closed_until = 0.0
        """When the next call may try again, in monotonic seconds; 0 while all is well."""
        self._cause: Exception | None = None
        self.renew()

    def renew(self) -> None:
        self._lock = threading.Lock()

    def call(self, ask: Callable[[], T], otherwise: T, *, large: str = "") -> T:
        """
        Return what `ask` does, or `otherwise` when the server cannot do it.

        `large` says what it sends where that may itself be why there is no answer: then it is no outage if the server
        answers a ping.
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

    def _ask(self, ask: Callable[[], T], large: str = "") -> T:
        if self._closed_until:
            with self._lock:
                if self._closed_until:
                    now = time.monotonic()
                    if now < self._closed_until:
                        raise CacheUnavailable("The cache's Redis did not answer a moment ago.") from self._cause
                    # This call tries; the others do not wait with it.
                    self._closed_until = now + self._rest
        if self._distrusted:
            try:
                self._delete_distrusted()
            except RedisError as error:
                # Also when it only refuses: what it has may be what should have been deleted.
                raise self._outage(error) from error
        try:
            answer = ask()
        except (RedisConnectionError, RedisTimeoutError, ReadOnlyError) as error:
            if not (large and self._answers()):
                raise self._outage(error) from error
            if self._closed_until:
                self._recover()
            raise TooLarge(
                f"{large} cannot be cached: Redis takes longer than ASOK_CACHE_REDIS_TIMEOUT to receive it, or refuses "
                f"its size ({type(error).__name__})."
            ) from error
        if self._closed_until:
            self._recover()
        return answer

    def _answers(self) -> bool:
        try:
            self._ping()
        except RedisError:
            return False
        return True

    def _delete_distrusted(self) -> None:
        with self._lock:
            names, self._distrusted = self._distrusted, {}
        try:
            self._delete_many(names)
        except BaseException:
            with self._lock:
                self._distrusted = names | self._distrusted
            raise

    def _outage(self, error: RedisError) -> CacheUnavailable:
        """Let nobody ask for a while; return what to raise."""
        with self._lock:
            is_first = not self._closed_until
            self._closed_until = time.monotonic() + self._rest
            # Without its traceback, which would keep the frames of a whole request alive.
            self._cause = error.with_traceback(None)
        if is_first:
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
            was_closed, self._closed_until, self._cause = self._closed_until, 0.0, None
        if was_closed:
            log(logging.WARNING, "The cache's Redis answers again.", logger="asok.cache")


def _text(error: BaseException | None) -> str:
    # The repr of redis-py's errors leaves out what the server says.
    return f"{type(error).__name__}: {error}"
