"""The connections of one process to PostgreSQL that are ours, and not the application's."""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from ... import process
from ...errors import BackendUnavailable, NotConfigured

T = TypeVar("T")

CONNECT_SECONDS = 2
"""How long the server has to accept a connection: a request waits for it."""

WAIT_SECONDS = 2.5
"""How long a thread waits for a connection while others have all of them."""

ANSWER_SECONDS = 10.0
"""How long the server has to answer a statement, or to take more of one: it may hang with its connections open."""

OPTIONS: dict[str, Any] = {
    # What `pg_stat_activity` calls them, unless the URL says otherwise.
    "fallback_application_name": "flask_asok",
    "connect_timeout": CONNECT_SECONDS,
    # What is half open is noticed within some ten seconds.
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

PREPARES_AFTER = 3
"""How often a connection sees a statement before it keeps the plan of it: to make one takes longer than to run it."""

MISSING = (errors.UndefinedTable, errors.UndefinedFunction, errors.UndefinedObject, errors.UndefinedColumn)

AWAY = (psycopg.OperationalError, psycopg.InterfaceError, psycopg.InternalError, errors.InsufficientPrivilege)
"""What tells of the server and not of a statement: it is away, read-only after a failover, or refuses its user."""

CLASHES = (errors.SerializationFailure, errors.DeadlockDetected)
"""What tells of other transactions at the same time, and that this one, a single statement, may be run again."""

MOST_CLASHES = 10
CLASH_SECONDS = 0.05
"""How often that is done, and after how long at the most."""

NO_TABLES = "The tables of background tasks are missing in PostgreSQL, or older than this release: run `flask asok db`."

LONGEST_CAUSE = 200

Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.DefaultSelector)
"""One that needs a single call of the system, where there is one."""


class Unanswered(psycopg.OperationalError):
    """Raised where the server is silent: it may run the statement all the same."""


class Connection(psycopg.Connection[Any]):
    """A connection whose statements end with Unanswered where the server says nothing for ANSWER_SECONDS."""

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **kwargs: Any) -> Any:
        """Run a step of the library, as its own connections do, with that limit."""
        return super().wait(_answered(gen), *args, **kwargs)


