"""What an application calls to keep its cache warm: START HERE."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from flask import Flask, current_app

from ...attempt import running_task
from ...dispatch import task
from ...errors import NotConfigured
from ...state import state_of
from .cache import Cache
from .errors import CacheUnavailable
from .lifetime import UNSET, Stale, Ttl
from .stores.store import Outcome
from .warm_run import WarmRun
from .warmers import Warmer, warmable

T = TypeVar("T")

Report = Callable[[str, float, Any], None]


@dataclass(frozen=True)
class Warming:
    """What one call of `warm_cache` loads, in a form that a worker in another process gets as well."""

    key: str
    load: Callable[[], Any]
    ttl: float | None
    stale: float
    prefix: str

    def perform(self) -> Any:
        """Load and store; return the value."""
        return _cache_of(self.prefix).warm(self.key, self.load, self.ttl, stale=self.stale)


@dataclass(frozen=True)
class SharedWarming:
    """What one call of `warm_cache` loads in this process, and the run that it shares with other calls."""

    key: str
    load: Callable[[], Any]
    run: WarmRun = field(repr=False)
    again: Callable[[], WarmRun] = field(repr=False)
    """Take part in a run that starts from now on."""
    packed: Callable[[], Warming] = field(repr=False)
    """Make what another process gets; raises where none could use it."""
    __asok_stays__: bool
    """Is the value of use to this process alone? Then the task ends with it, unless the call says otherwise."""

    def __asok_travels__(self) -> Warming:
        return self.packed()

    def perform(self) -> Any:
        """Load and store, or wait for the thread that does; return the value."""
        value, _ = (self.again() if _is_late() else self.run).result()
        return value


def compose_warming(
    key: str, load: Callable[[], Any], ttl: Ttl = UNSET, *, stale: Stale = UNSET, cache: Cache | None = None
) -> Warming | SharedWarming:
    """Return what the task of a `warm_cache` gets; TypeError or ValueError for invalid arguments."""
    cache = cache or Cache()
    if state_of(current_app).backend.distributed:
        return _for_worker(key, load, ttl, stale, cache)
    join = partial(cache.warm_run, key, load, ttl, stale=stale)
    # Join in the caller's thread: however long the task is queued, a run that starts from now on covers it.
    packed = partial(_for_worker, key, load, ttl, stale, cache)
    return SharedWarming(key, load, join(), join, packed, not cache.is_shared or cache.has_own_store)


def deliver_warming(warming: Warming | SharedWarming) -> Any:
    """Do what a task of `warm_cache` is for. Messages to workers name this function."""
    return warming.perform()


@task(queue="cache", prepare=compose_warming, run=deliver_warming)
def warm_cache(
    key: str, load: Callable[[], T], ttl: Ttl = UNSET, *, stale: Stale = UNSET, cache: Cache | None = None
) -> T:
    """
    Load a value and store it under `key`: `background(warm_cache, "recent_posts", load_recent_posts, ttl=300)`.

    Call it after a write was committed (`background.using(when="commit")`). The value then stored is never one that was
    loaded before the call, whatever other calls and reads are in progress: per key one load runs and one is pending,
    and a call that finds one pending shares its result. The stored value stays until the new one is there, and if
    `load` raises. Where the memory of this process keeps it, the task is not durable by `ASOK_DURABLE`.

    Args:
        key: As for `Cache.set`.
        load: A function without arguments that reads the value when it is called, perhaps once for several calls. If
            tasks run in other processes, it must be importable by its name.
        ttl: Seconds or timedelta for which the value is fresh, None for ever; by default the cache's.
        stale: Seconds or timedelta for which it may be served past that.
        cache: The Cache that keeps it; by default the store that the current application's caches share.

    Raises what `load` raises; TypeError or ValueError, at the call of `background`, for invalid arguments.
    """
    return (cache or Cache()).warm(key, load, ttl, stale=stale)


@task(queue="cache")
def warm_queued_before(key: str, load: Callable[[], T], ttl: float | None, *, stale: float, cache: str) -> T:
    """
    Run a `warm_cache` that a version before this one sent to a worker. Here for one release.

    Its messages name `flask_asok.recipes.cache.warm:warm_cache`, and give the prefix of the cache as `cache`.
    """
    return _cache_of(cache).warm(key, load, ttl, stale=stale)


def _cache_of(prefix: str) -> Cache:
    """Return the Cache that a message names; one of a version before this may name what was the default then."""
    return Cache() if prefix == "asok:" else Cache(prefix=prefix)


def warm_all(
    keys: Iterable[str] | None = None, *, only_missing: bool = False, jobs: int = 4, report: Report | None = None
) -> dict[str, Any]:
    """
    Warm every `@cached` function of this process, and wait. Return the value for each key, or the error of its loader.

    A function whose key has arguments is warmed for the ones that its `each` returns, and left out if it has none; if
    `each` raises, the error stands under the key as given in the decorator. A gunicorn server calls `warm_all` in its
    `post_worker_init`, within `app.app_context()`; `flask asok warm --all` warms a store that processes share, once.

    Args:
        keys: Warm only these, given as in the decorator or in full. ValueError for an unknown one.
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


def _is_late() -> bool:
    """Return True in a task that runs later than its call: a run since then, say before the commit, is too old."""
    attempt = running_task()
    return attempt is not None and (attempt.options.is_deferred or attempt.options.delay > 0 or attempt.attempts > 1)


def _for_worker(key: str, load: Callable[[], Any], ttl: Ttl, stale: Stale, cache: Cache) -> Warming:
    if not cache.is_shared:
        raise NotConfigured(
            "Another process may run this task, and what it stores in its memory is not seen here. "
            'Set CACHE_TYPE = "RedisCache" and CACHE_REDIS_URL.'
        )
    if cache.has_own_store:
        raise TypeError(
            "A Cache with a store of its own cannot be sent to another process. Use the application's: Cache()."
        )
    lifetime = cache.lifetime(ttl, stale)
    return Warming(key, load, None if math.isinf(lifetime.ttl) else lifetime.ttl, lifetime.stale, cache.prefix)


def _warm(app: Flask, warmer: Warmer) -> tuple[float, Any]:
    if warmer.error is not None:
        return 0.0, warmer.error
    started = time.perf_counter()
    result: Any
    with app.app_context():
        try:
            result, outcome = warmer.cached.warm_run(*warmer.args).result()
            if outcome is Outcome.UNREACHABLE:
                result = CacheUnavailable(f"{warmer.key!r} was loaded, but not stored: the store cannot be reached.")
        except Exception as error:
            result = error
    return time.perf_counter() - started, result
