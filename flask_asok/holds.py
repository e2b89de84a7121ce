"""Hold a task until the response is sent or the transaction is committed."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from flask import (
    Flask,
    Response,
    current_app,
    got_request_exception,
    has_app_context,
    has_request_context,
    request,
    request_finished,
)

from .context import request_of
from .errors import NotConfigured
from .logs import log_exception
from .tasks import Hold, Task

Start = Callable[..., None]
Held = tuple[Task[Any], Start]

_ENVIRON_KEY = "flask_asok.held"
_SESSION_KEY = "flask_asok.held"


def hold(task: Task[Any], app: Flask, start: Start) -> None:
    """Have `start(task)` called at the moment that its `when` option names; at once where none is to come."""
    if task.options.when == "response":
        _hold_for_response(task, app, start)
    else:
        _hold_for_commit(task, app, start)


# Not a WeakSet: one thread may add a task while another looks through all.
_held: dict[int, weakref.ref[Task[Any]]] = {}


def _keep(task: Task[Any], hold: Hold) -> None:
    number = id(task)
    task._hold = hold
    _held[number] = weakref.ref(task, lambda _: _held.pop(number, None))


def _all_held() -> Iterator[tuple[Task[Any], Hold]]:
    for reference in list(_held.values()):
        task = reference()
        if task is not None and task._hold is not None:
            yield task, task._hold


def abandon_held(app: Flask | None = None) -> None:
    """Abandon, at the end of `app` or of the process, the tasks whose response or commit has not come."""
    for task, hold in _all_held():
        if app is None or hold.app is app:
            task.abandon("the application shuts down")


def _lose_in_child() -> None:
    """Leave to the parent, in a forked child, what waits for the parent's responses and commits."""
    for task, _hold in _all_held():
        task._hold = None
        task.lose()
    _held.clear()


# Runs after the backends have closed, theirs being registered later: until then a response may still come to its end.
atexit.register(abandon_held)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_lose_in_child)


def release(task: Task[Any], start: Start, *, bounded: bool) -> None:
    """Start a held task, once. Nobody is left to raise to, so what goes wrong is logged."""
    held, task._hold = task._hold, None
    _held.pop(id(task), None)
    if held is None or not task.requeue():
        return
    try:
        start(task, bounded=bounded)
    except Exception as error:
        log_exception("Background task %s (%s) could not be started: %r", task.name, task.id, error)
        task.cancel()
    # A task that joins this one may hold the only thread: now it may run this one itself.
    task.wake()


def _release_all(held: list[Held], *, bounded: bool) -> None:
    """Start each, though one that its releaser must run itself may raise SystemExit, which then goes on up."""
    interrupted: BaseException | None = None
    for task, start in held:
        try:
            release(task, start, bounded=bounded)
        except BaseException as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


# The response


