"""Handles on tasks that run elsewhere, or are over: what `asok.get(id)` returns."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from datetime import datetime
from typing import Any, TypeVar

from flask import Flask

from .current import current
from .errors import ResultNotKept, TaskAbandoned, TaskCancelled, TaskFailed
from .progress import Progress, plain_text
from .results import outcome_of
from .sharing import existing_store, shared_by
from .state import state_of
from .store.base import Record
from .store.shared import Shared
from .summaries import SETTLED, State, TaskSummary
from .tasks import Task

R = TypeVar("R", covariant=True)

SHORTEST_PAUSE = 0.005
LONGEST_PAUSE = 0.25
"""Seconds between two looks at the store, for one that waits: quick at first, and rarer later on."""

GONE = "its record is gone from the store"
"""The error of a task of which nothing can tell any more how it ends."""


def summary_of(record: Record, now: float) -> TaskSummary:
    """Return what a record says, as a summary."""
    # Its process will notice that any moment.
    is_due = record.state == "waiting" and 0 < record.due <= now
    summary = TaskSummary(record.name, record.queue, record.id)
    summary.state, summary.attempts = "queued" if is_due else record.state, record.attempts
    summary.error, summary.progress = record.error or None, record.progress
    summary.enqueued, summary.started = record.enqueued, record.started
    summary.finished, summary.scheduled = record.finished, record.scheduled
    return summary


class Handle(Task[R]):
    """A task that is over, of which this process has the summary and nothing else."""

    def __init__(self, app: Flask, summary: TaskSummary) -> None:
        # Thread.__init__ is left out on purpose: see Task.
        self.app = app
        self._summary = summary

    @property
    def summary(self) -> TaskSummary:
        """What is known of the task."""
        return self._summary

    def is_alive(self) -> bool:
        """Return False: it is over."""
        return False

    def result(self, timeout: float | None = None) -> Any:
        """Raise ResultNotKept, or what the task ended with."""
        self.exception(timeout)
        raise ResultNotKept(
            f"The result of task {self.name} was not kept: nobody holds its Task any more. "
            "A task with tracked=True keeps its result for a day."
        )

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Return None for a task that succeeded, and TaskFailed with its text for one that failed."""
        match self._summary.state:
            case "failed":
                return TaskFailed(self._summary.error or f"Task {self.name} failed.")
            case "cancelled":
                raise TaskCancelled(f"Task {self.name} was cancelled.")
            case "abandoned":
                raise TaskAbandoned(f"Task {self.name} was abandoned: {self._summary.error or 'it was not finished'}.")
        return None

    def _join(self, timeout: float | None) -> None:
        pass

    def _cancel(self) -> bool:
        return self._summary.state == "cancelled"


