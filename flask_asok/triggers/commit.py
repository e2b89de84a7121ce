"""Hold tasks until the transaction of their caller is committed."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from flask import Flask, has_app_context

from ..attempt import RunnableTask
from ..errors import NotConfigured
from .held import Held, Start, cancel_all, cancel_dropped, keep, release_all

_SESSION_KEY = "flask_asok.held"


class _Waiting:
    """The tasks that one session holds; it lives in that session's `info`."""

    def __init__(self) -> None:
        self.entries: list[tuple[RunnableTask[Any], Start, Any]] = []
        """Each with the transaction that it waits for."""

    def __del__(self) -> None:
        if self.entries:
            cancel_dropped(_held(self.entries), "its session was dropped, neither committed nor closed")


def _held(entries: list[tuple[RunnableTask[Any], Start, Any]]) -> list[Held]:
    return [(task, start) for task, start, _ in entries]


class _CommitHold:
    def __init__(self, app: Flask, session: Any) -> None:
        self.app = app
        self.thread: int = threading.get_ident()
        # Not kept alive by who keeps the task: a session that nobody closes is noticed when it is dropped.
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


def hold_for_commit(task: RunnableTask[Any], app: Flask, start: Start) -> None:
    """Call `start(task)` after the outermost commit of the current session; now where no transaction is open."""
    try:
        session = _session_of(app)
    except NotConfigured:
        task.withdraw(None)
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
    keep(task, _CommitHold(app, session))
    if _SESSION_KEY not in session.info:
        from sqlalchemy import event

        session.info[_SESSION_KEY] = _Waiting()
        event.listen(session, "after_commit", _after_commit)
        event.listen(session, "after_transaction_end", _after_transaction_end)
    session.info[_SESSION_KEY].entries.append((task, start, transaction))


def _is_committed(transaction: Any) -> bool:
    """Is this a listener of `after_commit`, in which the committed transaction is still the session's?"""
    # SQLAlchemy has no public name that tells this from a transaction that only a rollback is left for.
    return getattr(getattr(transaction, "_state", None), "name", None) == "COMMITTED"


def _after_commit(session: Any) -> None:
    """Start what waited for the root transaction; what waited for a savepoint waits for that one's parent now."""
    waiting: _Waiting = session.info[_SESSION_KEY]
    savepoint = session.get_nested_transaction()
    if savepoint is not None:
        waiting.entries = [
            (task, start, savepoint.parent if transaction is savepoint else transaction)
            for task, start, transaction in waiting.entries
        ]
        return
    entries, waiting.entries = waiting.entries, []
    # Not in this thread, full queue or not: it is in the middle of its commit.
    release_all(_held(entries), bounded=False)


def _after_transaction_end(session: Any, transaction: Any) -> None:
    """Cancel what waited for a transaction that ended otherwise: rolled back, or closed."""
    waiting: _Waiting = session.info[_SESSION_KEY]
    ended = [entry for entry in waiting.entries if entry[2] is transaction]
    if ended:
        waiting.entries = [entry for entry in waiting.entries if entry[2] is not transaction]
        what = "savepoint" if transaction.nested else "transaction"
        cancel_all(_held(ended), f"its {what} was rolled back, or closed without a commit")
