"""The Cache: START HERE. It checks what it is given, and finds the engine that does the work."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cachelib import BaseCache
from flask import Flask, current_app
from flask.globals import app_ctx

from ...errors import NotConfigured
from ...logs import log
from ...state import KEY, State, state_of
from .errors import CacheUnavailable
from .lifetime import UNSET, Lifetime, Stale, Ttl, fresh_seconds, stale_seconds
from .loader import Engine
from .single_flight import Run
from .stores.app_store import app_store, naming, store_on
from .stores.serializer import JSONSerializer
from .stores.store import Store

T = TypeVar("T")

# The proxies would cost several times what the rest of a read does.
_current_context = app_ctx._get_current_object  # type: ignore[attr-defined]


class Cache:
    """
    Keeps values that are slow to make: `cache = Cache()`, once, at the top of a module.

    Without a `store` it uses the one that the current application's caches share, found anew with every call, so that
    one Cache serves several applications and never mixes them; it then needs an app context. Which store that is, the
    `CACHE_*` configuration says; by default it is the memory of this process.

    A `store` is a cachelib cache or a Flask-Caching `Cache`. It stays the caller's, and needs no app context.

    Args:
        store: See above.
        ttl: Seconds or timedelta for which a value is fresh unless `set` and the others say otherwise; None is for
            ever. By default the application's `CACHE_DEFAULT_TIMEOUT`, or 300.
        stale: Seconds or timedelta for which a value may be served past its ttl while it is loaded anew.
        prefix: What the keys begin with in the store. Two Caches with the same prefix see the same values.
    """

    def __init__(
        self, store: BaseCache | Store | Any = None, *, ttl: Ttl = UNSET, stale: Stale = 0, prefix: str = "asok:"
    ) -> None:
        self._engine: Engine | None = None
        self._flask_caching: Any = None
        if hasattr(store, "init_app"):
            self._flask_caching = store
        elif store is not None:
            self._engine = _engine_on(store)
        self._ttl = UNSET if ttl is UNSET else fresh_seconds(ttl)
        self._stale = 0.0 if stale is UNSET else stale_seconds(stale)
        self.prefix = prefix

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value if it is there and fresh, else `default`. A store that cannot be reached has no values."""
        entry = (self._engine or self._current_engine()).store.read(self.prefix + key)
        return entry[0] if entry is not None and entry[1] else default

    def set(self, key: str, value: Any, ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> bool:
        """
        Store `value` for `ttl` seconds; return False if the store cannot be reached.

        It beats every load in flight. Of two calls the last one wins, whoever read first what it stores: to store what
        a database says after a write, use `warm`. Raises TypeError, naming the key, for a value that cannot be stored;
        ValueError for a ttl of 0 or less.
        """
        return self._find().write(self._key(key), value, self.lifetime(ttl, stale))

    def has(self, key: str) -> bool:
        """Is there a fresh value, be it None?"""
        entry = self._find().store.read(self._key(key))
        return entry is not None and entry[1]

    def delete(self, key: str) -> bool:
        """
        Delete the value, fresh or stale; was there one? It beats every load in flight.

        Raises CacheUnavailable if the store cannot be reached, since the old value would be served again later; with
        `CACHE_IGNORE_ERRORS` it returns False.
        """
        return _unless_ignored(lambda: self._find().delete(self._key(key)), False)

    def get_many(self, *keys: str) -> dict[str, Any]:
        """Return the fresh ones among the values of `keys`, by key, with one question to the store."""
        entries = self._find().store.read_many([self._key(key) for key in keys])
        return {key: entry[0] for key, entry in zip(keys, entries, strict=True) if entry is not None and entry[1]}

    def set_many(self, values: Mapping[str, Any], ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> bool:
        """Store every value as `set` does; False if the store could not be reached for one."""
        stored = [self.set(key, value, ttl, stale=stale) for key, value in values.items()]
        return all(stored)

    def delete_many(self, *keys: str) -> int:
        """Delete the values as `delete` does; return how many there were."""
        return sum([self.delete(key) for key in keys])

    def clear(self) -> None:
        """
        Delete every value with this prefix. It beats every load in flight. Raises as `delete` does.

        A cachelib cache other than Redis cannot list its keys, and is cleared whole.
        """
        _unless_ignored(lambda: self._find().clear(self.prefix), None)

    def remember(self, key: str, load: Callable[[], T], ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> T:
        """
        Return the value; where there is none, load and store it.

        However many ask for a missing value, it is loaded once; the others wait for it, but never longer than
        `ASOK_CACHE_LOCK_TIMEOUT`. With a `stale` window nobody waits when the ttl has passed: the old value is returned
        while the new one is loaded in the background, and is served on if that fails.

        What `load` raises, everyone who waited for it gets, and nothing is stored. A value that cannot be stored raises
        TypeError. Without its store this returns what `load` does.
        """
        _check_load(load)
        loaded: T = self._find().remember(self._key(key), load, self.lifetime(ttl, stale))
        return loaded

    def warm(self, key: str, load: Callable[[], T], ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> T:
        """
        Load the value now, in this thread, store it whatever is there, and return it.

        Call it after a write was committed: no load that began before this call can overwrite it. Calls that meet a
        load of the same key by `warm` share the next one. What `load` raises is raised, and what was stored stays.
        """
        value: T = self.warm_run(key, load, ttl, stale=stale).settle()[0]
        return value

    def warm_run(self, key: str, load: Callable[[], Any], ttl: Ttl = UNSET, *, stale: Stale = UNSET) -> Run:
        """Return the run that a `warm` at this moment is part of, to be settled later."""
        _check_load(load)
        return self._find().warm(self._key(key), load, self.lifetime(ttl, stale))

    def lifetime(self, ttl: Ttl, stale: Stale) -> Lifetime:
        """
        Return what `ttl` and `stale` mean here, with the defaults filled in; TypeError or ValueError for no lifetime.
        """
        if ttl is UNSET:
            fresh = self._find().default_ttl if self._ttl is UNSET else self._ttl
        else:
            fresh = fresh_seconds(ttl)
        return Lifetime(fresh, self._stale if stale is UNSET else stale_seconds(stale))

    @property
    def is_shared(self) -> bool:
        """Do other processes see what is stored here?"""
        return self._find().store.shared

    @property
    def has_own_store(self) -> bool:
        """Was it given a store, so that the application's does not count?"""
        return self._engine is not None or self._flask_caching is not None

    def __repr__(self) -> str:
        return f"<Cache {self.prefix!r}>"

    def _find(self) -> Engine:
        return self._engine or self._current_engine()

    def _current_engine(self) -> Engine:
        try:
            app: Flask = _current_context().app
            state: State = app.extensions.get(KEY) or state_of(app)
        except NotConfigured:
            raise
        except RuntimeError:
            raise NotConfigured(
                "This Cache was used outside of an application context. Use `with app.app_context():`, or give it a "
                "store."
            ) from None
        if self._flask_caching is None:
            return state.shared("cache", _app_engine)
        return state.shared(f"cache {id(self._flask_caching)}", self._flask_caching_engine)

    def _flask_caching_engine(self) -> Engine:
        backends = current_app.extensions.get("cache") or {}
        if self._flask_caching not in backends:
            raise NotConfigured(
                "The Flask-Caching object of this Cache is not set up on this app: call its init_app(app)."
            )
        if len(backends) == 1:
            return current_app.extensions[KEY].shared("cache", _app_engine)  # type: ignore[no-any-return]
        return _engine_on(backends[self._flask_caching])

    def _key(self, key: str) -> str:
        if not isinstance(key, str):
            raise TypeError(f"A cache key must be a str, not {type(key).__name__}.")
        return self.prefix + key


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


def _app_engine() -> Engine:
    """Make the engine that the caches of the current app share."""
    app = current_app._get_current_object()  # type: ignore[attr-defined]
    config = state_of(app).config
    rest = config["ASOK_CACHE_ERROR_COOLDOWN"]
    store = app_store(app, rest=rest, redis_timeout=config["ASOK_CACHE_REDIS_TIMEOUT"])
    # 0 is the word of Flask-Caching for a value that never expires.
    with naming("CACHE_DEFAULT_TIMEOUT"):
        ttl = fresh_seconds(app.config.get("CACHE_DEFAULT_TIMEOUT", 300) or None)
    return Engine(store, default_ttl=ttl, limit=config["ASOK_CACHE_LOCK_TIMEOUT"], rest=rest)


_engines: weakref.WeakValueDictionary[int, Engine] = weakref.WeakValueDictionary()
"""By the id of the caller's store, which the engine keeps alive: another one must not come to have that id."""


def _engine_on(cache: BaseCache | Store) -> Engine:
    """Return the one engine on the caller's own store, so that every Cache on it shares its loads."""
    engine = _engines.get(id(cache))
    if engine is None:
        engine = _engines.setdefault(id(cache), Engine(store_on(cache, JSONSerializer()), origin=cache))
    return engine
