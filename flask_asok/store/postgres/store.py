"""A store in the application's PostgreSQL: for processes of several machines."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import operator
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from psycopg.errors import UniqueViolation

from ... import process
from ...errors import AsokError, BackendUnavailable
from ...helper_thread import PausingThread
from ...progress import Progress
from ...summaries import State
from ..base import COMMAND, KEEP_SECONDS, LONGEST_TRACEBACK, LOST, ProcessSummary, QueueSummary, Record, Store, Tick
from ..counts import sum_by_queue
from ..hashes import packed
from ..history import LATEST, LONGEST
from ..pages import EVERY, Ended, EndedCounts, Mark, Page, Wanted
from ..readable import counted_in, ended_in, process_in, record_fields, tick_in
from . import statements
from .connections import Connections

COLUMNS = tuple(field.name for field in dataclasses.fields(Record))
_values_of: Callable[[Record], tuple[Any, ...]] = operator.attrgetter(*COLUMNS)
_INSERT = statements.INSERT.format(
    columns=", ".join(COLUMNS),
    values=", ".join(statements.DUE if name == "due" else f"%({name})s" for name in COLUMNS),
)

LEASE_SECONDS = 10.0
"""How long a process counts as alive that does not say so any more."""

BEATS = 5
"""How often it says so in that time."""


class PostgresStore(Store):
    """
    The records of one application in the tables of `schema.sql`. Times are the server's.

    Processes that live renew a lease, so one that was lost counts as alive for up to `lease` seconds, and one that was
    stopped for longer than that as dead until it goes on.
    """

    shown: str = ", ".join(COLUMNS)
    """What is read of a record, in the order of its fields."""
    settling: str = statements.SETTLE
    postponing: str = statements.POSTPONE
    """The statements that end an attempt."""

    def __init__(
        self, connections: Connections, app_name: str, *, lease: float = LEASE_SECONDS, keep: float = KEEP_SECONDS
    ) -> None:
        super().__init__()
        self.connections = connections
        self.lease = lease
        self.app_name = app_name
        self._keep = keep
        self._about: dict[str, Any] = {}
        self._heart: PausingThread | None = None
        process.after_fork(self._forget)

    # Records

    def add(self, record: Record) -> str:
        return self.added(record, None)

    def added(self, record: Record, delay: float | None) -> str:
        """Add a record, as `add`, to be due after that delay, by the clock of the server."""
        while not self.change(_INSERT, **fields_of(record), delay=delay):
            if holder := self.holder(record.key):
                return holder
        return record.id

    def read(self, id: str) -> Record | None:
        found = self.records("id = %(id)s", id=id)
        return found[0] if found else None

    def page(self, limit: int, wanted: Wanted = EVERY, before: Mark | None = None) -> Page:
        given = {name: value for name in ("state", "name", "queue") if (value := getattr(wanted, name)) is not None}
        conditions, values = [f"{name} = %({name})s" for name in given], dict(given)
        if wanted.error is not None:
            conditions.append("position(lower(%(error)s) in lower(error)) > 0")
            values["error"] = wanted.error
        if before is not None:
            conditions.append("id < %(before)s")
            values["before"] = before.id
        # An id begins with the time of the call.
        where = " AND ".join([*conditions, "true"])
        found = self.records(f"{where} ORDER BY id DESC LIMIT %(limit)s", **values, limit=limit + 1 if limit else 0)
        return Page(found[:limit], Mark.of(found[limit - 1]) if len(found) > limit else None)

    def ended(self, since: float, limit: int) -> list[Ended]:
        return [one for row in self.rows(statements.ENDED, since=since, limit=limit) for one in ended_in(*row)]

    def count_ended(self, since: float, seconds: float) -> EndedCounts:
        return counted_in(self.rows(statements.COUNT_ENDED, since=since, seconds=seconds, latest=LATEST), since)

    def claim(self, id: str, owner: str, after: int | None = None) -> int:
        found = self.rows(statements.CLAIM, id=id, owner=owner, after=after)
        return int(found[0][0]) if found else 0

    def report(self, id: str, claim: int, progress: Progress) -> bool:
        found = self.rows(statements.REPORT, id=id, claim=claim, progress=packed(progress))
        return bool(found and found[0][0])

    def release(self, id: str, due: float, key: str = "", message: str | None = None) -> str:
        return self.released(id, key, message, due=due, delay=None)

    def released(self, id: str, key: str, message: str | None, *, due: float | None, delay: float | None) -> str:
        """Release a record, as `release`, to be due then or after that delay."""
        while True:
            with contextlib.suppress(UniqueViolation):
                if self.change(statements.RELEASE, id=id, due=due, delay=delay, key=key, message=message):
                    return id
            holder, record = self.holder(key), self.read(id)
            if holder or record is None or record.state != "waiting":
                return holder

    def postpone(self, id: str, claim: int, due: float, *, attempts: int, error: str = "", traceback: str = "") -> bool:
        return self.postponed(id, claim, due=due, delay=None, attempts=attempts, error=error, traceback=traceback)

    def postponed(
        self, id: str, claim: int, *, due: float | None, delay: float | None, attempts: int, error: str, traceback: str
    ) -> bool:
        """Make a record wait, as `postpone`, until then or for that long."""
        values = {
            "attempts": attempts, "error": error, "traceback": traceback[-LONGEST_TRACEBACK:],
            "told": json.dumps(error), "longest": LONGEST,
        }  # fmt: skip
        return self.change(self.postponing, id=id, claim=claim, due=due, delay=delay, **values) > 0

    def settle(
        self, id: str, claim: int, state: State, *, error: str = "", traceback: str = "", outcome: str | None = None
    ) -> bool:
        values = {"error": error, "traceback": traceback[-LONGEST_TRACEBACK:], "outcome": outcome}
        return self.change(self.settling, id=id, claim=claim, state=state, **values) > 0

    def cancel(self, id: str) -> bool:
        return self.change(statements.CANCEL, id=id) > 0

    def stop(self, id: str) -> bool:
        return self.change(statements.STOP, id=id) > 0

    def retry(self, id: str) -> Record | None:
        while True:
            with contextlib.suppress(UniqueViolation):
                if self.change(statements.RETRY, id=id):
                    return self.read(id)
            record = self.read(id)
            if record is None or not record.can_be_retried or self.holder(record.unique_key):
                return None

    def discard(self, id: str) -> bool:
        return self.change(statements.DISCARD, id=id) > 0

    def free(self, id: str) -> None:
        self.change(statements.FREE, id=id)

    def expire(self, limit: int = 500) -> int:
        return self.change(statements.EXPIRE, keep=self._keep, limit=limit)

    def settle_lost(self) -> None:
        self.change(statements.LOSE, error=LOST)

    def queues(self) -> list[QueueSummary]:
        self.settle_lost()
        return sum_by_queue(self.rows(statements.QUEUES))

    # Processes

    def enter(self, kind: str, queues: Iterable[str]) -> str:
        process.renew()
        token = self.me or secrets.token_hex(16)
        about = {
            "token": token, "host": socket.gethostname(), "pid": os.getpid(), "kind": kind, "since": self.now(),
            "queues": json.dumps(list(queues)),
        }  # fmt: skip
        self.change(statements.ENTER, **about)
        self.me, self._about = token, about
        if self._heart is None:
            beat = self.lease / BEATS
            self._heart = PausingThread("asok-lease", self._beat, lambda: False, pause=beat)
        self._heart.need()
        return token

    def is_alive(self, token: str) -> bool:
        return bool(token) and bool(self.rows(statements.IS_ALIVE, token=token))

    def processes(self) -> list[ProcessSummary]:
        self.change(statements.BURY)
        return [process_in(*row) for row in self.rows(statements.PROCESSES, command=COMMAND)]

    def _beat(self) -> float:
        """Renew the lease; every call that needs the store tells when it is away, and the next beat tries again."""
        with contextlib.suppress(AsokError):
            # All of it: the row may be gone, if this process was stopped for long.
            self.change(statements.ENTER, **self._about)
        return self.lease / BEATS

    # Ticks

    def take_tick(self, name: str, at: float, task_id: str) -> bool:
        return self.change(statements.TAKE_TICK, name=name, at=at, task_id=task_id) > 0

    def tick(self, name: str) -> Tick | None:
        rows = self.rows(statements.TICK, name=name)
        return tick_in(*rows[0]) if rows else None

    def replace_tick(self, name: str, old: Tick | None, new: Tick) -> bool:
        values = {"name": name, "at": new.at, "task_id": new.task_id}
        if old is None:
            return self.change(statements.FIRST_TICK, **values) > 0
        return self.change(statements.REPLACE_TICK, **values, old_at=old.at, old_id=old.task_id) > 0

    def close(self) -> None:
        process.renew()
        if self._heart is not None:
            self._heart.close(5)
            self._heart = None
        if self.me:
            # Where the server is away the lease runs out.
            with contextlib.suppress(BackendUnavailable):
                self.change(statements.LEAVE, token=self.me)
            self.me = ""
        self.connections.close()

    # Inside

    def holder(self, key: str) -> str:
        """Return the id of the task that lives and holds the key, or ""."""
        for id, claim, lives in self.rows(statements.HOLDER, key=key):
            if lives:
                return str(id)
            self.settle(id, claim, "abandoned", error=LOST)
        return ""

    def records(self, where: str, **values: Any) -> list[Record]:
        """Return the records of this application that match."""
        rows = self.rows(f"SELECT {self.shown} FROM asok_tasks WHERE app = %(app)s AND {where}", **values)
        return [self.record_of(row) for row in rows]

    def record_of(self, row: Sequence[Any]) -> Record:
        """Return the record whose columns, as `shown` has them, these are."""
        return Record(**record_fields(dict(zip(COLUMNS, row, strict=True))))

    def rows(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        """Run a statement, which knows the application, the time and the lease, and return its rows."""
        return self.connections.rows(statement, self.bound(values))

    def change(self, statement: str, **values: Any) -> int:
        """Run a statement, as `rows`, and return how many rows it has changed."""
        return self.connections.change(statement, self.bound(values))

    def bound(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a statement with those that every statement may use."""
        return {"app": self.app_name, "now": self.time_of_test(), "lease": self.lease, **values}

    def time_of_test(self) -> float | None:
        """Return None for the time of the server, which all the machines share; the time that a test has set."""
        return None if self.now is time.time else self.now()

    def _forget(self) -> None:
        """Be another process, in a forked child."""
        self.me: str = ""
        self._heart = None


def fields_of(record: Record) -> dict[str, Any]:
    """Return the values of a record by the names of its columns."""
    values = dict(zip(COLUMNS, _values_of(record), strict=True))
    if record.progress is not None:
        values["progress"] = packed(record.progress)
    return values