class StoredTask(Handle[R]):
    """A task as the store knows it, in whatever process it runs. Each look at it is a look at the store."""

    _is_gone = False
    """Has the store lost the record?"""

    def __init__(self, app: Flask, store: Shared, record: Record) -> None:
        super().__init__(app, summary_of(record, store.now()))
        self._store = store
        self._record = record

    def __repr__(self) -> str:
        # Without a look at the store: this is for logs, and for when the store is away.
        return f"<Task {self._summary.name} {self._summary.state} {self._summary.id}>"

    @property
    def state(self) -> State:
        """As on every Task."""
        return self._look().state

    @property
    def attempts(self) -> int:
        """How many attempts have begun."""
        return self._look().attempts

    @property
    def started_at(self) -> datetime | None:
        """When the latest attempt began."""
        return self._look().started_at

    @property
    def finished_at(self) -> datetime | None:
        """When the task was settled."""
        return self._look().finished_at

    @property
    def progress(self) -> Progress | None:
        """What the store has of the progress: it gets it at most once a second, and at the end."""
        return self._look().progress

    @property
    def error(self) -> str | None:
        """The text of the latest error."""
        return self._look().error

    def is_alive(self) -> bool:
        """Return True until the task is settled."""
        self._look()
        return not self._record.is_settled

    def as_dict(self) -> dict[str, Any]:
        """Return what a page may show, all of it as of one moment."""
        return self._look().as_dict()

    def result(self, timeout: float | None = None) -> Any:
        """
        Wait like `join` and return what the function returned.

        Raises as on every Task, and ResultNotKept where the value was not kept: the task is not tracked, the value
        could not be written as a message of at most 64 kB, or the application has no SECRET_KEY.
        """
        error = self.exception(timeout)
        if error is not None:
            raise error
        if self._record.outcome is None:
            why = "the task has no tracked=True, no message of at most 64 kB can hold it, or SECRET_KEY is missing"
            raise ResultNotKept(
                f"The result of task {self.name} was not kept: {GONE if self._is_gone else why}. "
                "Let the task store what it makes, and return its id or path."
            )
        value, unfit = outcome_of(self.app, self.id, self._record.outcome)
        if unfit is not None:
            raise ResultNotKept(f"The result of task {self.name} was not kept: {unfit}") from unfit
        return value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait like `join` and return what the task raised, made again, or TaskFailed with its text; or None."""
        self.join(timeout)
        if not self._record.is_settled:
            after = f" after {timeout} s" if timeout is not None else ": the store could not be told of its end"
            raise TimeoutError(f"Task {self.name} is {self._summary.state}{after}.")
        if self._record.state == "failed" and self._record.outcome is not None:
            # Signed with a key that is not valid here, for instance: its text is left.
            with contextlib.suppress(ResultNotKept):
                return outcome_of(self.app, self.id, self._record.outcome)[1]
        return super().exception(timeout)

    def _look(self) -> TaskSummary:
        if not self._record.is_settled:
            self._record = self._store.get(self.id) or self._without_record()
            self._summary = summary_of(self._record, self._store.now())
        return self._summary

    def _without_record(self) -> Record:
        """Return what is left to tell: what this process knows if the task runs here, or else that it is abandoned."""
        self._is_gone = True
        backend = state_of(self.app).backend
        here = backend.find(self.id)
        known = backend.get(self.id) if here is None else here.summary
        if known is None or not known.is_stored:
            return dataclasses.replace(self._record, state="abandoned", error=GONE, finished=self._store.now())
        return dataclasses.replace(
            self._record, state=known.state, attempts=known.attempts, error=known.error or "",
            started=known.started, finished=known.finished, progress=known.progress,
        )  # fmt: skip

    def _join(self, timeout: float | None) -> None:
        backend, in_task = state_of(self.app).backend, current.get() is not None
        deadline = None if timeout is None else time.monotonic() + timeout
        pause, gate = SHORTEST_PAUSE, threading.Event()
        here = backend.joinable(self.id) if in_task else backend.find(self.id)
        while here is None and self.is_alive():
            left = pause if deadline is None else min(pause, deadline - time.monotonic())
            if left <= 0:
                return
            gate.wait(left)
            pause = min(pause * 1.5, LONGEST_PAUSE)
            if in_task and not backend.distributed:
                # This process may have taken it over meanwhile, to run it after the very task that waits for it.
                here = backend.find(self.id)
        if here is not None:
            # A task that joins one of its own process must not wait for the thread that it holds.
            here.join(None if deadline is None else max(0.0, deadline - time.monotonic()))
            self._look()

    def _cancel(self) -> bool:
        return cancel_task(self.app, self.id) or self._look().state == "cancelled"


def get_task(app: Flask, id: str) -> Task[Any] | None:
    """Return a handle on the task of `app` with this id, wherever it runs; None if it is unknown."""
    store = shared_by(app)
    if store is not None and (record := store.get(id)) is not None:
        return StoredTask(app, store, record)
    summary = state_of(app).backend.get(id)
    if summary is not None and _is_gone(summary, store):
        return None
    if summary is None:
        return state_of(app).backend.find(id)
    held: Task[Any] | None = None if summary.task is None else summary.task()
    return held or Handle(app, summary)


def newest(
    app: Flask, *, state: str | None = None, name: str | None = None, queue: str | None = None, limit: int = 100
) -> list[TaskSummary]:
    """Return the newest tasks that match, of this process and of the store, the oldest of them first."""
    name, queue = (value and plain_text(value) for value in (name, queue))
    store = shared_by(app)
    found = {summary.id: summary for summary in state_of(app).backend.tasks() if not _is_gone(summary, store)}
    if store is not None:
        now = store.now()
        # What waits and is due counts as queued.
        for stored in ("queued", "waiting") if state == "queued" else (state,):
            for record in store.listed(limit, state=stored, name=name, queue=queue):
                found[record.id] = summary_of(record, now)
    matching = [
        summary
        for summary in found.values()
        if state in (None, summary.state) and name in (None, summary.name) and queue in (None, summary.queue)
    ]
    matching.sort(key=lambda summary: summary.enqueued_at)
    return matching[-limit:] if limit else []


def failed_tasks(app: Flask) -> list[TaskSummary]:
    """Return the newest tasks that failed or were abandoned, the latest end first."""
    backend = state_of(app).backend
    if backend.distributed:
        return backend.failed()
    found = [*newest(app, state="failed"), *newest(app, state="abandoned")]
    return sorted(found, key=lambda summary: summary.finished, reverse=True)


def retry_task(app: Flask, id: str) -> bool:
    """Run a failed or abandoned task that has a message once more, unless another has its key; False for any other."""
    backend, store = state_of(app).backend, existing_store(app)
    if backend.distributed:
        return backend.retry(id)
    return store is not None and store.retry(id) is not None


def discard_task(app: Flask, id: str) -> bool:
    """Forget a settled task; False if it is not settled, or unknown."""
    if get_task(app, id) is None:
        return False
    store = existing_store(app)
    # What processes themselves remember of a stored one counts no more then: see _is_gone.
    return store.discard(id) if store is not None and store.read(id) else state_of(app).backend.discard(id)


def _is_gone(summary: TaskSummary, store: Shared | None) -> bool:
    """Return True for what this process remembers, and must not tell unless the store has it: it may be discarded."""
    return summary.is_stored and store is not None and summary.state in SETTLED


def cancel_task(app: Flask, id: str, *, running: bool = False) -> bool:
    """Cancel the task with this id in whatever process, or with `running` ask it to stop; False if it is over."""
    store, backend = shared_by(app), state_of(app).backend
    here = backend.find(id)
    # Not `read`: one that was lost with its process is over, and nobody would ever stop it.
    if store is not None and store.get(id) is not None:
        # On threads the process tells of it that has the task.
        if backend.cancel(id) if backend.distributed else store.cancel(id):
            if here is not None:
                here.cancel()
            return True
        return running and store.stop(id) and (here is None or here.stop())
    if here is None:
        return backend.distributed and backend.cancel(id)
    return here.cancel() or (running and here.stop())
