"""What Flask-Asok keeps for one application."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask

from . import process
from .backends.base import Backend
from .errors import NotConfigured
from .logs import log_exception
from .options import Options
from .serving import Serving
from .triggers import abandon_deferred

T = TypeVar("T")

KEY = "asok"
"""Where it is, in `app.extensions`."""


class AppState:
    """Made by `init_app`, kept at `app.extensions["asok"]`, lives as long as the application."""

    def __init__(self, app: Flask, config: dict[str, Any], backend: Backend) -> None:
        self.config = config
        """The `ASOK_*` values, read once."""
        self.serving: Serving = Serving(app)
        """Whether this process serves the application, and what begins when it does."""
        self.tracks_all: bool = config["ASOK_TRACKED"]
        self.keeps_all: bool = config["ASOK_DURABLE"]
        self.records_all: bool = self.tracks_all or self.keeps_all
        self.backend = backend
        self._kept: dict[type[Any], Any] = {}
        # Reentrant, since making one object may ask for another.
        self._making = process.LateLock()
        self._begin_anew()
        process.after_fork(self._begin_anew)
        _states.add(self)

    def is_durable(self, options: Options) -> bool:
        """Is a task with these options written down, so that it survives its process?"""
        return self.keeps_all if options.durable is None else options.durable

    def survives(self, options: Options) -> bool:
        """Does a task with these options survive its process, here or by an engine?"""
        return self.backend.distributed or self.is_durable(options)

    def is_tracked(self, options: Options) -> bool:
        """Is a task with these options tracked?"""
        return self.tracks_all if options.tracked is None else options.tracked

    def is_recorded(self, options: Options) -> bool:
        """Has a task with these options a record in the store?"""
        return self.is_tracked(options) or self.is_durable(options) or options.unique is not None

    def shared(self, key: str, make: Callable[[], T]) -> T:
        """
        Return this application's one object in this process under `key`, made by `make()` when first asked for.

        A forked child makes its own: connections must not be shared with the parent. An object that has `close` is
        closed with the application.
        """
        process.renew()
        try:
            return self._shared[key]  # type: ignore[no-any-return]
        except KeyError:
            with self._making.of_process():
                # Kept here: while a sweeper still looks, another thread may close the application.
                made = self._shared.get(key)
                if made is None:
                    made = self._shared[key] = make()
                return made

    def keep(self, one: object) -> None:
        """Keep an object of a room for as long as the application lives, across forks: one of each class."""
        self._kept[type(one)] = one

    def kept(self, kind: type[T]) -> T:
        """Return the object of this class."""
        return self._kept[kind]  # type: ignore[no-any-return]

    def has(self, key: str) -> bool:
        """Return True if there is a shared object under `key`."""
        process.renew()
        return key in self._shared

    def close(self, timeout: float | None = None) -> None:
        """Close the backend, abandon what waits for a response or a commit, then close the shared objects."""
        process.renew()
        self.backend.close(timeout)
        # Before the store closes, into which it writes.
        abandon_deferred(self.backend.app)
        self.close_shared()

    def close_shared(self) -> None:
        """Close the shared objects, the latest first, and the store last: the others may still write into it."""
        while self._shared:
            key = next((key for key in reversed(list(self._shared)) if key != "store"), "store")
            close = getattr(self._shared.pop(key, None), "close", None)
            if close is not None:
                try:
                    close()
                except Exception as error:
                    log_exception("Closing %s failed: %r", key, error)

    def _begin_anew(self) -> None:
        # The parent's connections are the parent's to close.
        self._shared: dict[str, Any] = {}


_states: weakref.WeakSet[AppState] = weakref.WeakSet()


def _close_all_shared() -> None:
    # What waits for a response or a commit is abandoned in the store as well.
    abandon_deferred()
    for state in list(_states):
        # An engine has an end of its own, which its broker or database may hold up.
        if not state.backend.distributed:
            state.close_shared()


# After the backends have closed, whose tasks write their ends into the store.
process.at_exit(_close_all_shared, last=True)


def state_of(app: Flask) -> AppState:
    """Return what `init_app` left on `app`; NotConfigured if it was never called."""
    try:
        return app.extensions[KEY]  # type: ignore[no-any-return]
    except KeyError:
        raise NotConfigured(
            f"Flask-Asok is not set up on the app {app.import_name!r}. Call FlaskAsok(app) or init_app(app) first."
        ) from None
