"""The SQLite file of a store as one process has it open: through threads, forks, and other files in its place."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .. import process
from ..errors import BackendUnavailable
from . import file

LOOK_SECONDS = 0.05
"""For how long a change trusts that the file is still the one that was opened."""

PAUSE_SECONDS = 0.002
MOST_PAUSES = 10
"""How a thread that runs a task gives way to the others, which write calls down for pages that wait."""

_of_parents: list[sqlite3.Connection] = []


class SQLiteFile:
    """
    The file is made with the first call, 0600, and opened once in each process.

    A file that was deleted or replaced is noticed at the next call, and made or opened anew; by a change that follows
    another call within LOOK_SECONDS at the next one.
    """

    _opened_by = 0

    def __init__(self, path: str, app_name: str, sync: str) -> None:
        self.path: str = os.path.abspath(path)
        self._app_name = app_name
        self._sync = sync
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._inode: tuple[int, int] = (0, 0)
        self._looked_at = float("-inf")
        process.around_fork(self)

    def _change(self, statement: str, values: Sequence[Any]) -> int:
        # As `_open` does: a generator would cost a fifth of what the statement does, and a look at the file as much.
        process.renew()
        with self._lock:
            try:
                connection = self._connection
                if connection is None or time.monotonic() - self._looked_at > LOOK_SECONDS:
                    connection = self._connected()
                return connection.execute(statement, values).rowcount
            except sqlite3.Error as error:
                raise self._unavailable(error) from None
            finally:
                if process.FORKS_UNSEEN:
                    self._leave_to_forks()

    def _change_later(self, statement: str, values: Sequence[Any]) -> int:
        """
        Do what `_change` does, soon, once the other threads of this process have written what they are about to.

        A statement gives the interpreter's lock away. Threads that write in turn change places at each, which takes
        several times as long as the statement; so one that a page does not wait for stays away for a moment.
        """
        process.renew()
        for _ in range(MOST_PAUSES):
            if self._lock.acquire(blocking=False):
                self._lock.release()
                break
            time.sleep(PAUSE_SECONDS)
        return self._change(statement, values)

    def _rows(self, statement: str, values: Sequence[Any]) -> list[Any]:
        with self._open() as connection:
            try:
                return connection.execute(statement, values).fetchall()
            except sqlite3.OperationalError as error:
                if "decode" not in str(error):
                    raise
                # A text of some row is none; a factory of our own from the start would make every read slower.
                connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
                return connection.execute(statement, values).fetchall()

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        process.renew()
        with self._lock:
            try:
                yield self._connected()
            except sqlite3.Error as error:
                raise self._unavailable(error) from None
            finally:
                self._leave_to_forks()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all that this thread writes meanwhile in one step, and nothing of it where an error is raised."""
        with self._open() as connection:
            if connection.in_transaction:
                # Part of the one that this thread has begun.
                yield
                return
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                # SQLite itself has rolled back what found the disk full, for one.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    def _connected(self) -> sqlite3.Connection:
        # The name of the file, never the file itself: a descriptor that is closed drops the locks SQLite holds on it.
        found = _inode_of(self.path)
        self._looked_at = time.monotonic()
        if found is None or self._connection is None or self._inode != found:
            return self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        self._disconnect()
        for _ in range(10):
            file.make(self.path)
            before = _inode_of(self.path)
            connection = file.connect(self.path, self._app_name, sync=self._sync)
            if before is not None and before == _inode_of(self.path):
                self._connection, self._inode = connection, before
                self._opened_by = os.getpid()
                self._opened(connection)
                return connection
            # Replaced while it was opened.
            connection.close()
        raise BackendUnavailable(f"The store {self.path} is replaced again and again.")

    def _opened(self, connection: sqlite3.Connection) -> None:
        """Do what is to be done with each new connection."""

    def _leave_to_forks(self) -> None:
        """Close the connection where a fork is not seen; one in the middle of a transaction, at the end of that."""
        if process.is_forked_unseen() and self._connection is not None and not self._connection.in_transaction:
            self._disconnect()

    def _unavailable(self, error: sqlite3.Error) -> Exception:
        if file.is_damaged(error):
            # The next call connects anew, which sets the file aside if nobody else has it open.
            file.suspect(self.path)
            if self._connection is not None and not self._connection.in_transaction:
                self._disconnect()
        return file.unavailable(self.path, error)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __del__(self) -> None:
        # Python 3.13 warns of a connection that nobody closes. A parent's is not ours to close: see `before_fork`.
        if self._opened_by == os.getpid():
            self._disconnect()

    # Forks

    def before_fork(self) -> None:
        """
        Close the connection, so that a child inherits none, and wait for the statements of other threads.

        A child must neither use nor close the parent's connection, nor open one of its own beside it: SQLite counts the
        locks of a process by file, and would take the parent's for the child's. Of a fork that is not seen this hears
        nothing, so there the parent closes its connection after each call.
        """
        self._lock.acquire()
        self._disconnect()

    def after_fork_in_parent(self) -> None:
        """Go on; the next call opens the file."""
        self._lock.release()

    def after_fork_in_child(self) -> None:
        """Renew the connections, as a new process must."""
        self._lock = threading.RLock()
        if self._connection is not None:
            # Another thread of the parent was in the middle of a call when a fork was not seen. Kept, hence not closed.
            _of_parents.append(self._connection)
            self._connection = None


def _inode_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
