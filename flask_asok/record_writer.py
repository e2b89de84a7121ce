"""What a process writes into the record of a task that it runs: when it is queued, begins, reports, waits and ends."""

from __future__ import annotations

import contextlib
import functools
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from flask import Flask

from .attempt import RunnableTask
from .callables import begins_itself, path_of
from .calls import Parts
from .context import request_of
from .errors import AsokError
from .logs import is_ctrl_c
from .progress import Progress
from .store.away import warn_of_store
from .store.base import Record, Store
from .summaries import State

T = TypeVar("T")


class RecordWriter:
    """
    The record of one task, as the process that runs the task writes it. A task has it as `journal`.

    A store that is away never stops a task: a warning tells of it, once a minute.
    """

    __slots__ = ("_claim", "_keeps", "_key", "_store", "_until_start")

    def __init__(self, store: Store, key: str, until_start: bool, *, claim: int = 0, keeps: bool = True) -> None:
        self._store = store
        self._claim = claim
        self._key = key
        self._until_start = until_start
        self._keeps = keeps

    def release(self, task: RunnableTask[Any]) -> bool:
        """Note that a deferred task is queued; False if another task has its key by now."""
        with self._reached(task):
            holder = self._store.release(task.id, time.time() + task.options.delay, self._key)
            return holder in ("", task.id)
        return True

    def begin(self, task: RunnableTask[Any], fn: Callable[..., Any]) -> State | None:
        """
        Note that an attempt begins; return the state of the task if it is over here: cancelled, or abandoned.

        A key until the start is free then; not yet where `fn` begins itself, and calls `free_at_start`.
        """
        try:
            claim = self._store.claim(task.id, self._store.me, self._claim)
            if not claim:
                found = self._store.read(task.id)
                if found is not None and found.claim != self._claim:
                    # Another process has taken this one for dead.
                    return "abandoned"
                return "cancelled" if found is not None and found.is_settled else None
            self._claim = claim
            if not begins_itself(fn):
                self.free_at_start(task)
        except AsokError as error:
            warn_of_store(task, error)
        return None

    def free_at_start(self, task: RunnableTask[Any]) -> None:
        """Free the task's key if it is one until the start."""
        if self._until_start and self._key:
            with self._reached(task):
                self._store.free(task.id)
                self._key = ""

    def leave(self, task: RunnableTask[Any]) -> None:
        """Note that the attempt, which has just begun, is not made: the task was abandoned meanwhile."""
        self.settle(task, "abandoned", None, None)

    def renewed(self, call: Parts) -> Parts:
        """Return what the next attempt calls."""
        return call

    def hand_over(self, task: RunnableTask[Any]) -> bool:
        """Leave the task to another process; False if none can run it."""
        return False

    def report(self, task: RunnableTask[Any], progress: Progress) -> bool:
        """Write the progress, and return True if another process asks the task to stop."""
        with self._reached(task):
            return self._store.report(task.id, self._claim, progress)
        return False

    def wait(self, task: RunnableTask[Any], seconds: float, error: BaseException | None) -> None:
        """Note that the task waits for its next attempt."""
        with self._reached(task):
            self._store.postpone(
                task.id,
                self._claim,
                time.time() + seconds,
                attempts=task.attempts,
                error=task.summary.error or "",
                traceback=traceback_of(error),
            )

    def settle(self, task: RunnableTask[Any], state: State, value: Any, error: BaseException | None) -> None:
        """Record the last state of the task, with its value or error."""
        # It leads back to the task.
        task.reporter = None
        outcome, frames = None, ""
        try:
            frames = traceback_of(error)
            if self._keeps and state in ("succeeded", "failed"):
                outcome = _of_user_code(lambda: self.outcome(task, state, value, error), None)
        finally:
            # Ctrl-C, in a caller that runs the task itself, ends it for the other processes too.
            write = functools.partial(
                self._write_end, task.id, task.progress, state, task.summary.error or "", frames, outcome
            )
            try:
                write()
            except AsokError as error:
                warn_of_store(task, error)
                self.owe(task, write)

    def owe(self, task: RunnableTask[Any], write: Callable[[], object]) -> None:
        """Write the end of a task later, which the store did not take."""

    def _write_end(
        self, id: str, progress: Progress | None, state: State, error: str, frames: str, outcome: str | None
    ) -> None:
        if progress is not None:
            self._store.report(id, self._claim, progress)
        self._store.settle(id, self._claim, state, error=error, traceback=frames, outcome=outcome)

    def outcome(self, task: RunnableTask[Any], state: State, value: Any, error: BaseException | None) -> str | None:
        """Return the value or the error of a task as the record keeps it; None to keep neither."""
        return None

    @contextlib.contextmanager
    def _reached(self, task: RunnableTask[Any]) -> Iterator[None]:
        try:
            yield
        except AsokError as error:
            warn_of_store(task, error)


@dataclass(slots=True)
class Draft:
    """
    The record of a task that is not started yet, with all that is needed to write it.

    It is made first, so that to write it is one call of the store: that may have its file locked for this, which an
    application's lock must not be waited for under.
    """

    store: Store
    record: Record
    attach: Callable[[], None]
    """To be called once the record is written: the task keeps it up from then on."""


def attach(task: RunnableTask[Any], journal: RecordWriter) -> None:
    """Let `task`, which has a record, keep that up by `journal`."""
    task.journal = journal
    task.summary.is_stored = True
    task.reporter = functools.partial(journal.report, task)


def key_of(fn: Callable[..., Any], unique: str | None) -> str:
    """Return the key that the store knows, of this function and no other; "" for a task without one."""
    return "" if unique is None else f"{path_of(fn)}|{unique}"


def record_of(task: RunnableTask[Any], app: Flask, fn: Callable[..., Any], owner: str) -> Record:
    """Return the record of a task that is just being made, by the process `owner`."""
    options, summary, now = task.options, task.summary, time.time()
    is_deferred = options.is_deferred
    return Record(
        id=summary.id,
        name=summary.name,
        queue=summary.queue,
        function=path_of(fn),
        origin=_origin(app),
        state="waiting" if is_deferred or options.delay else "queued",
        enqueued=summary.enqueued,
        # Nobody knows yet when a deferred one is due.
        due=0.0 if is_deferred else now + options.delay,
        scheduled=options.scheduled,
        owner=owner,
        key="" if is_deferred else key_of(fn, options.unique),
    )


def _origin(app: Flask) -> str:
    """Return method and endpoint of the request that starts the task: its path or query may hold a secret."""
    request = request_of(app)
    return "" if request is None else f"{request.method} {request.endpoint or ''}".strip()


def traceback_of(error: BaseException | None) -> str:
    """Return the traceback of an error, as a record keeps it; "" for None, and where the error's own text raises."""
    if error is None:
        return ""
    text = _of_user_code(lambda: "".join(traceback.format_exception(error)), "")
    # Half of a character, as `os.listdir()` gives for names that are not UTF-8: no store takes that.
    return text.encode("utf-8", "backslashreplace").decode()


def _of_user_code(make: Callable[[], T], otherwise: T) -> T:
    """Return what `make` makes; `otherwise` if a method of a result or an error raises meanwhile."""
    try:
        return make()
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        return otherwise
