"""What must not be passed to a task, and what to pass instead."""

from __future__ import annotations

import contextlib
import functools
import logging
import sys
import warnings
from collections.abc import Callable
from io import BufferedReader, TextIOWrapper
from types import MethodType
from typing import Any

from flask import Flask, g, request, session
from flask.sessions import SessionMixin
from werkzeug.datastructures import FileStorage
from werkzeug.local import LocalProxy
from werkzeug.wrappers import Request

from .callables import name_of
from .context import is_bound_to_session, items_of, request_of
from .logs import log

PLAIN = frozenset({str, int, float, bool, bytes, type(None)})
"""Types of arguments that need no check."""

_BARE = frozenset({dict, list, tuple, set, frozenset})
"""Plain containers."""

_MOST_LOOKED_AT = 20
"""Items of a container that are looked at: a form has no more uploads, and a long list is data."""

_MOST_OPENED = 5
"""Containers that are looked into, for one argument."""

_UPLOAD = (
    "An uploaded file closes with the response. Save it first, and pass its path: "
    "path = save_upload(request.files[...], folder)."
)
_STREAM = "`request.stream` ends with the response: read it first, and pass its bytes, for instance request.get_data()."
_ANONYMOUS = (
    "An anonymous user was passed to background(): there is nobody to load in the task. "
    "Look at current_user.is_authenticated first."
)
_CURRENT_USER = (
    "`current_user` was passed to background(): it belongs to the request. "
    "Pass current_user.get_id(), and load the user in the task."
)


def checked(arg: Any, app: Flask, fn: Callable[..., Any]) -> Any:
    """
    Return what a task of `fn` may get of `arg`; TypeError, with what to do instead, for what ends with the request.

    What works by luck, such as an ORM instance that is bound to a session, is warned of.
    """
    _tell(_complaint(arg, app), app, fn)
    if isinstance(arg, LocalProxy):
        with contextlib.suppress(RuntimeError):
            return arg._get_current_object()
    return arg


def check_function(fn: Callable[..., Any], app: Flask) -> None:
    """Look, as at arguments, at what a method or a partial brings along: `request.files["photo"].save`."""
    if type(fn) is MethodType:
        _tell(_complaint_about(fn.__self__, app), app, fn)
    elif issubclass(type(fn), functools.partial):
        for arg in (*fn.args, *fn.keywords.values()):  # type: ignore[attr-defined]
            if type(arg) not in PLAIN:
                _tell(_complaint(arg, app), app, fn)


def _tell(complaint: str | None, app: Flask, fn: Callable[..., Any]) -> None:
    if complaint is not None:
        # In the log as well: a server shows a warning once for each line of code, and not in its log.
        warnings.warn(complaint, stacklevel=5)
        log(logging.WARNING, "Background task %s: %s", name_of(fn), complaint, app=app)


def _complaint(arg: Any, app: Flask) -> str | None:
    """Return the warning about `arg`, or about what it contains; raise TypeError for an argument that is refused."""
    pending, opened = [arg], 0
    for value in pending:
        kind = type(value)
        if kind not in _BARE:
            complaint = _complaint_about(value, app)
            if complaint is not None:
                return complaint
        if opened < _MOST_OPENED and (items := items_of(value, _MOST_LOOKED_AT)) is not None:
            opened += 1
            pending += [item for item in items if type(item) not in PLAIN]
    return None


def _complaint_about(value: Any, app: Flask) -> str | None:
    proxy = None
    # By the type itself: a proxy or a Mock is of any class that it is asked for.
    if issubclass(type(value), LocalProxy):
        for name, own in (("request", request), ("session", session), ("g", g)):
            if value is own:
                raise TypeError(_ends(name))
        proxy = value
        try:
            value = value._get_current_object()
        except RuntimeError:
            return None
    kind = type(value)
    if issubclass(kind, Request):
        raise TypeError(_ends("request"))
    if issubclass(kind, SessionMixin):
        raise TypeError(_ends("session"))
    if issubclass(kind, app.app_ctx_globals_class):
        raise TypeError(_ends("g"))
    if issubclass(kind, FileStorage):
        raise TypeError(_UPLOAD)
    if hasattr(kind, "read"):
        _refuse_stream(value, app)
    if is_bound_to_session(value):
        return (
            f"A {kind.__name__} bound to a database session was passed to background(): the session ends with the "
            "request. Pass its id, and load it in the task."
        )
    login = sys.modules.get("flask_login")
    if login is None:
        return None
    if issubclass(kind, login.AnonymousUserMixin):
        return _ANONYMOUS
    return _CURRENT_USER if proxy is login.current_user else None


def _ends(name: str) -> str:
    wanted = {"request": "request.form", "session": 'session["user_id"]', "g": "g.user_id"}[name]
    return f"`{name}` ends with the response: pass the values that the task needs, for instance {wanted}."


def _refuse_stream(stream: Any, app: Flask) -> None:
    """Raise TypeError for a stream of this request's body or of one of its files, also inside a text wrapper."""
    own = request_of(app)
    if own is None:
        return
    with contextlib.suppress(ValueError):  # a wrapper that was detached
        while isinstance(stream, (TextIOWrapper, BufferedReader)):
            stream = stream.buffer if isinstance(stream, TextIOWrapper) else stream.raw
    # Flask keeps them here once the view has asked for them; to ask now would read the body.
    parsed = vars(own)
    files = [file for several in parsed["files"].listvalues() for file in several] if "files" in parsed else ()
    if any(stream is file.stream for file in files):
        raise TypeError(_UPLOAD)
    if stream is not None and (stream is parsed.get("stream") or stream is own.environ.get("wsgi.input")):
        raise TypeError(_STREAM)
