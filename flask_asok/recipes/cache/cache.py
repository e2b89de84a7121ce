"""The Cache: it checks its arguments, and finds the Loader that does the work."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cachelib import BaseCache
from flask import Flask, current_app
from flask.globals import app_ctx

from ...dispatch import task
from ...errors import NotConfigured
from ...logs import log
from ...process import FORKS_UNSEEN, renew
from ...state import KEY, AppState, state_of
from .errors import CacheUnavailable
from .lifetime import UNSET, Lifetime, Stale, Ttl, fresh_seconds, stale_seconds
from .loader import Loader
from .stores.app_store import app_store, naming, store_on
from .stores.serializer import JSONSerializer
from .stores.store import OF_TASKS, Store
from .warm_run import WarmRun

T = TypeVar("T")

PREFIX = "asok-cache:"
"""What the keys begin with by default."""

# The proxies would cost several times what the rest of a read does.
_current_context = app_ctx._get_current_object  # type: ignore[attr-defined]


class Cache:
    """
    Keeps values that are slow to make: `cache = Cache()`, once, at the top of a module.

    Without a `store` it uses the one that the current application's caches share. It looks that up with every call, so
    one Cache serves several applications and never mixes them, and needs an app context. The `CACHE_*` configuration
    says which store that is; by default it is the memory of this process.

    A `store` is a cachelib cache or a Flask-Caching `Cache`. The caller keeps and closes it; it needs no app context.

    Args:
        store: See above.
        ttl: Seconds or timedelta for which a value is fresh unless `set` and the others say otherwise; None is for
            ever. By default the application's `CACHE_DEFAULT_TIMEOUT`, or 300.
        stale: Seconds or timedelta for which a value may be served past its ttl while it is loaded anew.
        prefix: What the keys begin with in the store. Two Caches with the same prefix see the same values. Not "asok:",
            with which the keys of tasks begin: ValueError.
    """

    def __init__(
        self, store: BaseCache | Store | Any = None, *, ttl: Ttl = UNSET, stale: Stale = 0, prefix: str = PREFIX
    ) -> None:
        self._own_loader: Loader | None = None
        self._flask_caching: Any = None
        if hasattr(store, "init_app"):
            self._flask_caching = store
        elif store is not None:
            self._own_loader = _loader_on(store)
        self._ttl = UNSET if ttl is UNSET else fresh_seconds(ttl)
        self._stale = 0.0 if stale is UNSET else stale_seconds(stale)
        self.prefix: str = _checked_prefix(prefix)

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value if it is there and fresh, else `default`. A store that cannot be reached has no values."""
        loader = self._own_loader
        if loader is None:
            loader = self._current_loader()
        elif FORKS_UNSEEN:
            renew()
        name = self.prefix + key
        entry = loader.store.read(name if name.isascii() else self._key(key))
        if entry is None:
            return default
        value, is_fresh = entry
        return value if is_fresh else default

    def set(self, key: str, value: Any, ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> bool:
        """
        Store `value` for `ttl` seconds; return False if the store cannot be reached.

        It beats every load in flight. Of two calls the last one wins, even with a value that was read first: to store
        what a database says after a write, use `warm`. Raises TypeError, naming the key, for a value that cannot be
        stored; ValueError for a ttl of 0 or less.
        """
        return self._find_loader().write(self._key(key), value, self.lifetime(ttl, stale))

    def has(self, key: str) -> bool:
        """Return True if a fresh value is stored, even None."""
        entry = self._find_loader().store.read(self._key(key))
        if entry is None:
            return False
        _, is_fresh = entry
        return is_fresh

    def delete(self, key: str) -> bool:
        """
        Delete the value, fresh or stale; return True if there was one. It beats every load in flight.

        Raises CacheUnavailable if the store cannot be reached, since the old value would be served again later; with
        `CACHE_IGNORE_ERRORS` it returns False.
        """
        return _unless_ignored(lambda: self._find_loader().delete(self._key(key)), False)

    def get_many(self, *keys: str) -> dict[str, Any]:
        """Return the fresh values of `keys`, by key, with one question to the store."""
        entries = self._find_loader().store.read_many([self._key(key) for key in keys])
        found: dict[str, Any] = {}
        for key, entry in zip(keys, entries, strict=True):
            if entry is not None:
                value, is_fresh = entry
                if is_fresh:
                    found[key] = value
        return found

    def set_many(self, values: Mapping[str, Any], ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> bool:
        """Store every value as `set` does; return False if the store could not be reached for one."""
        stored = [self.set(key, value, ttl, stale=stale) for key, value in values.items()]
        return all(stored)

    def delete_many(self, *keys: str) -> int:
        """Delete the values as `delete` does; return how many there were."""
        return sum([self.delete(key) for key in keys])

    def clear(self) -> None:
        """
        Delete every value with this prefix. It beats every load in flight. Raises as `delete` does.

        A cachelib cache other than Redis cannot list its keys, and is cleared whole. On Redis a prefix with which the
        keys of tasks begin as well, such as "", is a ValueError.
        """
        _unless_ignored(lambda: self._find_loader().clear(self.prefix), None)

    def remember(self, key: str, load: Callable[[], T], ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> T:
        """
        Return the value; if there is none, load and store it.

        However many readers ask for a missing value, one of them loads it; the others wait for it, but never longer
        than `ASOK_CACHE_LOCK_TIMEOUT`. With a `stale` window no reader waits once the ttl has passed: each gets the old
        value while the new one is loaded in the background, and still gets it if that fails.

        If `load` raises, every reader that waited for it gets the error, and nothing is stored. A value that cannot be
        stored raises TypeError. If the store cannot be reached, this returns the result of `load`.
        """
        _check_load(load)
        loaded: T = self._find_loader().remember(self._key(key), load, self.lifetime(ttl, stale))
        return loaded

    # A method has no name by which another process could find it, whatever ASOK_DURABLE is.
    @task(durable=False)
    def warm(self, key: str, load: Callable[[], T], ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> T:
        """
        Load the value now, in this thread, replace what is stored, and return it.

        Call it after a write was committed: no load that began before this call can overwrite it. Calls that meet a
        load of the same key by `warm` share the next one. If `load` raises, so does this, and the stored value stays.
        """
        value: T
        value, _ = self.warm_run(key, load, ttl, stale=stale).result()
        return value

    def warm_run(self, key: str, load: Callable[[], Any], ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> WarmRun:
        """Return the run that a `warm` at this moment takes part in; its `result()` may be asked for later."""
        _check_load(load)
        return self._find_loader().warm(self._key(key), load, self.lifetime(ttl, stale))

    def lifetime(self, ttl: Ttl, stale: Stale) -> Lifetime:
        """
        Return what `ttl` and `stale` mean here, with the defaults filled in. Raises TypeError or ValueError.
        """
        if ttl is UNSET:
            fresh = self._find_loader().default_ttl if self._ttl is UNSET else self._ttl
        else:
            fresh = fresh_seconds(ttl)
        return Lifetime(fresh, self._stale if stale is UNSET else stale_seconds(stale))

    @property
    def is_shared(self) -> bool:
        """Return True if other processes see what is stored here."""
        return self._find_loader().store.shared

    @property
    def has_own_store(self) -> bool:
        """Return True if it was given a store, and does not use the application's."""
        return self._own_loader is not None or self._flask_caching is not None

    @property
    def identity(self) -> tuple[int, int, str]:
        """What two Caches have in common, as long as both live, if they see the same values."""
        return id(self._own_loader), id(self._flask_caching), self.prefix

    def __repr__(self) -> str:
        return f"<Cache {self.prefix!r}>"

    def _find_loader(self) -> Loader:
        if self._own_loader is None:
            return self._current_loader()
        # The locks of a Loader that belongs to no application; an application's own is made anew in each process.
        renew()
        return self._own_loader

    def _current_loader(self) -> Loader:
        try:
            app: Flask = _current_context().app
            state: AppState = app.extensions.get(KEY) or state_of(app)
        except NotConfigured:
            raise
        except RuntimeError:
            raise NotConfigured(
                "This Cache was used outside of an application context. Use `with app.app_context():`, or give it a "
                "store."
            ) from None
        if self._flask_caching is None:
            return state.shared("cache", _app_loader)
        return state.shared(f"cache {id(self._flask_caching)}", self._flask_caching_loader)

    def _flask_caching_loader(self) -> Loader:
        backends = current_app.extensions.get("cache") or {}
        if self._flask_caching not in backends:
            raise NotConfigured(
                "The Flask-Caching object of this Cache is not set up on this app: call its init_app(app)."
            )
        if len(backends) == 1:
            return current_app.extensions[KEY].shared("cache", _app_loader)  # type: ignore[no-any-return]
        return _loader_on(backends[self._flask_caching])

    def _key(self, key: str) -> str:
        if not isinstance(key, str):
            raise TypeError(f"A cache key must be a str, not {type(key).__name__}.")
        if not key.isascii():
            _check_text("A cache key", key)
        return self.prefix + key


def _checked_prefix(prefix: str) -> str:
    if not isinstance(prefix, str):
        raise TypeError(f"The prefix of a Cache must be a str, not {type(prefix).__name__}.")
    if prefix.startswith(OF_TASKS):
        raise ValueError(f"The keys of tasks begin with {OF_TASKS!r}: give the Cache another prefix than {prefix!r}.")
    _check_text("The prefix of a Cache", prefix)
    return prefix


def _check_text(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        # Of a request's JSON, for instance, which may have half of a surrogate pair.
        raise ValueError(f"{what} must be text that UTF-8 can hold, not {text[:60]!a}.") from None


def _check_load(load: object) -> None:
    if not callable(load):
        raise TypeError(f"The loader must be a function that takes nothing, not {type(load).__name__}.")


def _unless_ignored(delete: Callable[[], T], otherwise: T) -> T:
    try:
        return delete()
    except CacheUnavailable as error:
        if not (current_app and current_app.config.get("CACHE_IGNORE_ERRORS")):
            raise
        log(logging.ERROR, "%s", error, logger="asok.cache")
        return otherwise


def _app_loader() -> Loader:
    """Make the Loader that the caches of the current app share."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    config = state_of(app).config
    cooldown = config["ASOK_CACHE_ERROR_COOLDOWN"]
    store = app_store(app, cooldown=cooldown, redis_timeout=config["ASOK_CACHE_REDIS_TIMEOUT"])
    # In Flask-Caching 0 means a value that never expires.
    with naming("CACHE_DEFAULT_TIMEOUT"):
        ttl = fresh_seconds(app.config.get("CACHE_DEFAULT_TIMEOUT", 300) or None)
    return Loader(store, default_ttl=ttl, lock_timeout=config["ASOK_CACHE_LOCK_TIMEOUT"], cooldown=cooldown)


_loaders: weakref.WeakValueDictionary[int, Loader] = weakref.WeakValueDictionary()
"""By the id of the caller's store. The Loader keeps the store alive, so that no other one gets that id."""


def _loader_on(cache: BaseCache | Store) -> Loader:
    """Return the one Loader on the caller's own store, so that every Cache on it shares its loads."""
    loader = _loaders.get(id(cache))
    if loader is None:
        loader = _loaders.setdefault(id(cache), Loader(store_on(cache, JSONSerializer()), origin=cache))
    return loader
