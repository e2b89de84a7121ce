"""Defer tasks until the transaction of their caller is committed."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from flask import Flask, has_app_context

from ..attempt import RunnableTask
from ..errors import NotConfigured
from .deferred import Deferred, Start, cancel_dropped, release_all, wait_for

Level = Callable[[Any], int]
"""Returns the level at which to log that a session was closed without a commit and without a rollback."""

_SESSION_KEY = "flask_asok.deferred"


def _info(session: Any) -> int:
    return logging.INFO


class _Entry(NamedTuple):
    """A deferred task, and the transaction that it waits for."""

    deferred: Deferred
    transaction: Any
    level: Level


class _Waiting:
    """The tasks that wait for one session; it lives in that session's `info`."""

    def __init__(self) -> None:
        self.entries: list[_Entry] = []
        self.is_rolled_back = False
        """Is a rollback under way?"""

    def __del__(self) -> None:
        if self.entries:
            cancel_dropped(_tasks_of(self.entries), "its session was dropped, neither committed nor closed")


def _tasks_of(entries: list[_Entry]) -> list[Deferred]:
    return [entry.deferred for entry in entries]


class _CommitTrigger:
    def __init__(self, app: Flask, session: Any) -> None:
        self.app = app
        self.thread: int = threading.get_ident()
        # A reference to the task keeps no session alive: one that is never closed is noticed when it is dropped.
        self._session = weakref.ref(session)

    def is_ours(self) -> bool:
        # Outside of an app context there is no session that could be this one.
        return has_app_context() and _session_of(self.app) is self._session()


def _session_of(app: Flask) -> Any:
    try:
        return app.extensions["sqlalchemy"].session()
    except KeyError:
        raise NotConfigured(
            'when="commit" follows the session of Flask-SQLAlchemy, which is not set up on this app. '
            "Call background() after your own commit instead."
        ) from None


def defer_to_commit(task: RunnableTask[Any], app: Flask, start: Start, level: Level = _info) -> None:
    """Call `start(task)` after the outermost commit of the current session; now if no transaction is open."""
    try:
        session = _session_of(app)
    except NotConfigured:
        task.withdraw(None)
        raise
    if not session.in_transaction():
        start(task)
        return
    transaction = innermost(session)
    if is_committed(transaction):
        if transaction is session.get_transaction():
            # As at a release: this thread is in the middle of its commit.
            start(task, bounded=False)
            return
        transaction = transaction.parent
    if not task.postpone():
        return
    wait_for(_CommitTrigger(app, session), task)
    if _SESSION_KEY not in session.info:
        from sqlalchemy import event

        session.info[_SESSION_KEY] = _Waiting()
        event.listen(session, "after_commit", _after_commit)
        event.listen(session, "after_rollback", _after_rollback)
        event.listen(session, "after_transaction_end", _after_transaction_end)
    session.info[_SESSION_KEY].entries.append(_Entry(Deferred(task, start), transaction, level))


def innermost(session: Any) -> Any:
    """Return the savepoint or the transaction that a session is in; None before it has begun one."""
    return session.get_nested_transaction() or session.get_transaction()


def is_committed(transaction: Any) -> bool:
    """Return True in a listener of `after_commit`, where the committed transaction is still the session's."""
    # SQLAlchemy has no public name that tells this from a transaction that only a rollback is left for.
    return getattr(getattr(transaction, "_state", None), "name", None) == "COMMITTED"


def _after_commit(session: Any) -> None:
    """Start what waited for the root transaction; what waited for a savepoint waits for that one's parent now."""
    waiting: _Waiting = session.info[_SESSION_KEY]
    savepoint = session.get_nested_transaction()
    if savepoint is not None:
        waiting.entries = [
            entry._replace(transaction=savepoint.parent) if entry.transaction is savepoint else entry
            for entry in waiting.entries
        ]
        return
    entries, waiting.entries = waiting.entries, []
    # Not in this thread, full queue or not: it is in the middle of its commit.
    release_all(_tasks_of(entries), bounded=False)


def _after_rollback(session: Any) -> None:
    session.info[_SESSION_KEY].is_rolled_back = True


def _after_transaction_end(session: Any, transaction: Any) -> None:
    """Cancel what waited for a transaction that ended otherwise: rolled back, or closed."""
    waiting: _Waiting = session.info[_SESSION_KEY]
    is_rolled_back, waiting.is_rolled_back = waiting.is_rolled_back, False
    ended = [entry for entry in waiting.entries if entry.transaction is transaction]
    if not ended:
        return
    waiting.entries = [entry for entry in waiting.entries if entry.transaction is not transaction]
    what = "savepoint" if transaction.nested else "transaction"
    for entry in ended:
        level = logging.INFO if is_rolled_back else entry.level(session)
        if level > logging.INFO:
            why = f"its {what} was never committed, but closed"
        else:
            why = f"its {what} was rolled back, or closed without a commit"
        entry.deferred.task.withdraw(why, level)
