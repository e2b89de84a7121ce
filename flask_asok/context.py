"""What a task captures of its caller: values of `g`, context variables and where links point to."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, copy_context
from dataclasses import fields, is_dataclass
from itertools import islice
from operator import methodcaller
from types import SimpleNamespace
from typing import Any

from flask import Flask, Request, request
from flask.ctx import AppContext
from werkzeug.routing import MapAdapter

# Carrying Flask's own variables would show the task a request that has ended, and an app context whose teardown has
# already run: a database session that is opened in it is never given back.
# Sentry's old hub holds the caller's own scopes, not their forks; its other variable matters to `init` alone.
# asgiref's say which thread the caller's async code has to use, which is no thread of the task's.
NOT_CAPTURED = frozenset(
    {
        "flask.app_ctx", "flask.request_ctx", "asok.current_task", "sentry_current_hub", "client_init_debug",
        "deadlock_context", "thread_sensitive_context", "async_single_thread_context",
    }
)  # fmt: skip

MOST_ADAPTERS = 64
"""URL adapters kept for an app. Their key holds the Host header, which a client chooses, so they must have a bound."""

Adapters = dict[tuple[str | None, ...], MapAdapter]

_current_request = request._get_current_object  # type: ignore[attr-defined]


Variables = tuple[tuple[ContextVar[Any], Any], ...]

Captured = tuple[Flask, Mapping[str, Any], Variables, MapAdapter | None]
"""The application, the values of the caller's `g`, its context variables, and what builds URLs for its scheme, host and
prefix. A plain tuple, since each task makes one. No attempt changes anything in it."""


_COPIED = frozenset({dict, list, set, SimpleNamespace})

_SEQUENCES = (list, tuple, set, frozenset, deque)


def _forked(value: Any) -> Any:
    """Fork a Sentry scope: what the caller adds to it from now on is not of the task, nor the other way round."""
    return value.fork() if type(value).__module__ == "sentry_sdk.scope" else value


_COPIES: dict[str, Callable[[Any], Any]] = {
    "decimal_context": methodcaller("copy"),
    "current_scope": _forked,
    "isolation_scope": _forked,
}
"""How the values of some context variables are copied; all others are shared with the caller."""

# Most tasks capture none: sharing these leaves less for the garbage collector to visit.
_NO_VALUES: Mapping[str, Any] = {}
_NO_VARIABLES: Variables = ()


def capture(context: AppContext, adapters: Adapters) -> Captured:
    """Take along what the caller's context holds; `adapters` is the app's bounded cache of URL adapters."""
    app = context.app
    values, variables = _NO_VALUES, _NO_VARIABLES
    # Of a list: another thread may share `g`, as it may share whatever is in it.
    for name in list(context.g):
        value = context.g.get(name)
        if _belongs_to_task(value):
            values = {**values, name: _without_foreign(_copied(value))}
    # Without `items()`, which makes a pair of each, also of those that are left out.
    around = copy_context()
    for variable in around:
        name = variable.name
        if name not in NOT_CAPTURED:
            value = around[variable]
            copied = _COPIES.get(name)
            variables = (*variables, (variable, value if copied is None else copied(value)))
    own = request_of(app)
    return app, values, variables, context.url_adapter if own is None else _request_adapter(app, own, adapters)


def fresh(captured: Captured) -> AppContext:
    """Return a new app context, not yet pushed, with the captured values in place."""
    app, values, _, adapter = captured
    context = app.app_context()
    for name, value in values.items():
        setattr(context.g, name, _copied(value))
    if adapter is not None:
        context.url_adapter = adapter
    return context


def request_of(app: Flask) -> Request | None:
    """Return the request that `app` answers here; None also inside of one that another application answers."""
    # Cheaper than to ask first: most tasks are started in a request.
    try:
        found: Request = _current_request()
    except RuntimeError:
        return None
    # Flask gives each request the JSON provider of its application: the one name for that in every version of Flask.
    return found if found.json_module is app.json else None


def is_bound_to_session(value: object) -> bool:
    """Is this an ORM instance that a SQLAlchemy session still holds, a query or result of one, or a session itself?"""
    kind, orm = type(value), sys.modules.get("sqlalchemy.orm")
    if orm is None:
        return False
    if hasattr(kind, "__mapper__"):
        state = sys.modules["sqlalchemy"].inspect(value, raiseerr=False)
        return state is not None and state.session is not None
    sql = sys.modules["sqlalchemy"]
    return issubclass(kind, (orm.Query, orm.Session, sql.Result, sql.ScalarResult, sql.MappingResult))


def items_of(value: Any, most: int | None = None) -> list[Any] | None:
    """
    Return what a container or a record holds, its first `most` items; None of anything else. Of a dict its values.

    Another thread may change it meanwhile.
    """
    kind = type(value)
    # By the type itself: a proxy or a Mock is of any class that it is asked for. An ORM instance is no record here, for
    # what it has may have to be loaded.
    if issubclass(kind, dict):
        return _first(dict.values(value), most)
    if issubclass(kind, _SEQUENCES):
        return _first(value, most)
    if kind is SimpleNamespace:
        return _first(vars(value).values(), most)
    if is_dataclass(kind) and not hasattr(kind, "__mapper__"):
        return [getattr(value, field.name, None) for field in fields(kind)]
    if "sqlalchemy.orm" in sys.modules:
        sqlalchemy = sys.modules["sqlalchemy"]
        if issubclass(kind, (sqlalchemy.Row, sqlalchemy.RowMapping)):
            return _first(value if issubclass(kind, sqlalchemy.Row) else value.values(), most)
    if hasattr(kind, "__attrs_attrs__"):
        return [getattr(value, field.name, None) for field in kind.__attrs_attrs__]
    return None


def _first(items: Iterable[Any], most: int | None) -> list[Any]:
    # One step in C, in which no other thread runs. Where one does, as without the interpreter's lock, or in an iterator
    # of the application, it is as if the container were empty: what is only looked at must not fail the call.
    try:
        return list(islice(items, most))
    except RuntimeError:
        return []


def _belongs_to_task(value: object) -> bool:
    """A tuple or a record that holds something of the request stays there whole: each of its places means something."""
    if _is_foreign(value):
        return False
    if type(value) in _COPIED:
        return True
    items = items_of(value)
    return items is None or not _holds_foreign(items)


def _is_foreign(value: object) -> bool:
    """Ask the type, since asking a lazy proxy may raise. Connections, cursors and files belong to the request."""
    return hasattr(type(value), "close") or is_bound_to_session(value)


def _holds_foreign(items: Iterable[Any]) -> bool:
    kinds = set(map(type, items))
    # Most values are of few types, none of which is suspicious.
    if not any(hasattr(kind, "close") or hasattr(kind, "__mapper__") for kind in kinds):
        return False
    return any(map(_is_foreign, items))


def _without_foreign(value: Any) -> Any:
    """Return a plain container, which nobody else has, without those of its items that belong to the request."""
    kind = type(value)
    items = items_of(value) if kind in _COPIED else None
    if items is None or not _holds_foreign(items):
        return value
    if kind is dict:
        return {key: item for key, item in value.items() if not _is_foreign(item)}
    if kind is SimpleNamespace:
        return SimpleNamespace(**{name: item for name, item in vars(value).items() if not _is_foreign(item)})
    return kind(item for item in value if not _is_foreign(item))


def _copied(value: Any) -> Any:
    """Copy a plain container one level deep: extensions keep their state in one, and change it in place."""
    kind = type(value)
    if kind is dict or kind is list or kind is set:
        return kind(value)
    if kind is SimpleNamespace:
        return SimpleNamespace(**vars(value))
    return value


def _request_adapter(app: Flask, own: Request, adapters: Adapters) -> MapAdapter | None:
    environ = own.environ
    host = environ.get("HTTP_HOST")
    key: tuple[str | None, ...] = (environ.get("wsgi.url_scheme"), host, environ.get("SCRIPT_NAME"))
    if host is None:
        key += (environ.get("SERVER_NAME"), environ.get("SERVER_PORT"))
    try:
        return adapters[key]
    except KeyError:
        return _bind(app, own, adapters, key)


def _bind(app: Flask, own: Request, adapters: Adapters, key: tuple[str | None, ...]) -> MapAdapter | None:
    """Bind anew, so that nothing else of this request, its path or its query, stays in the cache."""
    bound = app.create_url_adapter(own)
    if bound is None:
        return None
    adapter = app.url_map.bind(bound.server_name, bound.script_name, bound.subdomain, bound.url_scheme)
    if len(adapters) >= MOST_ADAPTERS:
        adapters.clear()
    adapters[key] = adapter
    return adapter
