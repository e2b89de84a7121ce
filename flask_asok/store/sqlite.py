"""A store in a SQLite file of this machine: what the threads backend shares between its processes."""

from __future__ import annotations

import json
import logging
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import process
from ..errors import BackendUnavailable
from ..logs import log
from ..progress import Progress
from ..summaries import State
from . import lifeline, statements
from .base import COMMAND, KEEP_SECONDS, LONGEST_TRACEBACK, LOST, ProcessSummary, QueueSummary, Record, Tick
from .counts import sum_by_queue
from .durable import DurableStore
from .hashes import packed
from .history import LATEST, LONGEST
from .open_file import SQLiteFile
from .pages import EVERY, Ended, EndedCounts, Mark, Page, Wanted
from .readable import counted_in, ended_in, process_in, tick_in
from .rows import SELECT, insertion_of, record_in

LOST_AT_ONCE = 500
"""How many lost tasks are settled in one step, so that no other process waits for long."""


MOST_TRIES = 20
"""How often a key is tried again that was free a moment ago. Of a row that is damaged it would be for ever."""


class SQLiteStore(SQLiteFile, DurableStore):
    """The records of an application in a file, which all its processes on this machine have open."""

    def __init__(self, path: str, app_name: str, *, sync: str = "normal", now: Callable[[], float] = time.time) -> None:
        DurableStore.__init__(self, now=now)
        SQLiteFile.__init__(self, path, app_name, sync)
        self._about: tuple[Any, ...] = ()

    # Records

    def add(self, record: Record) -> str:
        statement, values = insertion_of(record)
        for _ in range(MOST_TRIES):
            if self._change(statement, values):
                return record.id
            holder = self._holder(record.key)
            if holder:
                return holder
        raise self._restless(record.id)

    def read(self, id: str) -> Record | None:
        found = self._records(f"{SELECT} WHERE id = ?", (id,))
        return found[0] if found else None

    def page(self, limit: int, wanted: Wanted = EVERY, before: Mark | None = None) -> Page:
        given = {name: value for name in ("state", "name", "queue") if (value := getattr(wanted, name)) is not None}
        conditions, values = [f"{column} = ?" for column in given], list(given.values())
        if wanted.error is not None:
            # Most have none, and to make small letters of nothing costs as much again.
            conditions.append("error <> '' AND instr(lower(error), ?)")
            values.append(wanted.error.lower())
        if before is not None:
            conditions.append("id < ?")
            values.append(before.id)
        where = " AND ".join(conditions) or "1"
        found = self._records(f"{SELECT} WHERE {where} {statements.IN_ORDER}", (*values, limit + 1 if limit else 0))
        return Page(found[:limit], Mark.of(found[limit - 1]) if len(found) > limit else None)

    def ended(self, since: float, limit: int) -> list[Ended]:
        return [one for row in self._rows(statements.ENDED, (since, limit)) for one in ended_in(*row)]

    def count_ended(self, since: float, seconds: float) -> EndedCounts:
        return counted_in(self._rows(statements.COUNT_ENDED, (since, seconds, since, LATEST)), since)

    def claim(self, id: str, owner: str, after: int | None = None) -> int:
        if after is not None and self._change_later(statements.CLAIM_OWN, (self.now(), id, after, owner)):
            return after + 1
        if not self._change(statements.CLAIM, (owner, self.now(), id, after)):
            return 0
        if after is not None:
            return after + 1
        rows = self._rows("SELECT claim FROM task WHERE id = ?", (id,))
        return rows[0][0] if rows else 0

    def report(self, id: str, claim: int, progress: Progress) -> bool:
        if not self._change(statements.REPORT, (packed(progress), id, claim)):
            return False
        return bool(self._rows("SELECT stopping FROM task WHERE id = ? AND claim = ? AND stopping", (id, claim)))

    def release(self, id: str, due: float, key: str = "", message: str | None = None) -> str:
        for _ in range(MOST_TRIES):
            if self._change(statements.RELEASE, (due, self.now(), due, key, key, message, id)):
                return id
            holder = self._holder(key)
            record = self.read(id)
            if holder or record is None or record.state != "waiting":
                return holder
        raise self._restless(id)

    def postpone(self, id: str, claim: int, due: float, *, attempts: int, error: str = "", traceback: str = "") -> bool:
        frames, told = traceback[-LONGEST_TRACEBACK:], json.dumps(error)
        values = (due, attempts, error, frames, self.now(), told, -LONGEST, id, claim)
        return self._change_later(statements.POSTPONE, values) > 0

    def settle(
        self, id: str, claim: int, state: State, *, error: str = "", traceback: str = "", outcome: str | None = None
    ) -> bool:
        values = (state, self.now(), error, traceback[-LONGEST_TRACEBACK:], outcome, state, id, claim)
        return self._change_later(statements.SETTLE, values) > 0

    def cancel(self, id: str) -> bool:
        return self._change(statements.CANCEL, (self.now(), id)) > 0

    def stop(self, id: str) -> bool:
        return self._change("UPDATE task SET stopping = 1 WHERE id = ? AND state = 'running'", (id,)) > 0

    def retry(self, id: str) -> Record | None:
        for _ in range(MOST_TRIES):
            if self._change(statements.RETRY, (self.now(), id)):
                return self.read(id)
            record = self.read(id)
            if record is None or not record.can_be_retried or self._holder(record.unique_key):
                return None
        raise self._restless(id)

    def discard(self, id: str) -> bool:
        return self._change("DELETE FROM task WHERE id = ? AND finished > 0", (id,)) > 0

    def free(self, id: str) -> None:
        self._change("UPDATE task SET key = '' WHERE id = ?", (id,))

    def expire(self, limit: int = 500) -> int:
        return self._change(statements.EXPIRE, (self.now() - KEEP_SECONDS, limit))

    def settle_lost(self) -> None:
        for owner in self._dead_owners():
            values = (self.now(), LOST, owner, LOST_AT_ONCE)
            while self._change(statements.LOSE, values) == LOST_AT_ONCE:
                pass

    def queues(self) -> list[QueueSummary]:
        self.settle_lost()
        return sum_by_queue(self._rows(statements.QUEUES, ()))

    # Durable tasks

    def orphans(self, queue: str, limit: int) -> list[Record]:
        found: list[Record] = []
        for owner in self._dead_owners():
            if len(found) < limit:
                values = (owner, self.now(), queue, limit - len(found))
                found += self._records(f"{SELECT} {statements.ORPHANS}", values)
        return found

    def _dead_owners(self) -> list[str]:
        """Return the processes that have ended, and own tasks that are not settled."""
        return [owner for (owner,) in self._rows(statements.OWNERS, ()) if self._is_dead(owner)]

    def _is_dead(self, token: str) -> bool:
        """Return True if that process has ended; one whose lock file cannot be looked at holds up no look at others."""
        try:
            return not self.is_alive(token)
        except BackendUnavailable:
            return False

    def take_over(self, record: Record, owner: str) -> int:
        values = (owner, record.id, record.claim, record.owner)
        return record.claim + 1 if self._change(statements.TAKE_OVER, values) else 0

    def hand_over(self, id: str, claim: int) -> bool:
        return self._change(statements.HAND_OVER, (id, claim)) > 0

    def give_up(self, id: str, claim: int) -> bool:
        return self._change(statements.GIVE_UP, (id, claim)) > 0

    def probe(self, value: str, *, replaces: str = "") -> str:
        self._change(statements.PROBE, (value, replaces))
        return str(self._rows("SELECT value FROM about WHERE name = 'probe'", ())[0][0])

    # Processes

    def enter(self, kind: str, queues: Iterable[str]) -> str:
        self._about = (socket.gethostname(), os.getpid(), kind, self.now(), json.dumps(list(queues)))
        with self._open() as connection:
            self._note_process(connection)
        return self.me

    def _note_process(self, connection: sqlite3.Connection) -> None:
        # First the lock, then the row: a row without a lock is a process that has ended.
        token = self._locked()
        try:
            connection.execute(statements.ENTER, (token, *self._about))
        except sqlite3.Error:
            if not self.me:
                # The next call begins anew, and another time after that: nothing may be left of each.
                lifeline.end(self.path, token)
            raise
        self.me = token

    def _locked(self) -> str:
        """Return the token of this process, whose lock file is where others look for it."""
        if self.me and lifeline.is_held(self.path, self.me):
            return self.me
        try:
            return lifeline.begin(self.path, self.me)
        except OSError as error:
            raise BackendUnavailable(f"The store {self.path} can have no lock file: {error.strerror}.") from None

    def _connected(self) -> sqlite3.Connection:
        connection = super()._connected()
        if self.me and not lifeline.is_held(self.path, self.me):
            # Else others would take this process for dead, and its tasks.
            self._note_process(connection)
        return connection

    def is_alive(self, token: str) -> bool:
        process.renew()
        return bool(token) and lifeline.is_alive(self.path, token)

    def processes(self) -> list[ProcessSummary]:
        found = []
        for token, host, pid, kind, since, queues in self._rows(statements.PROCESSES, ()):
            if self._is_dead(token):
                self._change("DELETE FROM process WHERE token = ?", (token,))
                lifeline.bury(self.path, token)
            elif kind != COMMAND:
                found.append(process_in(token, host, pid, kind, since, queues))
        return found

    # Ticks

    def take_tick(self, name: str, at: float, task_id: str) -> bool:
        return self._change(statements.TAKE_TICK, (name, at, task_id)) > 0

    def tick(self, name: str) -> Tick | None:
        rows = self._rows("SELECT at, task_id FROM tick WHERE name = ?", (name,))
        return tick_in(*rows[0]) if rows else None

    def replace_tick(self, name: str, old: Tick | None, new: Tick) -> bool:
        if old is None:
            return self._change(statements.FIRST_TICK, (new.at, new.task_id, name)) > 0
        return self._change(statements.REPLACE_TICK, (new.at, new.task_id, name, old.at, old.task_id)) > 0

    def close(self) -> None:
        process.renew()
        with self._lock:
            # A file that was deleted is not made anew for this.
            if self.me and os.path.exists(self.path):
                try:
                    self._connected().execute("DELETE FROM process WHERE token = ?", (self.me,))
                except sqlite3.Error as error:
                    log(logging.WARNING, "The store %s could not be told that this process ends: %s", self.path, error)
            lifeline.end(self.path, self.me)
            self.me = ""
            self._disconnect()

    def _holder(self, key: str) -> str:
        """Return the id of the task that lives and holds the key, or ""."""
        for other in self._holders(key):
            if self._lives(other):
                return other.id
            if not self.settle(other.id, other.claim, "abandoned", error=LOST):
                # Settled by another process, or damaged, so that its row is found by its key alone.
                with self.transaction():
                    if not any(map(self._lives, self._holders(key))):
                        self._change("UPDATE task SET key = '' WHERE key = ?", (key,))
        return ""

    def _holders(self, key: str) -> list[Record]:
        return self._records(f"{SELECT} WHERE key = ? AND key <> ''", (key,))

    def _lives(self, record: Record) -> bool:
        return not record.is_settled and (record.is_durable or self.is_alive(record.owner))

    def _restless(self, id: str) -> BackendUnavailable:
        return BackendUnavailable(f"The store {self.path} has no row for task {id}, nor a reason: is it damaged?")

    def _records(self, statement: str, values: Sequence[Any]) -> list[Record]:
        return [record_in(row) for row in self._rows(statement, values)]

    def _opened(self, connection: sqlite3.Connection) -> None:
        if self._about:
            self._note_process(connection)

    def after_fork_in_child(self) -> None:
        """Be another process, with a connection and a token of its own."""
        super().after_fork_in_child()
        self.me: str = ""
