"""When a task is tried again: the one place that decides it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import timedelta

from .errors import AsokError
from .options import Options, seconds

LONGEST_BACKOFF = 600.0
"""Seconds past which the default backoff no longer doubles."""


class Retry(AsokError):
    """
    Raise this in a task to run it again, `after` seconds from now or by the task's backoff when None.

    It spends one of the task's retries; with none left the task fails with its cause, which is the error that was being
    handled (`raise Retry() from error` names another one), or with the Retry itself where there is none.
    """

    def __init__(self, after: float | timedelta | None = None) -> None:
        self.after: float | None = None if after is None else seconds("after", after)
        super().__init__("retry" if self.after is None else f"retry after {self.after:g} s")


class NotYet(AsokError):
    """
    Raised by a recipe that can do nothing before `after` seconds have gone by: no attempt was made, no retry is spent.

    For backends that are `in_process`; another one would take the attempt for made.
    """

    def __init__(self, after: float) -> None:
        self.after = after
        super().__init__(f"not before {after:g} s from now")


def cause_of(error: BaseException) -> BaseException:
    """Return what a Retry was raised from, which says more than the Retry; any other error is returned as it is."""
    if not isinstance(error, Retry):
        return error
    # As in a traceback: `raise Retry() from None` has neither.
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__) or error


def will_retry(options: Options, attempts: int, error: BaseException) -> bool:
    """Return True if another attempt follows attempt number `attempts`, which ended in `error`."""
    return attempts <= options.retries and isinstance(error, (Retry, *options.retry_on))


def next_wait(options: Options, attempts: int, error: BaseException) -> float | None:
    """
    Return the seconds from `error`, the end of attempt number `attempts`, to the next attempt; None if there is none.

    What another machine asked to wait (`AsokError.retry_after`) is the least. Raises what the task's own backoff does.
    """
    if not will_retry(options, attempts, error):
        return None
    if isinstance(error, Retry) and error.after is not None:
        return error.after
    wait = wait_before(options, attempts + 1)
    asked = error.retry_after if isinstance(error, AsokError) else None
    return wait if asked is None else max(wait, asked)


def wait_before(options: Options, attempt: int, chance: Callable[[], float] = random.random) -> float:
    """
    Return the seconds that the backoff sets before attempt `attempt`, the first retry being attempt 2.

    By default 2, 4, 8 ... up to 600, less up to a fifth so that tasks that failed together do not return together.
    """
    backoff = options.backoff
    if backoff is None:
        longest = min(2.0 ** min(attempt - 1, 10), LONGEST_BACKOFF)
        return longest * (1 - 0.2 * chance())
    if callable(backoff):
        return seconds("backoff", backoff(attempt))
    if isinstance(backoff, Sequence):
        return float(backoff[min(attempt - 2, len(backoff) - 1)])
    return float(backoff)


def has_no_threads(error: BaseException | None) -> bool:
    """Was it raised because the process ends, and Python gives neither a thread nor a thread pool any more?"""
    return isinstance(error, RuntimeError) and str(error).endswith(("interpreter shutdown", "after shutdown"))