def _answered(steps: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Yield what `steps` waits for. It is sent what the socket is ready for: several times a second that is nothing."""
    try:
        wanted = next(steps)
        heard_at = time.monotonic()
        while True:
            ready = yield wanted
            if ready:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > ANSWER_SECONDS:
                raise Unanswered(f"the server has not answered for {ANSWER_SECONDS:g} s")
            wanted = steps.send(ready)
    except StopIteration as done:
        return done.value


class Connections:
    """
    Lends connections that commit each statement by itself. Thread-safe; lives as long as its store.

    Not the application's own pool: its threads hold those, and would wait for each other. A forked child begins with
    none. With `prepares` they keep the plans of their statements, which goes past any pooler only.
    """

    def __init__(
        self, url: str, most: int, settings: Mapping[str, str] | None = None, *, prepares: bool = False
    ) -> None:
        self._url = url
        self._most = most
        # A pooler may give each statement another connection: there nothing can be prepared.
        self._prepares_after = PREPARES_AFTER if prepares else None
        self._options = {**OPTIONS, **options_of(url, settings or {})}
        self._begin_anew()
        process.after_fork(self._begin_anew)

    def rows(self, statement: str, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Run one statement, and return its rows."""
        return self._run(statement, values, lambda cursor: cursor.fetchall() if cursor.description else [])

    def change(self, statement: str, values: Mapping[str, Any]) -> int:
        """Run one statement, and return how many rows it has changed."""
        return self._run(statement, values, lambda cursor: cursor.rowcount)

    def _run(self, statement: str, values: Mapping[str, Any], read: Callable[[psycopg.Cursor[Any]], T]) -> T:
        cleaned = {name: clean(value) for name, value in values.items()}
        with self.lent() as connection:
            for _ in range(MOST_CLASHES):
                with contextlib.suppress(*CLASHES):
                    return read(connection.execute(statement.encode(), cleaned))
                time.sleep(random.uniform(0.0, CLASH_SECONDS))
            return read(connection.execute(statement.encode(), cleaned))

    @contextmanager
    def lent(self) -> Iterator[psycopg.Connection[Any]]:
        """Lend a connection; BackendUnavailable if none can be made, or if it breaks. NotConfigured without tables."""
        process.renew()
        with reached():
            self._give_up_ended()
            if not self._free.acquire(timeout=WAIT_SECONDS):
                raise BackendUnavailable(
                    f"All {self._most} connections to PostgreSQL are busy (ASOK_POSTGRES['pool'])."
                )
            is_unanswered = False
            try:
                connection = self._taken()
                try:
                    yield connection
                except Unanswered:
                    # It keeps its place until the server is done with it, which may have no others left for anybody if
                    # each call takes another one.
                    is_unanswered = True
                    self._unanswered.append(connection)
                    raise
                except AWAY:
                    # Another one may reach the server that has taken over.
                    connection.close()
                    raise
                finally:
                    if connection.broken:
                        connection.close()
                    elif not (connection.closed or is_unanswered):
                        self._idle.append(connection)
            finally:
                if not is_unanswered:
                    self._free.release()

    def _give_up_ended(self) -> None:
        """Close the connections on which the server has answered too late, or not at all and is gone."""
        for _ in range(len(self._unanswered)):
            # Another thread may be at it too.
            with contextlib.suppress(IndexError):
                connection = self._unanswered.popleft()
                if has_ended(connection):
                    connection.close()
                    self._free.release()
                else:
                    self._unanswered.append(connection)

    def close(self) -> None:
        """Close the connections that nobody uses at the moment."""
        while self._idle:
            self._idle.pop().close()
        while self._unanswered:
            self._unanswered.pop().close()
            self._free.release()

    def _taken(self) -> psycopg.Connection[Any]:
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            if not has_ended(connection):
                return connection
            connection.close()
        return Connection.connect(self._url, autocommit=True, prepare_threshold=self._prepares_after, **self._options)

    def _begin_anew(self) -> None:
        # What a parent has opened is the parent's to close; psycopg itself looks to that.
        self._idle: list[psycopg.Connection[Any]] = []
        self._unanswered: deque[psycopg.Connection[Any]] = deque()
        """Those of statements that the server has not answered; each has its place in `_free`."""
        self._free = threading.BoundedSemaphore(self._most)


def options_of(url: str, settings: Mapping[str, str]) -> dict[str, str]:
    """
    Return what a connection is made with to have settings, besides those that its URL or the environment asks for.

    Nothing for none, since a pooler refuses any.
    """
    if not settings:
        return {}
    own = conninfo_to_dict(url).get("options") or os.environ.get("PGOPTIONS", "")
    asked = (f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in settings.items())
    return {"options": " ".join([str(own), *asked])}


@contextmanager
def reached() -> Iterator[None]:
    """Make what psycopg raises BackendUnavailable, or NotConfigured where the tables are missing."""
    try:
        yield
    except MISSING:
        raise NotConfigured(NO_TABLES) from None
    except AWAY as error:
        raise BackendUnavailable(f"PostgreSQL cannot be used: {cause_of(error)}") from None


def cause_of(error: BaseException) -> str:
    """Return why the server cannot be used. What libpq says holds no password."""
    said = str(error).strip().splitlines()
    return said[0][:LONGEST_CAUSE] if said else type(error).__name__


def clean(value: Any) -> Any:
    """Return a value as PostgreSQL takes it, whose texts have neither a NUL nor half a character."""
    if type(value) is str:
        if "\0" in value:
            value = value.replace("\0", "\\0")
        if not value.isascii():
            value = value.encode("utf-8", "backslashreplace").decode()
    return value


def has_ended(connection: psycopg.BaseConnection[Any]) -> bool:
    """Has the server closed an idle connection? It has said so, then; to ask it would be a round trip."""
    if connection.closed:
        return True
    with Selector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return bool(selector.select(0))
