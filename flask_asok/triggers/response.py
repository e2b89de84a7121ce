"""Defer tasks until the response to their request has been sent."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any

import flask.globals
from flask import (
    Flask,
    Response,
    got_request_exception,
    has_request_context,
    request,
    request_finished,
    request_started,
)
from flask.ctx import AppContext

from ..attempt import RunnableTask
from ..context import request_of
from .body import closing
from .deferred import Deferred, Start, cancel_all, release_all, release_dropped, wait_for

_ENVIRON_KEY = "flask_asok.exchange"

# Since Flask 3.2 a request has no context besides that of its application.
_proxy: Any = flask.globals.app_ctx if hasattr(AppContext, "has_request") else flask.globals.request_ctx
_request_context = _proxy._get_current_object


class _Exchange:
    """
    A request and its response, with the tasks that wait until that has been sent.

    The environ keeps it and, once a task waits for it, so do the response and its body: each that may still send a
    byte, and nothing else. If the server never closes the response, as some bridges to ASGI do not, the tasks are
    started when the last of those is gone.
    """

    # Each request makes one.
    __slots__ = (
        "__weakref__", "_context", "_is_awaited", "_response", "_trigger", "deferred", "inner", "is_over", "outer",
        "thread",
    )  # fmt: skip

    def __init__(self, context: Any, outer: _Exchange | None = None) -> None:
        self.thread = threading.get_ident()
        self.outer = outer
        """The exchange with the same environ that this one is in the middle of: its view has called an app again."""
        self.inner: weakref.ref[_Exchange] | None = None
        """The latest one that was made in the middle of this one, and has ended."""
        self.is_over = False
        """True once the response has been sent, or the request has ended without one."""
        self.deferred: list[Deferred] = []
        self._context = weakref.ref(context)
        self._trigger: _ResponseTrigger | None = None
        self._response: weakref.ref[Response] | None = None
        self._is_awaited = False

    def __del__(self) -> None:
        if self.deferred:
            release_dropped(self.deferred)

    @property
    def is_alive(self) -> bool:
        return self._context() is not None

    def is_of(self, context: Any) -> bool:
        """Return True for its own context. Others of the same request, such as copies for threads, end sooner."""
        return self._context() is context

    @property
    def is_answered(self) -> bool:
        return self._response is not None

    def add(self, task: RunnableTask[Any], start: Start) -> None:
        if self._trigger is None:
            self._trigger = _ResponseTrigger(self)
        wait_for(self._trigger, task)
        self.deferred.append(Deferred(task, start))
        self._await_response(is_called=True)
        if self.is_over:
            # By now, in another thread, which may not have seen this one.
            self._release()

    def answer(self, response: Response) -> None:
        self._response = weakref.ref(response)
        self._is_awaited = False
        self._await_response()

    def end(self, error: BaseException | None) -> None:
        """End the wait of a request that made no response: `test_request_context()`, or an error past every handler."""
        if self.is_answered:
            return
        if error is not None:
            self.cancel(error)
        self._release()

    def drop(self) -> None:
        """Let nothing wait for an answer that is not sent: a function of a teardown failed after it was made."""
        self._release()

    def cancel(self, error: BaseException | None) -> None:
        cancel_all(self.deferred, f"its request failed with {type(error).__name__}")

    def _release(self) -> None:
        self.is_over = True
        release_all(self.deferred, bounded=True)

    def _await_response(self, *, is_called: bool = False) -> None:
        # Only where there is something to release: one response, kept by the application, may answer each request.
        response = None if self._response is None else self._response()
        if response is None or not self.deferred or self._is_awaited:
            return
        self._is_awaited = True
        # The environ and its request keep each other alive, and with them the exchange. Flask does this up to 3.1.
        request.environ["werkzeug.request"] = None
        response.call_on_close(self._release)
        if response.direct_passthrough:
            # The server gets the bare body, and nobody closes the response itself.
            # Once the response was called, as it is before the teardown, the server has that object.
            is_of_server = is_called or "wsgi.file_wrapper" in request.environ
            response.response = closing(response.response, self._release, is_of_server=is_of_server)  # type: ignore[arg-type]


class _ResponseTrigger:
    """What a deferred task refers to. It keeps no exchange alive: the task waits for the end of that one."""

    def __init__(self, exchange: _Exchange) -> None:
        self.thread: int = exchange.thread
        self._exchange = weakref.ref(exchange)

    def is_ours(self) -> bool:
        found: _Exchange | None = request.environ.get(_ENVIRON_KEY) if has_request_context() else None
        while found is not None and found is not self._exchange():
            found = found.outer
        return found is not None


def defer_to_response(task: RunnableTask[Any], app: Flask, start: Start) -> None:
    """Call `start(task)` when the response to the current request has been sent; now if there is no request."""
    exchange = None if request_of(app) is None else _exchange(_request_context())
    if exchange is None or exchange.is_over:
        start(task)
    elif task.postpone():
        exchange.add(task, start)


def _exchange(context: Any) -> _Exchange:
    environ = context.request.environ
    # Looked up first: each request asks for it twice.
    found: _Exchange = environ.get(_ENVIRON_KEY) or environ.setdefault(_ENVIRON_KEY, _Exchange(context))
    if found.is_over and not found.is_answered and not found.is_of(context):
        # A copy of this context, made by hand, was the first to end.
        found = environ[_ENVIRON_KEY] = _Exchange(context)
    return found


def listen(app: Flask) -> None:
    """Follow the requests of `app` for the tasks that wait for their end."""
    request_started.connect(_begin, app)
    request_finished.connect(_answer, app)
    got_request_exception.connect(_fail, app)
    app.teardown_request(_end)
    app.wsgi_app = _closing(app.wsgi_app)  # type: ignore[method-assign]


def _closing(wsgi_app: Callable[..., Any]) -> Callable[..., Any]:
    """Return `wsgi_app` with an end for requests that fail in a teardown, which no receiver is told of."""

    def call(environ: dict[str, Any], start_response: Any) -> Any:
        outer: _Exchange | None = environ.get(_ENVIRON_KEY)
        if outer is not None:
            outer.inner = None
        try:
            return wsgi_app(environ, start_response)
        except BaseException:
            found: _Exchange | None = environ.get(_ENVIRON_KEY)
            if outer is not None and found is outer:
                # Since Flask 3.2 the other functions of the teardown are called all the same, ours among them.
                found = None if outer.inner is None else outer.inner()
            if found is not None:
                # The traceback may keep it alive for long.
                found.drop()
                if found.outer is not None:
                    environ[_ENVIRON_KEY] = found.outer
            raise

    return call


def _begin(sender: Flask, **_: Any) -> None:
    """Tell the exchange from one of the same environ: of a view that dispatches once more, or of a copied context."""
    context = _request_context()
    environ = context.request.environ
    found: _Exchange | None = environ.get(_ENVIRON_KEY)
    if found is None or not found.is_of(context):
        environ[_ENVIRON_KEY] = _Exchange(context, found if found is not None and found.is_alive else None)


def _answer(sender: Flask, response: Response, **_: Any) -> None:
    # Also if no task waits yet: a teardown may start one, or the body of the response while it is streamed.
    _exchange(_request_context()).answer(response)


def _fail(sender: Flask, exception: BaseException | None = None, **_: Any) -> None:
    """Cancel the deferred tasks, after the response was made too: it will not be sent. The error page has its own."""
    context = _request_context()
    environ = context.request.environ
    found: _Exchange | None = environ.get(_ENVIRON_KEY)
    if found is not None and found.is_of(context):
        environ[_ENVIRON_KEY] = _Exchange(context, found.outer)
        found.cancel(exception)


def _end(error: BaseException | None) -> None:
    context = _request_context()
    exchange = _exchange(context)
    if exchange.is_of(context):
        exchange.end(error)
        if exchange.outer is not None:
            exchange.outer.inner = weakref.ref(exchange)
            context.request.environ[_ENVIRON_KEY] = exchange.outer
