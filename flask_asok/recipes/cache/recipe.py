"""Warming: `warm_cache`, the recipe for `background`, and `warm_all`, for startup and the command line."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from flask import Flask, current_app

from ...dispatch import task
from ...errors import NotConfigured
from ...state import state_of
from ...tasks import Task, current_task
from .cache import Cache
from .errors import CacheUnavailable
from .lifetime import UNSET, Stale, Ttl
from .single_flight import Run
from .stores.store import Outcome
from .warmers import Warmer, warmable

T = TypeVar("T")

Report = Callable[[str, float, Any], None]


class _Joined(NamedTuple):
    """A call's loader, and the run that it shares."""

    run: Run
    load: Callable[[], Any]


def _prepare(
    key: str, load: Callable[[], Any], ttl: Ttl = UNSET, *, stale: Stale = UNSET, cache: Cache | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    cache = cache or Cache()
    if state_of(current_app).backend.distributed:
        return _for_travel(key, load, ttl, stale, cache)
    # Joined here, in the caller's thread: however long the task is queued, a run that starts from now on covers it.
    joined = _Joined(cache.warm_run(key, load, ttl, stale=stale), load)
    return (key, joined, ttl), {"stale": stale, "cache": cache}


@task(queue="cache", prepare=_prepare)
def warm_cache(
    key: str, load: Callable[[], T], ttl: Ttl = UNSET, *, stale: Stale = UNSET, cache: Cache | None = None
) -> T:
    """
    Load a value and store it under `key`: `background(warm_cache, "recent_posts", load_recent_posts, ttl=300)`.

    Call it after a write was committed (`background.using(when="commit")`). The value then stored is never one that was
    loaded before the call, whatever other calls and reads are under way: per key one load runs and one is pending, and
    a call that finds one pending settles with that. What was stored stays until the new value is there, and if `load`
    raises.

    Args:
        key: As for `Cache.set`.
        load: A function that takes nothing and reads what is to be stored when it is called, be that once for several
            calls. Where tasks run in other processes, one that can be imported by its name.
        ttl: Seconds or timedelta for which the value is fresh, None for ever; by default the cache's.
        stale: Seconds or timedelta for which it may be served past that.
        cache: Where it is stored; by default the store that the current application's caches share.

    Raises what `load` raises; TypeError or ValueError, at the call of `background`, for arguments that are no good.
    """
    if isinstance(load, _Joined):
        attempt = current_task()
        if attempt is None or not _is_late(attempt):
            value: T = load.run.settle()[0]
            return value
        load = load.load
    if isinstance(cache, str):
        cache = Cache(prefix=cache)
    return (cache or Cache()).warm(key, load, ttl, stale=stale)


def _is_late(attempt: Task[Any]) -> bool:
    """Was the task to run later than its call? A run that began in between, say before the commit, does not count."""
    return attempt.options.when != "now" or attempt.options.delay > 0 or attempt.attempts > 1


def warm_all(
    keys: Iterable[str] | None = None, *, only_missing: bool = False, jobs: int = 4, report: Report | None = None
) -> dict[str, Any]:
    """
    Warm every `@cached` function of this process, and wait. Return the value for each key, or the error of its loader.

    Functions whose key has arguments are warmed for the ones that their `each` returns, and left out without it; where
    that raises, its error stands under the key as given in the decorator. A
    gunicorn server calls this in its `post_worker_init`, within `app.app_context()`; a store that processes share is
    warmed once, with `flask asok warm --all`.

    Args:
        keys: Warm only these, given as in the decorator or in full. ValueError for one that is not known.
        only_missing: Leave out keys that have a fresh value.
        jobs: How many are loaded at a time, each in a thread and an app context of its own.
        report: Called, in this thread, with each key, the seconds it took, and its value or error.
    """
    from concurrent.futures import ThreadPoolExecutor

    wanted = warmable(keys)
    if only_missing:
        wanted = [warmer for warmer in wanted if warmer.error or not warmer.cached.cache.has(warmer.key)]
    if not wanted:
        return {}
    app: Flask = current_app._get_current_object()  # type: ignore[attr-defined]
    results: dict[str, Any] = {}
    with ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="asok-warm") as pool:
        for warmer, (seconds, result) in zip(wanted, pool.map(partial(_warm, app), wanted), strict=True):
            results[warmer.key] = result
            if report is not None:
                report(warmer.key, seconds, result)
    return results


def _warm(app: Flask, warmer: Warmer) -> tuple[float, Any]:
    if warmer.error is not None:
        return 0.0, warmer.error
    started = time.perf_counter()
    result: Any
    with app.app_context():
        try:
            result, outcome = warmer.cached.warm_run(*warmer.args).settle()
            if outcome is Outcome.UNREACHABLE:
                result = CacheUnavailable(f"{warmer.key!r} was loaded, but not stored: the store cannot be reached.")
        except Exception as error:
            result = error
    return time.perf_counter() - started, result


def _for_travel(
    key: str, load: Callable[[], Any], ttl: Ttl, stale: Stale, cache: Cache
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what a process that has only the code can make the call from."""
    if not cache.is_shared:
        raise NotConfigured(
            "Tasks run in other processes, and what they store in their memory is not seen here. "
            'Set CACHE_TYPE = "RedisCache" and CACHE_REDIS_URL.'
        )
    if cache.has_own_store:
        raise TypeError(
            "A Cache with a store of its own cannot travel to another process. Use the application's: Cache()."
        )
    lifetime = cache.lifetime(ttl, stale)
    ttl = None if math.isinf(lifetime.ttl) else lifetime.ttl
    return (key, load, ttl), {"stale": lifetime.stale, "cache": cache.prefix}