class _ResponseHold:
    """Holds the tasks of one request until the response to it is closed."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.thread: int = threading.get_ident()
        self.is_over = False
        """Has the request ended without a response?"""
        self._held: list[Held] = []
        self._response: weakref.ref[Response] | None = None
        self._is_awaited = False

    def is_ours(self) -> bool:
        return has_request_context() and request.environ.get(_ENVIRON_KEY) is self

    def add(self, task: Task[Any], start: Start) -> None:
        _keep(task, self)
        self._held.append((task, start))
        self._await_response()

    def answer(self, response: Response) -> None:
        self._response = weakref.ref(response)
        self._is_awaited = False
        self._await_response()

    def end(self, error: BaseException | None) -> None:
        if self._response is not None:
            return
        self.is_over = True
        if error is None:
            self.release()
        else:
            self.cancel()

    def release(self) -> None:
        held, self._held = self._held, []
        _release_all(held, bounded=True)

    def cancel(self) -> None:
        held, self._held = self._held, []
        for task, _start in held:
            task.cancel()

    def _await_response(self) -> None:
        # Only where there is something to release: one response, kept by the application, may answer each request.
        response = None if self._response is None else self._response()
        if response is not None and self._held and not self._is_awaited:
            self._is_awaited = True
            response.call_on_close(self.release)


def _response_hold(app: Flask) -> _ResponseHold:
    environ = request.environ
    # Looked up first: each request asks for it twice.
    found: _ResponseHold = environ.get(_ENVIRON_KEY) or environ.setdefault(_ENVIRON_KEY, _ResponseHold(app))
    return found


def _hold_for_response(task: Task[Any], app: Flask, start: Start) -> None:
    response = None if request_of(app) is None else _response_hold(app)
    if response is None or response.is_over:
        start(task)
    elif task.postpone():
        response.add(task, start)


def listen(app: Flask) -> None:
    """Follow the requests of `app` for the tasks that wait for their end."""
    request_finished.connect(_attach, app)
    got_request_exception.connect(_cancel, app)
    app.teardown_request(_release_left)


def _attach(sender: Flask, response: Response, **_: Any) -> None:
    # Also where nothing is held yet: a teardown may do so, or the body of the response while it is streamed.
    _response_hold(sender).answer(response)


def _cancel(sender: Flask, **_: Any) -> None:
    """Cancel what is held, after the response was made too: it will not be sent. The error page holds its own."""
    hold: _ResponseHold | None = request.environ.pop(_ENVIRON_KEY, None)
    if hold is not None:
        hold.cancel()


def _release_left(error: BaseException | None) -> None:
    """End the wait of a request that made no response: `test_request_context()`, or an error past every handler."""
    _response_hold(current_app._get_current_object()).end(error)  # type: ignore[attr-defined]


# The commit


class _CommitHold:
    def __init__(self, app: Flask, session: Any) -> None:
        self.app = app
        self.thread: int = threading.get_ident()
        self._session = session

    def is_ours(self) -> bool:
        # Outside of an app context there is no session that could be this one.
        return has_app_context() and _session_of(self.app) is self._session


def _session_of(app: Flask) -> Any:
    try:
        return app.extensions["sqlalchemy"].session()
    except KeyError:
        raise NotConfigured(
            'when="commit" follows the session of Flask-SQLAlchemy, which is not set up on this app. '
            "Call background() after your own commit instead."
        ) from None


def _hold_for_commit(task: Task[Any], app: Flask, start: Start) -> None:
    try:
        session = _session_of(app)
    except NotConfigured:
        task.cancel()
        raise
    if not session.in_transaction():
        start(task)
        return
    transaction = session.get_nested_transaction() or session.get_transaction()
    if _is_committed(transaction):
        if transaction is session.get_transaction():
            # As at a release: this thread is in the middle of its commit.
            start(task, bounded=False)
            return
        transaction = transaction.parent
    if not task.postpone():
        return
    _keep(task, _CommitHold(app, session))
    if _SESSION_KEY not in session.info:
        from sqlalchemy import event

        session.info[_SESSION_KEY] = []
        event.listen(session, "after_commit", _after_commit)
        event.listen(session, "after_transaction_end", _after_transaction_end)
    session.info[_SESSION_KEY].append((task, start, transaction))


def _is_committed(transaction: Any) -> bool:
    """Is this a listener of `after_commit`, in which the committed transaction is still the session's?"""
    # SQLAlchemy has no public name that tells this from a transaction that only a rollback is left for.
    return getattr(getattr(transaction, "_state", None), "name", None) == "COMMITTED"


def _after_commit(session: Any) -> None:
    """Start what waited for the root transaction; what waited for a savepoint waits for that one's parent now."""
    held = session.info[_SESSION_KEY]
    savepoint = session.get_nested_transaction()
    if savepoint is not None:
        session.info[_SESSION_KEY] = [
            (task, start, savepoint.parent if transaction is savepoint else transaction)
            for task, start, transaction in held
        ]
        return
    session.info[_SESSION_KEY] = []
    # Not in this thread, full queue or not: it is in the middle of its commit.
    _release_all([(task, start) for task, start, _ in held], bounded=False)


def _after_transaction_end(session: Any, transaction: Any) -> None:
    """Cancel what waited for a transaction that ended otherwise: rolled back, or closed."""
    held = session.info[_SESSION_KEY]
    session.info[_SESSION_KEY] = [entry for entry in held if entry[2] is not transaction]
    for task, _start, waited_for in held:
        if waited_for is transaction:
            task.cancel()
