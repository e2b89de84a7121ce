"""The record of a task that other processes see: made at the call, kept up by the process that runs the task."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any

from flask import Flask

from .attempt import RunnableTask
from .backends.base import KEY_TAKEN
from .errors import BackendUnavailable
from .owed import owed_by
from .record_writer import RecordWriter, attach, key_of, record_of
from .results import text_of
from .sharing import open_store
from .summaries import State
from .task_log import log_of

Start = Callable[..., None]


class Journal(RecordWriter):
    """The record of one task, with what came out of it where that is not too large."""

    __slots__ = ()

    def outcome(self, task: RunnableTask[Any], state: State, value: Any, error: BaseException | None) -> str | None:
        """Return the value or the error as signed text."""
        return text_of(task.app, task.id, value, error)

    def owe(self, task: RunnableTask[Any], write: Callable[[], None]) -> None:
        """Write it in another thread, when the store takes it again."""
        with contextlib.suppress(RuntimeError):
            owed_by(task.app).add(write)


def keep_journal(task: RunnableTask[Any], app: Flask, fn: Callable[..., Any]) -> str:
    """
    Give `task`, which is not started yet, a record that other processes see.

    Returns its id, or the id of the task that holds its unique key: then this one is not to be started. Raises
    BackendUnavailable if the key cannot be taken, and NotConfigured if no store is possible.
    """
    options = task.options
    try:
        store = open_store(app)
        store.tidy()
        holder = store.add(record_of(task, app, fn, store.me))
    except BackendUnavailable as error:
        if options.unique is not None:
            raise
        log_of(task, logging.WARNING, "Background task %s (%s) is not tracked: %s", task.name, task.id, error)
        return task.id
    if holder == task.id:
        attach(task, Journal(store, key_of(fn, options.unique), options.unique_until == "start"))
    return holder


def journaled(start: Start) -> Start:
    """Return what starts a deferred task that has a journal, unless another task has its unique key by then."""

    def begin(task: RunnableTask[Any], *, bounded: bool = True) -> None:
        if task.journal is None or task.journal.release(task):
            start(task, bounded=bounded)
        else:
            task.withdraw(KEY_TAKEN)

    return begin
