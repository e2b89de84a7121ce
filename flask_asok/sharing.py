"""The store of an application: where it is, by `ASOK_STORE`, and opened when first needed."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

from flask import Flask

from .errors import AsokError, NotConfigured
from .logs import log
from .settings import Setting
from .state import state_of
from .store.base import COMMAND, Store
from .store.shared import Shared
from .validate import flag, one_of, or_none, text

FILE = "asok.sqlite3"

MEMORY = "memory"

REDIS_URLS = ("redis://", "rediss://", "unix://")

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
"""How a URL begins. That of a path on Windows has one letter before the colon."""


def _where(name: str, value: Any) -> str:
    """Return the place of a store; a misspelt URL would be a path as well."""
    where = text(name, value)
    if where == ":memory:" or where.startswith("~") or (_SCHEME.match(where) and not where.startswith(REDIS_URLS)):
        raise ValueError(
            f'{name} must be a path, a Redis URL (redis://, rediss:// or unix://) or "memory"; this is none of them, '
            "and would make a file of that name. A path is neither a URL nor expanded from ~."
        )
    if "\0" in where or os.path.basename(where).strip() in ("", os.curdir, os.pardir):
        # Else the file would take the place of the instance folder, or of another one.
        raise ValueError(
            f'{name} must name a file: "/var/lib/shop/asok.sqlite3". For the default, asok.sqlite3 in the instance '
            "folder, leave it out: an empty variable of the environment is not left out."
        )
    return where


SETTINGS = (
    Setting(
        "ASOK_STORE", None, or_none(_where),
        "Where the processes of the application share what they know of tasks: a path, one that is relative is taken "
        'from the instance folder; `"redis://..."`, for several machines; `"memory"`, for one process. None is '
        "`asok.sqlite3` in the instance folder, or memory under `TESTING`. A distributed backend takes only the URL of "
        "a Redis, and None is the one of its own settings.",
    ),
    Setting(
        "ASOK_STORE_SYNC", "normal", one_of("normal", "full"),
        '"normal": what was written survives the end of a process. "full": a power cut too, and each write is slower.',
    ),
    Setting("ASOK_TRACKED", False, flag, "Whether all tasks are tracked whose options do not say otherwise."),
    Setting("ASOK_DURABLE", False, flag, "Whether all tasks are durable whose options do not say otherwise."),
)  # fmt: skip


def open_store(app: Flask) -> Store:
    """Return the store of `app` in this process, made when first asked for."""
    return state_of(app).shared("store", lambda: _opened(app))


def shared_by(app: Flask) -> Shared | None:
    """Return what all processes of `app` know of its tasks: its store, or what a distributed backend has."""
    backend = state_of(app).backend
    return backend.shared() if backend.distributed else existing_store(app)


def existing_store(app: Flask) -> Store | None:
    """Return the store of `app` if there is one: reading must not make a file. A distributed backend uses none."""
    state = state_of(app)
    if state.backend.distributed:
        return None
    if state.has("store"):
        return open_store(app)
    where = _place(app)
    return open_store(app) if where != MEMORY and (where.startswith(REDIS_URLS) or os.path.exists(where)) else None


def _opened(app: Flask) -> Store:
    state, where = state_of(app), _place(app)
    store: Store
    if where == MEMORY:
        from .store.memory import MemoryStore

        store = MemoryStore()
    elif where.startswith(REDIS_URLS):
        store = _redis(where, app)
    else:
        from .store.sqlite import SQLiteStore

        store = SQLiteStore(where, app.name, sync=state.config["ASOK_STORE_SYNC"])
        log(logging.INFO, "The store of background tasks is %s.", where, app=app)
        _warn_of_layer(where, app)
    serves = state.serving.is_serving
    store.enter("web" if serves else COMMAND, state.backend.queues)
    if not serves:
        state.serving.on_first_request(enter_as_web)
    return store


def enter_as_web(app: Flask) -> bool:
    """Tell the store that this process serves, which has opened it before; False if that is to be tried again."""
    state = state_of(app)
    try:
        if state.has("store"):
            open_store(app).enter("web", state.backend.queues)
    except AsokError:
        # The store is away.
        return False
    return True


def _place(app: Flask) -> str:
    """Return the path or the URL of the store, or "memory"."""
    configured: str | None = state_of(app).config["ASOK_STORE"]
    if configured is None:
        return MEMORY if app.testing else os.path.join(app.instance_path, FILE)
    if configured == MEMORY or configured.startswith(REDIS_URLS):
        return configured
    return os.path.join(app.instance_path, configured)


def _redis(url: str, app: Flask) -> Store:
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        raise NotConfigured("A store in Redis needs the extra: pip install 'flask-asok[redis]'.") from None
    from .store.causes import address_of
    from .store.redis import Reached, RedisStore

    # A request must not wait long to learn that Redis is down.
    client = Redis.from_url(
        url, decode_responses=True, encoding_errors="replace", socket_connect_timeout=1, socket_timeout=2,
        retry=Retry(NoBackoff(), 0),
    )  # fmt: skip
    return RedisStore(client, app.name, reached=Reached(address_of(url)))


def _warn_of_layer(path: str, app: Flask) -> None:
    from .store.file import mount_of

    if mount_of(path)[1] == "overlay":
        log(
            logging.WARNING,
            "The store %s ends with this container; set ASOK_STORE to a path on a volume.", path, app=app,
        )  # fmt: skip
