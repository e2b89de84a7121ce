"""The session of the caller: what it has written, and a statement of ours in its transaction."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, got_request_exception

from ...errors import NotConfigured
from ...store.postgres.connections import NO_TABLES, clean
from ...triggers import innermost

DRIVERS = ("psycopg", "psycopg2")

WRITTEN = "flask_asok.written"
"""Where a session notes the open transactions, savepoints among them, in which it has written, in its `info`."""

NEXT = object()
"""In place of a transaction: the one that begins next."""

FAILED = "flask_asok.failed"
"""Where it notes that the request has failed."""

AGAIN = "flask_asok.again"
"""Where it keeps what a savepoint may have undone that is rolled back, and is done again before the commit."""

MISSING = ("42P01", "42883", "42704", "42703")
"""The codes of PostgreSQL for a table, a function, a type or a column that it does not have."""


def watch_sessions() -> None:
    """Let each session of this process note from now on whether it has written something; harmless twice."""
    from sqlalchemy import event
    from sqlalchemy.orm import Session

    if not event.contains(Session, "do_orm_execute", _on_execute):
        event.listen(Session, "do_orm_execute", _on_execute)
        event.listen(Session, "after_transaction_create", _after_begin)
        event.listen(Session, "after_transaction_end", _after_end)
        event.listen(Session, "after_rollback", _on_rollback)
        event.listen(Session, "before_commit", _before_commit)


def _written(session: Any) -> frozenset[Any]:
    found: frozenset[Any] = session.info.get(WRITTEN, frozenset())
    return found


def repeat_before_commit(session: Any, do: Callable[[Any], object]) -> None:
    """Call `do(session)`, which was done just now and does no harm twice, again before the commit."""
    if session.get_nested_transaction() is not None:
        session.info.setdefault(AGAIN, []).append(do)


def _before_commit(session: Any) -> None:
    # At the release of a savepoint too, which another one around it may undo.
    for do in session.info.get(AGAIN, ()):
        do(session)


def _after_end(session: Any, transaction: Any) -> None:
    written, parent = _written(session), transaction.parent
    if parent is None:
        session.info.pop(AGAIN, None)
    session.info[WRITTEN] = written - {transaction}
    # A flush is a transaction of its own within the session's, and so is each of the bulk methods, which flush nothing.
    # What a savepoint has written is its parent's once it is released.
    if parent is not None and parent.is_active and (not transaction.nested or transaction in written):
        session.info[WRITTEN] |= {parent}


def _on_rollback(session: Any) -> None:
    session.info[WRITTEN] = _written(session) - {innermost(session)}


def _on_execute(state: Any) -> None:
    if state.is_insert or state.is_update or state.is_delete:
        # The first statement of a transaction begins it after this.
        state.session.info[WRITTEN] = _written(state.session) | {innermost(state.session) or NEXT}


def _after_begin(session: Any, transaction: Any) -> None:
    if NEXT in _written(session):
        session.info[WRITTEN] = _written(session) - {NEXT} | {transaction}


def note_failure(app: Flask) -> None:
    """Let the session of a request that fails note it, for a transaction that is not committed because of that."""
    got_request_exception.connect(_on_failure, app)


def _on_failure(app: Flask, **_: object) -> None:
    database = app.extensions.get("sqlalchemy")
    if database is not None and database.session.registry.has():
        database.session().info[FAILED] = True


def has_failed(session: Any) -> bool:
    """Does an error end the session's transaction, of this request or in this thread?"""
    return bool(session.info.get(FAILED)) or sys.exc_info()[1] is not None


def has_written(session: Any) -> bool:
    """
    Has the open transaction of a session written something, or is it going to? Core statements are not seen.

    False for a transaction that nothing can join any more: an error has ended it, or it is just being committed.
    """
    if not session.is_active:
        return False
    return bool(_written(session) - {NEXT} or session.new or session.dirty or session.deleted)


class Transactions:
    """The transactions of an application's sessions, on the bind that has the tables."""

    def __init__(self, app: Flask, bind: str | None) -> None:
        self._app = app
        self._bind = bind
        self._engines: Mapping[str | None, Any] | None = None

    @property
    def database(self) -> Any:
        """Flask-SQLAlchemy's object; None where the application has none."""
        return self._app.extensions.get("sqlalchemy")

    @property
    def engine(self) -> Any:
        """The engine of the bind, or None."""
        if self._engines is None:
            if self.database is None:
                return None
            with self._app.app_context():
                # The same mapping for as long as the application lives.
                self._engines = self.database.engines
        return self._engines.get(self._bind)

    @property
    def most_connections(self) -> int | None:
        """How many connections SQLAlchemy's pool of the bind has at most; None where there is no limit."""
        if self.engine is None:
            return None
        pool = self.engine.pool
        # Of the two numbers SQLAlchemy makes only `size` public.
        overflow = getattr(pool, "_max_overflow", -1)
        return None if overflow < 0 else int(pool.size() + overflow)

    def session(self) -> Any:
        """Return the session of this context; None where there is none, or its bind is no PostgreSQL."""
        engine = self.engine
        return None if engine is None or engine.dialect.name != "postgresql" else self.database.session()

    def need_session(self) -> Any:
        """Return the session of this context; NotConfigured or ValueError where a task cannot go with its commit."""
        if self.database is None:
            raise NotConfigured(
                'when="commit" follows the session of Flask-SQLAlchemy, which is not set up on this app. '
                "Call background() after your own commit instead."
            )
        session = self.session()
        if session is None:
            raise ValueError(
                f"The bind {self._bind!r} of Flask-SQLAlchemy is no PostgreSQL, so a task cannot be enqueued in its "
                "transactions: name the bind that has the tables in ASOK_POSTGRES['bind']."
            )
        return session

    def connection(self, session: Any) -> Any:
        """Return the connection of a session's open transaction; ValueError for a driver that is not supported."""
        engine = self.engine
        if engine.driver not in DRIVERS:
            raise ValueError(
                f"Background tasks can be enqueued in transactions of {' and '.join(DRIVERS)}, not of {engine.driver}: "
                "set the driver in the URL of the database."
            )
        return session.connection(bind_arguments={"bind": engine})


def commits_each(connection: Any) -> bool:
    """Does each statement of a connection commit itself, as in the isolation level AUTOCOMMIT?"""
    return bool(connection.connection.dbapi_connection.autocommit)


def execute(connection: Any, statement: str, values: Mapping[str, Any]) -> Any:
    """Run a statement of ours in the transaction of a connection, and return its first value, if it has any."""
    from sqlalchemy.exc import DBAPIError

    try:
        # Both drivers write values as our statements do: SQLAlchemy has nothing to compile.
        found = connection.exec_driver_sql(statement, {name: clean(value) for name, value in values.items()})
        return found.scalar() if found.returns_rows else None
    except DBAPIError as error:
        code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        if code in MISSING:
            raise NotConfigured(NO_TABLES) from error
        raise
